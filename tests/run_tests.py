#!/usr/bin/env python3
"""Runs every test and ends with one line: N passed, N failed, N skipped. Started by ./run test, which has set up what is needed.

Stages: the order of includes, formatting, clang-tidy, the man page and documents; all tests on the release build (gcc); the C tests, the benches run
small and the API's under address+undefined sanitizers (clang), the C tests and the benches under the thread sanitizer (gcc); the program built for 64-bit ARM and its kernels on
emulated processors; every fuzz target for a stated number of executions.
Only the first failure of a stage stops that stage; the other stages run all the same."""
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FUZZ_RUNS, FUZZ_SECONDS = 20000, 40
JOBS = str(os.cpu_count() or 1)
# Reports name lines and need no more of a debugger; with all of it clang takes half as long again for the kernels.
CHECKED = ["--buildtype=debugoptimized", "-Dc_args=-g1"]
# build folder: (compiler, options, suites; none means all)
BUILDS = {
    "build": ("gcc", ["--buildtype=release"], []),
    "build-asan": ("clang", [*CHECKED, "-Db_sanitize=address,undefined", "-Db_lundef=false"],
                   ["unit", "kernels", "sanitized", "bench"]),
    "build-tsan": ("gcc", [*CHECKED, "-Db_sanitize=thread"], ["unit", "kernels", "bench"]),
}
FUZZ_BUILD = ("clang", [*CHECKED, "-Dfuzz=true", "-Db_sanitize=address,undefined", "-Db_lundef=false"])
# Where UNKAI_TEST_AARCH64 names the file that ./run made. Emulated processor: the table of kernels that must be the best there.
AARCH64_PROCESSORS = {"max": "i8mm", "cortex-a76": "neon"}
AARCH64_TARGETS = ["src/unkai", "tests/kernels/test_kernels", "tests/kernels/test_pack"]
SANITIZERS = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:allocator_may_return_null=1",
              "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1", "TSAN_OPTIONS": "halt_on_error=1"}


class Counts:
    passed = failed = skipped = 0

    def add(self, ok, name, detail=""):
        self.passed += ok
        self.failed += not ok
        print(f"{'ok  ' if ok else 'FAIL'} {name}" + (f"\n{detail.strip()}" if detail and not ok else ""), flush=True)


def say(text):
    print(f"== {text}", flush=True)


def command(*words, **more):
    return subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          **more)


def sources(*endings):
    """Files that git knows or would know, so that a new file is checked before its first commit."""
    names = command("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.split()
    return sorted(n for n in set(names) if n.endswith(endings) and (ROOT / n).is_file())


def style(counts):
    say("style")
    done = command(sys.executable, "tests/check_includes.py")
    counts.add(done.returncode == 0, "order of includes", done.stdout)
    done = command("clang-format", "--dry-run", "--Werror", *sources(".c", ".h"))
    wrong = sorted({line.split(":")[0] for line in done.stdout.splitlines() if "error:" in line})
    counts.add(done.returncode == 0, "clang-format", "not formatted: " + " ".join(wrong))
    done = command("groff", "-man", "-Tutf8", "-ww", "-z", "docs/unkai.1")
    counts.add(done.returncode == 0 and done.stdout == "", "man page", done.stdout)
    done = command(sys.executable, "tests/check_docs.py", "build/src/unkai")
    counts.add(done.returncode == 0, "documents agree with the program", done.stdout)


def tidy(counts):
    """clang-tidy on every file of src/ and bench/ that is built for this processor, skipping what was clean before: a stamp names the file's, all
    headers' and the rules' hash."""
    say("clang-tidy")
    commands = ROOT / "build-asan" / "compile_commands.json"
    if not commands.is_file():
        counts.add(False, "clang-tidy", "build-asan was not set up")
        return
    commands = json.loads(commands.read_text(encoding="utf-8"))
    built = {pathlib.Path(c["directory"], c["file"]).resolve() for c in commands}
    headers = hashlib.sha256()
    for name in [".clang-tidy", *sources(".h")]:
        headers.update((ROOT / name).read_bytes())
    stamps = ROOT / "build" / "tidy"
    stamps.mkdir(parents=True, exist_ok=True)
    waiting = []
    for name in (n for n in sources(".c") if n.startswith(("src/", "bench/")) and (ROOT / n).resolve() in built):
        digest = hashlib.sha256(headers.digest() + name.encode() + (ROOT / name).read_bytes()).hexdigest()
        if not (stamps / digest).exists():
            waiting.append((name, stamps / digest))
    running, bad = [], []

    def reap():
        name, stamp, process = running.pop(0)
        output = process.communicate()[0]
        if process.returncode == 0:
            stamp.touch()
        else:
            bad.append(f"{name}:\n{output}")

    for name, stamp in waiting:
        if len(running) == int(JOBS):
            reap()
        process = subprocess.Popen(["clang-tidy", "--quiet", "-p", "build-asan", name], cwd=ROOT, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True)
        running.append((name, stamp, process))
    while running:
        reap()
    counts.add(not bad, "clang-tidy", "\n".join(bad))


def build(counts, folder, compiler, options, targets=()):
    start = time.monotonic()
    if not (ROOT / folder / "build.ninja").is_file():
        done = command("meson", "setup", folder, *options, env={**os.environ, "CC": compiler})
        if done.returncode != 0:
            counts.add(False, f"set-up of {folder}", done.stdout[-3000:])
            return False
    done = command("ninja", "-C", folder, "--quiet", *targets)
    counts.add(done.returncode == 0, f"build of {folder} with {compiler} ({time.monotonic() - start:.0f} s)", done.stdout[-6000:])
    return done.returncode == 0


def meson_tests(counts, folder, suites, words=(), environment=None):
    """Runs meson's tests with their progress shown, and adds up its summary."""
    words = ["meson", "test", "-C", folder, "--no-rebuild", "--print-errorlogs", "--num-processes", JOBS, *words]
    for suite in suites:
        words += ["--suite", suite]
    process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, **SANITIZERS, **(environment or {})},
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    seen = dict.fromkeys(("Ok", "Fail", "Skipped", "Timeout", "Unexpected Pass"), 0)
    for line in process.stdout:
        match = re.match(r"(Ok|Fail|Skipped|Timeout|Unexpected Pass|Expected Fail): +(\d+)", line)
        if match:
            seen[match.group(1)] = int(match.group(2))
        elif line.strip() and not line.startswith(("ninja: ", "Full log")):
            print(line.rstrip(), flush=True)
    process.wait()
    bad = seen["Fail"] + seen["Timeout"] + seen["Unexpected Pass"]
    counts.passed += seen["Ok"]
    counts.skipped += seen["Skipped"]
    counts.failed += bad
    if process.returncode != 0 and bad == 0:
        counts.add(False, f"meson test in {folder} ended with {process.returncode}")


def aarch64(counts):
    """The whole program is compiled; an emulator runs what must be right on that processor and needs no speed."""
    constants = os.environ.get("UNKAI_TEST_AARCH64")
    if not constants:
        say("build-aarch64: only where ./run finds Debian on x86-64")
        return
    say("build-aarch64: aarch64-linux-gnu-gcc; suite kernels on emulated processors")
    options = ["--buildtype=release", "--cross-file", constants, "--cross-file", "tests/aarch64.ini"]
    if not build(counts, "build-aarch64", "gcc", options, AARCH64_TARGETS):
        return
    for processor, kernels in AARCH64_PROCESSORS.items():
        say(f"{processor}: the best kernels are {kernels}")
        meson_tests(counts, "build-aarch64", ["kernels"], ["--timeout-multiplier", "4"],
                    {"QEMU_CPU": processor, "UNKAI_TEST_BEST_KERNELS": kernels})


def fuzz(counts):
    say(f"fuzzing: {FUZZ_RUNS} executions a target, or {FUZZ_SECONDS} seconds if that comes first")
    if not build(counts, "build-fuzz", *FUZZ_BUILD, targets=[n.removesuffix(".c") for n in sources(".c") if n.startswith("tests/fuzz/fuzz_")]):
        return
    targets = sorted(p for p in (ROOT / "build-fuzz" / "tests" / "fuzz").glob("fuzz_*") if p.is_file() and os.access(p, os.X_OK))
    for target in targets:
        corpus = ROOT / "build-fuzz" / "corpus" / target.name
        corpus.mkdir(parents=True, exist_ok=True)
        seeds = ROOT / "tests" / "fuzz" / "seeds" / target.name.removeprefix("fuzz_")
        done = command(str(target), f"-runs={FUZZ_RUNS}", f"-max_total_time={FUZZ_SECONDS}", "-seed=1", "-timeout=10",
                       "-rss_limit_mb=2048", f"-artifact_prefix={corpus.parent}/", str(corpus),
                       *([str(seeds)] if seeds.is_dir() else []), env={**os.environ, **SANITIZERS})
        match = re.search(r"Done (\d+) runs in (\d+) second", done.stdout)
        told = f"{match.group(1)} executions in {match.group(2)} s" if match else "did not finish"
        counts.add(done.returncode == 0, f"{target.name}: {told}", done.stdout[-4000:])


def main():
    counts, start = Counts(), time.monotonic()
    for folder, (compiler, options, suites) in BUILDS.items():
        say(f"{folder}: {compiler} {' '.join(options)}; {'suites ' + ', '.join(suites) if suites else 'every suite'}")
        if build(counts, folder, compiler, options):
            meson_tests(counts, folder, suites)
    aarch64(counts)
    fuzz(counts)
    style(counts)
    tidy(counts)
    print(f"(in {time.monotonic() - start:.0f} seconds)")
    print(f"{counts.passed} passed, {counts.failed} failed, {counts.skipped} skipped")
    return 1 if counts.failed or counts.passed == 0 else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
