#!/usr/bin/env python3
"""Makes the golden numbers: what an independent engine (llama.cpp, through the Python package llama-cpp-python) says about our two
models. The weights are widened to 32-bit floats first and keys and values are kept in 32 bits, so that the numbers are those of the
model itself and not of an engine's short cuts. Not part of the tests' set-up: its results are committed beside it.

usage: make_golden.py FOLDER   (holds smollm2-135m-q4_1.gguf and gemma3-270m-q4_k_m.gguf; needs llama-cpp-python and numpy)

Each file: {"engine", "version", "model", "sha256", "prompts": [{"name", "text", "ids", "top": [[[id, logprob] x 20] for each id: the
distribution after it], "greedy": ids, "margin": the smallest distance in logprob between the best and the second best of the greedy
continuation}], "text": {"file", "window", "tokens", "scored", "nll", "perplexity"}}. ids begin with the BOS where the model's metadata
asks for one. The text's tokens (with that BOS first) are cut into windows of 512 that do not overlap; each window starts with an empty
context, and every token of a window but its first is scored."""
import ctypes
import hashlib
import json
import math
import os
import pathlib
import sys
import tempfile

import llama_cpp
import numpy as np

HERE = pathlib.Path(__file__).parent
MODELS = ["smollm2-135m-q4_1", "gemma3-270m-q4_k_m"]
TOPS, GREEDY, WINDOW = 20, 48, 512
PROMPTS = {
    "english": "The harbour master writes the day's figures into a ledger. What comes in stands on the left, and what goes out",
    "question": "Question: How many minutes are there in a day?\nAnswer: There are",
    "japanese": "昔々、あるところに、おじいさんとおばあさんが住んでいました。おじいさんは山へ",
    "japanese-news": "東京は日本の首都であり、世界で最も人口の多い",
    "code": "#include <stdio.h>\n\nint main(void) {\n    for (int i = 0; i < 10; i++)\n        printf(\"%d\\n\",",
    "python": "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n    if n < 2:\n        return",
}


class Engine:
    def __init__(self, path):
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = WINDOW
        params.n_threads = params.n_threads_batch = os.cpu_count()
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = llama_cpp.llama_init_from_model(self.model, params)

    def tokens(self, text):
        raw = text.encode()
        ids = (llama_cpp.llama_token * (len(raw) + 8))()
        n = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), ids, len(ids), True, False)
        assert n >= 0
        return list(ids[:n])

    def forget(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def logprobs(self, ids, start=0):
        """Rows of log-probabilities after each of ids, the first of them at place `start` of the context."""
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, start + i, 1, True
            batch.seq_id[i][0] = 0
        assert llama_cpp.llama_decode(self.context, batch) == 0
        for i in range(len(ids)):
            row = llama_cpp.llama_get_logits_ith(self.context, i)
            row = np.ctypeslib.as_array(row, shape=(self.size,)).astype(np.float64)
            yield row - row.max() - math.log(np.exp(row - row.max()).sum())
        llama_cpp.llama_batch_free(batch)


def best(row, n):
    order = np.argsort(-row, kind="stable")[:n]
    return [[int(i), round(float(row[i]), 4)] for i in order]


def prompt_numbers(engine, name, text):
    engine.forget()
    ids = engine.tokens(text)
    rows = list(engine.logprobs(ids))
    greedy, margin, row = [], math.inf, rows[-1]
    while len(greedy) < GREEDY:
        (first, a), (_, b) = best(row, 2)
        greedy.append(first)
        margin = min(margin, a - b)
        row = next(iter(list(engine.logprobs([first], len(ids) + len(greedy) - 1))))
    return {"name": name, "text": text, "ids": ids, "top": [best(r, TOPS) for r in rows], "greedy": greedy,
            "margin": round(margin, 4)}


def text_numbers(engine, path):
    ids = engine.tokens(path.read_text(encoding="utf-8"))
    nll, scored = 0.0, 0
    for at in range(0, len(ids), WINDOW):
        window = ids[at : at + WINDOW]
        engine.forget()
        for target, row in zip(window[1:], engine.logprobs(window)):
            nll -= float(row[target])
            scored += 1
    return {"file": path.name, "window": WINDOW, "tokens": len(ids), "scored": scored, "nll": round(nll / scored, 6),
            "perplexity": round(math.exp(nll / scored), 5)}


def widen(source, target):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) == 0


def main():
    folder = pathlib.Path(sys.argv[1])
    for name in MODELS:
        source = folder / (name + ".gguf")
        with tempfile.TemporaryDirectory() as scratch:
            widen(source, pathlib.Path(scratch) / "wide.gguf")
            engine = Engine(pathlib.Path(scratch) / "wide.gguf")
        golden = {"engine": "llama.cpp through llama-cpp-python, weights and cache in 32-bit floats, flash attention off",
                  "version": llama_cpp.__version__, "model": name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
                  "prompts": [prompt_numbers(engine, *item) for item in PROMPTS.items()],
                  "text": text_numbers(engine, HERE / "text.txt")}
        out = json.dumps(golden, ensure_ascii=False, separators=(",", ":")).replace('{"name"', '\n{"name"')
        (HERE / (name + ".json")).write_text(out + "\n", encoding="utf-8")
        print(name, golden["text"], [(p["name"], len(p["ids"]), p["margin"]) for p in golden["prompts"]])


if __name__ == "__main__":
    main()
