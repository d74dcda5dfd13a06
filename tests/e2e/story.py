"""What both firmwares' stories assert: the disks are equal, and the records say what happened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import Lab
from tests.support import disks
from tests.support.qemu import Machine
from tests.support.server import Server

# Boot code and disk signature. The table's own bytes are compared as sfdisk reads them: its CHS fields, which nobody
# has read for decades, follow the geometry that the drive claims.
_BOOT_CODE = 446


@dataclass(frozen=True)
class Story:
    """A machine with a system, what stands on its disk, and a machine with an empty disk."""

    source: Machine
    guest: disks.GuestDisk
    target: Machine


def begin(lab: Lab, firmware: disks.Firmware) -> Story:
    """Build the disks and the machines; nothing has power yet."""
    guest = lab.guest(f"{firmware}-source", firmware)
    source = lab.machine(f"{firmware}-source", firmware, guest.path)
    return Story(source, guest, lab.machine(f"{firmware}-target", firmware, lab.blank(f"{firmware}-target")))


def same_disk(source: Path, target: Path) -> None:
    """Partition table, boot code, swap identity, a clean file system and every file's hash, mode, owner and time."""
    assert disks.table_text(target) == disks.table_text(source)
    with source.open("rb") as one, target.open("rb") as two:
        assert two.read(_BOOT_CODE) == one.read(_BOOT_CODE)
    assert disks.swap_uuid_of(target) == disks.swap_uuid_of(source)
    disks.check_ext4(target)
    for part in disks.partitions(source):
        if disks.file_system(source, part) == "ext4":
            expected = disks.listing(source, part)
            assert disks.listing(target, part) == expected
            assert len(expected) > 600
        elif disks.file_system(source, part) == "vfat":
            files = disks.fat_listing(source, part)
            assert disks.fat_listing(target, part) == files
            assert "EFI/BOOT/BOOTX64.EFI" in files or len(files) > 50


def told(server: Server, mac: str, image: str, kind: str) -> None:
    """The imaging log and the device's history name the job, its image and its good end."""
    assert server.logged("pbserv", mac, kind, image, "started")
    assert server.logged("pbserv", mac, kind, image, "done")
    history = server.history(mac)
    assert any(what == "job" and f"{kind} {image} done: ok" in detail for what, detail in history), history
    assert any(what.startswith("asked by") and detail.startswith("boot") for what, detail in history), history
