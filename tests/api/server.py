"""A server of its own for a test: data folder, tenant, key, port; and plain sockets to speak to it. Used by tests/api and tests/crash."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.request

MODELS = pathlib.Path(os.environ.get("UNKAI_MODELS") or pathlib.Path.home() / ".local/share/unkai/models")
SMOL, GEMMA = MODELS / "smollm2-135m-q4_1.gguf", MODELS / "gemma3-270m-q4_k_m.gguf"


def held_port():
    """A port that nobody else on this machine is given as long as the socket lives; whoever names it may listen on it, as servers do (SO_REUSEADDR)."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    return s, s.getsockname()[1]


def wait_until(happened, seconds=60):
    """What it says, as soon as that is true; however slow the machine is just now."""
    end = time.monotonic() + seconds
    while not (told := happened()):
        assert time.monotonic() < end, told
        time.sleep(0.01)
    return told


def within_a_day(seconds=60):
    """For what counts by days or months: where midnight (UTC) is nearer than that, it passes first."""
    left = 86400 - time.time() % 86400
    if left < seconds:
        time.sleep(left + 1)


class Server:
    def __init__(self, program, models=None, credit="1000", options=()):
        self.program, self.options = str(program), list(options)
        self.models = models or {"smol": SMOL}
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="unkai-test-"))
        self.environment = {**os.environ, "UNKAI_HOME": str(self.home)}
        if on := os.environ.get("UNKAI_TEST_DB"):  # tests/postgres.py: a schema of its own
            subprocess.run(["psql", "-q", on, "-c", f'CREATE SCHEMA "{self.home.name}"'], check=True)
            self.environment["UNKAI_DB"] = f"{on}&options=-csearch_path%3D%22{self.home.name}%22"
        self.process, self.listen, self.log = None, "127.0.0.1", self.home / "log"
        self.held, self.port = held_port()
        self.key = self.tenant("one", credit)

    def unkai(self, *words):
        done = subprocess.run([self.program, *words], env=self.environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, f"unkai {' '.join(words)}: {done.stdout}"
        return done.stdout

    def sql(self, text):
        """Behind the program's back, on either database: what it says, a list of a row's values for each row. Text alone, and no semicolon in it."""
        if "UNKAI_DB" in self.environment:
            done = subprocess.run(["psql", "-qtA", "-v", "ON_ERROR_STOP=1", self.environment["UNKAI_DB"], "-c", text], check=True, stdout=subprocess.PIPE, text=True)
            return [line.split("|") for line in done.stdout.splitlines()]
        with contextlib.closing(sqlite3.connect(self.home / "books.db")) as books, books:
            return [[str(value) for value in row] for row in books.execute(text)]

    def dump(self):
        """Everything that the books hold, as bytes."""
        if "UNKAI_DB" not in self.environment:
            return b"".join(p.read_bytes() for p in self.home.glob("books.db*"))
        return subprocess.run(["pg_dump", "-n", f'"{self.home.name}"', self.environment["UNKAI_TEST_DB"]], check=True, stdout=subprocess.PIPE).stdout

    def tenant(self, name, credit):
        self.unkai("tenant", "create", name, "--credit", credit, "--currency", "JPY", "--json")
        for model in self.models:
            self.unkai("price", "set", model, "--input", "100", "--cached", "50", "--output", "400", "--currency", "JPY", "--json")
        return json.loads(self.unkai("key", "create", name, "--json"))["key"]

    def start(self):
        words = [self.program, "serve", "--listen", f"{self.listen}:{self.port}", *self.options]
        for name, path in self.models.items():
            words += ["--model", f"{name}={path}"]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(words, env=self.environment, stderr=log, stdout=log)
        for _ in range(1200):
            assert self.process.poll() is None, self.log.read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the server did not start")

    def stop(self, number=signal.SIGTERM, wait=120):
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(wait)
        return self.process.returncode if self.process else None

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.held.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as r:
            lines = r.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("unkai_" + name))

    def settle(self):
        """Wait until the books have all that was answered."""
        wait_until(lambda: self.metric("ledger_open_holds") == self.metric("ledger_queue") == 0)

    def connect(self, timeout=120):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def head(self, path="/v1/completions", method="POST", key=None, more=""):
        key = self.key if key is None else key
        auth = f"Authorization: Bearer {key}\r\n" if key else ""
        return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{auth}{more}".encode()

    def raw(self, data, timeout=120):
        """Send bytes, read one answer: status, headers, body."""
        with self.connect(timeout) as s:
            s.sendall(data)
            return read_answer(s, data.startswith(b"HEAD "))

    def post(self, body, path="/v1/completions", key=None, more="", timeout=120):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.raw(self.head(path, key=key, more=f"Content-Length: {len(data)}\r\n{more}\r\n") + data, timeout)


def read_answer(s, headless=False):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = s.recv(65536)
        if not piece:
            return None, {}, data
        data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
    length = 0 if headless else int(headers.get("content-length", -1))
    while length < 0 or len(body) < length:
        piece = s.recv(65536)
        if not piece:
            break
        body += piece
    return int(lines[0].split()[1]), headers, body
