"""The commands as a shell and a terminal see them: exit codes, streams that are full, closed or broken, JSON where data is printed, and a chat."""
import json
import os
import pathlib
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from server import SMOL, wait_until

PROGRAM = os.environ["UNKAI_PROGRAM"]
COMMANDS = re.findall(r"^  ([a-z]+) ", subprocess.run([PROGRAM, "help"], stdout=subprocess.PIPE, text=True).stdout, re.M)
needs_model = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")
BENCH_SHAPE = {"limits": {"read_gbs", "int8_gops", "bf16_gflops", "fp32_gflops"}, "prefill": {"tokens", "tps", "share"},
               "decode": {"sequences", "tps", "share"}}


@pytest.fixture
def unkai(tmp_path):
    def run(*words, code=0, stdout=subprocess.PIPE, **more):
        done = subprocess.run([PROGRAM, *words], env={**os.environ, "UNKAI_HOME": str(tmp_path)}, stdout=stdout, stderr=subprocess.PIPE,
                              text=True, timeout=300, **({"stdin": subprocess.DEVNULL} | more if "input" not in more else more))
        assert done.returncode == code, f"{words}: {done.returncode}: {done.stderr}"
        return done.stderr if code else done.stdout

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_wrong_use(unkai, command):
    assert unkai(command, "--help") == unkai(command, "-h")
    assert f"unkai {command} --help" in unkai(command, "--no-such-option", code=2)
    assert f"unkai {command} --help" in unkai(command, "one", "two", "three", "four", code=2)


@pytest.mark.parametrize("words", [("run", "m", "--temperature", "nan"), ("run", "m", "--temperature", "1e999"), ("run", "m", "--top-p", "0"),
                                   ("run", "m", "--max-tokens", "0"), ("serve",), ("nothing",), ()])
def test_values_out_of_range(unkai, words):
    unkai(*words, code=2)


@pytest.mark.parametrize("words", [("help",), ("run", "--help"), ("models", "--json"), ("tenant", "--json"), ("ledger", "verify")])
def test_output_that_is_lost_is_a_failure(unkai, words):
    with open("/dev/full", "w") as full:
        assert "could not be written" in unkai(*words, stdout=full, code=1)


def test_zone_west_of_greenwich(unkai):
    for words in (["-03:30"], ["--", "-03:30"], []):
        assert unkai("ledger", "zone", *words) == "days and months begin at midnight of UTC-03:30\n"
    unkai("ledger", "zone", "-3", code=1)


def test_price_list(unkai, tmp_path):
    """Numbers come through as they are written but for a double's rounding, whatever stands around them; what cannot be kept is named."""
    path = tmp_path / "list.json"
    path.write_text('{"sample_spec": {"max_tokens": "x"},'
                    '"a": {"output_cost_per_token": 1e-05, "input_cost_per_token": 2.5e-06, "cache_read_input_token_cost": 1.25E-6, "s": [{"}": "\\""}]},'
                    '"b\\u00e9": {"input_cost_per_token": 3.00000000000001e-07, "output_cost_per_token": 0},'
                    '"third": {"input_cost_per_token": 2.857142857142857e-07, "output_cost_per_token": 0},'
                    '"noise": {"input_cost_per_token": 2.9999999999999997e-07, "cache_read_input_token_cost": 4.2000000000000006e-08, "output_cost_per_token": 1.5000020000000002e-05},'
                    '"c" : {"mode": "{", "input_cost_per_token" : 0.000000000001, "output_cost_per_token": 0.0, "cache_read_input_token_cost": null}}')
    said = unkai("price", "import", str(path), "--currency", "USD", code=1)
    assert "b\u00e9: '3.00000000000001e-07'" in said and "third: '2.857142857142857e-07'" in said and said.count("\n") == 2
    prices = {p["model"]: (p["input"], p["cached"], p["output"]) for p in json.loads(unkai("price", "--json"))}
    assert prices == {"a": ("2.5", "1.25", "10"), "c": ("0.000001", "0.000001", "0"), "noise": ("0.3", "0.042", "15.00002")}
    assert "decimals" in unkai("price", "set", "a", "--input", "0.29999999999999997", "--output", "1", "--currency", "USD", code=1)
    many = {f"m{i}": {"input_cost_per_token": i * 1e-9, "output_cost_per_token": 1e-7, **{f"x{j}": j for j in range(30)}} for i in range(2500)}
    path.write_text(json.dumps(many))
    assert "2500 models' prices imported in EUR" in unkai("price", "import", str(path), "--currency", "EUR")
    prices = {p["model"]: p["input"] for p in json.loads(unkai("price", "--json")) if p["currency"] == "EUR"}
    assert prices == {f"m{i}": f"{i / 1000:g}" for i in range(2500)}
    for wrong in ("", "[]", "1", '{"a"', '{"a": {}', '{"a": 1}', '{"a": {}} x', '{"a": {"b": \\}}', '{"a": {"input_cost_per_token": 1, }}', '"\\', '{"a\\'):
        path.write_text(wrong)
        unkai("price", "import", str(path), code=1)


@needs_model
def test_closed_streams_are_not_given_to_files(unkai):
    """A descriptor 2 that was closed and then names a file or a connection would take what is said to people."""
    process = subprocess.Popen(["sh", "-c", 'exec "$0" tokenize "$1" >&- 2>&-', PROGRAM, str(SMOL)], stdin=subprocess.PIPE)
    descriptors = pathlib.Path(f"/proc/{process.pid}/fd")
    wait_until(lambda: os.readlink(f"/proc/{process.pid}/exe") == os.path.realpath(PROGRAM) and (descriptors / "2").exists())
    assert [os.readlink(descriptors / n) for n in "12"] == ["/dev/null"] * 2
    process.communicate(b"hi")
    assert process.returncode == 1
    done = subprocess.run(["sh", "-c", 'exec "$0" tokenize "$1" <&-', PROGRAM, str(SMOL)], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "standard input" in done.stderr


@needs_model
def test_text_and_ids(unkai):
    text = "Hello \"world\"\n日本語"
    ids = unkai("tokenize", str(SMOL), input=text)
    assert ids == unkai("tokenize", str(SMOL), "--json", input=text)
    assert unkai("tokenize", str(SMOL), "--decode", input=ids) == text
    assert json.loads(unkai("tokenize", str(SMOL), "--decode", "--json", input=ids)) == text
    for wrong in ("", "7", "[1.5]", "[-1]", "[49152]", "[1"):
        unkai("tokenize", str(SMOL), "--decode", input=wrong, code=1)


def test_bench_json(unkai, tmp_path):
    """The shape that tools read, from a model that is small enough to be quick."""
    maker = pathlib.Path(PROGRAM).resolve().parent.parent / "tools" / "make_model"
    words = "--layers 1 --width 256 --heads 4 --kv-heads 1 --ffn 256 --vocab 512 --format Q4_0".split()
    subprocess.run([maker, tmp_path / "tiny.gguf", *words], check=True, stdout=subprocess.DEVNULL)
    told = json.loads(unkai("bench", str(tmp_path / "tiny.gguf"), "--json", "--threads", "1"))
    assert set(told) == set(BENCH_SHAPE)
    assert all(set(part) == shape for name, shape in BENCH_SHAPE.items() for part in (told[name] if name == "decode" else [told[name]]))
    assert [d["sequences"] for d in told["decode"]] == [1, 2, 4, 8, 16, 32] and told["prefill"]["tokens"] == 512


def test_bench_context(unkai, tmp_path):
    """Attention alone, with both forms of KV memory; a list that is none is refused."""
    maker = pathlib.Path(PROGRAM).resolve().parent.parent / "tools" / "make_model"
    words = "--layers 1 --width 256 --heads 4 --kv-heads 1 --ffn 256 --vocab 512 --format Q4_0".split()
    subprocess.run([maker, tmp_path / "tiny.gguf", *words], check=True, stdout=subprocess.DEVNULL)
    told = json.loads(unkai("bench", str(tmp_path / "tiny.gguf"), "--context", "64,700", "--json", "--threads", "1"))
    assert [(row["context"], row["kv"]) for row in told["attention"]] == [(n, kv) for n in (64, 700) for kv in ("f16", "q8")]
    assert all(row[key] > 0 for row in told["attention"] for key in ("decode_gbs", "decode_share", "prefill_gflops", "prefill_share"))
    for wrong in ("", "0", "64;", "64,", "1,2,3,4,5"):
        unkai("bench", str(tmp_path / "tiny.gguf"), "--context", wrong, code=1)


class Terminal:
    """A command at the end of a pseudo-terminal."""

    def __init__(self, home, *words):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(PROGRAM, [PROGRAM, *words], {**os.environ, "UNKAI_HOME": str(home), "TERM": "xterm"})

    def read_to(self, mark, seconds=120):
        seen, end = b"", time.monotonic() + seconds
        while mark not in seen:
            assert time.monotonic() < end and select.select([self.fd], [], [], seconds)[0], seen
            seen += os.read(self.fd, 65536)
        return seen

    def say(self, text):
        os.write(self.fd, text)


@needs_model
def test_chat(tmp_path):
    chat = Terminal(tmp_path, "run", str(SMOL), "--temperature", "0")
    chat.read_to(b"> ")
    chat.say(b"What is the capital of Japan?\n")
    assert b"Tokyo" in chat.read_to(b"\r\n> ")
    chat.say(b"Write a very long story about a dragon.\n")
    chat.read_to(b"dragon.\r\n")
    chat.read_to(b" ")
    chat.say(b"\x03")  # ends the answer, which would take a minute
    chat.read_to(b"\r\n> ", seconds=30)
    chat.say(b"never sent")
    chat.read_to(b"sent")
    chat.say(b"\x03")  # drops the line, and the chat goes on
    chat.read_to(b"\r\n> ")
    chat.say(b"\x1b[A\x1b[A")  # the arrow up
    chat.read_to(b"What is the capital of Japan?")
    chat.say(b"\x15\x04")
    assert os.waitstatus_to_exitcode(os.waitpid(chat.pid, 0)[1]) == 0
    history = (tmp_path / "history").read_text()
    assert "dragon" in history and "never" not in history


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
