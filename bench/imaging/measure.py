"""One measurement: a fresh server on one core, the load generator on another, and what both of them used.

One rule: both servers give out the same pages of the cache: the peer's large file is a link to the image's.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.imaging import serve
from bench.imaging.peers import PBSERV, Peer, Place
from bench.imaging.stream import PART_BYTES, make_parts
from bench.imaging.work import Row, Upload, Work, sizes
from bench.tftp import measure as tftp
from bench.tftp.measure import pattern, write_file
from bench.tftp.peers import ROOT
from bench.tftp.process import READY_S, TICKS, Server

HERE = Path(__file__).parent
PROBE_S = 2
"""A hundred new clients."""
Run = dict[str, Any]


def build(program: Path) -> Path:
    """Compile the load generator. Needs gcc."""
    sources = sorted(str(path) for path in (HERE / program.name).glob("*.c"))
    command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), *sources]
    subprocess.run(command, check=True)
    return program


class Bench:
    """The scratch directory with files, state and programs; the two cores."""

    def __init__(self, scratch: Path, rows: Sequence[Row], uploads: Sequence[Upload] = ()) -> None:
        self._place = Place(scratch, scratch / "own", scratch / "files")
        self._place.files.mkdir()
        self._pattern = scratch / "pattern"
        self._pattern.write_bytes(pattern())
        self._program = build(scratch / "load")
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("the bench needs two cores: one for the server, one for the load generator")
        self._server_core, self._load_core = cores[0], cores[-1]
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for size in sizes(tuple(rows), "file"):
            write_file(self._place.files / f"f{size}", size)
        serve.configure(self._place.own, self._place.files)
        self._store(sizes(tuple(rows), "image"))
        if uploads:
            self._parts = make_parts(scratch, max(upload.parts for upload in uploads))
            (self._place.files / "probe").write_bytes(b"small\n" * 20)
            (scratch / "tftp").mkdir()
            self._probe = tftp.build(scratch / "tftp" / "load")

    def _store(self, images: Sequence[int]) -> None:
        """Put the images into the store; what it made of each is linked into the peer's directory."""
        if not images:
            return
        source = self._place.scratch / "source"
        with self._running(PBSERV) as server:
            for size in images:
                write_file(source, size)
                serve.upload(self._place.own, serve.image_name(size), source)
                source.unlink()
            server.stop()
        state = self._place.own / "state"
        for size in images:
            found = [path for path in state.rglob("*") if path.is_file() and path.stat().st_size == size]
            if not found:
                raise SystemExit(f"no file of {size} bytes below {state}: the store keeps it in another form")
            os.link(found[0], self._place.files / f"f{size}")

    def run(self, peer: Peer, work: Work) -> Run:
        """Start the server, load it, end it; what the load generator found, and what the server used for it."""
        with self._running(peer) as server:
            before_s, before_kb = server.cpu_seconds(), server.peak_kb()
            found = self._load(peer, work)
            found["server_cpu_seconds"] = server.cpu_seconds() - before_s
            found["memory_before_kb"], found["memory_peak_kb"] = before_kb, server.peak_kb()
        return found

    def upload(self, upload: Upload) -> Run:
        """Upload to a fresh server of ours; what the uploader found, and the memory that it took."""
        with self._running(PBSERV) as server:
            before_s, before_kb = server.cpu_seconds(), server.peak_kb()
            command = ["taskset", "-c", str(self._load_core), sys.executable, "-m", "bench.imaging.uploader"]
            command += ["--port", str(serve.PORT), "--token", serve.token(self._place.own)]
            command += ["--parts", str(self._parts), "--part-bytes", str(PART_BYTES)]
            command += ["--count", str(upload.parts), "--clients", str(upload.clients)]
            uploader = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
            probe = self._probing(uploader) if upload.probe else None
            said, _ = uploader.communicate(timeout=600)
            found: Run = json.loads(said)
            found["server_cpu_seconds"] = server.cpu_seconds() - before_s
            found["memory_before_kb"], found["memory_peak_kb"] = before_kb, server.peak_kb()
        return found if probe is None else {**found, "probe": probe}

    def _probing(self, uploader: subprocess.Popen[bytes]) -> dict[str, float]:
        """Second by second while the uploads run, each with new clients; all of them together, the worst p99.

        The one regular client of that generator loses every packet and never asks again: it costs nothing.
        """
        command = ["taskset", "-c", str(self._load_core), str(self._probe), "--port", "69", "--name", "probe"]
        command += ["--size", "120", "--pattern", str(self._pattern), "--loss", "1", "--retry", "600000"]
        command += ["--seconds", str(PROBE_S), "--abort", "--new-client-probe", "probe"]
        found: list[dict[str, float]] = []
        while uploader.poll() is None:
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
            found.append(json.loads(done.stdout)["probe"])
        whole = found[:-1] or found  # in the last one the uploads ended
        together = {key: sum(one[key] for one in whole) for key in ("asked", "answered")}
        worst = {key: max(one[key] for one in whole) for key in ("p99_ms", "max_ms")}
        return {**together, "p50_ms": statistics.median(one["p50_ms"] for one in whole), **worst}

    def _running(self, peer: Peer) -> AbstractContextManager[Stoppable]:
        return running(peer, self._place, self._server_core)

    def _load(self, peer: Peer, work: Work) -> Run:
        command = ["taskset", "-c", str(self._load_core), str(self._program), "--host", serve.HOST]
        command += ["--port", str(peer.port), "--path", peer.path(work), "--pattern", str(self._pattern)]
        if peer is PBSERV and work.kind == "image":
            command += ["--token", serve.token(self._place.own)]
        done = subprocess.run([*command, *work.arguments()], stdout=subprocess.PIPE, check=True, timeout=120)
        found: Run = json.loads(done.stdout)
        return found


@contextmanager
def running(peer: Peer, place: Place, core: int) -> Iterator[Stoppable]:
    """A fresh server on one core, that answers; killed at the end. SystemExit when it does not come up."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *peer.command(place)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
        server = Stoppable(process, peer.port, said)
        try:
            if not _answers(process, peer.port):
                said.seek(0)
                raise SystemExit(f"{peer.name} does not answer: {said.read().decode(errors='replace')[-600:]}")
            yield server
        finally:
            server.kill()


class Stoppable(Server):
    """A server with what its whole session used."""

    def cpu_seconds(self) -> float:
        """Of all processes of its session: no server here lets children end."""
        return sum(_cpu_seconds(path) for path in Path("/proc").glob("[1-9]*/stat") if _session(path) == self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """End it in order, so that what it keeps is complete."""
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(30)


def _fields(path: Path) -> list[str]:
    """What stands behind the name of a process in its ``stat``; nothing when it has ended."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _session(path: Path) -> int:
    fields = _fields(path)
    return int(fields[3]) if fields else 0


def _cpu_seconds(path: Path) -> float:
    return sum(int(field) for field in _fields(path)[11:13]) / TICKS


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        wire = http.client.HTTPConnection(serve.HOST, port, timeout=5)
        try:
            wire.request("GET", "/readyz")  # a peer that knows no such file is ready too
            if wire.getresponse().status != http.HTTPStatus.SERVICE_UNAVAILABLE:
                return True
        except OSError:
            pass
        finally:
            wire.close()
        time.sleep(0.05)
    return False
