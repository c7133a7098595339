"""The owner's report, number by number against reckon.py, which has docs/owner.md's formulae and nothing of the program's: the worked case, and books that are made up. Then a
model that is served: what its requests cost and what idle time cost is what the machine cost."""
import datetime
import json
import os
import random
import sqlite3
import struct
import subprocess
import time
from fractions import Fraction as F

import pytest

import reckon
from server import SMOL, Server

PROGRAM = os.environ["UNKAI_PROGRAM"]
CASES = int(os.environ.get("UNKAI_OWNER_CASES", "24"))


class Books:
    """A data folder without a server, written to by the commands and by SQL."""

    def __init__(self, folder):
        self.folder = folder

    def unkai(self, *words, code=0, **environment):
        done = subprocess.run([PROGRAM, *words], env={**os.environ, "UNKAI_HOME": str(self.folder), **environment}, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == code, f"{words}: {done.returncode}: {done.stderr}"
        return done.stderr if code else done.stdout

    def write(self, *statements):
        books = sqlite3.connect(self.folder / "books.db")
        with books:
            for sql, rows in statements:
                books.executemany(sql, rows)
        books.close()

    def report(self, *words):
        return json.loads(self.unkai("owner", "--json", *words))


@pytest.fixture
def books(tmp_path):
    return Books(tmp_path)


def assert_same(got, expected, money, where=""):
    """To 10^-9 of the number itself, or of the money at stake where small numbers are what is left of large ones."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys(), where
        for name in expected:
            assert_same(got[name], expected[name], money, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(got) == len(expected), where
        for i, x in enumerate(expected):
            assert_same(got[i], x, money, f"{where}[{i}]")
    elif isinstance(expected, (F, int)):
        assert got is not None, f"{where}: nothing, not {float(expected)}"
        assert abs(F(got) - expected) <= F(1, 10**9) * max(abs(expected), money), f"{where}: {got}, not {float(expected)}"
    else:
        assert got == expected, f"{where}: {got}, not {expected}"


EIGHT = dict(price="393984", currency="USD", bought="2026-01-01", life="5y", chips="8", watts="13840", kwh="0.15", operation="10%",
             discount="10%")


def add_asset(books, name, asset):
    words = [w for k, v in asset.items() if k not in ("retired", "sold", "measured") for w in ("--" + k, v)]
    books.unkai("owner", "asset", "add", name, *words, *(["--measured"] if asset.get("measured") else []))
    if asset.get("retired"):
        books.unkai("owner", "asset", "retire", name, "--on", asset["retired"], *(["--sold", asset["sold"]] if "sold" in asset else []))


def test_worked_case(books):
    add_asset(books, "eight", EIGHT)
    for use, years in (("60%", 9.56), ("90%", 4.35)):
        got = books.report("--sold", "2.35", "--use", use)
        assert round(got["chip_hour"]["straight"], 3) == 1.946 and round(got["chip_hour"]["annuity"], 3) == 2.305
        assert round(got["supposed"]["years"], 2) == years
        assert round(got["supposed"]["break_even_straight"], 3) == 0.828
    text = books.unkai("owner", "--sold", "2.35", "--use", "60%")
    assert "1.94608 straight line, 2.30474 as an annuity" in text and "in 9.56 years from new" in text


def day(rng, first="2024-01-01", days=1000):
    return (datetime.date.fromisoformat(first) + datetime.timedelta(rng.randrange(days))).isoformat()


def amount(rng, most, digits=2):
    return f"{rng.uniform(0, most):.{digits}f}"


def made_up_asset(rng):
    price = amount(rng, 1e6)
    asset = dict(price=price, currency=rng.choice(["USD", "JPY", "EUR"]), bought=day(rng), life=rng.choice(["60", "5y", "1", "18m", "7y", "31"]),
                 method=rng.choice(["straight", "declining"]), residual=str(round(float(price) * rng.choice([0, 0.1, 0.9]), 2)),
                 chips=str(rng.choice([1, 2, 8, 0.5])), watts=amount(rng, 2e4), kwh=amount(rng, 1, 4), pue=rng.choice(["1", "1.2", "2.05"]),
                 operation=rng.choice(["0", "10%", "0.035", "2.5%"]), discount=rng.choice(["0", "10%", "3.25%", "0.5"]),
                 measured=rng.random() < 0.3)
    if rng.random() < 0.3:
        asset["retired"] = (datetime.date.fromisoformat(asset["bought"]) + datetime.timedelta(1 + rng.randrange(800))).isoformat()
        asset["sold"] = amount(rng, 1e5)
    return asset


def made_up_usage(rng, tenants):
    rows = {}
    for _ in range(rng.choice([0, 3, 60])):
        tenant = rng.choice(tenants)
        prompt = rng.randrange(10**rng.randrange(1, 12))
        prefill, decode = (rng.randrange(10**rng.randrange(9, 16)) for _ in range(2))
        rows[day(rng, "2026-07-01", 150), tenant, rng.choice(["small", "large", "日本語"])] = (
            rng.randrange(10**6), prompt, rng.randrange(prompt + 1), rng.randrange(10**rng.randrange(1, 12)),
            rng.randrange(10**rng.randrange(6, 17)), prefill + decode, prefill)
    return rows


@pytest.mark.parametrize("seed", range(CASES))
def test_made_up_books(books, seed):
    rng = random.Random(seed)
    tenants = {"yen": (1, "JPY"), "euro": (2, "EUR"), "dollar": (3, "USD"), "other": (4, "USD")}
    for name, (_, money) in tenants.items():
        books.unkai("tenant", "create", name, "--currency", money)
    zone = rng.choice([0, 540, 330, -300])
    books.write(("UPDATE book SET zone = ?", [(zone,)]))
    assets = [made_up_asset(rng) for _ in range(rng.randrange(4))]
    expenses = []
    for i, asset in enumerate(assets):
        add_asset(books, f"asset {i}", asset)
    for i in range(rng.randrange(3)):
        money, per, begin, value = rng.choice(["USD", "JPY"]), rng.choice(["month", "year"]), day(rng), amount(rng, 1e4)
        books.unkai("owner", "expense", "add", f"rent {i}", "--amount", value, "--currency", money, "--per", per, "--from", begin)
        until = (datetime.date.fromisoformat(begin) + datetime.timedelta(1 + rng.randrange(900))).isoformat() if rng.random() < 0.5 else None
        if until:
            books.unkai("owner", "expense", "end", f"rent {i}", "--on", until)
        expenses.append((F(value) * (12 if per == "month" else 1), money, reckon.begins(begin, zone), until and reckon.begins(until, zone)))
    usage = made_up_usage(rng, list(tenants))
    quarter = 15 * 60 * 10**9
    chip_time = [(int(reckon.begins("2026-07-01", 0)) * 10**9 + i * quarter, rng.randrange(8 * quarter), rng.randrange(quarter),
                  rng.randrange(10**9), rng.randrange(quarter)) for i in rng.sample(range(150 * 96), rng.choice([0, 5, 500]))]
    rates = [("USD", "JPY", 150 * 10**9 + rng.randrange(10**9), 0), ("EUR", "USD", 1080000000 + rng.randrange(10**8), 0),
             ("EUR", "JPY", 160 * 10**9, 0), ("USD", "JPY", 155123456789, 1788000000 * 10**9)]
    books.write(
        ("INSERT INTO rate (base, quote, value, since) VALUES (?, ?, ?, ?)", rates),
        ("INSERT INTO chip_time (at, available_ns, busy_ns, energy_uj, measured_ns) VALUES (?, ?, ?, ?, ?)", chip_time),
        ("INSERT INTO usage_day (period, day, tenant, key, model, price, rate, requests, cancelled, failed, prompt, cached, completion, charge,"
         " chip_ns, prefill_ns) VALUES (1, ?, ?, 1, ?, 1, 1000000000, ?, 0, 0, ?, ?, ?, ?, ?, ?)",
         [(d, tenants[t][0], m, *counts) for (d, t, m), counts in usage.items()]))
    words, known = [], {}
    period = rng.choice([[], ["--month", "2026-10"], ["--month", "2026-08"], ["--from", "2026-08-15", "--to", "2026-09-14"]])
    if rng.random() < 0.5:
        words += ["--basis", "annuity"]
        known["basis"] = "annuity"
    if rng.random() < 0.5:
        months = rng.randrange(1, 100)
        words += ["--months", str(months)]
        known["months"] = months
    for option, value in (("sold", "2.35"), ("use", "62.5%")):
        if rng.random() < 0.4 and usage:
            words += [f"--{option}", value]
            known[option] = value
    money = rng.choice(["USD", "JPY", "EUR"])
    got = books.report("--currency", money, *period, *words)
    expected = reckon.report(
        zone, F(got["from_second"]), F(got["to_second"]), money, [reckon.Asset(zone, **a) for a in assets], expenses,
        [(b, q, v, F(s, 10**9)) for b, q, v, s in rates], [(F(c[0], 10**9), *c[1:]) for c in chip_time],
        [(d, t, tenants[t][1], m, *counts) for (d, t, m), counts in usage.items()], **known)
    for name, place in (("from", -1), ("to", -1)):
        if period and period[0] == "--from":
            assert got[name] == period[2 * (name == "to") + 1]
        elif period:
            assert got[name].startswith(period[1])
    assert_same(got, expected, max(expected["cost"]["total"], expected["revenue"], F(1)))
    if got["chip_hours"]["owned"] > 0:
        for uses in (got["models"], got["tenants"]):
            whole = sum(F(u["cost"]) for u in uses) + F(got["idle"]["cost"])
            assert abs(whole - F(got["cost"]["total"])) <= F(1, 10**9) * max(F(1), abs(whole), abs(F(got["idle"]["cost"])))
    books.unkai("owner", "--currency", money, *period, *words)


def test_what_cannot_be(books):
    books.unkai("tenant", "create", "one", "--currency", "JPY")
    add_asset(books, "eight", EIGHT)
    for words, says in (
            (["asset", "add", "eight", "--price", "1", "--currency", "USD", "--life", "5y"], "already"),
            (["asset", "add", "x", "--price", "1.2.3", "--currency", "USD", "--life", "5y"], "price"),
            (["asset", "add", "x", "--price", "-1", "--currency", "USD", "--life", "5y"], "price"),
            (["asset", "add", "x", "--price", "1", "--currency", "usd", "--life", "5y"], "currency"),
            (["asset", "add", "x", "--price", "1", "--currency", "USD"], "life"),
            (["asset", "add", "x", "--price", "1", "--currency", "USD", "--life", "0"], "life"),
            (["asset", "add", "x", "--price", "1", "--currency", "USD", "--life", "5y", "--residual", "2"], "residual"),
            (["asset", "add", "x", "--price", "1", "--currency", "USD", "--life", "5y", "--pue", "0.5"], "pue"),
            (["asset", "add", "x", "--price", "1", "--currency", "USD", "--life", "5y", "--bought", "2026-02-30"], "no date"),
            (["asset", "add", "x", "--price", "1", "--currency", "USD", "--life", "5y", "--method", "magic"], "method"),
            (["asset", "retire", "nothing"], "no asset"), (["asset", "retire", "eight", "--on", "2025-01-01"], "bought after"),
            (["expense", "end", "rent"], "no expense"), (["expense", "add", "rent", "--amount", "1"], "currency"),
            (["--month", "2026-13"], "month"), (["--from", "2026-10-02", "--to", "2026-10-01"], "period"),
            (["--from", "2199-01-01"], "period"), (["--currency", "CHF"], "no rate"), (["--basis", "x"], "basis"),
            (["--use", "110%"], "use"), (["--months", "0"], "months")):
        assert says in books.unkai("owner", *words, code=1), words
    assert [a["name"] for a in json.loads(books.unkai("owner", "asset", "--json"))] == ["eight"]
    books.unkai("owner", "asset", "retire", "eight", "--sold", "1000")
    assert "in use" in books.unkai("owner", "asset", "retire", "eight", code=1)
    assert json.loads(books.unkai("owner", "asset", "list", "--json"))[0]["profile"]["sold"] == 1000


@pytest.mark.parametrize("now, month", [("2031-12-31 23:59:59", "2031-12"), ("2032-01-01 00:00:00", "2032-01")])
def test_the_first_and_the_last_second_of_a_month(books, now, month):
    at, clock = datetime.datetime.fromisoformat(now + "+00:00").timestamp(), books.folder / "clock"
    clock.write_bytes(struct.pack("=q", int((at - time.time()) * 10**9)))
    told = json.loads(books.unkai("owner", "--json", LD_PRELOAD=os.environ["UNKAI_CLOCK_SHIM"], UNKAI_CLOCK_FILE=str(clock)))
    assert told["from"][:7] == told["to"][:7] == month


# ---- a model that is served ----

@pytest.fixture(scope="module")
def served():
    server = Server(PROGRAM)
    server.unkai("owner", "asset", "add", "this", "--price", "1000", "--currency", "JPY", "--life", "5y", "--watts", "100", "--kwh", "30",
                 "--operation", "10%", "--bought", datetime.datetime.now(datetime.timezone.utc).date().isoformat())
    other = server.tenant("two", "1000")
    server.start()
    for i in range(24):
        status, _, body = server.post({"model": "smol", "prompt": f"The number {i} is", "max_tokens": 8, "seed": i, "ignore_eos": True},
                                      key=other if i % 3 == 0 else None)
        assert status == 200, body
    status, _, body = server.post({"model": "smol", "prompt": "A stream", "max_tokens": 64, "ignore_eos": True, "stream": True}, more="Connection: close\r\n")
    assert status == 200
    server.stop()
    yield server
    server.close()


def sums_up(rows, whole):
    assert abs(sum(rows) - whole) <= 1e-9 * max(abs(whole), 1e-9), (rows, whole)


@pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
def test_served_model_adds_up(served):
    r = json.loads(served.unkai("owner", "--json"))
    hours, cost, models, tenants = r["chip_hours"], r["cost"]["total"], r["models"], r["tenants"]
    assert [m["model"] for m in models] == ["smol"] and [t["tenant"] for t in tenants] == ["one", "two"]
    assert [t["requests"] for t in tenants] == [17, 8] and models[0]["requests"] == 25
    # What models took, and tenants, and idle time, is what the machine cost; and so are its hours.
    sums_up([m["cost"] for m in models] + [r["idle"]["cost"]], cost)
    sums_up([t["cost"] for t in tenants] + [r["idle"]["cost"]], cost)
    sums_up([r["idle"][x] for x in ("off", "waiting", "unclaimed")], r["idle"]["cost"])
    sums_up([m["prefill_seconds"] + m["decode_seconds"] for m in models], 3600 * hours["used"])
    sums_up([t["revenue"] for t in tenants], r["revenue"])
    # The chip's clock knows every step of these requests, and no other time but the server's.
    assert hours["owned"] > hours["available"] > hours["busy"] > 0
    assert 0.99 < hours["used"] / hours["busy"] <= 1 + 1e-9
    # Tokens are those that the usage says, and decode's cost a token is above prefill's.
    usage = json.loads(served.unkai("usage", "--json"))
    assert sum(t["completion_tokens"] for t in usage) == models[0]["output_tokens"]
    assert sum(t["prompt_tokens"] for t in usage) == models[0]["input_tokens"]
    assert sum(F(t["charged"]) for t in usage) == pytest.approx(F(r["revenue"]), rel=1e-9)
    assert models[0]["output_million"] > models[0]["input_million"] > 0
    assert models[0]["prefill_seconds"] > 0 and models[0]["decode_seconds"] > models[0]["prefill_seconds"]
