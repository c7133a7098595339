"""Idempotency-Key: whatever is asked again under one key is charged once and answered with the same bytes, and what has no answer says so."""
import json
import os
import sys
import threading

import openai
import pytest

from server import SMOL, Server, wait_until

PROGRAM = os.environ["UNKAI_PROGRAM"]
pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
CHAT = {"model": "smol", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 20, "ignore_eos": True}
LONG = {"model": "smol", "prompt": "Once", "max_tokens": 200, "ignore_eos": True, "stream": True}
BILLED = {"requests": 0, "tokens": 0}


@pytest.fixture(scope="module")
def server():
    s = Server(PROGRAM).start()
    yield s
    code = s.stop()
    told, log = s.unkai("ledger", "verify"), s.log.read_text()
    s.close()
    assert code == 0, log
    assert "balances" in told


def usage(server, tenant="one"):
    told = json.loads(server.unkai("usage", tenant, "--json"))
    return sum(m["requests"] for m in told["models"]), told["completion_tokens"]


@pytest.fixture(autouse=True)
def before(server):
    BILLED.update(zip(("requests", "tokens"), usage(server)))


def ask(server, body, once, path="/v1/chat/completions", **more):
    return server.post(body, path, more=f"Idempotency-Key: {once}\r\nConnection: close\r\n", **more)


def unchunk(headers, body):
    if headers.get("transfer-encoding") != "chunked":
        return body
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole += body[:int(size, 16)]
        body = body[int(size, 16) + 2:]
    return whole


def content(answer):
    status, headers, body = answer
    assert status == 200, body
    return unchunk(headers, body)


def settled(server, requests, tokens=None):
    """The books have that many requests more than before, and none is open."""
    server.settle()
    now = usage(server)
    assert now[0] - BILLED["requests"] == requests, (now, BILLED)
    spent = now[1] - BILLED["tokens"]
    BILLED.update(requests=now[0], tokens=now[1])
    assert tokens is None or spent == tokens, spent
    return spent


@pytest.mark.parametrize("stream", [False, True])
def test_the_same_again(server, stream):
    body = {**CHAT, "stream": stream}
    first = ask(server, body, f"again-{stream}")
    assert "idempotent-replayed" not in first[1]
    for _ in range(3):
        again = ask(server, body, f"again-{stream}")
        assert content(again) == content(first)
        assert again[1]["idempotent-replayed"] == "true" and again[1]["content-type"] == first[1]["content-type"]
    settled(server, 1, 20)
    assert not stream or content(first).endswith(b"data: [DONE]\n\n")


def test_the_official_client(server):
    sent = []
    transport = openai.DefaultHttpxClient(event_hooks={"request": [sent.append]})
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=server.key, max_retries=5, http_client=transport)
    request = {"model": "smol", "messages": CHAT["messages"], "extra_body": {"ignore_eos": True}, "extra_headers": {"Idempotency-Key": "client"}}
    answers = [client.chat.completions.create(**request, max_tokens=20) for _ in range(2)]
    assert answers[0].model_dump() == answers[1].model_dump()
    with pytest.raises(openai.UnprocessableEntityError) as e:
        client.chat.completions.create(**request, max_tokens=21)
    assert e.value.type == "idempotency_error" and e.value.code == "idempotency_key_reused"
    assert e.value.param == "Idempotency-Key"
    assert len(sent) == 3  # nothing is gained by asking again, and it does not
    settled(server, 1, 20)


@pytest.mark.parametrize("stream", [False, True])
def test_ten_at_once(server, stream):
    answers, body = [None] * 10, {**CHAT, "stream": stream, "max_tokens": 40, "temperature": 1.5, "ignore_eos": True}

    def one(i):
        answers[i] = ask(server, body, f"ten-{stream}")

    threads = [threading.Thread(target=one, args=(i,)) for i in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len({content(a) for a in answers}) == 1
    assert sum("idempotent-replayed" in a[1] for a in answers) == 9
    settled(server, 1, 40)


def test_another_body_another_route_another_tenant(server):
    first = ask(server, CHAT, "other")
    assert first[0] == 200
    for path, body in [("/v1/chat/completions", {**CHAT, "temperature": 0}), ("/v1/completions", CHAT), ("/v1/chat/completions", {})]:
        status, headers, answer = ask(server, body, "other", path)
        error = json.loads(answer)["error"]
        assert status == 422 and error["type"] == "idempotency_error" and headers["x-should-retry"] == "false", answer
    stranger = server.tenant("stranger", "1000")
    theirs = ask(server, CHAT, "other", key=stranger)
    assert theirs[0] == 200 and theirs[2] != first[2] and "idempotent-replayed" not in theirs[1]
    assert usage(server, "stranger") == (1, 20)
    settled(server, 1, 20)


def test_another_body_while_the_first_runs(server):
    with server.connect() as s:
        data = json.dumps(LONG).encode()
        s.sendall(server.head(more=f"Idempotency-Key: both\r\nContent-Length: {len(data)}\r\n\r\n") + data)
        assert b"200 OK" in s.recv(4096)
        assert ask(server, {**LONG, "max_tokens": 3}, "both", "/v1/completions")[0] == 422
    settled(server, 1, 200)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_finds_its_answer(server, stream):
    """Billed for all of the answer, which waits for whoever has the key."""
    body, before = {**LONG, "stream": stream}, server.metric("generation_tokens_total")
    with server.connect() as s:
        data = json.dumps(body).encode()
        s.sendall(server.head(more=f"Idempotency-Key: gone-{stream}\r\nContent-Length: {len(data)}\r\n\r\n") + data)
        seen = s.recv(4096) if stream else b""
        wait_until(lambda: server.metric("generation_tokens_total") >= before + 3)
    whole = content(ask(server, body, f"gone-{stream}", "/v1/completions"))
    assert whole.endswith(b"data: [DONE]\n\n" if stream else b"}\n")
    assert not stream or seen.partition(b"\r\n\r\n")[2].split(b"\r\n")[1] in whole
    settled(server, 1, 200)
    assert content(ask(server, body, f"gone-{stream}", "/v1/completions")) == whole
    settled(server, 0, 0)


def test_those_that_wait_may_go_away(server):
    data = json.dumps(LONG).encode()
    request = server.head(more=f"Idempotency-Key: waiters\r\nContent-Length: {len(data)}\r\n\r\n") + data
    sockets = [server.connect() for _ in range(5)]
    for s in sockets:
        s.sendall(request)
    for s in sockets:
        s.close()
    whole = content(ask(server, LONG, "waiters", "/v1/completions"))
    assert whole.endswith(b"data: [DONE]\n\n")
    settled(server, 1, 200)


def test_what_is_refused_is_not_kept(server):
    poor = server.tenant("poor", "0.001")
    for _ in range(2):
        assert ask(server, CHAT, "poor", key=poor)[0] == 402
        assert ask(server, {**CHAT, "temperature": 9}, "wrong")[0] == 400
        assert ask(server, {**CHAT, "model": "none"}, "none")[0] == 404
    server.unkai("tenant", "credit", "poor", "100")
    assert ask(server, CHAT, "poor", key=poor)[0] == 200
    assert ask(server, CHAT, "wrong")[0] == 200  # refused, so the key was free
    settled(server, 1, 20)


def test_keys_that_are_none(server):
    for key in ("", " ", "x" * 256, "a\x01b", "caf\u00e9"):
        status, _, body = ask(server, CHAT, key)
        assert status == 400, (key, body)
    status, _, body = server.post(CHAT, "/v1/chat/completions", more="Idempotency-Key: a\r\nIdempotency-Key: a\r\n")
    assert status == 400 and b"two Idempotency-Key" in body
    longest = "x" * 255
    assert ask(server, CHAT, longest)[0] == 200
    assert ask(server, CHAT, longest + " \t")[1]["idempotent-replayed"] == "true"
    assert ask(server, CHAT, longest[1:] + "y")[1].get("idempotent-replayed") is None
    settled(server, 2, 40)


def echoes(choices):
    """A long answer that costs little: as many choices that repeat 48,000 blanks, which are 750 tokens."""
    return {"model": "smol", "prompt": [" " * 48000] * (choices // 16), "n": 16, "max_tokens": 1, "echo": True}


def test_an_answer_too_long_to_be_kept(server):
    """Delivered and charged as any; the key is spent."""
    assert server.post({**echoes(16), "n": 1})[0] == 200  # from here on the prompt is in the cache
    first = ask(server, echoes(96), "long", "/v1/completions")
    assert first[0] == 200 and len(first[2]) > 4 << 20, len(first[2])
    for _ in range(2):
        status, headers, answer = ask(server, echoes(96), "long", "/v1/completions")
        error = json.loads(answer)["error"]
        assert status == 409 and error["code"] == "idempotency_key_spent" and headers["x-should-retry"] == "false", answer
    settled(server, 2, 97)


def test_ten_readers_of_a_long_answer(server):
    """Kept answers go out piece by piece, however slowly they are read."""
    first = content(ask(server, echoes(48), "large", "/v1/completions"))
    assert 1 << 20 < len(first) < 4 << 20
    data = json.dumps(echoes(48)).encode()
    sockets = [server.connect() for _ in range(10)]
    for s in sockets:
        s.sendall(server.head(more=f"Idempotency-Key: large\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n") + data)
    got = [b""] * 10
    while any(s is not None for s in sockets):
        for i, s in enumerate(sockets):
            piece = s.recv(100000) if s is not None else b""
            got[i] += piece
            if s is not None and not piece:
                s.close()
                sockets[i] = None
    assert all(g.partition(b"\r\n\r\n")[2] == first for g in got)
    settled(server, 1, 48)


def test_after_a_restart(server):
    chat = {**CHAT, "stream": False}
    first = content(ask(server, chat, "again-False"))
    assert ask(server, echoes(96), "long", "/v1/completions")[0] == 409
    assert server.stop() == 0
    server.start()
    again = ask(server, chat, "again-False")
    assert content(again) == first and again[1]["idempotent-replayed"] == "true"
    server.process.kill()
    server.process.wait()
    server.start()
    assert content(ask(server, chat, "again-False")) == first
    settled(server, 0, 0)


def test_an_end_in_the_middle(server):
    """Cut off by the end of the server: charged for what was sent, and the key is spent; where nothing was sent, it is free."""
    long = {**LONG, "max_tokens": 1500}
    data = json.dumps(long).encode()
    assert server.stop() == 0
    server.options = ["--drain", "0", "--max-running", "1"]
    server.start()
    with server.connect() as s, server.connect() as queued:
        s.sendall(server.head(more=f"Idempotency-Key: cut\r\nContent-Length: {len(data)}\r\n\r\n") + data)
        assert b"200 OK" in s.recv(4096)
        queued.sendall(server.head(more=f"Idempotency-Key: queued\r\nContent-Length: {len(data)}\r\n\r\n") + data)
        wait_until(lambda: server.metric("num_requests_waiting") == 1)
        server.stop()
    server.options = []
    server.start()
    assert 0 < settled(server, 2) < 1500
    assert ask(server, long, "cut", "/v1/completions")[0] == 409
    short = {**long, "max_tokens": 3}
    assert ask(server, short, "queued", "/v1/completions")[0] == 200  # another body even: the key is free
    settled(server, 1, 3)


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
