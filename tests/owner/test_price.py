"""Prices from measured cost, reckoned again in fractions, and prices beside the public list."""
import json
import math
import pathlib
import time
from fractions import Fraction as F

import pytest

from test_report import EIGHT, Books, add_asset

PUBLIC = json.loads((pathlib.Path(__file__).resolve().parents[2] / "data/prices-public.json").read_text())
DAY = "2026-10-15"


@pytest.fixture
def books(tmp_path):
    return Books(tmp_path)


def use(books, **models):
    """Each: requests, prompt, cached, completion, chip_ns, prefill_ns, in October 2026."""
    books.write(("INSERT INTO usage_day (period, day, tenant, key, model, price, rate, requests, cancelled, failed, prompt, cached, completion,"
                 " charge, chip_ns, prefill_ns) VALUES (1, ?, 1, 1, ?, 1, 1000000000, ?, 0, 0, ?, ?, ?, 0, ?, ?)",
                 [(DAY, model, *counts) for model, counts in models.items()]))


def micro(text):
    """A price a million tokens as an integer of 10^-12 a token, which it must be exactly."""
    value = F(text) * 10**6
    assert value.denominator == 1
    return int(value)


def test_suggested_prices(books):
    books.unkai("tenant", "create", "one", "--currency", "USD")
    add_asset(books, "eight", EIGHT)
    few = (99, 10**6, 0, 10**6, 9 * 10**9, 3 * 10**9)
    counts = (100, 5 * 10**9, 10**9, 3 * 10**8, 41 * 10**14 + 7, 11 * 10**14 + 3)
    use(books, small=counts, few=few, quick=(1000, 10**6, 0, 10**6, 10**10, 10**10 - 10**8), cached=(1000, 10**6, 10**6, 10**6, 10**10, 10**9 * 2))
    month = ["--month", "2026-10"]
    cost = F(json.loads(books.unkai("owner", "--json", *month))["chip_hour"]["period"])  # test_report.py reckons it
    used = sum(F(n, 10**9) for n in (counts[4], few[4], 10**10, 10**10)) / 3600 / (8 * 31 * 24)
    for words, margin, load, share in (([], F(3, 10), used, F(1, 10)), (["--use", "60%"], F(3, 10), F(6, 10), F(1, 10)),
                                       (["--cached", "50%", "--use", "0.9"], F(0), F(9, 10), F(1, 2))):
        got = json.loads(books.unkai("price", "suggest", "--margin", f"{float(margin * 100)}%", *month, *words, "--json"))
        assert [p["model"] for p in got["prices"]] == ["small"]
        assert got["too_little_measured"] == ["cached", "few", "quick"]
        assert got["set"] is False and got["currency"] == "USD"
        prefill, decode = F(counts[5], 10**9) / 3600, F(counts[4] - counts[5], 10**9) / 3600
        expected = {"input": prefill / (counts[1] - counts[2]), "output": decode / counts[3]}
        expected["cached"] = expected["input"] * share
        for name, hours in expected.items():
            exact = hours * cost / load / (1 - margin) * 10**12
            # Rounded up, and what it was rounded from is a double.
            assert abs(micro(got["prices"][0][name]) - exact) <= 1 + exact / 10**9
            assert micro(got["prices"][0][name]) >= exact * (1 - F(1, 10**9))
    assert json.loads(books.unkai("price", "list", "--json")) == []
    for words, says in ((["--model", "few"], "too little"), (["--model", "none"], "nobody"), (["--use", "0"], "use")):
        assert says in books.unkai("price", "suggest", "--margin", "30%", *month, *words, code=1)
    for margin in ("100%", "-1", "x"):
        assert "margin" in books.unkai("price", "suggest", "--margin", margin, *month, code=1)
    assert "margin" in books.unkai("price", "suggest", *month, code=1)
    assert "nothing was used" in books.unkai("price", "suggest", "--margin", "30%", "--month", "2026-09", code=1)
    assert json.loads(books.unkai("price", "list", "--json")) == []
    got = json.loads(books.unkai("price", "suggest", "--margin", "30%", *month, "--set", "--json"))
    assert got["set"] is True
    kept = json.loads(books.unkai("price", "list", "--json"))
    assert len(kept) == 1
    for name in ("model", "currency", "input", "cached", "output"):
        assert kept[0][name] == got["prices"][0][name]


def test_nothing_bought(books):
    books.unkai("tenant", "create", "one", "--currency", "USD")
    use(books, small=(100, 10**9, 0, 10**8, 4 * 10**15, 10**15))
    assert "asset add" in books.unkai("price", "suggest", "--margin", "30%", "--month", "2026-10", code=1)


def test_margin_comes_true(books):
    """Sold at the suggested prices, the same use leaves the margin that was asked for."""
    books.unkai("tenant", "create", "one", "--currency", "USD")
    add_asset(books, "eight", EIGHT)
    prompt, completion = 4 * 10**9, 10**9
    use(books, small=(100, prompt, 0, completion, 8 * 10**15, 2 * 10**15))
    p = json.loads(books.unkai("price", "suggest", "--margin", "30%", "--month", "2026-10", "--json"))["prices"][0]
    charge = (micro(p["input"]) * prompt + micro(p["output"]) * completion) // 1000
    books.write(("UPDATE usage_day SET charge = ?", [(charge,)]))
    report = json.loads(books.unkai("owner", "--month", "2026-10", "--json"))
    assert report["margin"] == pytest.approx(0.3, rel=1e-6)
    assert report["utilisation"]["break_even"] == pytest.approx(0.7 * report["utilisation"]["owned"], rel=1e-6)


def test_public_list():
    assert time.strptime(PUBLIC["date"], "%Y-%m-%d") and "litellm" in PUBLIC["source"] and PUBLIC["currency"] == "USD"
    assert len(PUBLIC["prices"]) >= 36
    assert len({(p["provider"], p["model"]) for p in PUBLIC["prices"]}) == len(PUBLIC["prices"])
    for p in PUBLIC["prices"]:
        assert p["provider"] and p["model"] and p["class"]
        for name in ("input", "output", *(["cached"] if "cached" in p else [])):
            assert micro(p[name]) > 0


def test_compare(books, tmp_path):
    books.unkai("tenant", "create", "one", "--currency", "USD")
    assert "no price" in books.unkai("price", "compare", code=1)
    books.unkai("price", "set", "smol", "--input", "0.02", "--cached", "0.01", "--output", "0.12", "--currency", "USD")
    got = json.loads(books.unkai("price", "compare", "--json"))
    assert got["date"] == PUBLIC["date"] and got["source"] == PUBLIC["source"]
    assert [p["model"] for p in got["prices"]] == ["smol"] and len(got["prices"][0]["offers"]) == len(PUBLIC["prices"])
    for offer, theirs in zip(got["prices"][0]["offers"], PUBLIC["prices"]):
        cached = F(theirs.get("cached", theirs["input"]))
        for name, ours, other in (("input", F("0.02"), F(theirs["input"])), ("cached", F("0.01"), cached),
                                  ("output", F("0.12"), F(theirs["output"])),
                                  ("mix", 3 * F("0.02") + F("0.12"), 3 * F(theirs["input"]) + F(theirs["output"]))):
            assert math.isclose(offer[name + "_dearer"], float(ours / other - 1), rel_tol=1e-9, abs_tol=1e-12)
    some = json.loads(books.unkai("price", "compare", "--against", "8B", "--json"))["prices"][0]["offers"]
    assert some and all(o["class"] == "8b" or "8b" in o["model"] for o in some)
    assert {o["provider"] for o in json.loads(books.unkai("price", "compare", "--against", "google", "--json"))["prices"][0]["offers"]} == {"Google"}
    text = books.unkai("price", "compare", "--against", "1b")
    assert PUBLIC["date"] in text and "cheaper" in text
    assert "like that" in books.unkai("price", "compare", "--against", "nobody", code=1)
    # With the tokens of a month, another list, and another currency.
    use(books, smol=(5, 1000, 400, 200, 10**9, 10**8))
    own = tmp_path / "list.json"
    own.write_text(json.dumps({"date": "2026-11-01", "source": "us", "currency": "EUR", "prices": [
        {"provider": "A", "model": "b", "class": "c", "input": "0.01", "output": "0.05"}]}))
    assert "no rate between EUR and USD" in books.unkai("price", "compare", "--file", str(own), code=1)
    books.write(("INSERT INTO rate (base, quote, value, since) VALUES (?, ?, ?, 0)", [("EUR", "USD", 1250000000)]))
    got = json.loads(books.unkai("price", "compare", "--file", str(own), "--month", "2026-10", "--json"))["prices"][0]
    ours = 600 * F("0.02") + 400 * F("0.01") + 200 * F("0.12")
    theirs = (1000 * F("0.01") + 200 * F("0.05")) * F("1.25")
    assert math.isclose(got["offers"][0]["mix_dearer"], float(ours / theirs - 1), rel_tol=1e-9)
    assert math.isclose(got["output_share"], 1 / 6, rel_tol=1e-9)
    for wrong in ("{", "[]", '{"currency":"USD","prices":[{"model":"m","input":"1e-3","output":"1"}]}'):
        own.write_text(wrong)
        assert "list" in books.unkai("price", "compare", "--file", str(own), code=1)
