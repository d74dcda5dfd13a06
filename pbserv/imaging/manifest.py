"""The manifest of an image: one line of disk facts and one line per item, as plain text. Pure.

One rule: a manifest that parses prints back to the same bytes, and every refusal names the line and the field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus

from pbserv.imaging.faults import ImagingFault, InvalidName

MAX_ITEMS = 256
MAX_BYTES = 64 * 1024
RESERVED_ITEM = "manifest"
"""The manifest lies beside the items under this name."""

_HEADER = "pbserv-image 1"
_IMAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ITEM_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_KIND = re.compile(r"sfdisk|boot|partclone\.[a-z0-9+-]{1,16}|raw|swap|file")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TABLES = ("gpt", "dos", "none")
_FIRMWARES = ("bios", "uefi")
_MAX_PARTITION = 1024


class ManifestError(ImagingFault):
    """Text that is not a manifest; ``line`` counts from 1, 0 stands for the whole text."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, line: int, field: str, why: str) -> None:
        super().__init__(f"manifest line {line}: {field}: {why}" if line else f"manifest: {field}: {why}")
        self.line = line
        self.field = field
        self.why = why


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The disk that the image was taken from; ``size_bytes`` 0 and table ``none`` when there was no disk."""

    size_bytes: int
    sector_bytes: int
    table: str
    firmware: str


@dataclass(frozen=True, slots=True)
class ManifestItem:
    """One stored file. ``partition`` 0 means the whole disk; ``sha256`` is that of the stored (compressed) bytes."""

    name: str
    kind: str
    partition: int
    stored_bytes: int
    sha256: str
    uncompressed_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A complete image: disk facts and 1 to 256 items with names of their own."""

    disk: DiskFacts
    items: tuple[ManifestItem, ...]

    @property
    def stored_bytes(self) -> int:
        return sum(item.stored_bytes for item in self.items)

    @property
    def uncompressed_bytes(self) -> int:
        return sum(item.uncompressed_bytes for item in self.items)

    def item(self, name: str) -> ManifestItem | None:
        """The item of that name, or None."""
        return next((item for item in self.items if item.name == name), None)


def check_image_name(name: str) -> str:
    """``name`` itself when it can be an image's; raises InvalidName."""
    if not _IMAGE_NAME.fullmatch(name):
        raise InvalidName(
            f"{name[:80]!r} cannot be the name of an image: 1 to 64 letters, digits, '.', '_' or '-', "
            "the first a letter or digit"
        )
    return name


def check_item_name(name: str) -> str:
    """``name`` itself when it can be an item's; raises InvalidName."""
    if not _ITEM_NAME.fullmatch(name):
        raise InvalidName(
            f"{name[:80]!r} cannot be the name of an item: 1 to 64 letters, digits, '.', '_' or '-', "
            "the first not a dot"
        )
    if name == RESERVED_ITEM:
        raise InvalidName(f"an item cannot be called {RESERVED_ITEM!r}: the manifest itself is kept under that name")
    return name


def is_sha256(text: str) -> bool:
    """True for 64 lower-case hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None


def parse(text: str) -> Manifest:
    """Read a manifest; raises ManifestError that names line and field. A missing last newline is forgiven."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogateescape")) > MAX_BYTES:
        raise ManifestError(0, "size", f"more than {MAX_BYTES} bytes")
    lines = text.removesuffix("\n").split("\n")
    if lines[0] != _HEADER:
        raise ManifestError(1, "header", f"expected {_HEADER!r}, found {lines[0][:40]!r}")
    if len(lines) < 2:
        raise ManifestError(2, "disk", "missing: the second line describes the disk")
    if len(lines) - 2 > MAX_ITEMS:
        raise ManifestError(MAX_ITEMS + 3, "item", f"more than {MAX_ITEMS} items")
    disk = _disk(2, _fields(2, lines[1], "disk", 4))
    items: dict[str, ManifestItem] = {}
    for number, line in enumerate(lines[2:], start=3):
        item = _item(number, _fields(number, line, "item", 6))
        if item.name in items:
            raise ManifestError(number, "name", f"{item.name!r} stands there twice")
        items[item.name] = item
    if not items:
        raise ManifestError(3, "item", "missing: an image has at least one item")
    return Manifest(disk, tuple(items.values()))


def print_manifest(manifest: Manifest) -> str:
    """The text of a manifest, with a newline at its end."""
    disk = manifest.disk
    lines = [_HEADER, f"disk {disk.size_bytes} {disk.sector_bytes} {disk.table} {disk.firmware}"]
    lines += [
        f"item {item.name} {item.kind} {item.partition} {item.stored_bytes} {item.sha256} {item.uncompressed_bytes}"
        for item in manifest.items
    ]
    return "\n".join(lines) + "\n"


def single_file(name: str, size_bytes: int, sha256: str) -> Manifest:
    """The manifest of one opaque file that did not come from a disk."""
    item = ManifestItem(check_item_name(name), "file", 0, size_bytes, sha256, size_bytes)
    return Manifest(DiskFacts(0, 512, "none", "bios"), (item,))


def _fields(number: int, line: str, record: str, count: int) -> list[str]:
    found, *fields = line.split(" ")
    if found != record:
        raise ManifestError(number, "record", f"expected {record!r}, found {found[:40]!r}")
    if len(fields) != count or "" in fields:
        raise ManifestError(number, record, f"needs {count} fields, each after one space, found {line[:120]!r}")
    return fields


def _disk(number: int, fields: list[str]) -> DiskFacts:
    size = _number(number, "size_bytes", fields[0])
    sector = _number(number, "logical_sector_size", fields[1])
    if not 512 <= sector <= 65536 or sector & (sector - 1):
        raise ManifestError(number, "logical_sector_size", f"{sector} is no power of two from 512 to 65536")
    table = _choice(number, "partition_table", fields[2], _TABLES)
    if size == 0 and table != "none":
        raise ManifestError(number, "size_bytes", f"a disk with a {table} partition table cannot have 0 bytes")
    return DiskFacts(size, sector, table, _choice(number, "firmware", fields[3], _FIRMWARES))


def _item(number: int, fields: list[str]) -> ManifestItem:
    name, kind, partition_text, stored, sha256, uncompressed = fields
    try:
        check_item_name(name)
    except InvalidName as fault:
        raise ManifestError(number, "name", str(fault)) from None
    if not _KIND.fullmatch(kind):
        raise ManifestError(
            number, "kind", f"{kind[:40]!r} is none of sfdisk, boot, partclone.<file system>, raw, swap, file"
        )
    partition = _number(number, "partition_number", partition_text)
    if partition > _MAX_PARTITION:
        raise ManifestError(number, "partition_number", f"{partition} is more than {_MAX_PARTITION}")
    if not is_sha256(sha256):
        raise ManifestError(number, "sha256", f"{sha256[:80]!r} is not 64 lower-case hexadecimal digits")
    return ManifestItem(
        name, kind, partition,
        _number(number, "stored_bytes", stored), sha256, _number(number, "uncompressed_bytes", uncompressed),
    )  # fmt: skip


def _number(line: int, field: str, text: str) -> int:
    value = int(text) if _NUMBER.fullmatch(text) else -1
    if not 0 <= value < 2**63:
        raise ManifestError(line, field, f"{text[:40]!r} is not a decimal number from 0 to 2^63-1")
    return value


def _choice(line: int, field: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise ManifestError(line, field, f"{text[:40]!r} is none of {', '.join(allowed)}")
    return text
