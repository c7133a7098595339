#!/usr/bin/env python3
"""Fails when the documents speak of what is not there: a link to no file, a command or option that the program does not know, a ./run
command that is not in its help; and when the man page does not have the same commands and options as --help.

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


def manual_problems(page, program):
    """The man page has a section for each command of `unkai help`, and in it the usage line and options of its --help."""
    sections = {s.split()[0]: s for s in re.split(r"^\.SS ", re.split(r"^\.SH EXIT", page.replace("\\-", "-"), flags=re.M)[0], flags=re.M)[1:]}
    commands = re.findall(r"^  ([a-z]+) ", output(program, "help"), re.M)
    for command in sorted(set(commands) ^ set(sections)):
        yield f"{command} is only in one of the man page and unkai help"
    for command in set(commands) & set(sections):
        told = output(program, command, "--help")
        there = set(re.findall(r"^  --([a-z0-9-]+)", told, re.M)) - {"help"}
        here = set(re.findall(r"^\.BI? --([a-z0-9-]+)", sections[command], re.M))
        for option in sorted(there ^ here):
            yield f"{command} --{option} is only in one of the man page and --help"
        words = re.sub(r"\\f.", "", sections[command].splitlines()[0]).split()[1:]
        usage = told.splitlines()[0].split("[options]")[1].split()
        if words != usage:
            yield f"{command}: the man page says {' '.join(words)}, --help {' '.join(usage)}"


def main():
    wrong = [f"docs/unkai.1: {p}" for p in manual_problems((ROOT / "docs/unkai.1").read_text(encoding="utf-8"), sys.argv[1])]
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        wrong += [f"{path.relative_to(ROOT)}: {p}" for p in problems(path.read_text(encoding="utf-8"), sys.argv[1], path.parent)]
    print("\n".join(sorted(set(wrong)) or ["the documents agree with the program"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
