#!/usr/bin/env python3
"""A PostgreSQL of the test's own: postgres.py COMMAND ... makes a cluster in a temporary folder, runs the command with UNKAI_TEST_DB set to its
address, and takes everything down again. It listens on a socket in that folder alone and syncs as a real one does. Skips (77) where there is no PostgreSQL."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SKIPPED = 77


def programs():
    """The folder of the newest installed version's programs."""
    versions = [p for p in pathlib.Path("/usr/lib/postgresql").glob("*/bin") if (p / "initdb").exists()]
    return max(versions, key=lambda p: int(p.parent.name)) if versions else None


class Cluster:
    def __init__(self):
        self.bin, self.process = programs(), None
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="unkai-pg-"))
        self.url = f"postgresql://postgres@/postgres?host={self.folder}"
        # The server refuses root; whatever becomes of us, it ends.
        self.become = ["setpriv", "--pdeathsig", "QUIT"]
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            self.become += ["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        self.command("initdb", "-D", self.folder / "data", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        self.start()

    def command(self, name, *words):
        done = subprocess.run([*self.become, self.bin / name, *words], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, f"{name}: {done.stdout}"
        return done.stdout

    def start(self):
        settings = {"listen_addresses": "", "unix_socket_directories": self.folder, "unix_socket_permissions": "0700", "shared_buffers": "32MB",
                    "max_connections": "60", "fsync": "on", "log_min_messages": "warning"}
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen([*self.become, self.bin / "postgres", "-D", self.folder / "data",
                                             *(f"-c{name}={value}" for name, value in settings.items())],
                                            cwd=self.folder, stdout=log, stderr=log)
        while subprocess.run([self.bin / "pg_isready", "-q", "-h", self.folder], check=False).returncode != 0:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        self.process.wait(60)

    def sql(self, text):
        return self.command("psql", "-qtA", "-v", "ON_ERROR_STOP=1", self.url, "-c", text).strip()

    def schema(self, name):
        """The address of an empty schema of that name."""
        self.sql(f"CREATE SCHEMA {name}")
        return f"{self.url}&options=-csearch_path%3D{name}"

    def close(self):
        if self.process and self.process.poll() is None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    if programs() is None:
        print("skipped: there is no PostgreSQL; ./run test installs it")
        return SKIPPED
    cluster = Cluster()
    try:
        return subprocess.run(sys.argv[1:], env={**os.environ, "UNKAI_TEST_DB": cluster.url}, check=False).returncode
    finally:
        cluster.close()


if __name__ == "__main__":
    sys.exit(main())
