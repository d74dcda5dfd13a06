"""Partition tables as `sfdisk -d` writes them, today's and those before util-linux 2.26. Pure.

One rule: what comes out is a dump that today's sfdisk takes and whose partitions a shell finds by their numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pbserv.imaging.formats.model import FormatError

MAX_BYTES = 256 * 1024
_MAX_NUMBER = 1024
_MAX_SECTORS = 1 << 52
_HEADER = re.compile(r"([a-z-]+):\s*(\S.*)?")
_LINE = re.compile(r"(\S+)\s*:\s*(\S.*)")
_FIELD = re.compile(r'\s*([A-Za-z-]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^,"]*))?\s*(?:,|$)')
_NUMBER = re.compile(r"[0-9]{1,16}")
_EXTENDED = ("5", "f", "85", "c5")
_PROTECTIVE = "ee"
_EFI_SYSTEM = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "u", "ef", "uefi")


@dataclass(frozen=True, slots=True)
class Entry:
    """One partition; ``start`` and ``size`` in sectors, ``kind`` is sfdisk's type in lower case."""

    number: int
    start: int
    size: int
    kind: str
    bootable: bool = False

    @property
    def extended(self) -> bool:
        """True for the frame around logical partitions, which holds nothing itself."""
        return self.kind in _EXTENDED


@dataclass(frozen=True, slots=True)
class Table:
    """A partition table. ``label`` is gpt or dos; ``device`` the disk it was taken from, such as /dev/sda, or ''."""

    label: str
    device: str
    sector_bytes: int
    label_id: str
    first_lba: int
    last_lba: int
    entries: tuple[Entry, ...]
    text: bytes

    @property
    def disk_bytes(self) -> int:
        """The smallest disk that has room for it; GPT keeps its second table behind the last usable sector."""
        end = max(entry.start + entry.size for entry in self.entries)
        if self.label == "gpt":
            behind = 1 + -(-16384 // self.sector_bytes)
            end = max(end, self.last_lba + 1) + behind
        return end * self.sector_bytes

    @property
    def firmware(self) -> str:
        """uefi where there is a system partition for it, else bios."""
        return "uefi" if any(entry.kind in _EFI_SYSTEM for entry in self.entries) else "bios"

    @property
    def first_sector(self) -> int:
        """Where the first partition begins."""
        return min(entry.start for entry in self.entries)


def parse(data: bytes, what: str) -> Table:
    """The table in a dump of at most MAX_BYTES; ``what`` names it in errors. Raises FormatError."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"{what}: {len(data)} bytes are no partition table: at most {MAX_BYTES} are read")
    header: dict[str, str] = {}
    entries: list[Entry] = []
    for number, raw in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if not entries and (match := _HEADER.fullmatch(line)):
            header[match[1]] = (match[2] or "").strip()
            continue
        entry = _entry(line, header.get("device", ""), f"{what}: line {number}")
        if entry.size:
            entries.append(entry)
    return _table(header, entries, data, what)


def _table(header: dict[str, str], entries: list[Entry], data: bytes, what: str) -> Table:
    label = header.get("label", "dos")
    if label not in ("gpt", "dos"):
        raise FormatError(f"{what}: a table of type {label[:20]!r}; gpt and dos are known")
    if not entries:
        raise FormatError(f"{what}: a table without partitions: copy the file again")
    if label == "dos" and any(entry.kind == _PROTECTIVE for entry in entries):
        raise FormatError(
            f"{what}: the table of a GPT disk that an sfdisk before 2.26 could not read; restore it by the system that"
            " saved it, and capture that disk"
        )
    numbers = [entry.number for entry in entries]
    if len(set(numbers)) != len(numbers):
        raise FormatError(f"{what}: partition {max(numbers, key=numbers.count)} stands there twice")
    sector = _number(header.get("sector-size", "512"), f"{what}: sector-size")
    if not 512 <= sector <= 65536 or sector & (sector - 1):
        raise FormatError(f"{what}: sectors of {sector} bytes; a power of two from 512 to 65536 is right")
    first = _number(header.get("first-lba", "0"), f"{what}: first-lba")
    last = _number(header.get("last-lba", "0"), f"{what}: last-lba")
    device = header.get("device", "")
    table = Table(label, device, sector, header.get("label-id", ""), first, last, tuple(entries), data)
    return table if "label" in header else rewritten(table)


def rewritten(table: Table, label_id: str = "") -> Table:
    """The same table as today's sfdisk writes it; an old dump has no ``label_id``, the first sector of the disk has."""
    table = replace(table, label_id=label_id or table.label_id)
    node = table.device or "/dev/sda"
    lines = [f"label: {table.label}"]
    lines += [f"label-id: {table.label_id}"] if table.label_id else []
    lines += [f"device: {node}", "unit: sectors", f"sector-size: {table.sector_bytes}", ""]
    between = "p" if node[-1:].isdigit() else ""
    lines += [
        f"{node}{between}{entry.number} : start= {entry.start:11}, size= {entry.size:11}, type={entry.kind}"
        + (", bootable" if entry.bootable else "")
        for entry in table.entries
    ]
    return replace(table, text=("\n".join(lines) + "\n").encode())


def _entry(line: str, device: str, where: str) -> Entry:
    match = _LINE.fullmatch(line)
    if match is None:
        raise FormatError(f"{where}: {line[:60]!r} is no line of sfdisk's")
    fields = _fields(match[2], where)
    number = partition_number(match[1], device)
    if number is None:
        raise FormatError(f"{where}: {match[1][:40]!r} is no partition")
    start, size = (_number(fields.get(key, ""), f"{where}: {key}") for key in ("start", "size"))
    if start + size > _MAX_SECTORS:
        raise FormatError(f"{where}: ends at sector {start + size}, which no disk has")
    kind = fields.get("type", fields.get("id", "")).strip('"').lower()
    if not re.fullmatch(r"[0-9a-z-]{1,40}", kind):
        raise FormatError(f"{where}: type {kind[:40]!r} is none")
    return Entry(number, start, size, kind, "bootable" in fields)


def _fields(text: str, where: str) -> dict[str, str]:
    """``key=value`` and bare words, by lower-case key; a value in quotes may hold commas."""
    fields: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _FIELD.match(text, at)
        if match is None or match.end() == at:
            raise FormatError(f"{where}: {text[at : at + 40]!r} cannot be read")
        fields.setdefault(match[1].lower(), (match[2] or "").strip())
        at = match.end()
    return fields


def partition_number(node: str, device: str = "") -> int | None:
    """3 for /dev/sda3, nvme0n1p3, d.img3; None where it is no partition, or not one of ``device``."""
    text = node.removeprefix(device) if device and node.startswith(device) else node
    match = re.fullmatch(r"(?:.*[^0-9])?([0-9]{1,5})", text, re.S)
    if match is None or not 1 <= int(match[1]) <= _MAX_NUMBER:
        return None
    return int(match[1])


def _number(text: str, where: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise FormatError(f"{where}: {text[:40]!r} is no number")
    return int(text)
