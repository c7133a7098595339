"""Closes, invoices and exports, read by somebody else: every figure is made again here from the rows of the database, in fractions, and compared."""
import contextlib
import hashlib
import html.parser
import json
import os
import sqlite3
import subprocess
from fractions import Fraction

import pytest

PROGRAM, MAKE = os.environ["UNKAI_PROGRAM"], os.environ["UNKAI_MAKE_MONTHS"]
COIN = {"JPY": Fraction(1), "EUR": Fraction(1, 100)}
ISSUER = {"name": "雲海クラウド株式会社", "address": ["東京都<千代田区>", "1-1"], "country": "JP", "tax_id": "T1234567890123", "rule": "jp-consumption",
          "language": "ja", "terms_days": 30, "payment": ["A & B 銀行"], "rates": {"large <b>&": "reduced"}}
EURO = {"name": "Euro <script>alert(1)</script> SARL", "country": "FR", "language": "en", "rule": "none", "reference": "PO \"7\""}


class Books:
    def __init__(self, home):
        self.home = home
        subprocess.run([MAKE, home], check=True)

    def unkai(self, *words, code=0, **more):
        done = subprocess.run([PROGRAM, *words], env={**os.environ, "UNKAI_HOME": str(self.home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=120, **more)
        assert done.returncode == code, f"{words}: {done.returncode}: {done.stderr}"
        return done.stdout if code == 0 else done.stderr

    def json(self, *words, **more):
        return json.loads(self.unkai(*words, "--json", **more))

    def rows(self, sql, *values):
        with contextlib.closing(sqlite3.connect(self.home / "books.db")) as db:
            return db.execute(sql, values).fetchall()

    def profile(self, *words, profile):
        path = self.home / "profile.json"
        path.write_text(json.dumps(profile), encoding="utf-8")
        self.unkai("invoice", *words, "--file", str(path))


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """Three months, closed and invoiced."""
    b = Books(tmp_path_factory.mktemp("books"))
    b.profile("issuer", profile=ISSUER)
    b.profile("party", "euro", profile=EURO)
    for month in ("2024-01", "2024-02", "2024-03"):
        assert b.json("close")["month"] == month
        b.unkai("invoice", "create")
    return b


def nano(text):
    value = Fraction(text) * 10**9
    assert value.denominator == 1
    return int(value)


def test_statements(books):
    before = None
    for month in ("2024-01", "2024-02", "2024-03"):
        closed = books.json("close", month, "--show")
        statement = closed["statement"]
        text = books.rows("SELECT statement FROM period WHERE month = ?", month)[0][0]
        assert text == canonical(statement)
        assert statement["previous"] == (hashlib.sha256(before.encode()).hexdigest() if before else "0" * 64)
        before = text
        first, last = statement["first_seq"], statement["last_seq"]
        assert statement["root"] == books.rows("SELECT lower(hex(hash)) FROM transfer WHERE seq = ?", last)[0][0]
        accounts = {}
        for seq, debit, credit, amount in books.rows("SELECT x.seq, d.name, k.name, x.amount FROM transfer x JOIN account d ON d.id = x.debit"
                                                     " JOIN account k ON k.id = x.credit WHERE x.seq <= ?", last):
            for name, side in ((debit, 1), (credit, 2)):
                line = accounts.setdefault(name, [0, 0, 0])
                if seq < first:
                    line[0] += amount if side == 2 else -amount
                else:
                    line[side] += amount
        told = {a["name"]: [nano(a[k]) for k in ("opening", "debits", "credits", "balance")] for a in statement["accounts"]}
        assert told == {n: [o, d, k, o - d + k] for n, (o, d, k) in accounts.items() if o or d or k}
        for total in statement["totals"]:
            assert total["debits"] == total["credits"]
        assert books.json("close", month, "--verify")["ok"]


def test_signature_with_openssl(books, tmp_path):
    """Whoever has the public key needs nothing of ours."""
    closed = books.json("close", "2024-02", "--show")
    key = bytes.fromhex(books.unkai("close", "--public-key").strip())
    (tmp_path / "key").write_bytes(bytes.fromhex("302a300506032b6570032100") + key)  # SubjectPublicKeyInfo of Ed25519, RFC 8410
    (tmp_path / "signature").write_bytes(bytes.fromhex(closed["signature"]))
    (tmp_path / "statement").write_text(canonical(closed["statement"]), encoding="utf-8")
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key", "-rawin", "-in", "statement", "-sigfile", "signature"]
    assert subprocess.run(words, cwd=tmp_path, stdout=subprocess.PIPE).returncode == 0
    (tmp_path / "statement").write_text(canonical(closed["statement"]) + " ", encoding="utf-8")
    assert subprocess.run(words, cwd=tmp_path, stdout=subprocess.PIPE).returncode != 0


def down(value, coin):
    return value // coin * coin


def expected_tax(document, lines, coin):
    rates = {r["id"]: Fraction(r["percent"]) / 100 for r in document["rule"]["rates"]}
    bases = {}
    for line in lines:
        bases[line["rate"]] = bases.get(line["rate"], 0) + Fraction(line["amount"])
    assert document["rule"]["scope"] == "rate" or all(p == 0 for p in rates.values())
    return {rate: (base, down(base * rates[rate], coin)) for rate, base in bases.items()}


def test_invoices(books):
    """The documents from the requests themselves: tokens times price for every line, coins down, tax once a rate."""
    documents = [json.loads(d) for (d,) in books.rows("SELECT document FROM invoice ORDER BY id")]
    assert [d["number"] for d in documents] == [f"INV-{i:06}" for i in range(1, len(documents) + 1)] and len(documents) == 6
    total = {}
    for d in documents:
        assert canonical(d) == books.rows("SELECT document FROM invoice WHERE number = ?", d["number"])[0][0]
        coin, period = COIN[d["currency"]], d["period"]
        usage = [line for line in d["lines"] if line["kind"] == "usage"]
        for line in usage:
            prompt, cached, sent, charge = books.rows(
                "SELECT sum(iif(r.sent > 0 OR r.state = 'done', r.prompt, 0)), sum(iif(r.sent > 0 OR r.state = 'done', r.cached, 0)), sum(r.sent),"
                " sum(r.charge) FROM request r JOIN transfer x ON x.id = 'settle:' || r.id JOIN tenant t ON t.id = r.tenant"
                " WHERE t.name = ? AND r.model = ? AND r.price = ? AND x.seq BETWEEN ? AND ?",
                d["tenant"], line["model"], line["price"], period["first_seq"], period["last_seq"])[0]
            prices = books.rows("SELECT input, cached, output FROM price WHERE id = ?", line["price"])[0]
            assert Fraction(line["amount"]) == Fraction(charge, 10**9) == sum(Fraction(p["amount"]) for p in line["parts"])
            for part, tokens, price in zip(line["parts"], (prompt - cached, cached, sent), prices):
                assert part["tokens"] == tokens and Fraction(part["unit_price"]) == Fraction(price, 10**6)
                assert abs(Fraction(part["amount"]) - Fraction(tokens * price, 10**12)) <= Fraction(line["requests"] + 3, 10**9)
        until = sum(Fraction(a, 10**9) for (a,) in books.rows(
            "SELECT CASE WHEN d.name = ? THEN x.amount ELSE -x.amount END FROM transfer x JOIN account d ON d.id = x.debit JOIN account k ON k.id = x.credit"
            " WHERE x.seq <= ? AND ((d.name = ? AND k.name LIKE 'revenue:%') OR (k.name = ? AND d.name LIKE 'revenue:%'))",
            "tenant:" + d["tenant"], period["last_seq"], "tenant:" + d["tenant"], "tenant:" + d["tenant"]))
        total[d["tenant"]] = total.get(d["tenant"], 0) + Fraction(d["net"])
        assert total[d["tenant"]] == down(until, coin)
        assert Fraction(d["net"]) == sum(Fraction(line["amount"]) for line in d["lines"])
        assert Fraction(d["net"]) % coin == 0
        taxes = {t["rate"]: (Fraction(t["base"]), Fraction(t["tax"])) for t in d["taxes"]}
        assert taxes == expected_tax(d, d["lines"], coin)
        assert Fraction(d["tax"]) == sum(t for _, t in taxes.values()) and Fraction(d["total"]) == Fraction(d["net"]) + Fraction(d["tax"])
        account = {k: Fraction(v) for k, v in d["account"].items()}
        assert account["closing"] == account["opening"] + account["paid_in"] - account["charged"]
        assert Fraction(d["covered"]) + Fraction(d["due"]) == Fraction(d["total"])
        assert books.json("invoice", "verify", d["number"])["ok"]
    february = next(d for d in documents if d["tenant"] == "acme" and d["period"]["month"] == "2024-02")
    assert [(line["kind"], line["note"], line["amount"]) for line in february["lines"] if line["kind"] in ("credit", "reversal")] == [
        ("reversal", "wrong model <served>", "-0.012345678"), ("credit", "for the outage", "-1.500000001")]
    assert {line["rate"] for line in february["lines"]} == {"standard", "reduced"}
    # the request at 2024-01-31T15:30Z is February's in Tokyo, and each version of the price has a line
    assert len([line for line in february["lines"] if line.get("model") == "small"]) == 2


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("tenant, language, words", [("acme", "ja", ["請求書", "登録番号: T1234567890123", "消費税 10%", "消費税 8%", "合計(税込)"]),
                                                     ("euro", "en", ["Invoice", "Total", EURO["name"], 'PO "7"'])])
def test_page(books, tenant, language, words):
    number = next(i["number"] for i in books.json("invoice", "list", tenant))
    text = books.unkai("invoice", "show", number, "--html")
    page = Page()
    page.feed(text)
    shown = "".join(page.text)
    assert f'<html lang="{language}">' in text and "@page{size:A4" in text
    assert "script" not in page.tags and "b" not in page.tags and page.links == []
    for word in [*words, number, "large <b>&"]:
        assert word in shown, word


def test_credit_note(tmp_path):
    b = Books(tmp_path)
    b.profile("issuer", profile=ISSUER)
    b.unkai("close")
    b.unkai("invoice", "create", "acme")
    assert "say why" in b.unkai("invoice", "cancel", "INV-000001", code=1)
    b.unkai("invoice", "cancel", "INV-000001", "--reason", "another address")
    invoice, note = (json.loads(d) for (d,) in b.rows("SELECT document FROM invoice ORDER BY id"))
    assert (note["number"], note["about"], note["reason"]) == ("CN-000001", "INV-000001", "another address")
    for member in ("net", "tax", "total"):
        assert Fraction(note[member]) == -Fraction(invoice[member]) != 0
    assert [Fraction(x["amount"]) for x in note["lines"]] == [-Fraction(x["amount"]) for x in invoice["lines"]]
    assert b.rows("SELECT balance FROM account WHERE name = 'receivable:acme'") == [(0,)]
    again = b.json("invoice", "create", "acme")[0]
    assert again["number"] == "INV-000002" and Fraction(again["total"]) == Fraction(invoice["total"])
    assert b.json("ledger", "verify")["ok"]


def test_draft_and_refusals(tmp_path):
    b = Books(tmp_path)
    assert "nobody sends" in b.unkai("invoice", "draft", "acme", code=1)
    b.profile("issuer", profile=ISSUER)
    draft = json.loads(b.unkai("invoice", "draft", "acme", "--month", "2024-03"))
    assert draft["number"] == "" and draft["period"]["month"] == "2024-03"
    assert "Draft" in b.unkai("invoice", "draft", "euro", "--html") or "下書き" in b.unkai("invoice", "draft", "euro", "--html")
    assert b.rows("SELECT count(*) FROM invoice") == [(0,)]
    assert "2024-01 comes first" in b.unkai("close", "2024-02", code=1)
    assert "is open" in b.unkai("invoice", "create", "acme", "--month", "2024-01", code=1)
    bad = b.home / "bad.json"
    bad.write_text('{"name": ')
    assert "line 1" in b.unkai("invoice", "issuer", "--file", str(bad), code=1)
