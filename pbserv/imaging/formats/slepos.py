"""Names and `.md5` files of SLEPOS images (kiwi's linuxrc reads them). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pbserv.imaging.formats.model import FormatError

_NAME = re.compile(r"(.+)-([0-9]+\.[0-9]+\.[0-9]+)(?:\.gz|\.xz)?", re.S)
_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_COUNT = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Md5File:
    """MD5 and length of the uncompressed image, and the length of the compressed one (0: there is none)."""

    md5: str
    plain_bytes: int
    stored_bytes: int = 0


def name(file: str) -> tuple[str, str] | None:
    """(name, version) of an image's file, None where it is none."""
    match = _NAME.fullmatch(file)
    return (match[1], match[2]) if match else None


def sidecars(file: str) -> tuple[str, ...]:
    """Where its `.md5` may lie, the likelier first."""
    plain = file.removesuffix(".gz").removesuffix(".xz")
    return tuple(dict.fromkeys((f"{plain}.md5", f"{file}.md5")))


def md5(data: bytes, what: str) -> Md5File:
    """`<md5 of the uncompressed data> <blocks> <block size> [<blocks> <block size> of the compressed file]`."""
    fields = data[:1024].decode("ascii", "replace").split()
    if len(fields) not in (3, 5) or not _MD5.fullmatch(fields[0]) or not all(map(_COUNT.fullmatch, fields[1:])):
        raise FormatError(f"{what}: not an MD5 with 2 or 4 numbers behind it; copy the file again")
    blocks, size, *stored = (int(field) for field in fields[1:])
    if not 0 < blocks * size < 1 << 60:
        raise FormatError(f"{what}: {blocks} blocks of {size} bytes are no image")
    return Md5File(fields[0].lower(), blocks * size, stored[0] * stored[1] if stored else 0)
