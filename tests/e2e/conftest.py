"""One laboratory for all end-to-end tests: a room with a plain DHCP server, our server, and machines in it.

The tests of one module tell one story in order (capture, restore, local boot) and share its machines.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from tests.e2e.marks import PATIENCE_S
from tests.support import disks
from tests.support.dhcp import plain_dhcp
from tests.support.lab import furnished
from tests.support.netns import Room, room
from tests.support.qemu import Machine, MachineError, accelerator
from tests.support.server import CHECKOUT, Server

CACHE = CHECKOUT / ".cache"
ENDED = ("done", "failed", "held", "expired", "cancelled")
_TIMES: dict[str, float] = {}


@dataclass
class Lab:
    """The room, our server in it, and the files of this run."""

    room: Room
    server: Server
    directory: Path
    parts: disks.Parts
    machines: list[Machine] = field(default_factory=list)

    def machine(self, name: str, firmware: disks.Firmware, disk: Path) -> Machine:
        """A machine with one disk whose network card comes first in the boot order."""
        made = Machine(name, firmware, self.room, self.directory, [disk])
        self.machines.append(made)
        return made

    def guest(self, name: str, firmware: disks.Firmware) -> disks.GuestDisk:
        """A disk with a system on it."""
        return disks.build_disk(self.directory / f"{name}.img", firmware, name, self.parts)

    def blank(self, name: str) -> Path:
        """A disk with nothing on it."""
        return disks.blank_disk(self.directory / f"{name}.img")

    def work(self, machine: Machine, *order: str, timeout_s: float = 2 * PATIENCE_S) -> float:
        """Order work, power the machine on, wait until it has done it and restarts; seconds from power-on."""
        number = int(self.server.ok("work", *order).split()[1].rstrip(":"))
        try:
            console = machine.power_on()
            first = console.wait_for("pbclient: ", timeout_s=PATIENCE_S)
            note(f"{machine.firmware}: power-on to the imaging client's first line, s", first)
            console.wait_for(" done: ", timeout_s=timeout_s, never=("Kernel panic", "pbclient: FAILED"))
            seconds = machine.wait_end(PATIENCE_S)
        finally:
            machine.power_off()
        entry = next(work for work in self.server.json("work", "list", "--all") if work["id"] == number)
        assert entry["state"] == "done", entry
        job = entry["job"]
        busy = datetime.fromisoformat(job["finished"]) - datetime.fromisoformat(job["started"])
        note(f"{machine.firmware}: {order[0]}, MB of the job per second (partitioning and checks included)",
             job["bytes_total"] / 1e6 / busy.total_seconds())  # fmt: skip
        return seconds

    def boots_own_disk(self, machine: Machine, guest: disks.GuestDisk, timeout_s: float = PATIENCE_S) -> str:
        """Power on and wait for the disk's own system to say who it is, check its files and power off."""
        try:
            console = machine.power_on()
            console.wait_for(guest.announcement, timeout_s=timeout_s)
            console.wait_for(guest.files_line, timeout_s=PATIENCE_S)
            console.wait_for(guest.farewell, timeout_s=PATIENCE_S)
            machine.wait_end(PATIENCE_S)
            return console.text
        finally:
            machine.power_off()


def note(what: str, value: float) -> None:
    """Keep a measured value for the summary at the end of the run."""
    _TIMES[what] = round(value, 1)


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory that the service user can reach; its logs are kept in the cache, the rest is removed."""
    made = Path(tempfile.mkdtemp(prefix="pbserv-e2e-", dir="/var/tmp"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        kept = CACHE / "e2e-logs"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for log in made.rglob("*.log"):
            shutil.copyfile(log, kept / "-".join(log.relative_to(made).parts))
        if not os.environ.get("PBSERV_TEST_KEEP"):
            shutil.rmtree(made)


@pytest.fixture(scope="session")
def parts() -> disks.Parts:
    """Kernel and shell for guest disks, from Debian packages."""
    return disks.guest_parts(CACHE / "guest")


@pytest.fixture(scope="session")
def client() -> Path:
    """The imaging client, built by the real command once per recipe; PBSERV_TEST_CLIENT names a finished one."""
    if ready := os.environ.get("PBSERV_TEST_CLIENT"):
        return Path(ready)
    output = CACHE / "client"
    begun = time.monotonic()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("pbserv")), "client", "build", "--output", str(output)],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"pbserv client build: {done.stdout}\n{done.stderr}"
    note("client build, s", time.monotonic() - begun)
    size = sum((output / name).stat().st_size for name in ("vmlinuz", "initrd.img"))
    note("client kernel + initramfs, MB", size / 1e6)
    return output


@pytest.fixture(scope="session")
def lab(place: Path, parts: disks.Parts, client: Path) -> Iterator[Lab]:
    """The room with the DHCP server and our server running in it."""
    with furnished(place, client) as (lan, server):
        made = Lab(lan, server, place, parts)
        note("server's resident memory after its start, MB", server.resident_mb)
        yield made
        for machine in made.machines:
            machine.power_off()


@pytest.fixture(scope="session")
def silent_room(place: Path) -> Iterator[Room]:
    """The same LAN with the same DHCP server, and nobody who knows of booting."""
    directory = place / "silent"
    directory.mkdir()
    with room() as lan, plain_dhcp(lan.host("dhcp", 1), directory):
        yield lan


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows the ends of the server's logs too."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    found = getattr(item, "funcargs", {}).get("lab")
    if report.when == "call" and report.failed and found is not None:
        report.sections.append(("server logs", found.server.report()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured and keep it beside the logs."""
    if not _TIMES:
        return
    measured = {"accelerator": accelerator(), **_TIMES}
    (CACHE / "e2e-times.json").write_text(json.dumps(measured, indent=1) + "\n")
    terminalreporter.section("measured")
    for what, value in measured.items():
        terminalreporter.line(f"{what}: {value}")


__all__ = ["Lab", "MachineError", "note"]
