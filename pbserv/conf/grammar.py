"""The grammar of a .conf file: text to entries with line numbers (tables D-10 to D-16 of the manual). Pure.

One rule: a line is an entry, a comment, blank, or a fault; nothing is skipped silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Table D-14 prints "Linux -- TFTPDirectory = /srv/tftp": the label says where the parameter exists, people copy it.
_PLATFORM = re.compile(r"linux\s*--\s*", re.IGNORECASE)
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Entry:
    """One ``key = value``. ``has_value`` is False for a key that stands alone, as table D-10 prints
    ``PrebootServiceLogFileSize``; whether that is a key at all is for the reader who knows the keys."""

    key: str
    value: str
    line: int
    has_value: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that is not in the grammar; ``key`` is empty when there is none."""

    line: int
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """All entries and all faults of one file, in the order of their lines."""

    entries: tuple[Entry, ...]
    faults: tuple[Fault, ...]


def decode(data: bytes) -> str:
    """UTF-8 with or without a byte order mark; anything else is read as Latin-1, which cannot fail."""
    plain = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return plain.decode("utf-8")
    except UnicodeDecodeError:
        return plain.decode("latin-1")


def parse(text: str) -> Parsed:
    """Read a whole file. Keys are compared without regard to case; the second of two equal keys is a fault."""
    entries: list[Entry] = []
    faults: list[Fault] = []
    first_line: dict[str, int] = {}
    for number, line in _lines(text):
        found = _entry(line, number)
        if isinstance(found, Fault):
            faults.append(found)
            continue
        earlier = first_line.setdefault(found.key.lower(), number)
        if earlier != number:
            faults.append(Fault(number, found.key, f"is set twice, in line {earlier} and in line {number}; keep one"))
            continue
        entries.append(found)
    return Parsed(tuple(entries), tuple(faults))


def split_line(line: str) -> tuple[str, str, str] | None:
    """``(before, key, after)`` of an entry line with "=", so that an editor can keep what stands around the value.

    ``before`` holds indentation and platform label, ``after`` begins at the "=". None for any other line.
    """
    body = line.lstrip()
    label = _PLATFORM.match(body)
    start = len(line) - len(body) + (label.end() if label else 0)
    name, equals, _value = line[start:].partition("=")
    if not equals or not _KEY.fullmatch(name.rstrip()):
        return None
    return line[:start], name.rstrip(), line[start + len(name.rstrip()) :]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        stripped = line.strip()
        if stripped and stripped[0] not in "#;":
            yield number, stripped


def _entry(line: str, number: int) -> Entry | Fault:
    unlabelled = _PLATFORM.sub("", line, count=1) if _PLATFORM.match(line) else line
    key, equals, value = unlabelled.partition("=")
    key, value = key.strip(), value.strip()
    if not equals:
        if _KEY.fullmatch(key):
            return Entry(key, "", number, has_value=False)
        return Fault(number, "", f"{shown(line)} has no '='; write key = value, or begin the line with '#'")
    if not _KEY.fullmatch(key):
        return Fault(number, "", f"{shown(key)} is not a key; keys are letters, digits and '_'")
    bad = next((mark for mark in value if ord(mark) < 0x20 or ord(mark) == 0x7F), None)
    if bad is not None:
        return Fault(number, key, f"the value holds the control character 0x{ord(bad):02x}")
    return Entry(key, value, number)


def shown(text: str) -> str:
    """A piece of the file as it may stand in a message: short, quoted, on one line, without control characters."""
    short = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return f"'{short}'" if short.isprintable() else ascii(short)
