#!/usr/bin/env python3
"""Fails when an #include in src/ runs against the order of the house: a room may include itself and the rooms below it.

usage: check_includes.py [SRC]; prints one line for each wrong arrow and one line of counts. First it
proves on made-up trees that it finds what it is for."""
import pathlib
import re
import sys
import tempfile

BELOW = {
    "base": set(),
    "model": {"base"},
    "chip": {"base", "model"},
    "engine": {"base", "model", "chip"},
    "store": {"base"},
    "cloud": {"base", "store"},
    "owner": {"base", "store", "cloud"},
    "gateway": {"base", "model", "chip", "engine", "store", "cloud", "owner"},
    "cli": {"base", "model", "chip", "engine", "store", "cloud", "owner", "gateway"},
    "main.c": {"cli"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def wrong_arrows(src):
    """One sentence for each include that may not be there, and the number of includes read."""
    wrong, count = [], 0
    for path in sorted(p for p in src.rglob("*") if p.suffix in (".c", ".h", ".cu", ".inc")):
        room = path.relative_to(src).parts[0]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            count += 1
            target = match.group(1).split("/")[0]
            where = f"{path.relative_to(src)}:{number}"
            if room not in BELOW:
                wrong.append(f"{where}: the room {room} is not in the order of the house")
            elif not (src / match.group(1)).is_file():
                wrong.append(f"{where}: {match.group(1)} is not a path from src/")
            elif target != room and target not in BELOW[room]:
                wrong.append(f"{where}: {room} may not include {target}")
    return wrong, count


def self_test():
    cases = [
        ("engine/a.c", "cloud/cloud.h", True),
        ("base/a.c", "model/model.h", True),
        ("cloud/a.c", "engine/engine.h", True),
        ("model/a.c", "chip/chip.h", True),
        ("console/a.c", "base/buf.h", True),
        ("cloud/a.c", "owner/owner.h", True),
        ("owner/a.c", "engine/engine.h", True),
        ("engine/a.c", "kv.h", True),
        ("engine/a.c", "chip/chip.h", False),
        ("gateway/a.c", "cloud/cloud.h", False),
    ]
    for name, include, is_wrong in cases:
        with tempfile.TemporaryDirectory() as folder:
            src = pathlib.Path(folder)
            for p in (name, include) if "/" in include else (name,):
                (src / p).parent.mkdir(parents=True, exist_ok=True)
                (src / p).write_text("")
            (src / name).write_text(f'#include "{include}"\n')
            assert bool(wrong_arrows(src)[0]) == is_wrong, (name, include)


def main():
    self_test()
    src = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "src")
    wrong, count = wrong_arrows(src)
    print("\n".join(wrong + [f"{count} includes, {len(wrong)} against the order"]))
    return 1 if wrong or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
