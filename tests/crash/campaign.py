"""What the campaigns share: a server that costs nothing, clients that count what they received, and the books asked through their control socket.

A campaign is short in every test run and long where UNKAI_CAMPAIGN is set (./run campaign); its last word is a sentence that says what was done. With UNKAI_TEST_DB
set (tests/postgres.py) the books lie in PostgreSQL."""
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from server import SMOL
from stream import unchunked

STUB = os.environ["UNKAI_STUB_SERVER"]
CLOCK = os.environ["UNKAI_CLOCK_SHIM"]
UNKAI = os.environ["UNKAI_PROGRAM"]
TOKEN_BYTES = 9
STREAMS, UNBILLED = 32, 32  # of a stream, sent and not billed


def how_many(name, short, long):
    """A number of the environment's (UNKAI_KILLS=50), else that of a campaign or of a test run."""
    return int(os.environ.get("UNKAI_" + name) or (long if os.environ.get("UNKAI_CAMPAIGN") else short))


class Stub:
    """The server and its books: one tenant a stream, tokens that cost enough to see one too many."""

    def __init__(self, tenants=1, environment=None, beside=None):
        """beside: another one, with which it shares its books, and that one's tenants."""
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="unkai-campaign-"))
        self.environment = {**os.environ, "UNKAI_HOME": str(self.home)}
        if beside:
            self.environment["UNKAI_DB"] = beside.environment["UNKAI_DB"]
            shutil.copy(beside.home / "secret", self.home)
        elif server := os.environ.get("UNKAI_TEST_DB"):  # tests/postgres.py: a schema of its own
            subprocess.run(["psql", "-q", server, "-c", f'CREATE SCHEMA "{self.home.name}"'], check=True)
            self.environment["UNKAI_DB"] = f"{server}&options=-csearch_path%3D%22{self.home.name}%22"
        self.serving = {**self.environment, **(environment or {})}
        self.process = None
        if beside:
            self.start()
            self.keys = beside.keys
            return
        self.unkai("price", "set", "stub", "--input", "100", "--cached", "50", "--output", "400.000333", "--currency", "JPY")
        self.start()
        self.keys = []
        for i in range(tenants):
            self.ask({"op": "tenant.create", "name": f"t{i}", "currency": "JPY", "credit": "1000000"})
            self.keys.append(self.ask({"op": "key.create", "tenant": f"t{i}"})["key"])

    def unkai(self, *words):
        done = subprocess.run([UNKAI, *words], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, f"unkai {' '.join(words)}: {done.stdout}"
        return done.stdout

    def start(self):
        with open(self.home / "log", "a") as log:
            self.process = subprocess.Popen([STUB, str(self.home), str(SMOL)], env=self.serving, stdout=subprocess.PIPE, stderr=log)
        line = self.process.stdout.readline()
        assert line.strip(), (self.home / "log").read_text()[-2000:]
        self.port = int(line)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, (self.home / "log").read_text()[-2000:]

    def close(self):
        if self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def ask(self, operation):
        """An operation of the books, by the server that has them open."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(300)
            s.connect(str(self.home / "control.sock"))
            s.sendall(json.dumps(operation).encode() + b"\n")
            data = b""
            while not data.endswith(b"\n"):
                piece = s.recv(1 << 20)
                if not piece:
                    break
                data += piece
        reply = json.loads(data)
        assert "error" not in reply, (operation, reply)
        return reply["result"]

    def usage(self, tenant):
        """(requests, completion tokens) that the books have of a tenant."""
        told = self.ask({"op": "usage", "tenant": tenant})
        return sum(m["requests"] for m in told["models"]), told["completion_tokens"], float(told["held"])

    def verify(self):
        told = self.ask({"op": "ledger.verify"})
        assert told["ok"], told

    def settled(self):
        """Wait until no request is open."""
        end = time.monotonic() + 300
        while self.metric("ledger_open_holds") or self.metric("ledger_queue"):
            assert time.monotonic() < end, "a hold stays open"
            time.sleep(0.02)

    def metric(self, name):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        c.request("GET", "/metrics")
        lines = c.getresponse().read().decode().splitlines()
        c.close()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("unkai_" + name))

    def request(self, body, key, once=None, path="/v1/completions"):
        """A request's bytes. body["seed"] is the speed in tokens a second, 0 for as fast as can be."""
        data = json.dumps({"model": "stub", "prompt": "Hi", **body}).encode()
        more = f"Idempotency-Key: {once}\r\n" if once else ""
        return (f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{more}Connection: close\r\n"
                f"Content-Length: {len(data)}\r\n\r\n").encode() + data

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=300)

    def exchange(self, request):
        """All that comes back until the end, however that comes: status (None: there was no head), headers as text, body."""
        data = b""
        try:
            with self.connect() as s:
                s.sendall(request)
                while piece := s.recv(1 << 16):
                    data += piece
        except OSError:
            pass
        return answer_of(data)


def answer_of(data):
    head, _, body = data.partition(b"\r\n\r\n")
    if not _:
        return None, "", b""
    if b"\r\nTransfer-Encoding: chunked" in head:
        body = unchunked(data)
    return int(head.split()[1]), head.decode().lower(), body


def tokens_of(body):
    """Tokens in the whole events of a stream, as far as it came; and whether its end came."""
    tokens, whole = 0, body.endswith(b"data: [DONE]\n\n")
    for event in body.split(b"\n\n")[:-1]:
        if event.startswith(b"data: {"):
            tokens += sum(len(c["text"]) for c in json.loads(event[6:]).get("choices", [])) // TOKEN_BYTES
    return tokens, whole


def all_at_once(work, items):
    threads = [threading.Thread(target=work, args=(i,)) for i in items]
    for t in threads:
        t.start()
    return threads


class Round:
    """32 streams of 32 tenants, half of them under keys; something happens to them, and what the books say of each afterwards. streams: tokens of each, and how many a second."""

    def __init__(self, server, number, streams):
        self.server, self.before = server, [server.usage(f"t{i}")[1] for i in range(STREAMS)]
        self.keys = [f"{number}-{i}" if i % 2 else None for i in range(STREAMS)]
        self.bodies = [{"stream": True, "max_tokens": tokens, "seed": speed} for tokens, speed in streams]
        self.first, self.again = [None] * STREAMS, [None] * STREAMS

    def send(self, to, i):
        to[i] = self.server.exchange(self.server.request(self.bodies[i], self.server.keys[i], self.keys[i]))

    def run(self):
        threads = all_at_once(lambda i: self.send(self.first, i), range(STREAMS))
        self.disturb()
        for t in threads:
            t.join()
        self.after()

    def compare(self):
        """Billed is what was sent, and at most 32 tokens less."""
        self.billed = []
        for i in range(STREAMS):
            received = tokens_of(self.first[i][2])[0]
            _, tokens, held = self.server.usage(f"t{i}")
            billed = tokens - self.before[i]
            assert held == 0 and billed <= received, (i, billed, received)
            assert received - billed <= UNBILLED, (i, billed, received)
            self.billed.append(billed)

    def ask_again(self, seen):
        keyed = [i for i in range(STREAMS) if self.keys[i]]
        for t in all_at_once(lambda i: self.send(self.again, i), keyed):
            t.join()
        self.server.settled()
        for i in keyed:
            status, head, body = self.again[i]
            charged = self.server.usage(f"t{i}")[1] - self.before[i]
            tokens, whole = tokens_of(body)
            if status == 409:  # it was charged for what it had, once and for all
                seen["spent"] += 1
                assert self.billed[i] > 0 and charged == self.billed[i], (i, charged, self.billed[i])
            elif "idempotent-replayed: true" in head:
                seen["replayed"] += 1
                assert status == 200 and body == self.first[i][2] and whole
                assert charged == self.billed[i] == tokens == self.bodies[i]["max_tokens"]
            else:
                seen["anew"] += 1
                assert status == 200 and whole and self.billed[i] == 0, (i, status, self.billed[i])
                assert charged == tokens == self.bodies[i]["max_tokens"]
