"""Every request sent ten times at once under one idempotency key, while some of the ten go away: one is charged, and all that stay have the same bytes. 30 keys in a test
run, 3,000 in a campaign (UNKAI_KEYS)."""
import random
import sys
import threading

import pytest

from campaign import SMOL, Stub, how_many, tokens_of

pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
TIMES = 10


def ten_at_once(server, number, stay):
    body = {"stream": number % 2 == 0, "max_tokens": random.randint(1, 100), "seed": random.choice((0, 1000, 3000))}
    request, answers = server.request(body, server.keys[0], f"key-{number}"), [None] * TIMES
    barrier = threading.Barrier(TIMES)

    def one(i):
        barrier.wait()
        if i < stay:
            answers[i] = server.exchange(request)
            return
        with server.connect() as s:
            s.sendall(request)
            s.recv(random.randint(1, 500)) if random.random() < 0.5 else None

    threads = [threading.Thread(target=one, args=(i,)) for i in range(TIMES)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return body, [a for a in answers if a is not None]


def test_keys(capsys):
    keys, server, asked, stayed, replayed = how_many("KEYS", 30, 3000), Stub(), 0, 0, 0
    try:
        for number in range(keys):
            body, answers = ten_at_once(server, number, random.choice((10, 10, 7, 1)))
            assert all(status == 200 for status, _, _ in answers), answers
            assert len({a[2] for a in answers}) == 1
            if body["stream"]:
                assert tokens_of(answers[0][2]) == (body["max_tokens"], True)
            again = sum("idempotent-replayed" in head for _, head, _ in answers)
            assert again >= len(answers) - 1
            stayed, replayed, asked = stayed + len(answers), replayed + again, asked + body["max_tokens"]
        server.settled()
        assert server.usage("t0") == (keys, asked, 0)
        server.verify()
        server.stop()
    finally:
        server.close()
    with capsys.disabled():
        print(f"\n{keys} keys, each sent {TIMES} times at once: {keys} requests and {asked} tokens charged; {stayed} clients stayed and had the same bytes, {replayed} of "
              "them again")


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
