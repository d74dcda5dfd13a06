"""Files of other imaging systems, read to their end before any of it is sent: whole, and of their checksums. Blocking.

One rule: a compressed stream that is cut off is found here, and so is a file that is shorter than what its header says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from pbserv.imaging.convert import plain_limit
from pbserv.imaging.formats import fsarchiver, partimage
from pbserv.imaging.formats.model import FormatError, Found
from pbserv.imaging.formats.partclone import HEADER_BYTES
from pbserv.imaging.frames.head import NotNative, parse_header
from pbserv.imaging.import_plan import Check, Plan, PlannedItem, whole_disk
from pbserv.imaging.importing import Source, stored_file
from pbserv.imaging.inspection import InspectionError
from pbserv.imaging.unpack import MAX_PLAIN_BYTES, unpacked

_TAIL_BYTES = 64 * 1024
_ENDS = {"partimage": partimage.check_end, "fsarchiver": fsarchiver.check_end}


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def _nothing(_count: int) -> None: ...


def reads(source: Source, item: PlannedItem) -> bool:
    """True where its files have to be read: else their lengths tell as much."""
    listed = any(name in source.sums for name in item.volumes)
    return bool(item.volumes) and (bool(item.checks) or listed or item.compressor != "none")


def verified(source: Source, plan: Plan, advance: Callable[[int], None] = _nothing) -> Plan:
    """The plan with the lengths that were counted, where headers do not tell them. Raises InspectionError.

    A table of DOS says where the last partition ends, and not how large its disk was: the uncompressed bytes do.
    """
    items = tuple(_measured(item, verify(source, item, advance)) for item in plan.items)
    disk = plan.disk
    if items and items[0].found and whole_disk(items[0].found):
        disk = replace(disk, size_bytes=max(items[0].plain_bytes, disk.size_bytes))
    return replace(plan, disk=disk, items=items)


def _measured(item: PlannedItem, plain_bytes: int) -> PlannedItem:
    exact = item.virtual or any(check.plain for check in item.checks)
    return item if exact or not plain_bytes else replace(item, plain_bytes=plain_bytes)


def verify(source: Source, item: PlannedItem, advance: Callable[[int], None] = _nothing) -> int:
    """Read the item's files and compare them with the checksums beside them; raises InspectionError where one differs,
    or where the stream ends too early. Returns its uncompressed bytes, 0: it has no files, or is a virtual disk.
    """
    if not item.volumes:
        return 0
    path = source.directory / item.source
    try:
        done = _read(source, item, advance)
        if item.virtual or item.found is None:
            return 0
        done.check(item.found, item.compressor)
    except FormatError as fault:
        raise InspectionError(f"{path}: {fault}") from fault
    return done.size_bytes


@dataclass(slots=True)
class Plain:
    """What was seen of the uncompressed bytes of an image: how many, the first and the last of them."""

    size_bytes: int = 0
    head: bytes = b""
    tail: bytes = b""

    def feed(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        self.head += piece[: HEADER_BYTES - len(self.head)]
        self.tail = piece[-_TAIL_BYTES:] if len(piece) >= _TAIL_BYTES else (self.tail + piece)[-_TAIL_BYTES:]

    def check(self, found: Found, compressor: str) -> None:
        """All of it was seen; raises FormatError where it ends too early. Ends of what is not compressed are known
        by a look at the file."""
        least = _least(found, self.head)
        if self.size_bytes < least:
            raise FormatError(
                f"it is cut off: it has {self.size_bytes} bytes, uncompressed, of {least} at least; is its last volume"
                " missing? Copy it again, whole"
            )
        if compressor != "none" and found.tool in _ENDS:
            _ENDS[found.tool](self.tail)


def _read(source: Source, item: PlannedItem, advance: Callable[[int], None]) -> Plain:
    """Its length uncompressed, and its first bytes; of what need not be read whole, by the lengths of its files."""
    made = {check: hashlib.md5(usedforsecurity=False) for check in item.checks}
    done = Plain()
    with closing(_stored(source, item, advance, [made[check] for check in made if not check.plain])) as stored:
        if not reads(source, item):
            return Plain(item.stored_bytes, next(stored, b"")[:HEADER_BYTES])
        limit = plain_limit(item.found, MAX_PLAIN_BYTES) if item.found else MAX_PLAIN_BYTES
        with closing(unpacked(stored, item.compressor, limit)) as pieces:
            for piece in pieces:
                for check, running in made.items():
                    if check.plain:
                        running.update(piece[: max(0, check.size_bytes - done.size_bytes)])
                done.feed(piece)
        for _rest in stored:  # a program may leave padding unread
            pass
    for check, running in made.items():
        _compare(source, item, check, running.hexdigest(), done.size_bytes)
    return done


def _compare(source: Source, item: PlannedItem, check: Check, md5: str, plain_bytes: int) -> None:
    if check.size_bytes > plain_bytes:
        raise FormatError(
            f"uncompressed it has {check.size_bytes - plain_bytes} bytes less than {check.source} says: copy it again"
        )
    if md5 != check.md5:
        raise InspectionError(
            f"{source.directory / item.source}: its MD5 is {md5}, and {check.source} says {check.md5};"
            " the file is damaged or another one: copy it again"
        )


def _stored(
    source: Source, item: PlannedItem, advance: Callable[[int], None], of_all: Iterable[_Hash]
) -> Generator[bytes, None, None]:
    """The stored bytes; digests of all of them are made in passing, and those of listed volumes compared."""
    for name in item.volumes:
        listed = source.sums.get(name)
        running = hashlib.new(listed.algorithm, usedforsecurity=False) if listed else None
        with closing(stored_file(source.directory / name, advance)) as chunks:
            for chunk in chunks:
                for each in (*of_all, *((running,) if running else ())):
                    each.update(chunk)
                yield chunk
        if listed and running and running.hexdigest() != listed.digest:
            raise InspectionError(
                f"{source.directory / name}: it is not of the digest that {listed.source} says; the file is damaged:"
                " copy it again"
            )


def _least(found: Found, head: bytes) -> int:
    """So many uncompressed bytes the image has at least; 0 where nothing tells."""
    if found.tool == "raw":
        return 0 if any(key == "Devices" and said for key, said in found.facts) else found.device_bytes
    if found.tool != "partclone":
        return found.used_bytes if found.tool == "ntfsclone" else 0
    try:
        first = parse_header(head)
    except (NotNative, FormatError):
        return found.used_bytes
    return first.head_bytes + first.body_bytes + first.checksums_bytes
