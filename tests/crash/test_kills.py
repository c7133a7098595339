"""SIGKILL at random moments under 32 streams, half of them under idempotency keys: after each the books are compared with what the clients received, and every key is
asked again. 10 kills in a test run, 300 in a campaign (UNKAI_KILLS)."""
import random
import sys
import time

import pytest

from campaign import SMOL, STREAMS, Round, Stub, how_many, tokens_of

pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")


class Kill(Round):
    def disturb(self):
        time.sleep(random.uniform(0.0, random.choice((0.03, 0.7))))  # also before the first tokens
        self.server.kill()

    def after(self):
        self.server.start()


def test_kills(capsys):
    kills, server = how_many("KILLS", 10, 300), Stub(STREAMS)
    seen = dict.fromkeys(("received", "billed", "worst", "spent", "replayed", "anew"), 0)
    try:
        for number in range(kills):
            r = Kill(server, number, [(random.randint(1, 800), random.choice((0, 100, 500, 1000, 3000))) for _ in range(STREAMS)])
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
