"""SIGKILL in the middle of 32 streams: after a restart the ledger verifies, no hold is open, nobody is charged for more than was sent,
and at most 32 tokens a stream go unbilled."""
import json
import os
import random
import sys
import threading
import time

import pytest

from server import SMOL, Server
from stream import read_stream

PROGRAM = os.environ["UNKAI_PROGRAM"]
pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
STREAMS, ROUNDS = 32, 4


def wait_until_under_way(server):
    """However slow the machine is just now: some tokens for each stream have been made."""
    end = time.monotonic() + 300
    while server.metric("generation_tokens_total") < 2 * STREAMS:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("streams_of_one", [False, True])
def test_sigkill_in_the_middle_of_32_streams(streams_of_one):
    server = Server(PROGRAM, options=["--max-running", "32"])
    try:
        keys = [server.key] * STREAMS if streams_of_one else [server.tenant(f"t{i}", "1000") for i in range(STREAMS)]
        names = ["one"] if streams_of_one else [f"t{i}" for i in range(STREAMS)]
        total = [0] * STREAMS
        for _ in range(ROUNDS):
            server.start()
            received = [0] * STREAMS
            threads = [threading.Thread(target=read_stream, args=(server, keys[i], received, i)) for i in range(STREAMS)]
            for t in threads:
                t.start()
            wait_until_under_way(server)
            time.sleep(random.uniform(0.1, 3))
            server.process.kill()
            server.process.wait()
            for t in threads:
                t.join()
            total = [a + b for a, b in zip(total, received)]
            assert sum(received) > 0
        server.start()  # recovers
        assert server.stop() == 0
        assert "balances" in server.unkai("ledger", "verify")
        sent = [sum(total)] if streams_of_one else total
        allowed = 32 * ROUNDS * (STREAMS if streams_of_one else 1)
        for name, tokens in zip(names, sent):
            usage = json.loads(server.unkai("usage", name, "--json"))
            billed = usage["completion_tokens"]
            assert float(usage["held"]) == 0, usage
            assert billed <= tokens, (name, billed, tokens)
            assert tokens - billed <= allowed, (name, billed, tokens)
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
