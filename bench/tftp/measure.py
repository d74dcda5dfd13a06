"""One measurement: a fresh server on one core, the load generator on another, and what both of them used.

One rule: everything happens in a network namespace of our own, so that no other server, filter or traffic counts.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import subprocess
import threading
from pathlib import Path
from typing import Any

from bench.tftp.peers import Peer
from bench.tftp.process import Server, running
from bench.tftp.work import Work

HERE = Path(__file__).parent
PERIOD = 65_521
CLONE_NEWNET = 0x4000_0000
Run = dict[str, Any]


def build(program: Path) -> Path:
    """Compile the load generator, or the reflector: the sources are in the directory of that name. Needs gcc."""
    sources = sorted(str(path) for path in (HERE / program.name).glob("*.c"))
    command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), *sources]
    subprocess.run(command, check=True)
    return program


def pattern() -> bytes:
    """What every file consists of, over and over; see client_load_pattern() in client.c."""
    return random.Random(69).randbytes(PERIOD)


def write_file(path: Path, size: int) -> None:
    piece = pattern() * 64
    with path.open("wb") as file:
        for _ in range(size // len(piece)):
            file.write(piece)
        file.write(piece[: size % len(piece)])


def isolate() -> None:
    """A network namespace of our own, for this process and its children. tftpd-hpa wants an address besides 127/8."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise SystemExit(f"no network namespace: {os.strerror(ctypes.get_errno())}; run the bench as root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", "10.69.0.1/32", "dev", "lo"], check=True)


class Bench:
    """The scratch directory with the files and the load generator; the two cores."""

    def __init__(self, scratch: Path) -> None:
        scratch.chmod(0o755)
        self._files = scratch / "files"
        self._files.mkdir()
        self._pattern = scratch / "pattern"
        self._pattern.write_bytes(pattern())
        (self._files / "probe").write_bytes(b"small\n" * 20)
        self._program = build(scratch / "load")
        build(scratch / "reflector")
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("the bench needs two cores: one for the server, one for the load generator")
        self.server_core, self.load_core = cores[0], cores[-1]
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def run(self, peer: Peer, work: Work, *, watch_memory: bool = False) -> Run:
        path = self._files / work.file
        if not path.exists():
            write_file(path, work.size)
        with running(peer, self._files, max(2000, 2 * work.clients), self.server_core) as server:
            before_s, before_kb = server.cpu_seconds(), server.peak_kb()
            watch = _Watch(server, work.seconds / 2) if watch_memory else None
            found: Run = self._load(server.port, work)
            found["server_cpu_seconds"] = server.cpu_seconds() - before_s
            found["memory_before_kb"] = before_kb
            found["memory_peak_kb"] = max(server.peak_kb(), watch.stop() if watch else 0)
        return found

    def _load(self, port: int, work: Work) -> Run:
        command = ["taskset", "-c", str(self.load_core), str(self._program), "--port", str(port)]
        command += ["--pattern", str(self._pattern), *work.arguments()]
        done = subprocess.run(command, capture_output=True, check=True, timeout=work.limit + 60)
        found: Run = json.loads(done.stdout)
        return found


class _Watch:
    """Looks at the memory once, in the middle of the run: the children of a server that forks are gone afterwards."""

    def __init__(self, server: Server, after_s: float) -> None:
        self._found = 0
        self._server = server
        self._timer = threading.Timer(after_s, self._look)
        self._timer.start()

    def _look(self) -> None:
        self._found = self._server.peak_kb()

    def stop(self) -> int:
        self._timer.cancel()
        self._timer.join()
        return self._found
