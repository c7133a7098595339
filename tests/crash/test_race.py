"""Clients of two nodes that share their books race for the last units of a tenant's credit: as many as there are units get one, wherever they ask. 200 clients in a test run, 1,000
in a campaign (UNKAI_CLIENTS); every other time one of the nodes is killed meanwhile."""
import os
import random
import selectors
import sys
import time

import pytest

from campaign import SMOL, Stub, answer_of, how_many

pytestmark = [pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}"),
              pytest.mark.skipif("UNKAI_TEST_DB" not in os.environ, reason="nodes share a PostgreSQL: tests/postgres.py")]


def all_together(nodes, clients, key, meanwhile):
    """Everybody is connected before anybody asks; (node, status, body) of each. Some answers are cut off when a node is killed."""
    request = nodes[0].request({"max_tokens": 1, "seed": 0}, key)
    sockets = [nodes[i % len(nodes)].connect() for i in range(clients)]
    answers, left = [b""] * clients, clients
    with selectors.DefaultSelector() as select:
        for i, s in enumerate(sockets):
            s.sendall(request)
            s.setblocking(False)
            select.register(s, selectors.EVENT_READ, i)
        meanwhile()
        end = time.monotonic() + 60
        while left:
            assert time.monotonic() < end, f"{left} have no answer"
            for ready, _ in select.select(1):
                try:
                    piece = ready.fileobj.recv(1 << 16)
                except ConnectionError:
                    piece = b""
                answers[ready.data] += piece
                if not piece:
                    select.unregister(ready.fileobj)
                    ready.fileobj.close()
                    left -= 1
    return [answer_of(a)[0] for a in answers]


def test_race(capsys):
    clients, rounds = how_many("CLIENTS", 200, 1000), how_many("RACES", 4, 40)
    first = Stub()
    second = Stub(beside=first)
    nodes, won, killed = [first, second], 0, 0
    try:
        first.unkai("price", "set", "stub", "--input", "0", "--output", "1000000", "--currency", "USD")  # a token is a dollar
        for number in range(rounds):
            units, name = random.choice((1, 1, 5, 30)), f"race{number}"
            nodes[number % 2].ask({"op": "tenant.create", "name": name, "currency": "USD", "credit": str(units)})
            nodes[0].ask({"op": "limit.set", "tenant": name, "concurrency": 100000})
            key = nodes[0].ask({"op": "key.create", "tenant": name})["key"]
            time.sleep(1.5)  # until the other node knows the key
            kill = number % 2 == 1
            got = all_together(nodes, clients, key, second.kill if kill else lambda: None)
            if kill:
                killed += 1
                second.start()
            for node in nodes:
                node.settled()
            status = {s: got.count(s) for s in set(got)}
            sold = first.usage(name)[1]
            assert set(status) <= {200, 402, None} and (kill or None not in status), status
            if kill:  # what was sent a moment before may be unbilled, at most 32 tokens of each; nothing is sold twice
                assert max(sold, status.get(200, 0)) <= units, (sold, units, status)
            else:
                assert sold == status[200] == units, (sold, units, status)
            for node in nodes:
                told = node.ask({"op": "tenant.show", "name": name})
                assert (float(told["balance"]), float(told["held"])) == (units - sold, 0), told
            won += sold
        for node in nodes:
            node.verify()
            node.stop()
    finally:
        second.close()
        first.close()
    with capsys.disabled():
        print(f"\n{rounds} races of {clients} clients on two nodes: {won} units sold, none twice; a node was killed in {killed} of them")


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
