"""A real PostgreSQL from Debian's package: a cluster of its own below a directory, on a free port of 127.0.0.1.

As root a missing package fails the test, as everything that ``make packages`` installs; otherwise it is skipped.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.process import free_port

PASSWORD = "p@ss:w/rd"  # with all that an URL has to escape
ESCAPED = "p%40ss%3Aw%2Frd"
USER = "postgres"
_FAST = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}


@dataclass
class Postgres:
    """A running server; ``stop`` and ``start`` let it go away and come back with its data."""

    programs: Path
    place: Path
    port: int
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def start(self) -> None:
        options = {
            **_FAST, "port": str(self.port), "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.place),
        }  # fmt: skip
        words = " ".join(f"-c {name}={value}" for name, value in options.items())
        self._run("pg_ctl", "-D", self.data, "-l", self.place / "server.log", "-w", "-t", "60", "-o", words, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")

    @property
    def data(self) -> Path:
        return self.place / "data"

    def new_database(self, like: str = "template0") -> str:
        """The URL of a database without tables, or of a copy of another one."""
        name = f"pbserv_{next(self._numbers)}"
        self.sql("postgres", f"CREATE DATABASE {name} TEMPLATE {like.rpartition('/')[2]}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """With whoever is still connected."""
        self.sql("postgres", f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def url(self, database: str) -> str:
        return f"postgresql://{USER}:{ESCAPED}@127.0.0.1:{self.port}/{database}"

    def sql(self, database: str, statement: str) -> str:
        """Run one statement; its rows, a line each, without headings."""
        return self._run("psql", "-h", self.place, "-p", self.port, "-d", database, "-XAtc", statement)

    def create(self) -> None:
        secret = self.place / "password"
        secret.write_text(PASSWORD)
        hand_over(self.place, secret)
        self._run("initdb", "-D", self.data, "-U", USER, "-A", "scram-sha-256", "--auth-local", "trust", "--pwfile",
                  secret, "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync")  # fmt: skip
        self.start()

    def _run(self, program: str, *arguments: object) -> str:
        words = [str(self.programs / program), *map(str, arguments)]
        done = subprocess.run(as_server(words), capture_output=True, text=True, check=False, cwd="/", timeout=90)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self._log()}"
        return done.stdout

    def _log(self) -> str:
        path = self.place / "server.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""


def as_server(words: Sequence[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--", *words] if is_root() else [*words]


def is_root() -> bool:
    return os.geteuid() == 0


def hand_over(*paths: Path) -> None:
    if is_root():
        account = pwd.getpwnam(USER)
        for path in paths:
            os.chown(path, account.pw_uid, account.pw_gid)


def programs() -> Path | None:
    """Where Debian keeps the newest version's programs; else where PATH has them."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server with nothing in it, gone afterwards."""
    where = programs()
    if where is None:
        missing = "PostgreSQL is missing: apt-get install postgresql"
        pytest.fail(missing) if is_root() else pytest.skip(missing)
    # not below pytest's directory: its ancestors are closed to other users, and a socket's path is short
    place = Path(tempfile.mkdtemp(prefix="pbserv-pg-"))
    server = Postgres(where, place, free_port())
    try:
        server.create()
        yield server
    finally:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            server.stop()
        shutil.rmtree(place, ignore_errors=True)
