"""The database's server is away while 32 streams run and others ask: it has stopped, it does not answer, its connections are cut again and again, and the server is killed
meanwhile. 2 seconds each in a test run, 5 minutes in a campaign (UNKAI_AWAY)."""
import os
import pathlib
import random
import signal
import sys
import time

import pytest

from campaign import SMOL, STREAMS, Round, Stub, how_many, tokens_of
from postgres import Cluster, programs

pytestmark = [pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}"),
              pytest.mark.skipif(programs() is None, reason="there is no PostgreSQL; ./run test installs it")]
GUEST = STREAMS  # the tenant of those who ask meanwhile
NOTICED = 20  # seconds until a server that does not answer is given up: 10, on a busy machine
BACK = 10  # seconds until all is served again
AT_ONCE = 2


class Database(Cluster):
    def stop_at_once(self):
        self.stop(signal.SIGQUIT)

    def family(self):
        """The server's process and those that it has started."""
        parents = {}
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:
                pass
        return [self.process.pid, *(pid for pid, parent in parents.items() if parent == self.process.pid)]

    def send(self, number, pids):
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def fall_silent(self):
        self.send(signal.SIGSTOP, self.family()[:1])
        self.send(signal.SIGSTOP, self.family())

    def speak_again(self):
        self.send(signal.SIGCONT, reversed(self.family()))

    def close(self):
        self.speak_again()
        super().close()

    def cut(self):
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'unkai'")


class Away(Round):
    """The database goes, is away for a while, and comes back, under streams of which some end meanwhile and some later."""

    def __init__(self, server, database, number, seconds):
        speed = min(300, int(7800 / (1 + 1.3 * seconds)))  # tokens a second, so that the longest fits the context
        super().__init__(server, number, [(int(speed * (1 + seconds * random.uniform(0.2, 1.3))), speed) for _ in range(STREAMS)])
        self.database, self.seconds = database, seconds
        self.refused = self.admitted = self.ended = 0
        self.ends = [None] * STREAMS

    def send(self, to, i):
        super().send(to, i)
        self.ends[i] = time.monotonic()

    def ask(self, limit=AT_ONCE):
        """A new request, and /health: what they say, and that they say it at once; what was asked before the silence was noticed waits until it is."""
        start = time.monotonic()
        status, _, body = self.server.exchange(self.server.request({"stream": True, "max_tokens": 40, "seed": 0}, self.server.keys[GUEST]))
        health = self.server.exchange(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")[0]
        assert status in (200, 503) and health in (200, 503), (status, health, body)
        if status == 200:
            self.admitted += 1
            assert tokens_of(body) == (40, True)
        else:
            self.refused += 1
            assert time.monotonic() - start < limit
        return status == health == 200

    def until(self, served, limit):
        start = time.monotonic()
        while self.ask(AT_ONCE if served else limit) != served:
            assert time.monotonic() - start < limit, f"not {'served' if served else 'noticed'} in {limit} seconds"
            time.sleep(0.05)
        return time.monotonic() - start

    def disturb(self):
        self.guest = self.server.usage(f"t{GUEST}")[1]
        time.sleep(random.uniform(0.0, 1.0))
        self.gone = time.monotonic()
        self.go()
        self.while_away()
        self.back = time.monotonic()
        self.come_back()
        self.took = self.until(True, BACK)

    def while_away(self):
        self.until(False, NOTICED)
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            assert not self.ask(), "it was not away"
            time.sleep(0.1)

    def after(self):
        self.server.settled()
        self.ended = sum(self.gone < end < self.back for end in self.ends)
        charged = self.server.usage(f"t{GUEST}")[1] - self.guest
        assert charged == 40 * self.admitted, (charged, self.admitted)

    def compare(self):
        """Every stream ran to its end, and is billed to the token."""
        super().compare()
        for i in range(STREAMS):
            tokens = self.bodies[i]["max_tokens"]
            assert self.first[i][0] == 200 and tokens_of(self.first[i][2]) == (tokens, True) and self.billed[i] == tokens, (i, self.first[i][:2], tokens)
        assert self.ended > 0, "no stream ended while it was away"


class Stopped(Away):
    def go(self):
        self.database.stop_at_once()

    def come_back(self):
        self.database.start()


class Silent(Away):
    def go(self):
        self.database.fall_silent()

    def come_back(self):
        self.database.speak_again()


class Cut(Away):
    """It is there, but never for long."""

    def go(self):
        pass

    def while_away(self):
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            self.database.cut()
            for _ in range(random.randint(0, 3)):
                self.ask()
            time.sleep(random.choice((0.0, 0.01, 0.1, 0.6)) * random.random())

    def come_back(self):
        pass


class Killed(Stopped):
    """The server is killed before the database comes back, and started behind it."""

    def while_away(self):
        self.until(False, NOTICED)
        time.sleep(self.seconds * random.random())
        self.server.kill()

    def come_back(self):
        super().come_back()
        self.server.start()

    def compare(self):
        Round.compare(self)


def test_away(capsys, monkeypatch):
    seconds, database = how_many("AWAY", 2, 300), Database()
    monkeypatch.setenv("UNKAI_TEST_DB", database.url)
    server, told = Stub(STREAMS + 1), []
    try:
        for kind in (Stopped, Silent, Cut, Killed):
            seen = dict.fromkeys(("spent", "replayed", "anew"), 0)
            r = kind(server, database, kind.__name__, seconds)
            r.run()
            r.compare()
            r.ask_again(seen)
            server.verify()
            told.append(f"  {kind.__name__.lower():8} {sum(tokens_of(f[2])[0] for f in r.first):7} tokens received, {sum(r.billed):7} billed; {r.ended:2} streams ended meanwhile; "
                        f"{r.refused:4} new requests refused, {r.admitted:4} served; served again {r.took:.1f} s after it was back; of the keys asked again {seen['replayed']} had "
                        f"their answer, {seen['spent']} were spent, {seen['anew']} began anew")
        server.stop()
        assert "balances" in server.unkai("ledger", "verify")
    finally:
        server.close()
        database.close()
    with capsys.disabled():
        print(f"\nthe database away for {seconds} seconds under {STREAMS} streams:\n" + "\n".join(told) + "\nno hold was left, and the ledger verified each time")


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
