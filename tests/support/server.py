"""The real `pbserv run` inside a namespace, on the real ports, as an unprivileged user, with a state of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.netns import Host, RoomError, stop

CHECKOUT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
USER = "nobody"
SERVICES = "imaging tftp policy proxydhcp"


@dataclass(frozen=True)
class Statistics:
    """The three figures of the manual's table D-18."""

    requests: int
    sent: int
    received: int


class Server:
    """A configuration, a state directory and, between ``start`` and ``stop``, one running process."""

    def __init__(self, host: Host, place: Path) -> None:
        self.host = host
        self.place = place
        self.conf, self.state, self.tftp = place / "conf", place / "state", place / "tftp"
        self.output = place / "server-output.log"
        self._process: subprocess.Popen[bytes] | None = None
        for path in (self.conf, self.tftp):
            path.mkdir(parents=True, exist_ok=True)
        self.files: dict[str, dict[str, str]] = {
            "pbserv.conf": {"StateDirectory": str(self.state), "Services": SERVICES, "User": USER},
            "proxydhcp.conf": {"ProxyLogLevel": "3"},
            "tftp.conf": {"TFTPDirectory": str(self.tftp), "TFTPLogLevel": "3"},
            "preboot-policy.conf": {"PolicyLogLevel": "3"},
        }
        for name in self.files:
            self.configure(name)

    def configure(self, name: str, /, **values: str | None) -> None:
        """Set keys of one configuration file; None removes a key. A running server needs ``force-reload``."""
        keys = self.files[name]
        for key, value in values.items():
            if value is None:
                keys.pop(key, None)
            else:
                keys[key] = value
        (self.conf / name).write_text("".join(f"{key} = {value}\n" for key, value in keys.items()))

    def start(self, timeout_s: float = 60) -> None:
        """Run the server in the foreground of its namespace and wait until every service is ready."""
        words = [str(PROGRAMS / "pbserv"), "--conf", str(self.conf), "run"]
        self._process = self.host.popen(
            "unshare", "--mount", "--propagation", "private", "sh", "-c", f'{_open_way()}exec "$@"', "sh", *words,
            log=self.output,
        )  # fmt: skip
        end = time.monotonic() + timeout_s
        while self.call("status").returncode != 0:
            if self._process.poll() is not None or time.monotonic() > end:
                raise RoomError(f"the server did not start: {self.call('status').stdout}\n{self.output.read_text()}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End the process; harmless when there is none."""
        if self._process is not None:
            stop(self._process, 20)
            self._process = None

    def call(self, *arguments: str, program: str = "pbserv") -> subprocess.CompletedProcess[str]:
        """Run a command of ours beside the server; never raises for its exit code."""
        command = self.host.command([PROGRAMS / program, "--conf", self.conf, *arguments])
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def ok(self, *arguments: str) -> str:
        """Run a command that must succeed and return its output."""
        done = self.call(*arguments)
        if done.returncode != 0:
            raise RoomError(f"pbserv {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        return json.loads(self.ok(*arguments, "--json"))

    def log(self, name: str) -> str:
        """The text of one service's log: pbserv, proxydhcp, tftp or preboot-policy."""
        path = self.state / "log" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def log_lines(self, name: str, *words: str) -> list[str]:
        """The lines of a log that hold all the words."""
        return [line for line in self.log(name).splitlines() if all(word in line for word in words)]

    def logged(self, name: str, *words: str, count: int = 1) -> list[str]:
        """The same, as soon as there are ``count`` of them: lines are written a moment after what they tell of.

        After ten seconds, what there is.
        """
        end = time.monotonic() + 10
        while len(lines := self.log_lines(name, *words)) < count and time.monotonic() < end:
            time.sleep(0.02)
        return lines

    def history(self, mac: str) -> list[tuple[str, str]]:
        """What happened to a device, oldest first, as pairs of what and detail."""
        events = self.json("device", "show", mac)["history"]
        return [(event["what"], event["detail"]) for event in sorted(events, key=lambda event: event["time"])]

    def statistics(self) -> Statistics:
        """What `zmgmcast -status` prints."""
        done = self.call("-status", program="zmgmcast")
        found = dict(re.findall(r"^(\w+ \w+)\s+(\d+)$", done.stdout, re.MULTILINE))
        try:
            return Statistics(*(int(found[title]) for title in ("PXE Requests", "Images Sent", "Images Received")))
        except KeyError:
            raise RoomError(f"zmgmcast -status: exit {done.returncode}\n{done.stdout}{done.stderr}") from None

    @property
    def resident_mb(self) -> float:
        """Memory that the process holds."""
        status = Path(f"/proc/{int(self.ok('showpid'))}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) / 1000 if found else 0.0

    def report(self) -> str:
        """The ends of all logs, for the message of a failed test."""
        parts = [f"--- {self.output}\n{_tail(self.output)}"]
        parts += [f"--- {path}\n{_tail(path)}" for path in sorted((self.state / "log").glob("*.log"))]
        return "\n".join(parts)


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server between start and stop, whatever happens in between."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _tail(path: Path, lines: int = 30) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(none)"


def _open_way() -> str:
    """Shell lines that let ``USER`` reach interpreter and checkout below directories that are closed to it.

    The server imports modules after it has given its rights up. A closed ancestor (/root) gets a twin that shows the
    needed directories and nothing else; it exists in the server's own mount namespace only.
    """
    needed = sorted({Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), CHECKOUT.resolve()})
    lines = ""
    for closed in sorted({found for path in needed if (found := _closed_ancestor(path))}):
        inside = [path for path in needed if closed in path.parents]
        hold, place = "$hold", shlex.quote(str(closed))
        lines += f"hold=$(mktemp -d /var/tmp/pbserv-way.XXXXXX)\nmount --bind {place} {hold}\n"
        lines += f"mount -t tmpfs -o mode=755 tmpfs {place}\n"
        for path in inside:
            target, source = shlex.quote(str(path)), shlex.quote(str(path.relative_to(closed)))
            lines += f"mkdir -p {target}\nmount --bind {hold}/{source} {target}\n"
        lines += f"umount {hold}\nrmdir {hold}\n"
    return lines


def _closed_ancestor(path: Path) -> Path | None:
    for parent in [*reversed(path.parents)]:
        if not os.stat(parent).st_mode & 0o001:
            return parent
    return None
