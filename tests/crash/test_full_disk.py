"""The disk fills up under a running server: what runs ends with an error, what comes gets 503, /health says so, and the next start finds books that
verify, with nobody billed for what did not arrive."""
import json
import os
import resource
import subprocess
import sys
import threading

import pytest

from server import SMOL, Server
from stream import read_stream

PROGRAM = os.environ["UNKAI_PROGRAM"]
pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
STREAMS = 8


def test_full_disk():
    server = Server(PROGRAM)
    received, last = [0] * STREAMS, [None] * STREAMS
    try:
        server.start()
        # A file may grow to this size and no further: the log of the books meets it, the log of the server does not.
        wal = (server.home / "books.db-wal").stat().st_size
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (wal + 200000, wal + 200000))
        threads = [threading.Thread(target=read_stream, args=(server, server.key, received, i, last)) for i in range(STREAMS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(300)
        assert not any(t.is_alive() for t in threads), "a stream hangs"
        assert server.process.poll() is None, server.log.read_text()
        assert any("error" in (event or {}) and "books" in event["error"]["message"] for event in last), last
        status, _, body = server.post({"model": "smol", "prompt": "Hi", "max_tokens": 2})
        assert status == 503 and "books" in json.loads(body)["error"]["message"]
        assert server.raw(server.head("/health", "GET", key="") + b"\r\n")[0] == 503
        server.stop()
        server.start()
        assert server.raw(server.head("/health", "GET", key="") + b"\r\n")[0] == 200
        assert server.post({"model": "smol", "prompt": "Hi", "max_tokens": 2, "ignore_eos": True})[0] == 200
        assert server.stop() == 0
        assert "balances" in server.unkai("ledger", "verify")
        usage = json.loads(server.unkai("usage", "one", "--json"))
        billed = usage["completion_tokens"] - 2
        assert float(usage["held"]) == 0 and 0 <= sum(received) - billed <= 32 * STREAMS, (usage, received)
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
