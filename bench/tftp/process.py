"""A server as a process pinned to one core: started, found ready, its CPU time and memory, ended.

One rule: what its children used counts too (tftpd-hpa forks for each request).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bench.tftp.cgroup import ControlGroup
from bench.tftp.peers import HOST, ROOT, Peer

READY_S = 20.0
TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.bind((HOST, 0))
        return int(raw.getsockname()[1])


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, said: IO[bytes]) -> None:
        self._process = process
        self._said = said
        self._group = ControlGroup(process.pid)
        self.port = port

    def cpu_seconds(self) -> float:
        found = self._group.cpu_seconds()
        if found is not None:
            return found
        return sum(_cpu_seconds(pid) for pid in _family(self._process.pid))

    def peak_kb(self) -> int:
        """Of the process itself; for a server that forks, of all of them now, shared pages divided."""
        family = _family(self._process.pid)
        if len(family) > 1:
            return sum(_field(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") for pid in family)
        return _field(Path(f"/proc/{self._process.pid}/status"), "VmHWM:")

    def kill(self) -> None:
        """With the children, wherever they are in a transfer."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        while len(_family(self._process.pid)) > 1:
            time.sleep(0.01)
        self._group.close()

    def wait_ready(self) -> None:
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                self._said.seek(0)
                last = self._said.read().decode(errors="replace").strip()[-600:]
                raise SystemExit(f"{self._process.args!r} ended with {self._process.returncode}: {last or 'no word'}")
            if _answers(self.port):
                return
        raise SystemExit(f"{self._process.args!r} does not answer within {READY_S:.0f} s")


@contextmanager
def running(peer: Peer, folder: Path, most: int, core: int) -> Iterator[Server]:
    """The server, ready."""
    port = peer.port or free_port()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *peer.command(folder, port, most)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
        server = Server(process, port, said)
        try:
            server.wait_ready()
            yield server
        finally:
            server.kill()


def _answers(port: int) -> bool:
    """Any answer to a request for the small file; the transfer is ended with an ERROR."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.settimeout(0.1)
        try:
            raw.sendto(b"\0\1probe\0octet\0", (HOST, port))
            _data, peer = raw.recvfrom(600)
            raw.sendto(b"\0\4\0\1", peer)
        except OSError:
            time.sleep(0.05)
            return False
    return True


def _family(pid: int) -> list[int]:
    """The server and what belongs to its session."""
    found = [pid]
    for path in Path("/proc").glob("[1-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid and int(path.parent.name) != pid:
            found.append(int(path.parent.name))
    return found


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / TICKS  # user, system, and both of children that ended


def _field(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
