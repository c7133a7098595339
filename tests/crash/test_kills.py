"""SIGKILL at random moments under 32 streams, half of them under idempotency keys: after each the books are compared with what the clients received, and every key is
asked again. 10 kills in a test run, 300 in a campaign (UNKAI_KILLS)."""
import random
import sys
import threading
import time

import pytest

from campaign import SMOL, Stub, how_many, tokens_of

pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
STREAMS, UNBILLED = 32, 32


def all_at_once(work, items):
    threads = [threading.Thread(target=work, args=(i,)) for i in items]
    for t in threads:
        t.start()
    return threads


class Round:
    """32 streams of 32 tenants, cut off by SIGKILL, and what the books say of each afterwards."""

    def __init__(self, server, number):
        self.server, self.before = server, [server.usage(f"t{i}")[1] for i in range(STREAMS)]
        self.keys = [f"{number}-{i}" if i % 2 else None for i in range(STREAMS)]
        self.bodies = [{"stream": True, "max_tokens": random.randint(1, 800), "seed": random.choice((0, 100, 500, 1000, 3000))}
                       for _ in range(STREAMS)]
        self.first, self.again = [None] * STREAMS, [None] * STREAMS

    def send(self, to, i):
        to[i] = self.server.exchange(self.server.request(self.bodies[i], self.server.keys[i], self.keys[i]))

    def run(self):
        threads = all_at_once(lambda i: self.send(self.first, i), range(STREAMS))
        time.sleep(random.uniform(0.0, random.choice((0.03, 0.7))))  # also before the first tokens
        self.server.kill()
        for t in threads:
            t.join()
        self.server.start()

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


def test_kills(capsys):
    kills, server = how_many("KILLS", 10, 300), Stub(STREAMS)
    seen = dict.fromkeys(("received", "billed", "worst", "spent", "replayed", "anew"), 0)
    try:
        for number in range(kills):
            r = Round(server, number)
            r.run()
            r.compare()
            received = [tokens_of(r.first[i][2])[0] for i in range(STREAMS)]
            seen["received"] += sum(received)
            seen["billed"] += sum(r.billed)
            seen["worst"] = max(seen["worst"], *(a - b for a, b in zip(received, r.billed)))
            r.ask_again(seen)
            if number % 20 == 19 or number == kills - 1:
                server.verify()
        assert seen["received"] > 0
        server.stop()
        assert "balances" in server.unkai("ledger", "verify")
    finally:
        server.close()
    with capsys.disabled():
        print(f"\n{kills} kills under {STREAMS} streams: {seen['received']} tokens received, {seen['billed']} of them billed, none that was not received, at "
              f"most {seen['worst']} of a stream not billed; of the keys that were asked again {seen['replayed']} had their answer, {seen['spent']} were "
              f"spent and {seen['anew']} began anew; no hold was left and the ledger verified")


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
