"""Work that is not done twice: how many tokens of chats, retries and choices are found, and that pages which went to the file come back as they were."""
import json
import os
import sys
import tempfile

import pytest

from server import SMOL, Server

PROGRAM = os.environ["UNKAI_PROGRAM"]
pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
PAGE, PAGE_BYTES = 32, 2 * 30 * 3 * 64 * 2 * 32  # SmolLM2: keys and values, layers, heads, values of 16 bits, tokens
STORY = "Once upon a time there was a small town by the sea, and in it lived a clockmaker who had never seen a clock strike thirteen. "
ASIDE = "What happened next? Tell me about the baker, the harbour, the storm of that winter and the bell. "


def whole_pages(tokens):
    return tokens // PAGE * PAGE


@pytest.fixture(scope="module")
def server():
    s = Server(PROGRAM, {"smol": SMOL}).start()
    yield s
    assert s.stop() == 0, s.log.read_text()
    s.close()


def chat(server, messages, key=None, **more):
    status, _, body = server.post({"model": "smol", "messages": messages, "temperature": 0, **more}, "/v1/chat/completions", key=key,
                                  timeout=120)
    assert status == 200, body
    answer = json.loads(body)
    usage = answer["usage"]
    return answer["choices"], usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"], usage["completion_tokens"]


def test_every_turn_finds_what_came_before(server):
    messages, known = [{"role": "system", "content": STORY * 3}], 0
    for turn in range(5):
        messages.append({"role": "user", "content": f"Turn {turn}. {ASIDE}"})
        choices, prompt, cached, made = chat(server, messages, max_tokens=48)
        # All that was computed before, the answers' own tokens too: the last one never was.
        assert cached >= whole_pages(known), (turn, cached, known)
        assert prompt - cached < prompt - known + PAGE
        known = prompt + made - 1
        messages.append({"role": "assistant", "content": choices[0]["message"]["content"]})
    first, prompt, cached, _ = chat(server, messages[:-1], max_tokens=48)  # the client lost the answer and asks again
    assert first[0]["message"]["content"] == messages[-1]["content"]
    assert cached == whole_pages(prompt - 1)  # one token is left to compute


def test_chats_share_a_system_prompt(server):
    system = {"role": "system", "content": "You keep the ledgers of a lighthouse. " + STORY * 4}
    _, _, none, _ = chat(server, [system, {"role": "user", "content": "Hello."}], max_tokens=2)
    _, _, shared, _ = chat(server, [system, {"role": "user", "content": "Who are you?"}], max_tokens=2)
    assert none == 0 and shared >= 96
    other = server.tenant("another", "1000")  # nobody else's time tells what was asked here
    assert chat(server, [system, {"role": "user", "content": "Who are you?"}], key=other, max_tokens=2)[2] == 0


def test_choices_read_their_prompt_once(server):
    messages = [{"role": "user", "content": "Four endings, please. " + STORY * 5}]
    before = server.metric("prompt_tokens_cached_total")
    choices, prompt, cached, _ = chat(server, messages, n=4, max_tokens=4)
    assert len(choices) == 4 and cached == 0  # a prompt is billed once: as the first choice found it
    assert server.metric("prompt_tokens_cached_total") - before == 3 * whole_pages(prompt - 1)


def test_pages_come_back_from_the_file():
    """Memory for one chat, and two of them in turns: each finds all of its pages, and says what it would say without a file."""
    chats = [[{"role": "user", "content": f"Story {i}. " + STORY * 12}] for i in range(2)]
    answers = {}
    with tempfile.TemporaryDirectory() as folder:
        for spill in ("off", folder):
            server = Server(PROGRAM, {"smol": SMOL}, options=["--kv-bytes", str(16 * PAGE_BYTES), "--kv-spill", spill,
                                                             "--kv-spill-bytes", str(100 * PAGE_BYTES)])
            try:
                server.start()
                assert os.listdir(folder) == []
                told = [chat(server, chats[i % 2], max_tokens=24) for i in range(6)]
                answers[spill] = [choices[0]["message"]["content"] for choices, *_ in told]
                prompt = told[0][1]
                assert 10 * PAGE < prompt < 14 * PAGE
                cached = [c for _, _, c, _ in told]
                restored, lost = server.metric("kv_pages_restored_total"), server.metric("kv_pages_lost_total")
                if spill == "off":
                    assert restored == 0 and max(cached[2:]) < whole_pages(prompt)
                else:
                    assert cached[2:] == [whole_pages(told[i % 2][1] - 1) for i in range(4)], cached
                    assert restored > 20 and lost == 0 and server.metric("kv_spill_bytes") > 10 * PAGE_BYTES
                assert server.stop() == 0
            finally:
                server.close()
    assert answers["off"] == answers[folder]


def test_a_folder_that_cannot_be(server):
    words = Server(PROGRAM, {"smol": SMOL}, options=["--kv-spill", "/dev/null/there"])
    try:
        with pytest.raises(AssertionError, match="/dev/null/there"):
            words.start()
    finally:
        words.close()


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
