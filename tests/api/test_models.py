"""unkai models: pull over HTTP (whole, cut off and gone on with, from servers that cannot do that, wrong), show, remove; names that would lead out of
the folder."""
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from server import SMOL

PROGRAM = os.environ["UNKAI_PROGRAM"]
pytestmark = pytest.mark.skipif(not SMOL.exists(), reason=f"the model is not in {SMOL.parent}")


class Files(http.server.BaseHTTPRequestHandler):
    """/whole/… does ranges, /plain/… does not, /cut/… breaks off in the middle the first time, /text/… is no model."""

    def do_GET(self):
        kind, data, start = self.path.split("/")[1], self.server.data, 0
        self.server.ranges.append(self.headers.get("Range"))
        if kind == "text":
            data = b"not a model" * 100
        if kind not in ("whole", "plain", "cut", "text"):
            self.send_error(404)
            return
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes=") and kind != "plain":
            start = int(asked[6:].split("-")[0])
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = len(data)
        if kind == "cut" and not self.server.was_cut:
            self.server.was_cut, end = True, len(data) // 2
        self.wfile.write(data[start:end])
        self.close_connection = True

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.data, server.ranges, server.was_cut = SMOL.read_bytes(), [], False
    server.digest = hashlib.sha256(server.data).hexdigest()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def unkai(site, tmp_path):
    def run(*words, code=0):
        words = [w.replace("SITE", f"http://127.0.0.1:{site.server_port}") for w in words]
        done = subprocess.run([PROGRAM, "models", *words], env={**os.environ, "UNKAI_HOME": str(tmp_path)}, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        assert (done.returncode == 0) == (code == 0), done.stdout + done.stderr
        return done.stdout + done.stderr

    run.folder = tmp_path / "models"
    site.ranges.clear()
    return run


def test_pull_show_remove(unkai, site):
    told = unkai("pull", "SITE/whole/small.gguf?download=true", "--sha256", site.digest)
    assert site.digest in told
    assert f'{{"name":"small","sha256":"{site.digest}"}}\n' in unkai("pull", "SITE/whole/small.gguf", "--json")
    assert [p.name for p in unkai.folder.iterdir()] == ["small.gguf"]
    assert "small" in unkai("list")
    shown = json.loads(unkai("show", "small", "--json"))
    assert shown["architecture"] == "llama"
    unkai("remove", "small")
    assert list(unkai.folder.iterdir()) == []
    unkai("remove", "small", code=1)


def test_a_pull_goes_on_where_it_stopped(unkai, site):
    site.was_cut = False
    assert "goes on" in unkai("pull", "SITE/cut/small.gguf", code=1)
    assert not (unkai.folder / "small.gguf").exists()
    unkai("pull", "SITE/cut/small.gguf", "--sha256", site.digest)
    assert site.ranges == [None, f"bytes={len(site.data) // 2}-"]
    assert (unkai.folder / "small.gguf").read_bytes() == site.data


def part_of(unkai, url):
    """The unfinished file that a failed pull leaves."""
    unkai("pull", url, code=1)
    return next(unkai.folder.glob("*.part"))


def test_a_server_without_ranges(unkai, site):
    unkai("pull", "SITE/plain/x.gguf")
    (unkai.folder / "x.gguf").rename(unkai.folder / "kept")
    part = unkai.folder / ("x." + hashlib.sha256(f"http://127.0.0.1:{site.server_port}/plain/x.gguf".encode()).hexdigest()[:8] + ".part")
    part.write_bytes(site.data[:1000])
    unkai("pull", "SITE/plain/x.gguf", "--sha256", site.digest)
    assert (unkai.folder / "x.gguf").read_bytes() == site.data


def test_all_was_there_already(unkai, site):
    site.was_cut = False
    part = part_of(unkai, "SITE/cut/small.gguf")
    part.write_bytes(site.data)
    unkai("pull", "SITE/cut/small.gguf", "--sha256", site.digest)
    assert (unkai.folder / "small.gguf").read_bytes() == site.data


@pytest.mark.parametrize("words", [("SITE/whole/small.gguf", "--sha256", "0" * 64), ("SITE/text/small.gguf",)])
def test_what_is_wrong_is_not_kept(unkai, words):
    unkai("pull", *words, code=1)
    assert list(unkai.folder.iterdir()) == []


@pytest.mark.parametrize("words", [
    ("pull", "/tmp/small.gguf"), ("pull", "SITE/none/small.gguf"), ("pull", "ftp://127.0.0.1/small.gguf"), ("pull", "SITE/whole/small.gguf", "--sha256", "../../x"),
    ("pull", "SITE/whole/small.gguf", "--name", "../small"), ("pull", "SITE/whole/..%2f..%2fsmall"), ("pull", "SITE/whole/.."),
    ("pull", "SITE/whole/"), ("pull", "SITE/whole/small.gguf", "--name", "a/b"), ("pull", "SITE/whole/small.gguf", "--name", ".hidden"),
    ("show", "../../etc/passwd"), ("show", "/etc/passwd"), ("remove", "../small"), ("remove", ".."), ("remove", "/tmp/x")])
def test_refused(unkai, words, tmp_path):
    outside = tmp_path / "small.gguf"
    outside.write_bytes(b"mine")
    unkai(*words, code=1)
    assert outside.read_bytes() == b"mine"
    assert not unkai.folder.exists() or list(unkai.folder.iterdir()) == []


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
