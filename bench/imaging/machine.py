"""A restore on a virtual machine: how long it waited for the server, what was sent and what the file system uses.

One rule: everything is real: firmware, DHCP, the server process as an unprivileged user, the imaging client. Without
KVM the machine is emulated (TCG), and so much slower than a real one that the server has to be waited for less; the
accelerator stands in the result.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.imaging.stream import SOURCE
from bench.imaging.work import MIB, Restore
from tests.support import disks
from tests.support.lab import furnished
from tests.support.netns import run
from tests.support.qemu import Machine, MachineError, accelerator
from tests.support.server import CHECKOUT, PROGRAMS, Server

Run = dict[str, Any]
IMAGE = "bench"
BOOT_S, WORK_S, END_S = 300, 900, 120
"""Generous: an emulated machine on busy cores."""
_LAYOUT = "label: dos\nstart=1MiB, type=83, bootable\n"
_NEVER = ("Kernel panic", "pbclient: FAILED")


class Bench:
    """A room with our server and two machines; ``source``, with its disk captured, and ``target`` with a blank one."""

    def __init__(self, place: Path, server: Server, source: Machine, target: Machine) -> None:
        self._server, self._source, self._target = server, source, target
        self._disk = source.disks[0]
        self._used = used_bytes(self._disk)
        self._files = disks.listing(self._disk, disks.root_partition(self._disk))
        for machine in (source, target):
            server.ok("device", "accept", machine.mac, "--name", machine.name)

    def capture(self) -> None:
        """Make the image. Raises MachineError."""
        self._work(self._source, "capture")

    def restore(self) -> Run:
        """Restore it to a blank disk, and compare every file with the source."""
        disk = disks.blank_disk(self._target.disks[0], self._disk.stat().st_size)
        found: Run = {"bad": 0, "failed": 0, "unfinished": 0, "error": "", "used_bytes": self._used}
        try:
            job, found["machine_seconds"] = self._work(self._target, "restore")
        except MachineError as fault:
            return {**found, "failed": 1, "error": str(fault).partition("\n")[0], "all_bytes": 0, "bytes": 0}
        disks.check_ext4(disk)
        found["bad"] = int(disks.listing(disk, disks.root_partition(disk)) != self._files)
        found |= {"bytes": job["bytes_sent"], "all_bytes": job["bytes_sent"], "seconds": job["seconds"]}
        return found | {"waited_seconds": job["waited_ms"] / 1000, "verified": job["verified"]}

    def _work(self, machine: Machine, kind: str) -> tuple[dict[str, Any], float]:
        """The job as the server tells it, and seconds from power-on to the restart. Raises MachineError."""
        number = int(self._server.ok("work", kind, machine.mac, IMAGE).split()[1].rstrip(":"))
        try:
            console = machine.power_on()
            console.wait_for("pbclient: ", timeout_s=BOOT_S)
            console.wait_for(" done: ", timeout_s=WORK_S, never=_NEVER)
            seconds = machine.wait_end(END_S)
        finally:
            machine.power_off()
        entry = next(work for work in self._server.json("work", "list", "--all") if work["id"] == number)
        if entry["state"] != "done":
            raise MachineError(f"{kind}: {entry}")
        return entry["job"], seconds


def measure(restore: Restore, rounds: int) -> list[Run]:
    """One capture, then ``rounds`` restores of it. Raises MachineError when the capture fails."""
    client = CHECKOUT / ".cache" / "client"
    subprocess.run([str(PROGRAMS / "pbserv"), "client", "build", "--output", str(client)], check=True)
    with _place() as place, furnished(place, client) as (lan, server):
        disk = make_disk(place / "source.img", restore.file_bytes)
        source = Machine("source", "bios", lan, place, [disk])
        target = Machine("target", "bios", lan, place, [disks.blank_disk(place / "target.img", disk.stat().st_size)])
        bench = Bench(place, server, source, target)
        bench.capture()
        return [{**bench.restore(), "accelerator": accelerator().split(",")[0]} for _ in range(rounds)]


def make_disk(path: Path, file_bytes: int) -> Path:
    """A disk with an MBR and one ext4 of programs, ``file_bytes`` of them, on twice as much room."""
    tree = path.with_suffix(".tree")
    copied = 0
    for file in sorted(SOURCE.rglob("*")):
        if copied >= file_bytes:
            break
        if file.is_file() and not file.is_symlink():
            copy = tree / file.relative_to(SOURCE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            copied += copy.stat().st_size
    disks.blank_disk(path, 2 * file_bytes + 64 * MIB)
    subprocess.run(["sfdisk", "--quiet", str(path)], input=_LAYOUT, text=True, check=True)
    part = disks.root_partition(path)
    options = f"offset={part.start_bytes},root_owner=0:0"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, "-E", options, path, f"{part.size_bytes // 1024}k")
    shutil.rmtree(tree)
    return path


def used_bytes(disk: Path) -> int:
    """Blocks that the ext4 has given away, in bytes."""
    part = disks.root_partition(disk)
    said = run("dumpe2fs", "-h", f"{disk}?offset={part.start_bytes}")
    total, free, size = (int(_figure(said, name)) for name in ("Block count", "Free blocks", "Block size"))
    return (total - free) * size


def _figure(said: str, name: str) -> str:
    found = re.search(rf"^{name}:\s+(\d+)$", said, re.MULTILINE)
    if found is None:
        raise SystemExit(f"dumpe2fs said nothing of {name}")
    return found[1]


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    """A directory that the service user can reach, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="pbserv-bench-", dir="/var/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)
