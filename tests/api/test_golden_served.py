"""The golden continuations through the whole engine: six prompts at once over the API, on the reference path; and on the fast path the
same answers alone and in company."""
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys

import pytest

from server import GEMMA, SMOL, Server

PROGRAM = os.environ["UNKAI_PROGRAM"]
pytestmark = pytest.mark.skipif(not SMOL.exists() or not GEMMA.exists(), reason=f"the models are not in {SMOL.parent}")
FOLDER = pathlib.Path(__file__).parent.parent / "golden"
MODELS = {"smol": SMOL, "gemma": GEMMA}
GOLDEN = {name: json.loads((FOLDER / (path.stem + ".json")).read_text(encoding="utf-8")) for name, path in MODELS.items()}
PROMPTS = [(name, prompt) for name in MODELS for prompt in GOLDEN[name]["prompts"]]


def answer(server, item):
    name, prompt = item
    status, _, body = server.post({"model": name, "prompt": prompt["ids"], "max_tokens": len(prompt["greedy"]), "temperature": 0,
                                   "ignore_eos": True}, timeout=300)
    assert status == 200, body
    return json.loads(body)["choices"][0]["text"]


def together(server):
    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
        return list(pool.map(lambda item: answer(server, item), PROMPTS))


def text(name, ids):
    done = subprocess.run([PROGRAM, "tokenize", str(MODELS[name]), "--decode"], input=json.dumps(ids).encode(), stdout=subprocess.PIPE,
                          check=True)
    return done.stdout.decode(errors="replace")  # the last token may be half a character


@pytest.mark.parametrize("kernels", ["reference", None])
def test_in_company(kernels):
    server = Server(PROGRAM, MODELS, options=["--kernels", kernels] if kernels else [])
    try:
        server.start()
        texts = together(server)
        if kernels == "reference":
            for (name, prompt), ours in zip(PROMPTS, texts):
                assert ours == text(name, prompt["greedy"]), (name, prompt["name"])
        else:
            assert [answer(server, item) for item in PROMPTS] == texts
        assert server.stop() == 0
    finally:
        server.close()


def test_in_memory_for_one():
    """The models take turns in memory: the same answers, and one of them there at a time."""
    server = Server(PROGRAM, MODELS, options=["--memory-bytes", "640000000", "--kv-bytes", "100000000"])
    try:
        server.start()
        texts = together(server)
        in_memory = [server.metric('model_memory_bytes{model_name="%s"' % name) for name in MODELS]
        assert sorted(b > 0 for b in in_memory) == [False, True], in_memory
        assert server.metric("model_evictions_total") >= 1
        assert server.metric("weights_memory_bytes") <= 640000000
        listed = json.loads(server.raw(server.head("/v1/models", "GET", more="\r\n"))[2])["data"]
        assert [m["status"]["value"] for m in listed] == ["loaded" if b > 0 else "unloaded" for b in in_memory]
        assert [answer(server, item) for item in PROMPTS] == texts
        assert server.stop() == 0
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
