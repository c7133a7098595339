#!/usr/bin/env python3
"""Serves models to paying tenants for as long as a load is replayed against them: cloud.py BUILD NAME=MODEL.gguf ... -- OPTIONS OF bench/serve

A server on a free port, with a data folder of its own that is removed at the end: tenants with credit and a key each, a price, the books on. Options of
`unkai serve` go into $UNKAI_SERVE. What bench/serve is given, it gets with the models, keys and address added."""
import json
import os
import pathlib
import shlex
import socket
import subprocess
import sys
import tempfile
import time

TENANTS = 16


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, process, log):
    while True:
        if process.poll() is not None:
            sys.exit(f"the server did not start:\n{log.read_text()}")
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)


def main():
    if "--" not in sys.argv or len(sys.argv) < 4:
        sys.exit(__doc__)
    cut = sys.argv.index("--")
    build, models, options = pathlib.Path(sys.argv[1]), sys.argv[2:cut], sys.argv[cut + 1:]
    names = [m.split("=")[0] for m in models]
    with tempfile.TemporaryDirectory(prefix="unkai-bench-") as folder:
        home = pathlib.Path(folder)
        environment = {**os.environ, "UNKAI_HOME": folder}

        def unkai(*words):
            return subprocess.run([build / "src/unkai", *words], env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

        for name in names:
            unkai("price", "set", name, "--input", "15", "--cached", "7.5", "--output", "60", "--currency", "JPY")
        for i in range(TENANTS):
            unkai("tenant", "create", f"tenant-{i}", "--credit", "1000000", "--currency", "JPY")
            with open(home / "keys", "a", encoding="utf-8") as keys:
                keys.write(json.loads(unkai("key", "create", f"tenant-{i}", "--json"))["key"] + "\n")
        port, log = free_port(), home / "log"
        words = [build / "src/unkai", "serve", "--listen", f"127.0.0.1:{port}", *shlex.split(os.environ.get("UNKAI_SERVE", ""))]
        for model in models:
            words += ["--model", model]
        with open(log, "w", encoding="utf-8") as out:
            server = subprocess.Popen(words, env=environment, stdout=out, stderr=out)
        try:
            wait_for(port, server, log)
            given = [word for name in names for word in ("--model", name)]
            done = subprocess.run([build / "bench/serve", *given, "--keys", home / "keys", *options, f"http://127.0.0.1:{port}/v1"])
        finally:
            server.terminate()
            server.wait()
        print(unkai("ledger", "verify").strip(), file=sys.stderr)
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
