"""`make demo`: a small room of virtual machines. One is captured, the other restored, live in the terminal.

Everything is real: firmware, DHCP, the server process, the imaging client. Everything is removed afterwards.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tests.support import disks
from tests.support.lab import furnished
from tests.support.qemu import Machine, MachineError, accelerator
from tests.support.server import CHECKOUT, PROGRAMS, Server

CACHE = CHECKOUT / ".cache"
IMAGE = "classroom"
PATIENCE_S = 300


@dataclass
class Row:
    """What the screen shows of one machine."""

    machine: Machine
    doing: str = "off"
    work: dict[str, Any] | None = None
    result: str = ""


@dataclass
class Stage:
    """Everything on the screen."""

    rows: list[Row]
    server: Server
    notes: list[str] = field(default_factory=list)

    def __rich__(self) -> Group:
        table = Table(expand=True, title=f"pbserv demo ({accelerator().split(',')[0]}, real firmware)", padding=(0, 1))
        for name, width in (("Machine", 8), ("Doing", None), ("Progress", 14), ("%", 4), ("Rate", 10), ("Result", 13)):
            table.add_column(name, no_wrap=True, min_width=width, ratio=None if width else 1)
        for row in self.rows:
            job = (row.work or {}).get("job") or {}
            done, total = job.get("bytes_done", 0), job.get("bytes_total", 0)
            share = min(done / total, 1.0) if total else 0.0
            stage = f"{job['stage']} {job['item']}".strip() if job.get("state") == "running" else row.doing
            rate = f"{job['rate'] / 1e6:.1f} MB/s" if job.get("rate") else ""
            bar = ProgressBar(total=1.0, completed=share, width=14)
            table.add_row(row.machine.name, stage, bar, f"{100 * share:.0f}", rate, row.result)
        return Group(table, *(Text(note, style="dim") for note in self.notes[-8:]))

    def note(self, text: str) -> None:
        self.notes.append(f"{time.strftime('%H:%M:%S')}  {text}")


def main() -> int:
    """Run the demo; the exit code says whether both machines did their work."""
    screen = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    client = CACHE / "client"
    screen.print("Preparing: imaging client and guest system from Debian packages (the first time takes minutes) ...")
    subprocess.run([PROGRAMS / "pbserv", "client", "build", "--output", client], check=True)
    parts = disks.guest_parts(CACHE / "guest")
    try:
        with _place() as place, furnished(place, client, NewDevices="accept") as (lan, server):
            guest = disks.build_disk(place / "teacher.img", "bios", "teacher", parts)
            stage = Stage(
                [
                    Row(Machine("teacher", "bios", lan, place, [guest.path])),
                    Row(Machine("pupil", "bios", lan, place, [disks.blank_disk(place / "pupil.img")])),
                ],
                server,
            )
            with Live(stage, console=screen, refresh_per_second=5):
                _play(stage, guest)
    except KeyboardInterrupt:
        screen.print("stopped; the room is removed")
        return 130
    except (MachineError, AssertionError) as fault:
        screen.print(f"[red]the demo failed:[/red] {escape(str(fault))}")
        return 1
    screen.print("Both machines did their work; the room is removed.")
    return 0


def _play(stage: Stage, guest: disks.GuestDisk) -> None:
    teacher, pupil = stage.rows
    try:
        _work(stage, teacher, "capture")
        _work(stage, pupil, "restore")
        stage.note("pupil is powered on again: nothing to do, so it boots from its own disk")
        pupil.doing, pupil.work = "booting its own disk", None
        console = pupil.machine.power_on()
        _wait(stage, pupil, lambda: console.wait_for(guest.announcement, timeout_s=PATIENCE_S))
        pupil.doing, pupil.result = "runs the restored system", "[green]booted[/green]"
        stage.note(f"its console says: {guest.announcement}")
        done = stage.server.call("-status", program="zmgmcast").stdout
        for line in done.splitlines()[1:]:
            stage.note(line)
    finally:
        for row in stage.rows:
            row.machine.power_off()


def _work(stage: Stage, row: Row, kind: str) -> None:
    """Order work for one machine, power it on, and show it until it is done."""
    mac = row.machine.mac
    stage.server.ok("device", "accept", mac, "--name", row.machine.name)
    stage.note(stage.server.ok("work", kind, mac, IMAGE).splitlines()[0])
    row.doing = "powered on, firmware"
    console = row.machine.power_on()

    def finish() -> None:
        console.wait_for("pbclient: ", timeout_s=PATIENCE_S)
        row.doing = "imaging client"
        row.machine.wait_end(PATIENCE_S)

    _wait(stage, row, finish)
    row.doing = "off"
    state = (row.work or {}).get("state")
    assert state == "done", f"{row.machine.name}: {row.work}"
    row.result = f"[green]{kind} done[/green]"
    stage.note(f"{row.machine.name}: {kind} {IMAGE} done")


def _wait(stage: Stage, row: Row, until: Callable[[], object]) -> None:
    """Run ``until`` beside the screen, and read the work's progress from the server meanwhile."""
    faults: list[BaseException] = []

    def body() -> None:
        try:
            until()
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    while True:
        alive = thread.is_alive()
        works = stage.server.json("work", "list", "--all")
        row.work = next((work for work in works if work["mac"] == row.machine.mac), None)
        if not alive:
            break
        thread.join(1.0)
    if faults:
        raise faults[0]


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    """A directory that the service user can reach, removed afterwards."""
    made = Path(tempfile.mkdtemp(prefix="pbserv-demo-", dir="/var/tmp"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("make demo needs root: it makes network namespaces. Run: sudo make demo")
    sys.exit(main())
