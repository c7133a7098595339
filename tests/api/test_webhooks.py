"""Webhooks end to end: thresholds that requests cross arrive once, signed as the standard says, again when they failed, and never where they may not go."""
import base64
import hashlib
import hmac
import http.server
import json
import os
import socket
import sys
import threading
import time

import pytest

from server import SMOL, Server, within_a_day

PROGRAM = os.environ["UNKAI_PROGRAM"]
pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
ASK = {"model": "smol", "prompt": "Once upon a time", "max_tokens": 10, "ignore_eos": True}


class Receiver(http.server.ThreadingHTTPServer):
    """Notes what it is sent; answers with the statuses it was given, then with 204."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen, self.statuses, self.secret, self.wait = [], [], None, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/in?x=1"

    def wait_for(self, count, seconds=60):
        end = time.monotonic() + seconds
        while len(self.seen) < count and time.monotonic() < end:
            time.sleep(0.02)
        return self.seen[:]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        name, at = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        secret = base64.b64decode(self.server.secret.removeprefix("whsec_"))
        wanted = base64.b64encode(hmac.new(secret, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()).decode()
        assert self.headers["webhook-signature"] == f"v1,{wanted}" and abs(int(at) - time.time()) < 60
        assert self.path == "/in?x=1" and self.headers["content-type"] == "application/json"
        time.sleep(self.server.wait)
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        self.server.seen.append((name, json.loads(body), status))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.server.elsewhere)
        self.end_headers()
        self.wfile.write(b"<html>whatever</html>" if status != 204 else b"")

    def log_message(self, *words):
        pass


@pytest.fixture
def receiver():
    r = Receiver()
    yield r
    r.shutdown()
    r.server_close()


@pytest.fixture
def server():
    s = Server(PROGRAM, options=["--webhooks-within"]).start()
    yield s
    code = s.stop()
    told, log = s.unkai("ledger", "verify"), s.log.read_text()
    s.close()
    assert code == 0, log
    assert "balances" in told


def add(server, receiver, *words):
    receiver.secret = json.loads(server.unkai("webhook", "add", receiver.url, *words, "--json"))["secret"]


def deliveries(server):
    return json.loads(server.unkai("webhook", "deliveries", "--json"))


def wait_for_state(server, state, seconds=60):
    end = time.monotonic() + seconds
    while {d["state"] for d in deliveries(server)} != {state} and time.monotonic() < end:
        time.sleep(0.05)
    return deliveries(server)


def test_thresholds(server, receiver):
    within_a_day()
    add(server, receiver, "--tenant", "one")
    server.unkai("limit", "set", "one", "--spend-day", "0.1", "--warn", "10,50", "--credit-low", "999.97")
    for _ in range(12):  # about 0.0045 each
        assert server.post(ASK)[0] == 200
    got = [body for _, body, _ in receiver.wait_for(3)]
    assert [b["type"] for b in got] == ["spend.threshold", "credit.low", "spend.threshold"]
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time()))
    assert [b["data"].get("percent") for b in got] == [10, None, 50]
    assert got[0]["data"]["tenant"] == "one" and got[0]["data"]["limit"] == "0.1" and got[0]["data"]["period"] == day
    assert 0.01 <= float(got[0]["data"]["spent"]) < 0.02 and 0.05 <= float(got[2]["data"]["spent"]) < 0.06
    assert float(got[1]["data"]["balance"]) < 999.97 and got[1]["data"]["threshold"] == "999.97" and got[0]["timestamp"].endswith("Z")
    done = wait_for_state(server, "done")
    assert [(d["attempts"], d["note"]) for d in done] == [(1, "HTTP 204")] * 3 and len(receiver.seen) == 3
    # Nothing is lost or said twice by a restart.
    server.stop()
    server.start()
    for _ in range(3):
        assert server.post(ASK)[0] == 200
    time.sleep(1)
    assert len(receiver.seen) == 3


def test_refusals(server, receiver):
    """Who is refused for want of money is told of once a limit and period, however often; who is let through with a shorter answer is no refusal."""
    add(server, receiver, "--events", "spend.limit_reached,credit.exhausted")
    key = server.tenant("poor", "0.02")
    chat = {"model": "smol", "messages": [{"role": "user", "content": "Hi"}]}
    assert server.post({**chat, "stop": ["e", "a", " "]}, "/v1/chat/completions", key=key)[0] == 200  # halved until the credit covers it
    server.unkai("limit", "set", "one", "--spend-month", "0.01")
    for _ in range(20):
        assert server.post(ASK)[0] in (200, 402)
        assert server.post({**ASK, "max_tokens": 1000})[0] == 402
        assert server.post({**ASK, "max_tokens": 1000}, key=key)[0] == 402
    server.unkai("limit", "set", "one", "--spend-month", "0.002")
    assert server.post({**chat, "messages": [{"role": "user", "content": "Hello " * 30}]}, "/v1/chat/completions")[0] == 402  # however short
    got = {(b["type"], b["data"].get("limit")): b["data"] for _, b, _ in receiver.wait_for(3)}
    month, day = time.strftime("%Y-%m", time.gmtime()), time.strftime("%Y-%m-%d", time.gmtime())
    capped, short = got[("spend.limit_reached", "0.01")], got[("credit.exhausted", None)]
    assert (capped["tenant"], capped["currency"], capped["period"], "key" in capped) == ("one", "JPY", month, False)
    assert float(capped["spent"]) < 0.01 and float(capped["left"]) <= 0.01 and float(capped["asked"]) > 0.1
    assert (short["tenant"], short["period"], short["credit_line"]) == ("poor", day, "0") and 0 < float(short["left"]) <= float(short["balance"]) < 0.02
    assert got[("spend.limit_reached", "0.002")]["tenant"] == "one"
    server.stop()
    server.start()
    assert server.post({**ASK, "max_tokens": 1000}, key=key)[0] == 402
    time.sleep(1)
    assert len(receiver.seen) == 3


def test_again_until_it_is_taken(server, receiver):
    add(server, receiver)
    receiver.statuses, receiver.elsewhere = [302], receiver.url.replace("/in", "/elsewhere")
    server.unkai("webhook", "test", "1")
    seen = receiver.wait_for(2)
    assert [status for _, _, status in seen] == [302, 204]  # not followed, and five seconds later again
    assert seen[0][0] == seen[1][0] and seen[0][1] == seen[1][1]
    assert wait_for_state(server, "done")[0]["attempts"] == 2


def test_gone(server, receiver):
    add(server, receiver)
    receiver.statuses = [410]
    server.unkai("webhook", "test", "1")
    assert wait_for_state(server, "failed")[0]["note"] == "HTTP 410"
    assert json.loads(server.unkai("webhook", "list", "--json"))[0]["disabled"] is True


def test_nobody_waits_for_a_slow_one(server, receiver):
    """One that does not answer keeps neither the others, nor the requests, nor the end."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        server.unkai("webhook", "add", f"http://127.0.0.1:{mute.getsockname()[1]}/")
        add(server, receiver)
        server.unkai("webhook", "test", "1")
        begin = time.monotonic()
        server.unkai("webhook", "test", "2")
        assert len(receiver.wait_for(1, 5)) == 1
        assert server.post(ASK)[0] == 200
        server.unkai("webhook", "list")
        assert time.monotonic() - begin < 5
        begin = time.monotonic()
        assert server.stop() == 0 and time.monotonic() - begin < 5
        server.start()


def test_not_inside(receiver):
    """Without --webhooks-within nothing on this machine is reached, whatever its name."""
    s = Server(PROGRAM).start()
    try:
        add(s, receiver)
        for host in ("localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1"):
            s.unkai("webhook", "add", receiver.url.replace("127.0.0.1", host))
        for i in range(1, 7):
            s.unkai("webhook", "test", str(i))
        end = time.monotonic() + 60
        while not all(d["note"] for d in deliveries(s)) and time.monotonic() < end:
            time.sleep(0.05)
        assert {d["note"] for d in deliveries(s)} == {"its address is not public"} and receiver.seen == []
        log = s.log.read_text()
        assert "whsec" not in log and s.stop() == 0
    finally:
        s.close()


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
