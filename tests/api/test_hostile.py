"""What strangers may do to the server: rude, slow, broken and hostile clients get a clear error or nothing, and disturb nobody."""
import json
import os
import resource
import shutil
import socket
import struct
import sys
import tempfile
import time

import pytest

from server import SMOL, Server, read_answer, wait_until

PROGRAM = os.environ["UNKAI_PROGRAM"]
pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
LONG = {"model": "smol", "prompt": "Once", "max_tokens": 1500, "ignore_eos": True, "stream": True}


def serving(*options):
    s = Server(PROGRAM, options=["--max-waiting", "8", "--max-running", "4", "--trusted-proxies", "127.0.0.1", *options]).start()
    yield s
    code = s.stop()
    told, log = s.unkai("ledger", "verify"), s.log.read_text()
    s.close()
    assert code == 0, log
    assert "balances" in told


@pytest.fixture(scope="module")
def server():
    yield from serving()


@pytest.fixture(scope="module")
def impatient():
    yield from serving("--client-timeout", "2")


def error_of(answer):
    status, _, body = answer
    return status, json.loads(body)["error"]["message"]


def begin_stream(server, body=None):
    s = server.connect()
    data = json.dumps(body or LONG).encode()
    s.sendall(server.head(more=f"Content-Length: {len(data)}\r\n\r\n") + data)
    assert b"200 OK" in s.recv(4096)
    return s


def wait_for(server, name, value):
    wait_until(lambda: server.metric(name) == value)


def test_every_route_and_method_without_a_key(server):
    sources = iter(range(1 << 16))  # too many wrong keys from one address would be 429
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/smol", "/v1/models/", "/v1", "/", "/admin",
                 "/v1/chat/completions/", "/metrics/", "/health/x", "/v1/../metrics", "//v1/models", "/v1/models?key=1"):
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD"):
            for key in ("", "wrong", "x" * 5000):
                n = next(sources)
                more = f"X-Forwarded-For: 10.0.{n >> 8}.{n & 255}\r\nContent-Length: 0\r\n\r\n"
                status = server.raw(server.head(path, method, key=key, more=more))[0]
                assert status in (401, 404, 405), (method, path, status)
    for path in ("/health", "/metrics"):
        assert server.raw(server.head(path, "GET", key="", more="\r\n"))[0] == 200
        assert server.raw(server.head(path, "POST", key="", more="Content-Length: 0\r\n\r\n"))[0] == 405


def test_401_names_its_scheme(server):
    status, headers, body = server.post({"model": "smol", "prompt": "x"}, key="sk-wrong")
    assert status == 401 and headers["www-authenticate"].startswith("Bearer") and b"invalid_api_key" in body


def tokens_made_in_vain(server, s):
    """However fast or busy the machine is: of 1,500 tokens, those that were made after the client had left."""
    before = server.metric("generation_tokens_total")
    s.close()
    wait_for(server, "num_requests_running", 0)
    return server.metric("generation_tokens_total") - before


def test_a_departed_client_ends_its_generation_at_once(server):
    """The median of five: other work on the machine may hold up one, but not most of them."""
    made = []
    for i in range(5):
        s = begin_stream(server, {**LONG, "prompt": f"Tell {i}"})
        assert server.metric("num_requests_running") == 1
        made.append(tokens_made_in_vain(server, s))
    assert sorted(made)[2] < 15, made


def test_a_departed_client_is_noticed_while_nothing_is_sent(server):
    """Not a byte is due before the whole answer is there, so only the socket itself can tell."""
    body = json.dumps({**LONG, "stream": False}).encode()
    made = []
    for _ in range(5):
        s = server.connect()
        s.sendall(server.head(more=f"Content-Length: {len(body)}\r\n\r\n") + body)
        wait_for(server, "num_requests_running", 1)
        made.append(tokens_made_in_vain(server, s))
    assert sorted(made)[2] < 15, made


def test_half_closed(server):
    body = json.dumps({**LONG, "stream": False}).encode()
    s = server.connect()
    s.sendall(server.head(more=f"Content-Length: {len(body)}\r\n\r\n") + body)
    s.shutdown(socket.SHUT_WR)
    assert s.recv(100) == b""  # an answer in the making is taken as unwanted
    s = server.connect()
    s.sendall(server.head("/health", "GET", more="\r\n"))
    s.shutdown(socket.SHUT_WR)
    assert read_answer(s)[0] == 200
    s = server.connect()
    s.sendall(server.head(more="Content-Length: 100\r\n\r\n") + b"{")
    s.shutdown(socket.SHUT_WR)
    assert error_of(read_answer(s))[0] == 400
    wait_for(server, "num_requests_running", 0)


def test_reset_connections(server):
    for _ in range(50):
        s = server.connect()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.sendall(server.head(more="Content-Length: 10\r\n\r\n") + b"{}")
        s.close()
    assert server.raw(server.head("/health", "GET", more="\r\n"))[0] == 200


def test_chunked_bodies(server):
    body = json.dumps({"model": "smol", "prompt": "Hi", "max_tokens": 2}).encode()
    chunked = b"".join(b"%x;name=value\r\n%s\r\n" % (len(p), p) for p in (body[:7], body[7:8], body[8:])) + b"0\r\nTrailer: x\r\n\r\n"
    assert server.raw(server.head(more="Transfer-Encoding: chunked\r\n\r\n") + chunked)[0] == 200
    big = server.head(more="Transfer-Encoding: chunked\r\n\r\n")
    s = server.connect()
    try:
        s.sendall(big)
        for _ in range(20):
            s.sendall(b"80000\r\n" + b" " * 0x80000 + b"\r\n")
    except OSError:
        pass
    assert error_of(read_answer(s))[0] == 413


@pytest.mark.parametrize("more, body", [
    ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), ("Content-Length: 4\r\nContent-Length: 5\r\n", b"{}  "),
    ("Content-Length: -1\r\n", b""), ("Content-Length: 99999999999999999999999\r\n", b""), ("Transfer-Encoding: gzip\r\n", b""),
    ("Transfer-Encoding: chunked\r\n", b"zz\r\n"), ("Transfer-Encoding: chunked\r\n", b"ffffffffffffffffffff\r\n"),
    ("Bad Header\r\n", b""), ("Authorization: Bearer other\r\n", b""), ("Content-Length : 2\r\n", b"{}"),
    ("Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
])
def test_smuggling_and_nonsense(server, more, body):
    status, headers, _ = server.raw(server.head(more=more + "\r\n") + body)
    assert status in (400, 413) and headers["connection"] == "close"


def test_not_http(server):
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 4000, b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        with server.connect() as s:
            s.sendall(data)
            assert read_answer(s)[0] in (400, 404, None)


def test_oversized(server):
    assert server.raw(server.head(more="X: " + "a" * 100000 + "\r\n\r\n"))[0] == 431
    assert server.raw(b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n")[0] in (400, 431)
    assert error_of(server.raw(server.head(more=f"Content-Length: {1 << 30}\r\n\r\n")))[0] == 413
    # The key is asked for before the body.
    assert server.raw(server.head(key="wrong", more=f"Content-Length: {1 << 30}\r\nExpect: 100-continue\r\n\r\n"))[0] == 401


def test_expect_continue(server):
    body = json.dumps({"model": "smol", "prompt": "Hi", "max_tokens": 1}).encode()
    with server.connect() as s:
        s.sendall(server.head(more=f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"))
        assert s.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(body)
        assert read_answer(s)[0] == 200


def test_words_that_come_in_pieces(server):
    """A header's name and value are what they are, however the network cuts them."""
    body = json.dumps({"model": "smol", "prompt": "Hi", "max_tokens": 1}).encode()
    head = server.head(more=f"Empty:\r\nExpect: 100-Continue\r\nContent-Length: {len(body)}\r\nContent-Encoding: identity\r\n\r\n")
    with server.connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(head)):
            s.sendall(head[i:i + 1])
            time.sleep(0.0005)
        assert s.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(body)
        assert read_answer(s)[0] == 200


def test_blanks_behind_a_key(server):
    head = server.head("/v1/models", "GET").rstrip() + b" \t\r\n\r\n"
    assert server.raw(head)[0] == 200


def test_an_encoded_body_is_415(server):
    status, headers, body = server.post(b"\x1f\x8b\x08\x00", more="Content-Encoding: gzip\r\n")
    assert status == 415 and headers["accept-encoding"] == "identity" and b"Content-Encoding" in body


def test_head_and_whole_uris(server):
    with server.connect() as s:
        s.sendall(server.head("/health", "HEAD", key="", more="\r\n") + server.head("http://any.host/health?x=1", "GET", key="", more="\r\n"))
        data = s.recv(65536)
        while data.count(b"\r\n\r\n") < 2 or not data.endswith(b"}\n"):
            data += s.recv(65536)
    assert data.count(b"200 OK") == 2 and data.count(b'"status"') == 1
    assert server.raw(server.head("http://any.host", "GET", more="\r\n"))[0] == 404
    assert server.raw(server.head("/v1/completions", "HEAD", more="\r\n"))[1]["allow"] == "POST"


def test_old_clients(server):
    """HTTP/1.0 ends an answer with the connection, unless keep-alive was asked for and granted."""
    _, headers, _ = server.raw(b"GET /health HTTP/1.0\r\n\r\n")
    assert headers["connection"] == "close"
    with server.connect() as s:
        for _ in range(2):
            s.sendall(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            status, headers, _ = read_answer(s)
            assert status == 200 and headers["connection"] == "keep-alive"
    body = json.dumps({"model": "smol", "prompt": "Hi", "max_tokens": 2, "stream": True}).encode()
    head = server.head(more=f"Content-Length: {len(body)}\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")
    status, headers, body = server.raw(head + body)
    assert "transfer-encoding" not in headers and body.startswith(b"data: {") and body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": "smol", "prompt": "\xff"}', b"[" * 1000000, b'{"a":' * 500000, b'{"n": 1e999}',
    b'{"model": "smol", "prompt": "x", "n": 99999999999999999999}', b'"' + b"a" * 1000000,
    b'{"model":"smol","prompt":"x","logit_bias":{' + b",".join(b'"%d":1' % i for i in range(500000)) + b"}}",
])
def test_broken_json(server, body):
    assert error_of(server.post(body))[0] == 400


def test_pipelined_requests(server):
    one = server.head("/health", "GET", more="\r\n")
    with server.connect() as s:
        s.sendall(one * 20)
        data = b""
        while data.count(b"200 OK") < 20:
            piece = s.recv(65536)
            assert piece
            data += piece


def test_slow_heads_bodies_and_readers(impatient):
    """A byte now and then is no progress."""
    head, body, idle = impatient.connect(), impatient.connect(), impatient.connect()
    body.sendall(impatient.head(more="Content-Length: 1000\r\n\r\n"))
    reader = begin_stream(impatient, {**LONG, "max_tokens": 1900})
    start, ended = time.monotonic(), {}
    while time.monotonic() - start < 30 and len(ended) < 2:
        for name, s in (("head", head), ("body", body)):
            try:
                s.sendall(b"X")
                s.settimeout(0.02)
                answer = s.recv(1000)
                ended.setdefault(name, answer)
            except socket.timeout:
                pass
            except OSError:
                ended.setdefault(name, b"")
        time.sleep(0.1)
    assert set(ended) == {"head", "body"} and b"408" in ended["body"]
    assert idle.recv(10) == b""
    for s in (head, body, idle, reader):
        s.close()


def test_stalled_readers_hold_nothing_up(impatient):
    """They are cut off in the end; until then the engine waits for them within its window, and others are served."""
    stalled = []
    for _ in range(4):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.connect(("127.0.0.1", impatient.port))
        data = json.dumps(LONG).encode()
        s.sendall(impatient.head(more=f"Content-Length: {len(data)}\r\n\r\n") + data)
        stalled.append(s)
    time.sleep(1)
    assert impatient.post({"model": "smol", "prompt": "Hi", "max_tokens": 3})[0] == 200
    wait_for(impatient, "num_requests_running", 0)
    for s in stalled:
        s.close()


def test_a_full_queue_is_429(server):
    streams, refused = [], None
    body = json.dumps({**LONG, "prompt": "Wait"}).encode()
    for _ in range(40):
        s = server.connect()
        s.sendall(server.head(more=f"Content-Length: {len(body)}\r\n\r\n") + body)
        streams.append(s)
        s.settimeout(0.05)
        try:
            first = s.recv(65536)
        except socket.timeout:
            continue
        if b" 429 " in first[:20]:
            refused = first
            break
    for s in streams:
        s.close()
    assert refused is not None and b"Retry-After: " in refused and b"rate_limit" in refused
    wait_for(server, "num_requests_running", 0)


def test_many_connections(server):
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(few, min(most, 4096)), most))
    many = [server.connect() for _ in range(2000)]
    assert server.raw(server.head("/health", "GET", more="\r\n"))[0] == 200
    for s in many:
        s.close()


def test_a_truncated_model_fails_alone():
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "smol.gguf")
        shutil.copy(SMOL, copy)
        s = Server(PROGRAM, {"whole": SMOL, "cut": copy}).start()
        try:
            assert s.post({"model": "cut", "prompt": "Hi", "max_tokens": 2})[0] == 200
            os.truncate(copy, 4096)
            answers = [s.post({"model": "cut", "prompt": f"Hello {i}", "max_tokens": 2}) for i in range(3)]
            assert answers[-1][0] == 503, answers
            assert "cut" in error_of(answers[-1])[1] or "truncated" in error_of(answers[-1])[1]
            assert s.post({"model": "whole", "prompt": "Hi", "max_tokens": 2})[0] == 200
            assert s.stop() == 0
        finally:
            s.close()


def test_sigterm_lets_streams_finish():
    s = Server(PROGRAM).start()
    try:
        stream = begin_stream(s, {**LONG, "max_tokens": 150})
        s.process.terminate()
        data = b""
        while piece := stream.recv(65536):
            data += piece
        assert b"[DONE]" in data
        assert s.process.wait(60) == 0
        assert json.loads(s.unkai("usage", "one", "--json"))["completion_tokens"] == 150
    finally:
        s.close()


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
