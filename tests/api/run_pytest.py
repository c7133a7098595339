#!/usr/bin/env python3
"""Runs a pytest file against a program: run_pytest.py UNKAI FILE. The interpreter with the test clients is $UNKAI_TEST_PYTHON (./run test sets it up);
without one that has them the test is skipped, and says so."""
import os
import subprocess
import sys

SKIPPED = 77


def main():
    python = os.environ.get("UNKAI_TEST_PYTHON") or sys.executable
    if subprocess.run([python, "-c", "import openai, pytest"], stderr=subprocess.DEVNULL).returncode != 0:
        print(f"skipped: {python} has no openai and pytest; ./run test installs them")
        return SKIPPED
    here = os.path.dirname(os.path.abspath(__file__))
    env = {**os.environ, "UNKAI_PROGRAM": sys.argv[1], "PYTHONPATH": os.pathsep.join([here, os.path.dirname(here), os.path.dirname(sys.argv[2])]), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([python, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", sys.argv[2]], env=env)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
