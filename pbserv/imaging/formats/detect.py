"""Which format some bytes are, and OpenGnSys' line on it. Pure.

One rule: magics at the beginning come before superblocks further in, these before boot sectors, these before a table of
partitions, so that each is tried where nothing more certain fits.
"""

from __future__ import annotations

from collections.abc import Callable

from pbserv.imaging.formats import (
    boot_sectors,
    fsarchiver,
    members,
    ntfsclone,
    partclone,
    partimage,
    partition_tables,
    unix_systems,
    virtual_disks,
)
from pbserv.imaging.formats.model import FormatError, Found

_READERS: tuple[Callable[[bytes], Found | None], ...] = (
    partclone.read,
    partimage.read,
    ntfsclone.read,
    fsarchiver.read,
    virtual_disks.read,
    members.luks,
    unix_systems.xfs,
    unix_systems.btrfs,
    unix_systems.f2fs,
    unix_systems.hfs_plus,
    members.lvm2,
    unix_systems.ext,
    members.swap,
    boot_sectors.ntfs,
    boot_sectors.bitlocker,
    boot_sectors.exfat,
    boot_sectors.fat,
    partition_tables.read,
)


def detect(head: bytes) -> Found:
    """The format of an image that begins with ``head`` (HEAD_BYTES of it, or all); raises FormatError."""
    if not head:
        raise FormatError("the image is empty: copy it again")
    for read in _READERS:
        found = read(head)
        if found is not None:
            return found
    raise FormatError(
        f"no image that is known here: it begins with {head[:8].hex(' ')}; known are partclone, partimage, ntfsclone,"
        " fsarchiver, qcow2, VMDK, VDI, VHDX, raw disks and raw file systems"
    )


def line(found: Found, compressor: str) -> str:
    """``PARTCLONE:LZOP:NTFS:72100000``: tool, compressor, file system and the KB that a restore needs."""
    tool = "DD" if found.tool == "raw" else found.tool.upper()
    return f"{tool}:{compressor.upper()}:{found.file_system.replace(' ', '').upper()}:{kilobytes(found)}"


def kilobytes(found: Found) -> int:
    """OpenGnSys reads the sizes that the tools print, so they are rounded as these print them.

    partclone: gigabytes with one decimal place x 1,000,000, megabytes with one x 1,024. ntfsclone: bytes / 1,000.
    """
    if found.tool == "ntfsclone":
        return found.device_bytes // 1000
    if found.tool != "partclone":
        return found.device_bytes // 1024
    size = found.device_bytes
    # Departs: OpenGnSys multiplies what is printed in TB or KB as if it were MB.
    for unit, factor in ((10**12, 10**9), (10**9, 10**6), (10**6, 1024)):
        if size >= unit:
            return int(f"{size / unit:.1f}".replace(".", "")) * factor // 10
    return size // 1000
