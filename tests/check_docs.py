#!/usr/bin/env python3
"""Fails when the documents speak of what is not there: a link to no file, a command or option that the program does not know, a ./run
command that is not in its help.

usage: check_docs.py UNKAI"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CODE = re.compile(r"```.*?\n(.*?)```|`([^`\n]+)`", re.S)
UNKAI = re.compile(r"(?:^|[\s/])unkai ([a-z]+)((?: +(?:\\\n)?[^\s|;&#`]+)*)", re.M)


def output(*words):
    return subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def problems(text, program, folder):
    commands = set(re.findall(r"^  ([a-z]+) ", output(program, "help"), re.M)) | {"help"}
    runs = set(re.findall(r"^  ([a-z]+) ", output(ROOT / "run", "help"), re.M))
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        if not (folder / target).exists():
            yield f"there is no {target}"
    for block in (a or b for a, b in CODE.findall(text)):
        for command, rest in UNKAI.findall(block):
            if command not in commands:
                yield f"there is no command unkai {command}"
                continue
            known = output(program, command, "--help")
            for word in re.findall(r"--[a-z][a-z-]*", rest):
                # A command with verbs prints their options too; --help is everybody's.
                if word not in known:
                    yield f"unkai {command} has no {word}"
        for command in re.findall(r"\./run ([a-z]+)", block):
            if command not in runs:
                yield f"there is no ./run {command}"


def main():
    wrong = []
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        wrong += [f"{path.relative_to(ROOT)}: {p}" for p in problems(path.read_text(encoding="utf-8"), sys.argv[1], path.parent)]
    print("\n".join(sorted(set(wrong)) or ["the documents agree with the program"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
