"""bench/serve against a server: what it reports is what was sent, what the trace says, and what the server counted."""
import json
import os
import pathlib
import subprocess

import pytest

from server import SMOL, Server, held_port

PROGRAM = os.environ["UNKAI_PROGRAM"]
BENCH = pathlib.Path(PROGRAM).resolve().parent.parent / "bench" / "serve"
pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
ROWS = 60


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """Sixty requests in a minute: 160 tokens in and 24 out each."""
    folder = tmp_path_factory.mktemp("traces")
    (folder / "azure").mkdir()
    rows = [f"2023-11-16 18:15:{i:02}.5000000,160,24" for i in range(ROWS)]
    for name in ("conv", "code"):
        (folder / "azure" / f"{name}.csv").write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    return folder


def bench(traces, url, *options):
    return subprocess.run([BENCH, "--traces", traces, "--grace", "100", "--model", "smol", *options, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=600)


def serving(options=()):
    s = Server(PROGRAM, options=options).start()
    (s.home / "keys").write_text(s.key + "\n" + s.tenant("two", "1000") + "\n")
    return s, f"http://127.0.0.1:{s.port}/v1", ("--keys", s.home / "keys")


def test_numbers_add_up(traces):
    s, url, keys = serving()
    try:
        done = bench(traces, url, *keys, "--rate", "4,8", "--seconds", "2", "--by", "tenant", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["workload"] == "chat" and told["ignore_eos"] is True and len(told["points"]) == 2
        for point, sent in zip(told["points"], (8, 16)):
            g = point["all"]
            assert g["sent"] == g["complete"] == sent and point["errors"] == []
            assert g["output_tokens"] == 6 * sent
            assert abs(g["input_tokens"] / sent - (256 + 40)) < 12 and 0 < g["cached_tokens"] < g["input_tokens"]
            assert g["first_token_ms"]["count"] == sent and g["between_tokens_ms"]["count"] == g["text_events"] - sent
            assert 0 < g["first_token_ms"]["p50"] <= g["first_token_ms"]["p99"] <= g["first_token_ms"]["max"]
            assert abs(g["goodput"] * point["seconds"] - g["within_level"]) < 1e-6 and g["within_level"] <= g["within_level_by_mean"]
            for name in ("sent", "complete", "input_tokens", "cached_tokens", "output_tokens", "text_events", "within_level"):
                assert sum(part[name] for part in point["parts"]) == g[name], name
        # Two requests told the price of a word, sixteen made the tenants known.
        assert s.metric("request_success_total") == 8 + 16 + 2 + 16
        assert s.metric("generation_tokens_total") == 6 * 24 + 18
        people = bench(traces, url, *keys, "--workload", "code", "--rate", "5", "--seconds", "1")
        assert people.returncode == 0 and " 5.00 " in people.stdout and "the generator took" in people.stdout
    finally:
        s.stop()
        assert "balances" in s.unkai("ledger", "verify")
        s.close()


def test_rounds_have_their_own_requests(traces):
    s, url, keys = serving()

    def cached(number):
        done = bench(traces, url, *keys, "--rate", "4", "--seconds", "2", "--round", str(number), "--json")
        assert done.returncode == 0, done.stderr
        g = json.loads(done.stdout)["points"][0]["all"]
        assert json.loads(done.stdout)["round"] == number and g["complete"] == 8
        return g["cached_tokens"] / g["input_tokens"]

    try:
        first, again, other = cached(0), cached(0), cached(1)
        assert again > 0.9 > first and other < 0.9, (first, again, other)
        assert bench(traces, url, *keys, "--rate", "4", "--round", "10000").returncode == 2
    finally:
        s.close()


def test_refusals_are_counted(traces):
    s, url, keys = serving(("--max-running", "1", "--max-waiting", "1"))
    try:
        done = bench(traces, url, *keys, "--workload", "flood", "--rate", "15", "--seconds", "1", "--json")
        assert done.returncode == 0, done.stderr
        point = json.loads(done.stdout)["points"][0]
        g = point["all"]
        assert g["refused"] > 0 and g["sent"] == g["complete"] + g["refused"] + g["unfinished"]
        assert [part["name"] for part in point["parts"]] == ["the flooding tenant", "the other tenants"]
        assert any(e["text"].startswith("HTTP 429") and e["count"] > 0 for e in point["errors"])
        wrong = bench(traces, url, "--rate", "1")
        assert wrong.returncode == 1 and "HTTP 401" in wrong.stderr
    finally:
        s.close()


def test_what_is_not_there(traces, tmp_path):
    held, port = held_port()
    url = f"http://127.0.0.1:{port}/v1"
    assert "Connection refused" in bench(traces, url, "--rate", "1").stderr
    missing = bench(tmp_path, url, "--rate", "1")
    assert missing.returncode == 1 and f"cannot open the trace {tmp_path}/azure/conv.csv" in missing.stderr
    assert bench(traces, "https://x/v1", "--rate", "1").returncode == 1
    assert bench(traces, url, "--rate", "0").returncode == 2 and bench(traces, url).returncode == 2
    held.close()
