"""Headers of fsarchiver archives: format FsArCh_002, as 0.8 writes it. Pure.

An archive is a row of headers: magic (4), archive (4), file system (2), length (4), so many bytes, checksum (4). What
a header holds is a number of items: type (1), section (1), key (2), length (2), value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pbserv.imaging.formats.model import FormatError, Found, Head

MAGIC = b"FsA0"
_HEADER = 14
_END = b"FsAE"
"""The last header of every volume; it says whether another volume follows."""
_AGAIN = "save it again by fsarchiver savefs without -s, in one file"
_COMPRESSORS = {1: "none", 2: "lzo", 3: "gzip", 4: "bzip2", 5: "lzma", 6: "lz4", 7: "zstd"}
_MAX_HEADERS = 64
Items = dict[int, bytes]


def read(data: bytes) -> Found | None:
    """The first file system of the archive, None where this is no fsarchiver archive; raises FormatError."""
    if not data.startswith(MAGIC):
        return None
    head = Head(data, "fsarchiver header")
    main: Items = {}
    systems: list[Items] = []
    for magic, items in _headers(head):
        if magic == MAGIC and _number(items, 0):
            raise FormatError(f"volume {_number(items, 0)} of an archive of fsarchiver, and no image: {_AGAIN}")
        if magic == b"ArCh":
            main = items
        elif magic == b"FsIn":
            systems.append(items)
    head.must(bool(main), _HEADER, "no header of the archive")
    facts = (
        ("Compressed inside by", _COMPRESSORS.get(_number(main, 8), "")),
        ("Archive", _text(main, 5)),
        ("File systems", ", ".join(_text(one, 1) for one in systems)),
    )
    first: Items = systems[0] if systems else {}
    name = _text(first, 1) or "files"
    return Found(
        "fsarchiver", name, _number(first, 3), _number(first, 4), checksum="fletcher32", version=_text(main, 2),
        label=_text(first, 5), facts=facts,
    )  # fmt: skip


def check_end(tail: bytes) -> None:
    """``tail`` is the end of the archive (all of it, or 64 KiB); raises FormatError where another volume follows.

    Keys of that header by what 0.8.7 wrote with -s: 0 the volume, 1 the archive, 2 whether it is the last one.
    """
    at = tail.rfind(_END)
    if at < 0:
        raise FormatError("an archive of fsarchiver without its end: the file is cut off, copy it again")
    head = Head(tail[at:], "end of fsarchiver's archive")
    items = _items(Head(head.take(_HEADER, head.little(10, 4)), head.what))
    if not _number(items, 2):
        raise FormatError(f"the first of several volumes of fsarchiver, which it alone can join: {_AGAIN}")


def check_names(name: str, beside: Collection[str]) -> None:
    """Raises FormatError where ``name`` has a second volume in its directory: lab.f01 beside lab.fsa or lab.fsa.gz."""
    stem, dot, _ = name.rpartition(".fsa")
    second = sorted(other for other in beside if dot and other.startswith(f"{stem}.f01"))
    if second:
        raise FormatError(f"the first of several volumes of fsarchiver, with {second[0]} beside it: {_AGAIN}")


def _headers(head: Head) -> Iterator[tuple[bytes, Items]]:
    at = 0
    for _ in range(_MAX_HEADERS):
        magic = head.data[at : at + 4]
        if magic not in (b"FsA0", b"ArCh", b"FsIn"):
            return
        size = head.little(at + 10, 4)
        yield magic, _items(Head(head.take(at + _HEADER, size), f"{head.what} at byte {at}"))
        at += _HEADER + size + 4


def _items(head: Head) -> Items:
    """Items of the standard section, by key."""
    items: Items = {}
    at = 2
    for _ in range(head.little(0, 2)):
        size = head.little(at + 4, 2)
        if head.little(at + 1, 1) == 0:
            items[head.little(at + 2, 2)] = head.take(at + 6, size)
        at += 6 + size
    return items


def _number(items: Items, key: int) -> int:
    return int.from_bytes(items.get(key, b"")[:8], "little")


def _text(items: Items, key: int) -> str:
    value = items.get(key, b"")
    return Head(value, "").text(0, len(value))
