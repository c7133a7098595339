"""Streams cut at any byte, of the request or of the answer, by clients that stop sending, vanish, or reset the connection; some under a key, and asked again. 500 in a test
run, 100,000 in a campaign (UNKAI_CUTS)."""
import random
import socket
import struct
import sys
import threading

import pytest

from campaign import SMOL, Stub, answer_of, how_many, tokens_of

pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
CLIENTS = 12
EVENT = 230  # bytes of one, about
# What a client does behind the last byte that it wants. One tenant a kind, so that the books tell them apart.
KINDS = ("stops sending", "vanishes", "resets", "in the request", "under a key")


class Client(threading.Thread):
    def __init__(self, server, counter, seed):
        super().__init__()
        self.server, self.counter, self.random = server, counter, random.Random(seed)
        self.seen = [{"streams": 0, "received": 0, "asked": 0} for _ in KINDS]
        self.wrong = None

    def run(self):
        try:
            while (n := next(self.counter, None)) is not None:
                self.one(n)
        except BaseException as e:  # told by the main thread
            self.wrong = e

    def one(self, n):
        kind = self.random.randrange(len(KINDS))
        body = {"stream": True, "max_tokens": self.random.randint(1, 60), "seed": self.random.choice((0, 0, 500, 5000))}
        request = self.server.request(body, self.server.keys[kind], f"cut-{n}" if kind == 4 else None)
        if kind == 3:
            request = request[:self.random.randrange(len(request))]
        received = self.cut(kind, request, self.random.randint(0, (body["max_tokens"] + 2) * EVENT))
        seen = self.seen[kind]
        seen["streams"] += 1
        seen["asked"] += body["max_tokens"]
        seen["received"] += tokens_of(received)[0]
        if kind == 4:
            status, _, whole = self.server.exchange(request)
            assert status == 200 and whole.startswith(received) and tokens_of(whole) == (body["max_tokens"], True)

    def cut(self, kind, request, wanted):
        """The answer's body, as far as it came."""
        data = b""
        s = self.server.connect()
        s.sendall(request)
        try:
            while kind != 3 and len(data) < wanted and (piece := s.recv(min(4096, wanted - len(data)))):
                data += piece
            if kind == 0:
                s.shutdown(socket.SHUT_WR)  # as good as gone, and what was sent before can still be read
                while piece := s.recv(1 << 16):
                    data += piece
            elif kind == 2:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            assert kind != 0
        s.close()
        return answer_of(data)[2]


def test_cuts(capsys):
    cuts, server = how_many("CUTS", 500, 100000), Stub(len(KINDS))
    try:
        counter = iter(range(cuts))
        clients = [Client(server, counter, random.getrandbits(64)) for _ in range(CLIENTS)]
        for c in clients:
            c.start()
        for c in clients:
            c.join()
        for c in clients:
            if c.wrong:
                raise c.wrong
        server.settled()
        total = [{k: sum(c.seen[i][k] for c in clients) for k in clients[0].seen[i]} for i in range(len(KINDS))]
        billed = [server.usage(f"t{i}")[1] for i in range(len(KINDS))]
        assert 0 <= total[0]["received"] - billed[0] <= total[0]["streams"]  # an event's last byte may have been on its way
        for i in (1, 2):
            assert total[i]["received"] <= billed[i] <= total[i]["asked"]  # what was on its way to them was taken by the socket
        assert billed[3] == 0 and billed[4] == total[4]["asked"]
        assert all(server.usage(f"t{i}")[2] == 0 for i in range(len(KINDS)))
        server.verify()
        server.stop()
    finally:
        server.close()
    with capsys.disabled():
        print(f"\n{cuts} streams cut at a random byte by clients that")
        for kind, t, b in zip(KINDS, total, billed):
            print(f"  {kind:15} {t['streams']:6} streams, {t['received']:8} tokens received, {b:8} billed")
        print("no hold was left and the ledger verified")


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
