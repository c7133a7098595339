#!/usr/bin/env python3
"""Turn a file into C: const char NAME[] with its bytes and a NUL behind them, and const size_t NAME_bytes.

usage: embed.py NAME FILE OUT.c"""
import pathlib
import sys


def main():
    name, source, target = sys.argv[1:]
    data = pathlib.Path(source).read_bytes()
    lines = [", ".join(str(b) for b in data[i : i + 24]) for i in range(0, len(data), 24)]
    text = "#include <stddef.h>\n\nextern const unsigned char %s[];\nextern const size_t %s_bytes;\n" % (name, name)
    text += "const unsigned char %s[] = {\n%s,\n0};\nconst size_t %s_bytes = %d;\n" % (name, ",\n".join(lines), name, len(data))
    pathlib.Path(target).write_text(text)


if __name__ == "__main__":
    main()
