"""Files beside the images in a directory of FOG (FOS' funcs.sh writes them). Pure: names and bytes in, facts out."""

from __future__ import annotations

import re
from collections.abc import Collection

from pbserv.imaging.formats.model import FormatError
from pbserv.imaging.formats.sfdisk import Table

_IMAGE = re.compile(r"d([0-9]{1,3})p([0-9]{1,4})\.img")
_TABLE = re.compile(r"d([0-9]{1,3})\.(?:original\.|minimum\.)?partitions")
_SWAP = re.compile(r"(?:\S*[^0-9\s])?([0-9]{1,4})\s+(\S{1,64})")
_UUID = re.compile(r"[0-9A-Za-z-]{1,64}")
_SIZE = re.compile(rb"\s*(?:[0-9]+:)?([0-9]{6,18})\s*")
TABLES = ("partitions", "original.partitions", "minimum.partitions")
"""In this order; the first is the disk as it was captured, the last what a shrunken capture needs."""


def image(stem: str) -> tuple[int, int] | None:
    """(disk, partition) of an image's name without its volume's ending; None where it is none of FOG's."""
    match = _IMAGE.fullmatch(stem)
    return (int(match[1]), int(match[2])) if match else None


def disks(names: Collection[str]) -> list[int]:
    """Numbers of the disks that have a table or an image."""
    found = {int(match[1]) for name in names if (match := _TABLE.fullmatch(name))}
    found |= {int(match[1]) for name in names if (match := re.match(r"d([0-9]{1,3})p[0-9]{1,4}\.img", name))}
    return sorted(found)


def sidecars(disk: int) -> tuple[str, ...]:
    """Files of that disk that are wanted whole; any may be missing."""
    return tuple(f"d{disk}.{kind}" for kind in (*TABLES, "mbr", "grub.mbr", "original.swapuuids", "size"))


def swaps(data: bytes, what: str) -> dict[int, str]:
    """UUID by partition of `dN.original.swapuuids`; the partition stands there as a number or as a node."""
    found: dict[int, str] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        match = _SWAP.fullmatch(line.strip())
        if match is None or not _UUID.fullmatch(match[2]) or not 1 <= int(match[1]) <= 1024:
            raise FormatError(f"{what}: line {number}: {line[:60]!r} is no partition and its UUID; copy the file again")
        found[int(match[1])] = match[2]
    return found


def disk_bytes(data: bytes) -> int:
    """The disk's size by `dN.size`; 0 where it does not say."""
    match = _SIZE.fullmatch(data[:64])
    return int(match[1]) if match else 0


def boot_area(table: Table, mbr: bytes, grub: bytes) -> bytes:
    """The disk's first bytes. On GPT `dN.mbr` is sgdisk's backup, of which only the first sector is one of the disk."""
    if table.label == "gpt":
        return grub or mbr[:512]
    return mbr[: table.first_sector * table.sector_bytes]
