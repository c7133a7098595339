"""The server against its own descriptions: schemathesis makes requests from them, right and wrong ones, and holds every answer against them."""
import json
import os
import pathlib
import subprocess
import sys
import sysconfig

import pytest
from server import Server

pytest.importorskip("schemathesis")

# A request that is as described is answered with 200, or 404 and 409: what there is, and what state it is in, no description knows. What else one may be refused for, since no
# description can say it, stands here.
REFUSALS = [
    ("GET /organization/(usage/completions|costs)", "400", "one time comes after another"),
    ("GET /(owner/report|prices/comparison)", "400", "a month or days and not both; there is a rate between currencies"),
    ("POST /prices/suggestion", "400", "the same; something was measured"),
    ("POST /prices/rates", "400", "a currency has no rate in itself"),
    ("POST /prices/import", "400", "12 decimals and no more; a day that comes"),
    ("POST /owner/(assets|expenses)(/.*)?", "400", "one day comes after another, a residual value is below the price"),
    ("POST /organization/projects/[^/]*/(.*/)?limits", "400", "percents rise; what a network is and what a model's name may begin with"),
    ("POST /webhooks", "400", "what a URL is"),
    ("POST /billing/tax_rules", "400", "the form of rules"),
    ("POST /invoices/[^/]*/payments", "400", "a day that has come"),
    ("GET /exports/focus", "400", "which text the page before gave"),
    ("POST /ledger/transfers(/[^/]*/(post|reverse))?", "402", "an account has enough"),
    ("POST /(chat/)?completions", "400, 422", "options that need another one, what fits a model's context, which ids it knows; a key of retries is new"),
]
CONFIG = """
[phases.coverage]
unexpected-methods = ["PUT", "PATCH", "OPTIONS", "TRACE"]
[checks.positive_data_acceptance]
expected-statuses = [200, 404, 409]
""" + "".join(f"""
[[operations]]
include-name-regex = '^{name}$'
checks.positive_data_acceptance.expected-statuses = [200, 404, 409, {status}]
""" for name, status, _ in REFUSALS)


# Wrong keys are counted by the address that they come from: each request has its own. And no guess names the model that is there, takes a new key for retries, asks for a stream where it has
# options of one, or for the prompt where it wants no tokens: so would most completions be refused. Every other one gets these, where it has something there that is as described.
HOOKS = """
import itertools, json, requests
calls, send = itertools.count(), requests.Session.send

def from_another(self, request, **more):
    call = next(calls)
    request.headers["X-Forwarded-For"] = f"10.{call >> 16}.{call >> 8 & 255}.{call & 255}"
    if request.url.endswith("/completions") and request.method == "POST" and call % 2 == 0:
        make_whole(request, call)
    return send(self, request, **more)

def make_whole(request, call):
    if 0 < len(request.headers.get("Idempotency-Key", "")) <= 255:
        request.headers["Idempotency-Key"] = f"key-{call}"
    try:
        body = json.loads(request.body)
        more = {"model": "tiny"} if isinstance(body["model"], str) and 0 < len(body["model"].encode()) <= 256 else {}
        if body.get("stream_options") is not None and type(body.get("stream")) in (bool, type(None)):
            more["stream"] = True
        if 0 in (body.get("max_tokens"), body.get("max_completion_tokens")) and type(body.get("echo")) in (bool, type(None)):
            more["echo"] = True
        request.prepare_body(json.dumps({**body, **more}), None)
    except (TypeError, ValueError, KeyError):
        pass

requests.Session.send = from_another
"""
SHAPE = "--layers 1 --width 64 --heads 2 --kv-heads 1 --ffn 64 --vocab 300 --context 256".split()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    model = tmp_path_factory.mktemp("model") / "tiny.gguf"
    program = pathlib.Path(os.environ["UNKAI_PROGRAM"]).resolve()
    subprocess.run([program.parent.parent / "tools" / "make_model", model, *SHAPE], check=True)
    s = Server(program, models={"tiny": model}, credit="100000000", options=["--trusted-proxies", "127.0.0.1"])
    try:
        for _ in range(30):  # so that no guess at the id of a key deletes the one that asks
            s.unkai("admin", "key", "create", "another", "--role", "read-only")
        s.admin = json.loads(s.unkai("admin", "key", "create", "tester", "--role", "owner", "--json"))["key"]
        (s.home / "schemathesis.toml").write_text(CONFIG)
        (s.home / "hooks.py").write_text(HOOKS)
        yield s.start()
        assert s.unkai("ledger", "verify")
        assert s.stop() == 0
    finally:
        s.close()


# The tenant's first: administration may archive it.
@pytest.mark.parametrize("prefix, examples", [("/v1", 10), ("/admin/v1", 3)])
def test_answers_are_as_described(server, prefix, examples):
    key = server.admin if prefix == "/admin/v1" else server.key
    program = pathlib.Path(sysconfig.get_path("scripts")) / "schemathesis"
    done = subprocess.run(
        [sys.executable, program, "--config-file", server.home / "schemathesis.toml", "run",
         f"http://127.0.0.1:{server.port}{prefix}/openapi.json", "--header", f"Authorization: Bearer {key}", "--workers", "1",
         "--max-examples", str(examples), "--seed", "1", "--generation-database", "none", "--warnings", "off", "--no-color"],
        cwd=server.home, env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-8000:]
    assert "No issues found" in done.stdout
    if prefix == "/v1":  # and what was answered was no refusal alone
        assert server.metric("request_success_total") > 20
