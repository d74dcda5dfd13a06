"""Which disk a machine's image goes to: on made-up machines for the kinds of disks there are, and on one that boots."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pbserv.commands import client_build
from tests.client.disks import MEBIBYTE
from tests.client.machine import SCRIPT
from tests.client.standin import Handler, Job, StandIn
from tests.client.test_client_build import CHECKOUT, MAC, boot, needs_machine

# ---------------------------------------------------------------- made-up machines

# What asks the disks themselves asks /sys instead; the first thing that is refused ends it.
FAKES = """
lsblk() { :; }
blockdev() { [ "$1" != --getss ] || { echo 512; return; }; echo $(($(cat "/sys/block/${2#/dev/}/size") * 512)); }
check_disk() { :; }
say() { echo "$*"; }
die() { echo "$*"; exit 0; }
"""
PCI = "pci0000:00/0000:00:1f.2"


@dataclass
class Sysfs:
    """A /sys with nothing but disks."""

    folder: Path

    def put(self, name: str, where: str = f"{PCI}/ata1/host0", mib: int = 100, **facts: str) -> None:
        """A disk; ``device_type="SD"`` is its device/type."""
        disk = self.folder / "devices" / where / "block" / name
        (disk / "device").mkdir(parents=True)
        for key, value in {"size": str(mib * 2048), "removable": "0", "ro": "0", **facts}.items():
            (disk / key.replace("device_", "device/")).write_text(value + "\n")
        (self.folder / "block").mkdir(exist_ok=True)
        (self.folder / "block" / name).symlink_to(os.path.relpath(disk, self.folder / "block"))

    def take(self, name: str) -> None:
        """The disk is not there any more."""
        (self.folder / "block" / name).unlink()

    def choose(self, target: str = "", needed_mib: int = 50) -> str:
        """What the client says when it must choose."""
        code = f"PB_PARTS_ONLY=yes\n. '{SCRIPT}'\n{FAKES}TARGET_DISK='{target}'\nchoose_disk {needed_mib * MEBIBYTE}"
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c",
             'mount --bind "$1" /sys && exec dash -c "$2" "$3"', "sh", str(self.folder), code, str(SCRIPT)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.strip()


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    if os.geteuid() != 0:
        pytest.skip("needs root rights: mounts")
    return Sysfs(tmp_path / "sys")


@pytest.mark.root
def test_only_an_internal_disk_is_taken_unnamed(sysfs: Sysfs) -> None:
    sysfs.put("sda", device_model="Alpha", device_serial="a-1")
    sysfs.put("sdb", "pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6", device_model="Stick", device_serial="u-1")
    sysfs.put("sdc", removable="1")
    sysfs.put("sdd", "pci0000:00/0000:00:1e.0/firewire1/fw1/fw1.0/host7")
    sysfs.put("sde", ro="1")
    sysfs.put("sdf", mib=10)
    sysfs.put("sdg", mib=0)
    sysfs.put("mmcblk0", "pci0000:00/0000:00:1a.0/mmc_host/mmc0", device_type="SD")
    sysfs.put("mmcblk1", "pci0000:00/0000:00:1a.1/mmc_host/mmc1", device_type="MMC")
    for name in ("mmcblk1boot0", "sr0", "fd0", "loop0", "dm-0", "md0", "zram0", "nbd0"):
        sysfs.put(name, "virtual")
    size = 100 * MEBIBYTE
    assert sysfs.choose() == (
        f"refused: several disks could be meant: /dev/mmcblk1 {size} bytes; /dev/sda {size} bytes Alpha a-1"
    )
    sysfs.take("mmcblk1")
    assert sysfs.choose() == f"disk: /dev/sda {size} bytes Alpha a-1"
    assert sysfs.choose("serial:u-1") == f"disk: /dev/sdb {size} bytes Stick u-1 USB", "the job names it"
    sysfs.take("sda")
    assert sysfs.choose() == (
        f"refused: no internal disk has the {50 * MEBIBYTE} bytes needed; present: "
        f"/dev/mmcblk0 {size} bytes memory card; /dev/sdb {size} bytes Stick u-1 USB; /dev/sdc {size} bytes removable; "
        f"/dev/sdd {size} bytes FireWire; /dev/sde {size} bytes read-only; /dev/sdf {10 * MEBIBYTE} bytes"
    )


@pytest.mark.root
def test_a_list_of_many_disks_fits_into_a_message(sysfs: Sysfs) -> None:
    for letter in "abcdefghijkl":
        sysfs.put(f"sd{letter}")
    for said in (sysfs.choose(), sysfs.choose("serial:none")):
        assert "/dev/sda " in said
        assert "/dev/sdh " in said
        assert "/dev/sdi " not in said
        assert said.endswith("; and 4 more")


@pytest.mark.root
def test_a_machine_without_disks_says_so(sysfs: Sysfs) -> None:
    sysfs.put("sr0")
    assert sysfs.choose("serial:none") == "refused: no disk is serial:none; present: no disk"


# ---------------------------------------------------------------- a machine

SIZES = {"small": 16, "alpha": 64, "beta": 72, "stick": 96}  # MiB
DEVICES = [
    *("-device", "virtio-blk-pci,drive=small,serial=small-1"),
    *("-device", "ahci,id=ahci", "-device", "ide-hd,drive=alpha,bus=ahci.0,model=Room Alpha,serial=alpha-1"),
    *("-device", "nvme,drive=beta,serial=beta-1"),
    *("-device", "qemu-xhci", "-device", "usb-storage,drive=stick,serial=stick-1"),
]
NEEDED = 25 * MEBIBYTE
TABLE = b"label: dos\nlabel-id: 0x5eed0002\nunit: sectors\n\n/dev/x1 : start=2048, size=49152, type=83\n"

# Every run asks for the next job. Before the last one the SATA disk is pulled out.
ALL_RUNS = """
run() { PB_INITRAMFS='' sh /usr/local/bin/pbclient.sh --url "$PB_URL" --mac "$PB_MAC" --no-reboot; sync; }
for number in $(seq 2 %d); do run; done
for disk in /sys/block/sd*; do
	case "$(readlink -f "$disk")" in */ata[0-9]*) echo 1 >"$disk/device/delete" ;; esac
done
run
exit 0
"""


class Several(StandIn):
    """Every question for work gets the next job; before each it is noted which of the files are written to."""

    def __init__(self, jobs: Sequence[Job], files: Sequence[Path]) -> None:
        super().__init__(jobs[0])
        self.written: list[set[str]] = []
        handler: Any = type("Next", (NextJob,), {"jobs": list(jobs), "files": files, "written": self.written})
        self.httpd.RequestHandlerClass = handler


class NextJob(Handler):
    """One connection, for the job whose number is in the path."""

    jobs: ClassVar[list[Job]]
    files: ClassVar[list[Path]]
    written: ClassVar[list[set[str]]]

    def parse_request(self) -> bool:
        """The request's first lines; they say which job it is about."""
        understood = super().parse_request()
        if understood and self.path == "/client/v1/work":
            self.job = self.jobs[len(self.written)]
            self.written.append({path.stem for path in self.files if path.stat().st_blocks})
        elif understood:
            self.job = next(job for job in self.jobs if f"/jobs/{job.number}/" in self.path)
        return understood

    def do_GET(self) -> None:
        """The script of a job too."""
        if self.path == f"/client/v1/jobs/{self.job.number}/script" and self.allowed():
            return self.answer(200, self.job.scripts["script"])
        return super().do_GET()


def image() -> tuple[Job, bytes]:
    """A job with an image of one partition, which needs 25 MiB of a disk, and what is in the partition."""
    plain = os.urandom(MEBIBYTE) + bytes(23 * MEBIBYTE)
    stored = subprocess.run(["zstd", "-1", "-qc"], input=plain, capture_output=True, check=True).stdout
    lines = ["pbserv-image 1", f"disk {48 * MEBIBYTE} 512 dos bios"]
    items = {"table.sfdisk": TABLE, "p1.raw.zst": stored}
    for name, kind, number, size in (("table.sfdisk", "sfdisk", 0, len(TABLE)), ("p1.raw.zst", "raw", 1, len(plain))):
        digest = hashlib.sha256(items[name]).hexdigest()
        lines.append(f"item {name} {kind} {number} {len(items[name])} {digest} {size}")
    return Job("restore", items=items, manifest="\n".join(lines) + "\n"), plain


@dataclass
class Seen:
    """What a machine did with one job for each selector, and which disks were written to when it asked for the next."""

    jobs: dict[str, Job]
    written: list[set[str]]
    files: dict[str, Path]
    plain: bytes
    console: str

    def refusal(self, selector: str) -> str:
        """Why nothing was done."""
        ok, reason = self.jobs[selector].outcome()
        assert ok == "0", self.console
        return reason

    def planned(self, selector: str) -> str:
        """What would be done."""
        assert self.jobs[selector].outcome() == ("1", ""), self.console
        return (self.jobs[selector].result or {})["plan"]


CHOICES = {
    "serial:beta-1": "beta",
    "model:Room Alpha": "alpha",
    "by-id:ata-Room_Alpha_alpha-1": "alpha",
    f"size:{72 * MEBIBYTE}": "beta",
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A machine with a large USB stick, a virtio disk that is too small, and two that fit, SATA and NVMe; one boot."""
    folder = CHECKOUT / ".cache" / "client"
    client_build.build(folder, print)
    place = tmp_path_factory.mktemp("disks")
    files = {name: place / f"{name}.img" for name in SIZES}
    drives = []
    for name, path in files.items():
        with path.open("wb") as file:
            file.truncate(SIZES[name] * MEBIBYTE)
        drives += ["-drive", f"if=none,id={name},format=raw,file={path}"]
    made, plain = image()
    jobs = {}
    for selector in ("", *CHOICES, "serial:small-1"):
        jobs[selector] = made.again(**({"DRY_RUN": "1"} if selector in CHOICES else {}))
        jobs[selector].target_disk = selector
    jobs["last"] = made.again()
    first = Job("script", finish="poweroff", number="1", scripts={"script": ALL_RUNS % len(jobs)})
    for number, job in enumerate(jobs.values(), 2):
        job.number = str(number)
    several = Several([first, *jobs.values()], list(files.values()))
    with several as server:
        card = ("-device", f"virtio-net-pci,netdev=net,mac={MAC}")
        console = boot(folder, server, *card, *drives, *DEVICES, timeout_s=900)
    assert first.result is not None, console
    return Seen(jobs, several.written, files, plain, console)


class TestMachine:
    """Nothing but the disk that is meant is ever written to."""

    pytestmark = needs_machine

    def test_two_that_fit_are_refused_with_the_list(self, seen: Seen) -> None:
        reason = seen.refusal("")
        assert reason.startswith("refused: several disks could be meant: ")
        phrases = sorted(phrase.split(" ", 1)[1] for phrase in reason.rpartition(": ")[2].split("; "))
        assert phrases == [
            f"{64 * MEBIBYTE} bytes Room Alpha alpha-1",
            f"{72 * MEBIBYTE} bytes QEMU NVMe Ctrl beta-1",
        ]

    @pytest.mark.parametrize("selector", CHOICES)
    def test_the_job_names_the_disk(self, seen: Seen, selector: str) -> None:
        name = CHOICES[selector]
        line = seen.planned(selector).splitlines()[0]
        assert line.startswith("disk /dev/")
        assert line.endswith(f" {name}-1")
        assert f" {SIZES[name] * MEBIBYTE} bytes " in line

    def test_what_is_named_and_does_not_do_is_refused_with_the_list(self, seen: Seen) -> None:
        reason, _, listed = seen.refusal("serial:small-1").partition("; present: ")
        assert reason == f"refused: the disk is too small: the image needs {NEEDED} bytes, /dev/vda has {16 << 20}"
        disks = listed.split("; ")
        assert len(disks) == 4
        for name, mib in SIZES.items():
            (found,) = [disk for disk in disks if f"{name}-1" in disk]
            assert f" {mib * MEBIBYTE} bytes " in found
            assert ("USB" in found.split()) == (name == "stick")

    def test_nothing_is_written_until_the_only_one_that_fits_is_taken(self, seen: Seen) -> None:
        assert seen.jobs["last"].outcome() == ("1", ""), seen.console
        assert len(seen.written) == 1 + len(seen.jobs)
        assert set().union(*seen.written) == set()
        with seen.files["beta"].open("rb") as file:
            file.seek(510)
            assert file.read(2) == b"\x55\xaa"
            file.seek(MEBIBYTE)
            assert file.read(len(seen.plain)) == seen.plain
        assert {name for name, path in seen.files.items() if path.stat().st_blocks} == {"beta"}
