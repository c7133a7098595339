"""The clock jumps by an hour and by a day, forth and back, while 32 streams run, and again before a start after SIGKILL. 4 jumps in a test run, 40 in a campaign
(UNKAI_JUMPS)."""
import random
import struct
import sys
import tempfile
import threading
import time

import pytest

from campaign import CLOCK, SMOL, Stub, how_many, tokens_of

pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
STREAMS, HOUR = 32, 3600
JUMPS = (HOUR, -HOUR, 24 * HOUR, -24 * HOUR)


class Clock:
    """What the server takes for the time: ours, and some seconds."""

    def __init__(self):
        self.file, self.seconds = tempfile.NamedTemporaryFile(), 0
        self.jump(0)

    def jump(self, by):
        self.seconds += by
        self.file.seek(0)
        self.file.write(struct.pack("=q", self.seconds * 10**9))
        self.file.flush()

    def environment(self):
        return {"LD_PRELOAD": CLOCK, "UNKAI_CLOCK_FILE": self.file.name}


def streams_around(server, number, between):
    """32 streams; between() is called while they run. Returns what each was to have, and what it got."""
    bodies = [{"stream": True, "max_tokens": 100 + i, "seed": 400} for i in range(STREAMS)]
    got = [None] * STREAMS

    def one(i):
        got[i] = server.exchange(server.request(bodies[i], server.keys[i], f"{number}-{i}" if i % 2 else None))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(STREAMS)]
    for t in threads:
        t.start()
    time.sleep(random.uniform(0.05, 0.2))
    between()
    for t in threads:
        t.join()
    return bodies, got


def test_clock(capsys):
    jumps, clock, tokens = how_many("JUMPS", 4, 40), Clock(), 0
    server = Stub(STREAMS, clock.environment())
    try:
        for number in range(jumps):
            jump, before = JUMPS[number % len(JUMPS)], [server.usage(f"t{i}")[1] for i in range(STREAMS)]
            bodies, got = streams_around(server, number, lambda: clock.jump(jump))
            server.settled()
            for i in range(STREAMS):
                assert got[i][0] == 200 and tokens_of(got[i][2]) == (bodies[i]["max_tokens"], True), (jump, i, got[i])
                assert server.usage(f"t{i}")[1] - before[i] == bodies[i]["max_tokens"]
                tokens += bodies[i]["max_tokens"]
            again = server.exchange(server.request(bodies[1], server.keys[1], f"{number}-1"))
            assert again[2] == got[1][2] and "idempotent-replayed: true" in again[1]
            server.verify()
            # The same jump between two lives of the server: what was open is settled by a clock that is somewhere else.
            before = [server.usage(f"t{i}")[1] for i in range(STREAMS)]
            bodies, got = streams_around(server, f"cut-{number}", server.kill)
            clock.jump(-jump)
            server.start()
            for i in range(STREAMS):
                received = tokens_of(got[i][2])[0]
                assert 0 <= received - (server.usage(f"t{i}")[1] - before[i]) <= 32
            assert server.metric("ledger_open_holds") == 0
            server.verify()
        server.stop()
        assert "balances" in server.unkai("ledger", "verify")
    finally:
        server.close()
    with capsys.disabled():
        print(f"\n{jumps} jumps of the clock by an hour or a day under {STREAMS} streams, and as many between SIGKILL and the next start: {tokens} tokens of whole streams "
              "received and billed exactly, keys found again, no hold left, the ledger verified each time")


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
