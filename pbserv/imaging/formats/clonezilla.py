"""Files beside the images in a directory of Clonezilla. Pure: names and bytes in, facts out."""

from __future__ import annotations

import re
from collections.abc import Collection

from pbserv.imaging.formats.model import FormatError

_IMAGE = re.compile(r"([^.]{1,64})\.([A-Za-z0-9_+-]{1,20}?)(?:-ptcl)?-img(?:\.[a-z0-9]{2,6})?")
_PARTIMAGE = re.compile(r"[a-z]{2,6}[a-z0-9]{1,12}")
_TABLE = re.compile(r"([A-Za-z0-9_!-]{1,64})-pt\.sf")
_WORD = re.compile(r"[A-Za-z0-9_!+./-]{1,128}")
_DISK = re.compile(r"^Disk\s+\S+:\s*([0-9]{1,16})s\s*$", re.M)
_SECTOR = re.compile(r"^Sector size[^:]*:\s*([0-9]{3,5})B/", re.M)
_VALUE = re.compile(r'^(UUID|LABEL)="?([^"\n]{0,64})"?\s*$', re.M)
ENCRYPTED = "ecryptfs.info"


def image(stem: str) -> tuple[str, str] | None:
    """(node such as sda1, file system by the name) of an image's name without its volume's ending, or None.

    Those of partimage are called after the node alone.
    """
    if _PARTIMAGE.fullmatch(stem):
        return stem, ""
    match = _IMAGE.fullmatch(stem)
    return (match[1], match[2].lower()) if match else None


def words(data: bytes, what: str) -> tuple[str, ...]:
    """The names in `disk` or `parts`; raises FormatError."""
    found = data[:65536].decode("utf-8", "replace").split()
    bad = next((word for word in found if not _WORD.fullmatch(word)), None)
    if bad is not None:
        raise FormatError(f"{what}: {bad[:60]!r} is no name of a device; copy the file again")
    return tuple(found)


def disks(names: Collection[str]) -> list[str]:
    """Names of the disks that have a partition table, such as sda."""
    return sorted(match[1] for name in names if (match := _TABLE.fullmatch(name)))


def sidecars(disk: str) -> tuple[str, ...]:
    """Files of that disk that are wanted whole; any may be missing."""
    return tuple(f"{disk}-{kind}" for kind in ("pt.sf", "pt.parted", "mbr", "hidden-data-after-mbr"))


def swap_files(names: Collection[str]) -> list[str]:
    """Files that tell of partitions for swapping."""
    return sorted(name for name in names if name.startswith("swappt-") and name.endswith(".info"))


def of_disk(node: str, disk: str) -> int | None:
    """Which partition of ``disk`` a node such as sda1 or nvme0n1p2 is; None where it is none of it."""
    rest = node.removeprefix(disk) if node.startswith(disk) else ""
    if disk[-1:].isdigit():
        rest = rest[1:] if rest.startswith("p") else ""
    return int(rest) if re.fullmatch(r"[0-9]{1,4}", rest) and 1 <= int(rest) <= 1024 else None


def geometry(parted: bytes) -> tuple[int, int]:
    """(bytes of the disk, bytes of a sector) by `X-pt.parted`, 0 where it does not say."""
    text = parted[:65536].decode("utf-8", "replace")
    sectors, size = _DISK.search(text), _SECTOR.search(text)
    sector = int(size[1]) if size else 0
    return (int(sectors[1]) * sector if sectors else 0), sector


def swap(data: bytes) -> dict[str, str]:
    """UUID and LABEL by `swappt-X.info`, those that have a value."""
    return {key: value for key, value in _VALUE.findall(data[:4096].decode("utf-8", "replace")) if value}
