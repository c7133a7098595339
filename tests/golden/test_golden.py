#!/usr/bin/env python3
"""Compares unkai with the golden numbers beside this file (make_golden.py made them with an independent engine).

usage: test_golden.py UNKAI   (the program; models are looked for in $UNKAI_MODELS or the data folder; exit 77: none is there)

For each model: the tokens of every prompt and of the text are equal; on the reference path the log-probabilities of the golden top 20
at every position of every prompt are within 0.02, and 48 greedy tokens are equal (each golden token is the best one after the golden
tokens before it, which is the same statement and names the place where it fails); the text's perplexity on the reference path is
the golden one within 0.1%, and on the fast path within 0.5% of the reference path.

What it uses: `unkai tokenize MODEL` (text in, ids out) and `unkai perplexity MODEL FILE --json [--reference] [--logprobs K] [--ids]`,
where --ids says that FILE is a JSON array of token ids; its output has "tokens", "perplexity", and with --logprobs K "top": for each
token the K best [id, logprob] of the distribution after it."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
TOLERANCE = 0.02


def models_folder():
    home = os.environ.get("UNKAI_HOME") or os.path.join(
        os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "unkai")
    return pathlib.Path(os.environ.get("UNKAI_MODELS") or os.path.join(home, "models"))


class Judge:
    def __init__(self, program):
        self.program, self.failures, self.checks = program, 0, 0

    def check(self, ok, text):
        self.checks += 1
        self.failures += not ok
        if not ok:
            print("FAIL", text, flush=True)

    def unkai(self, *words, stdin=""):
        done = subprocess.run([self.program, *map(str, words)], input=stdin, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        if done.returncode != 0:
            raise SystemExit(f"FAIL unkai {' '.join(map(str, words))} ended with {done.returncode}")
        return json.loads(done.stdout)

    def tops(self, model, ids, k, folder):
        """The k best after each of ids, on the reference path."""
        path = folder / "ids.json"
        path.write_text(json.dumps(ids))
        out = self.unkai("perplexity", model, path, "--ids", "--json", "--reference", "--logprobs", k)
        return out["top"]

    def prompt(self, model, golden, bos, folder):
        name = f"{model.stem} {golden['name']}"
        ids = bos + self.unkai("tokenize", model, stdin=golden["text"])
        self.check(ids == golden["ids"], f"{name}: the tokens differ: {ids}")
        rows = self.tops(model, golden["ids"] + golden["greedy"], 20, folder)
        self.check(len(rows) == len(golden["ids"]) + len(golden["greedy"]), f"{name}: {len(rows)} positions")
        worst = 0.0
        for place, (ours, theirs) in enumerate(zip(rows, golden["top"])):
            ours = dict(map(tuple, ours))
            # The twentieth and the twenty-first may change places when they are closer than the tolerance.
            last = min(ours.values())
            for token, logprob in theirs:
                distance = abs(ours.get(token, last) - logprob)
                worst = max(worst, distance)
                self.check(distance <= TOLERANCE, f"{name}: place {place}, token {token}: {distance:.4f} away from {logprob}")
        chosen = [row[0][0] for row in rows[len(golden["ids"]) - 1 : -1]]
        self.check(chosen == golden["greedy"], f"{name}: the greedy tokens differ: {chosen}")
        print(f"{name}: {len(golden['top'])} positions, largest distance {worst:.4f}; {len(chosen)} greedy tokens", flush=True)

    def model(self, path, golden):
        # A tokenizer's BOS stands in the golden ids; tokenize prints the text's own.
        first = self.unkai("tokenize", path, stdin=golden["prompts"][0]["text"])
        bos = golden["prompts"][0]["ids"][: len(golden["prompts"][0]["ids"]) - len(first)]
        with tempfile.TemporaryDirectory() as folder:
            for prompt in golden["prompts"]:
                self.prompt(path, prompt, bos, pathlib.Path(folder))
        text = HERE / golden["text"]["file"]
        reference = self.unkai("perplexity", path, text, "--json", "--reference")
        name, want = path.stem, golden["text"]["perplexity"]
        self.check(reference["tokens"] == golden["text"]["tokens"], f"{name}: {reference['tokens']} tokens in the text")
        pairs = [("reference path against golden", reference["perplexity"], want, 0.001)]
        for table in tables():
            fast = self.unkai("perplexity", path, text, "--json", "--kernels", table)
            pairs.append((f"{table} against reference", fast["perplexity"], reference["perplexity"], 0.005))
        for label, ours, judge, share in pairs:
            away = abs(ours / judge - 1)
            self.check(away <= share, f"{name}: perplexity, {label}: {ours} and {judge}")
            print(f"{name}: perplexity, {label}: {ours:.4f} and {judge:.4f}, {100 * away:.3f}% apart", flush=True)


def tables():
    """The fast tables of kernels that this machine can run."""
    flags = set(pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    wanted = {"avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"},
              "neon": {"asimddp"}, "i8mm": {"asimddp", "i8mm"}}
    return [name for name, needs in wanted.items() if needs <= flags] or ["auto"]


def main():
    judge, missing = Judge(sys.argv[1]), []
    for golden in (json.loads(p.read_text(encoding="utf-8")) for p in sorted(HERE.glob("*.json"))):
        path = models_folder() / (golden["model"] + ".gguf")
        if path.is_file():
            judge.model(path, golden)
        else:
            missing.append(str(path))
    for path in missing:
        print(f"skipped: there is no {path}; ./run test fetches it")
    print(f"{judge.checks} checks, {judge.failures} failures")
    return 1 if judge.failures else 77 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
