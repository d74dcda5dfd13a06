"""One measurement: a fresh server on one core in its namespace, the load generator on another core beside the wire.

One rule: a server is measured only after the load generator had a right answer from it. A veth pair hands a packet over
in the time of its sender, so the way to the server is paid by the generator's core and the way back by the server's.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.dhcp import serve
from bench.dhcp.peers import Peer, Place
from bench.dhcp.wires import CLIENT_DEVICE, SERVER_MAC, Wires
from bench.dhcp.work import LOADER_BYTES, LOADERS, SERVER, Kind, Work, first_reply
from bench.tftp.peers import ROOT
from bench.tftp.process import READY_S, Server

HERE = Path(__file__).parent
VECTORS = ROOT / "tests" / "vectors"
Run = dict[str, Any]


def build(program: Path) -> Path:
    """Compile the load generator, or the reflector: the sources are in the directory of that name. Needs gcc."""
    sources = sorted(str(path) for path in (HERE / program.name).glob("*.c"))
    command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), *sources]
    subprocess.run(command, check=True)
    return program


def write_packets(folder: Path) -> Path:
    """The recorded packets of tests/vectors under the names that the load generator knows."""
    folder.mkdir()
    recorded = {entry["name"]: entry["hex"] for entry in json.loads((VECTORS / "pxe-dhcp.json").read_text())}
    firmware = json.loads((VECTORS / "firmware-boot.json").read_text())
    ipxe = (entry for entry in firmware if (entry["client"], entry.get("kind")) == ("ipxe-virtio", "REQUEST-4011"))
    packets = {
        "bios-discover": recorded["asrock-bios-intel-discover"],
        "uefi-discover": recorded["ovmf-x64-discover-bz387"],
        "uefi-request": recorded["ovmf-x64-request-bz387"],
        "uefi-boot": recorded["ovmf-x64-4011-request-try1-bz387"],
        "ipxe-boot": next(ipxe)["hex"],
    }
    for name, text in packets.items():
        (folder / name).write_bytes(bytes.fromhex(text))
    return folder


def loader() -> bytes:
    """What every loader consists of; see right_bytes() in machines.c."""
    return bytes(n % 251 for n in range(LOADER_BYTES))


class Bench:
    """The scratch directory with loaders, packets, registry and programs; the wire; the two cores."""

    def __init__(self, scratch: Path, wires: Wires) -> None:
        self._scratch = scratch
        self._wires = wires
        self._files = scratch / "files"
        self._files.mkdir()
        for name in LOADERS:
            (self._files / name).write_bytes(loader())
        self._packets = write_packets(scratch / "packets")
        self._program = build(scratch / "load")
        self._reflector = build(scratch / "reflector")
        self._known = scratch / serve.REGISTRY
        serve.register(self._known)
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("the bench needs two cores: one for the server, one for the load generator")
        self._server_core, self._load_core = cores[0], cores[-1]

    def run(self, peer: Peer, work: Work) -> Run:
        """Start the server, load it, end it; what the load generator found, and what the server used for it."""
        with self._running(peer, work.kind) as server:
            before = server.cpu_seconds()
            found = self._load(work)
            found["server_cpu_seconds"] = server.cpu_seconds() - before
            found["memory_peak_kb"] = server.peak_kb()
        return found

    @contextmanager
    def _running(self, peer: Peer, kind: Kind) -> Iterator[Server]:
        with (
            tempfile.TemporaryDirectory(dir=self._scratch) as folder,
            tempfile.TemporaryFile() as said,
        ):
            place = Place(Path(folder), self._files, self._known, self._reflector)
            words = ["taskset", "-c", str(self._server_core), *self._wires.inside, *peer.command(place, kind)]
            process = subprocess.Popen(
                words,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
            server = Server(process, 0, said)
            try:
                self._wait_ready(process, kind)
                yield server
            except NotServing as fault:
                said.seek(0)
                raise SystemExit(f"{peer.name}: {fault}: {said.read().decode(errors='replace')[-600:]}") from None
            finally:
                server.kill()

    def _wait_ready(self, process: subprocess.Popen[bytes], kind: Kind) -> None:
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            found = self._load(first_reply(kind))
            if found["bad"]:
                raise NotServing(f"a wrong reply to {kind}: {found['error']}")
            if found["all_replies"]:
                return
            if process.poll() is not None:
                raise NotServing(f"ended with {process.returncode}")
        raise NotServing(f"does not answer {kind} within {READY_S:.0f} s")

    def _load(self, work: Work) -> Run:
        command = ["taskset", "-c", str(self._load_core), str(self._program), "--packets", str(self._packets)]
        command += ["--device", CLIENT_DEVICE, "--server", SERVER, "--server-mac", SERVER_MAC]
        command += ["--files", ",".join(LOADERS), *work.arguments()]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=work.limit + 60)
        found: Run = json.loads(done.stdout)
        return found


class NotServing(Exception):
    """The server ended, or does not answer as it should."""
