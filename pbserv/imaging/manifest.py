"""The manifest of an image: one line of disk facts, one line per item, then facts about items, as plain text. Pure.

One rule: a manifest that parses prints back to the same bytes, and every refusal names the line and the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import quote, unquote

from pbserv.imaging.faults import ImagingFault, InvalidName

MAX_ITEMS = 256
MAX_FACTS = 4096
MAX_BYTES = 64 * 1024
"""Of a manifest that a client sends."""
MAX_STORED_BYTES = 256 * 1024
"""Of a manifest on the disk: the server adds facts."""
RESERVED_ITEM = "manifest"
"""The manifest lies beside the items under this name."""
FACTS_FILE = "facts"
SESSION_FILE = "session"
"""What an upload remembers lies beside its items under this name."""
INDEX_SUFFIX = ".pbx"
"""The index of an item's frames lies beside it, under its name and this."""

_HEADER = "pbserv-image 1"
_IMAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ITEM_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_NEW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_KIND = re.compile(r"sfdisk|boot|partclone\.[a-z0-9+-]{1,16}|raw|swap|file|partimage|ntfsclone|fsarchiver|tree|disk")
_FACT_KEY = re.compile(r"[a-z][a-z0-9_]{0,23}")
_WHOLE = "-"
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
class Fact:
    """Something known of an item, or of the whole image where ``item`` is empty; the value is any text but empty."""

    item: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A complete image: disk facts, 1 to 256 items with names of their own, and at most 4096 facts about them."""

    disk: DiskFacts
    items: tuple[ManifestItem, ...]
    facts: tuple[Fact, ...] = ()

    @property
    def stored_bytes(self) -> int:
        return sum(item.stored_bytes for item in self.items)

    @property
    def uncompressed_bytes(self) -> int:
        return sum(item.uncompressed_bytes for item in self.items)

    def item(self, name: str) -> ManifestItem | None:
        """The item of that name, or None."""
        return next((item for item in self.items if item.name == name), None)

    def fact(self, item: str, key: str) -> str:
        """The value of a fact, empty when it is not known; ``item`` empty: of the whole image."""
        return next((fact.value for fact in self.facts if fact.item == item and fact.key == key), "")

    def with_facts(self, facts: Iterable[Fact]) -> Manifest:
        """The same with these facts too; one that is there already (same item, same key) is replaced.

        Those without a value are passed over: what is not known is no fact.
        """
        known = {(fact.item, fact.key): fact for fact in self.facts}
        known.update({(fact.item, fact.key): fact for fact in facts if fact.value})
        return replace(self, facts=tuple(known.values()))


def check_new_name(name: str) -> str:
    """``name`` itself when a new image can be called so; raises InvalidName.

    OpenGnSys (002, "canonical name") forbids dots, spaces, slashes, quotes and brackets: NAME.img is a file of it.
    """
    if not _NEW_NAME.fullmatch(check_image_name(name)):
        raise InvalidName(
            f"{name[:80]!r} cannot be the name of a new image: 1 to 64 letters, digits, '_' or '-', no dots; try "
            f"{name.replace('.', '-')[:80]!r}"
        )
    return name


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
    if name in (FACTS_FILE, SESSION_FILE, f"{SESSION_FILE}.new", _WHOLE) or name.endswith(INDEX_SUFFIX):
        raise InvalidName(f"an item cannot be called {name!r}: that name has a meaning of its own")
    return name


def is_sha256(text: str) -> bool:
    """True for 64 lower-case hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None


def parse(text: str, max_bytes: int = MAX_BYTES) -> Manifest:
    """Read a manifest; raises ManifestError that names line and field. A missing last newline is forgiven."""
    if len(text) > max_bytes or len(text.encode("utf-8", "surrogateescape")) > max_bytes:
        raise ManifestError(0, "size", f"more than {max_bytes} bytes")
    lines = text.removesuffix("\n").split("\n")
    if lines[0] != _HEADER:
        raise ManifestError(1, "header", f"expected {_HEADER!r}, found {lines[0][:40]!r}")
    if len(lines) < 2:
        raise ManifestError(2, "disk", "missing: the second line describes the disk")
    disk = _disk(2, _fields(2, lines[1], "disk", 4))
    count = next((at for at, line in enumerate(lines[2:]) if line.startswith("fact ")), len(lines) - 2)
    if count > MAX_ITEMS:
        raise ManifestError(MAX_ITEMS + 3, "item", f"more than {MAX_ITEMS} items")
    items: dict[str, ManifestItem] = {}
    for number, line in enumerate(lines[2 : 2 + count], start=3):
        item = _item(number, _fields(number, line, "item", 6))
        if item.name in items:
            raise ManifestError(number, "name", f"{item.name!r} stands there twice")
        items[item.name] = item
    if not items:
        raise ManifestError(3, "item", "missing: an image has at least one item")
    return Manifest(disk, tuple(items.values()), _facts(lines, 2 + count, items))


def _facts(lines: list[str], first: int, items: Iterable[str]) -> tuple[Fact, ...]:
    if len(lines) - first > MAX_FACTS:
        raise ManifestError(first + MAX_FACTS + 1, "fact", f"more than {MAX_FACTS} facts")
    facts: dict[tuple[str, str], Fact] = {}
    for number, line in enumerate(lines[first:], start=first + 1):
        fact = _fact(number, _fields(number, line, "fact", 3))
        if fact.item and fact.item not in items:
            raise ManifestError(number, "item", f"{fact.item!r} is none of the items above")
        if (fact.item, fact.key) in facts:
            raise ManifestError(number, "key", f"{fact.key!r} stands there twice for this item")
        facts[fact.item, fact.key] = fact
    return tuple(facts.values())


def _fact(number: int, fields: list[str]) -> Fact:
    item, key, text = fields
    if not _FACT_KEY.fullmatch(key):
        raise ManifestError(
            number, "key", f"{key[:40]!r} is not 1 to 24 small letters, digits and '_', the first a letter"
        )
    try:
        value = unquote(text, errors="strict")
    except ValueError:
        raise ManifestError(number, "value", f"{text[:40]!r} is not percent-encoded UTF-8") from None
    if _quoted(value) != text:
        raise ManifestError(number, "value", f"{text[:40]!r} is not percent-encoded; write {_quoted(value)[:80]}")
    return Fact("" if item == _WHOLE else item, key, value)


def _quoted(value: str) -> str:
    return quote(value, safe="/:+,=@", errors="replace")


def print_manifest(manifest: Manifest) -> str:
    """The text of a manifest, with a newline at its end."""
    disk = manifest.disk
    lines = [_HEADER, f"disk {disk.size_bytes} {disk.sector_bytes} {disk.table} {disk.firmware}"]
    lines += [
        f"item {item.name} {item.kind} {item.partition} {item.stored_bytes} {item.sha256} {item.uncompressed_bytes}"
        for item in manifest.items
    ]
    lines += [f"fact {fact.item or _WHOLE} {fact.key} {_quoted(fact.value)}" for fact in manifest.facts]
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
            number,
            "kind",
            f"{kind[:40]!r} is none of sfdisk, boot, partclone.<file system>, raw, swap, file, "
            "partimage, ntfsclone, fsarchiver, tree, disk",
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
