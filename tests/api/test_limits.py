"""Limits as clients meet them: OpenAI's headers and errors, what comes back when an answer ends, days' spend, models, addresses, proxies, keys that are wrong too often."""
import json
import os
import re
import sys
import threading
import time

import openai
import pytest

from server import SMOL, Server, wait_until, within_a_day

PROGRAM = os.environ["UNKAI_PROGRAM"]
pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
ASK = {"model": "smol", "prompt": "Once upon a time", "max_tokens": 4}


@pytest.fixture(scope="module")
def server():
    s = Server(PROGRAM, options=["--trusted-proxies", "127.0.0.1,10.0.0.0/8"]).start()
    yield s
    code = s.stop()
    told, log = s.unkai("ledger", "verify"), s.log.read_text()
    s.close()
    assert code == 0, log
    assert "balances" in told


@pytest.fixture
def tenant(server, request):
    """A tenant of the test's own, and a way to set its limits or its key's."""
    name = request.node.name
    server.unkai("tenant", "create", name, "--credit", "1000", "--currency", "JPY")
    key = json.loads(server.unkai("key", "create", name, "--json"))

    class Tenant:
        def limit(self, **limits):
            words = [w for k, v in limits.items() for w in (f"--{k.replace('_', '-')}", str(v))]
            return json.loads(server.unkai("limit", "set", name, *words, "--json"))[0]

        def show(self):
            return json.loads(server.unkai("limit", "show", name, "--json"))[0]

        def post(self, more="", **ask):
            return server.post(ASK | ask, key=self.key, more=more)

    Tenant.key, Tenant.key_id = key["key"], key["id"]
    return Tenant()


def seconds(text):
    """A duration as OpenAI writes it."""
    assert re.fullmatch(r"(?:\d+h)?(?:\d+m)?\d+(?:\.\d{1,3})?s|\d+ms", text), text
    if text.endswith("ms"):
        return int(text[:-2]) / 1000
    return sum(float(n) * {"h": 3600, "m": 60, "s": 1}[unit] for n, unit in re.findall(r"([\d.]+)([hms])", text))


def rate(headers, kind):
    assert [headers[f"x-ratelimit-{part}-{kind}"] for part in ("limit", "remaining", "reset")]
    return (int(headers[f"x-ratelimit-limit-{kind}"]), int(headers[f"x-ratelimit-remaining-{kind}"]),
            seconds(headers[f"x-ratelimit-reset-{kind}"]))


def test_without_limits(server, tenant):
    status, headers, body = tenant.post()
    assert status == 200 and headers["x-request-id"] == json.loads(body)["id"]
    assert not [h for h in headers if h.startswith("x-ratelimit")]


def test_requests_a_minute(tenant):
    tenant.limit(requests_per_minute=3, tokens_per_minute=100000)
    begin = time.monotonic()
    for left in (2, 1, 0):
        status, headers, _ = tenant.post(stream=left == 1, more="Connection: close\r\n")
        limit, remaining, reset = rate(headers, "requests")
        passed = time.monotonic() - begin
        assert (status, limit, remaining) == (200, 3, left) and 20 * (3 - left) - passed - 0.01 <= reset <= 20 * (3 - left)
        limit, remaining, reset = rate(headers, "tokens")
        assert limit == 100000 and 99000 < remaining < 100000 and reset < 1
    status, headers, body = tenant.post()
    error = json.loads(body)["error"]
    assert status == 429 and error["code"] == "rate_limit_exceeded" and error["type"] == "requests" and error["param"] is None
    wait = seconds(re.search(r"try again in (\S+)$", error["message"])[1])
    assert "limit 3" in error["message"] and wait <= int(headers["retry-after"]) < wait + 1 <= 21
    assert rate(headers, "requests")[:2] == (3, 0) and headers["x-request-id"].startswith("cmpl-")


def test_tokens_a_minute(server, tenant):
    tenant.limit(tokens_per_minute=60)
    begin = time.monotonic()
    status, headers, body = tenant.post(max_tokens=40, ignore_eos=True)
    used = json.loads(body)["usage"]["prompt_tokens"] + 40
    assert status == 200 and 60 - used <= rate(headers, "tokens")[1] <= 60 - used + time.monotonic() - begin
    status, headers, body = tenant.post(max_tokens=50)
    error = json.loads(body)["error"]
    assert status == 429 and error["type"] == "tokens" and 0 < int(headers["retry-after"]) <= 60
    status, headers, body = tenant.post(max_tokens=61)  # never
    assert status == 429 and headers["x-should-retry"] == "false" and "retry-after" not in headers
    assert "ask for less" in json.loads(body)["error"]["message"]


def test_unused_tokens_come_back(tenant):
    tenant.limit(tokens_per_minute=200)
    for _ in range(4):  # each asks for nearly all and uses little
        status, _, body = tenant.post(prompt="The capital of France is", max_tokens=120, stop=["."], temperature=0)
        assert status == 200 and json.loads(body)["usage"]["completion_tokens"] < 40


def test_an_open_chat_fits_a_minute(server, tenant):
    tenant.limit(tokens_per_minute=100)
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=tenant.key, max_retries=0)
    r = client.chat.completions.create(model="smol", messages=[{"role": "user", "content": "Count to a thousand."}])
    assert r.usage.total_tokens <= 100


def test_the_official_client_waits(server, tenant):
    tenant.limit(requests_per_minute=12)
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=tenant.key, max_retries=2)
    wait = 0
    while wait < 2:  # one comes back every 5 seconds
        begin = time.monotonic()
        status, _, body = tenant.post(max_tokens=1)
        wait = seconds(re.search(r"try again in (\S+)$", json.loads(body)["error"]["message"])[1]) if status == 429 else 0
    client.completions.create(**ASK)
    assert time.monotonic() - begin > wait - 0.01
    with pytest.raises(openai.RateLimitError) as e:
        for _ in range(20):
            client.with_options(max_retries=0).completions.create(**ASK | {"max_tokens": 1})
    assert e.value.code == "rate_limit_exceeded" and int(e.value.response.headers["retry-after"]) <= 5


def test_at_once(server, tenant):
    tenant.limit(concurrency=2)
    statuses, ends = [], threading.Event()

    def one():
        """Its answer goes on until all six have their status."""
        data = json.dumps(ASK | {"max_tokens": 1500, "ignore_eos": True, "stream": True}).encode()
        with server.connect() as s:
            s.sendall(server.head(key=tenant.key, more=f"Content-Length: {len(data)}\r\n\r\n") + data)
            statuses.append(int(s.recv(4096).split()[1]))
            ends.wait(120)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for t in threads:
        t.start()
    wait_until(lambda: len(statuses) == 6)
    ends.set()
    for t in threads:
        t.join()
    assert sorted(statuses) == [200] * 2 + [429] * 4
    wait_until(lambda: tenant.show()["used"]["running"] == 0)
    assert tenant.show()["used"]["held"] == "0"


def test_spend_a_day(tenant):
    within_a_day()
    tenant.limit(spend_day="0.01")  # a token in costs 0.0001, out 0.0004
    status, _, body = tenant.post(max_tokens=30)
    assert status == 402 and json.loads(body)["error"]["code"] == "insufficient_quota"
    assert re.search(r"may spend 0.01 JPY a day.*the next day begins at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", json.loads(body)["error"]["message"])
    codes = [tenant.post(max_tokens=4, ignore_eos=True)[0] for _ in range(8)]
    assert codes == sorted(codes) and set(codes) == {200, 402}
    used = tenant.show()["used"]
    assert 0.007 < float(used["day"]) <= 0.01 and used["day"] == used["month"]


def test_models_and_keys(server, tenant):
    tenant.limit(key=tenant.key_id, models="sm*,other")
    assert tenant.post()[0] == 200
    tenant.limit(key=tenant.key_id, models="smo,other*")
    status, _, body = tenant.post()
    assert status == 403 and json.loads(body)["error"]["param"] == "model"
    tenant.limit(key=tenant.key_id, models="", expires="2020-01-01")
    assert tenant.post()[0] == 401
    tenant.limit(key=tenant.key_id, expires="")
    assert tenant.post()[0] == 200


def test_addresses(server, tenant):
    """Whatever a client writes into X-Forwarded-For counts only as far as trusted proxies added it."""
    tenant.limit(addresses="198.51.100.0/24,2001:db8::/32")
    assert tenant.post()[0] == 403
    for sent, status in [("198.51.100.7", 200), ("198.51.100.7, 10.1.2.3", 200), ("198.51.100.7:1234,10.1.2.3:80", 200), ("[2001:db8::1]:9, 10.0.0.1", 200),
                         ("2001:db8::1", 200), ("198.51.100.7, 203.0.113.9", 403), ("198.51.100.7, garbage", 403), ("", 403), (",", 403), ("198.51.101.7", 403)]:
        assert tenant.post(more=f"X-Forwarded-For: {sent}\r\n")[0] == status, sent
    assert tenant.post(more="X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-For: 203.0.113.9\r\n")[0] == 403
    assert server.raw(server.head("/v1/models", "GET", key=tenant.key, more="\r\n"))[0] == 403


def test_wrong_keys(server, tenant):
    """An address that guesses is held off; a key that was used from there goes on, a new one waits, and elsewhere nobody notices."""
    def ask(key, source, path="/v1/models"):
        return server.raw(server.head(path, "GET", key=key, more=f"X-Forwarded-For: {source}\r\n\r\n"))

    def guess(source):
        """Wrong keys until it is two seconds or more to the next one."""
        for i in range(100):
            status, headers, body = ask(f"uk-{i}", source)
            if status == 429 and int(headers["retry-after"]) >= 2:
                return int(headers["retry-after"]), json.loads(body)["error"]["message"]
        raise AssertionError("nothing holds it off")

    other = json.loads(server.unkai("key", "create", "test_wrong_keys", "--json"))["key"]
    assert ask(tenant.key, "192.0.2.1")[0] == 200
    begin = time.monotonic()
    codes = [ask(f"uk-{i}", "192.0.2.1")[0] for i in range(40)]
    more = int((time.monotonic() - begin) / 3) + 1  # one comes back every 3 seconds
    assert codes[:20] == [401] * 20 and set(codes) == {401, 429} and codes.count(401) <= 20 + more
    wait, message = guess("192.0.2.1")
    assert wait <= 3 and "192.0.2.1" in message
    assert ask(other, "192.0.2.1")[0] == 429  # a right guess looks like a wrong one
    assert ask(tenant.key, "192.0.2.1")[0] == 200
    assert ask(other, "192.0.2.2")[0] == 200
    for i in range(20):
        ask("uk-x", f"2001:db8:0:1::{i}")  # a /64 is one
    guess("2001:db8:0:1::ffff")
    assert ask("uk-x", "2001:db8:0:1:a::")[0] == 429 and ask("uk-x", "2001:db8:0:2::1")[0] == 401


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
