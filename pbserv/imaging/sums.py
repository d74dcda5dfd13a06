"""Checksums of an image file as OpenGnSys keeps them, made in one pass. Pure: bytes in, texts out.

One rule: the bytes pass by once and at most two TAIL_BYTES of them stay in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from dataclasses import dataclass

TAIL_BYTES = 1 << 20
"""`.sum` covers so many bytes at the end (OpenGnSys, `tail -c1M | md5sum`); a shorter file is covered whole."""
SUM = ".sum"
FULL_SUM = ".full.sum"
LOCK = ".lock"
SIDECARS = (SUM, FULL_SUM, LOCK)
_MD5 = re.compile(rb"\s*([0-9a-fA-F]{32})(?:\s|$)")


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one file: its length, MD5 of its last TAIL_BYTES, MD5 and SHA-256 of all of it; lower-case hexadecimal."""

    size_bytes: int
    tail_md5: str
    full_md5: str
    sha256: str


class SumMaker:
    """Takes a file's bytes in order, in chunks of any size."""

    def __init__(self) -> None:
        self._size = 0
        self._full = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._tail: deque[bytes] = deque()
        self._kept = 0

    def feed(self, chunk: bytes) -> None:
        """The next bytes."""
        self._size += len(chunk)
        self._full.update(chunk)
        self._sha256.update(chunk)
        self._tail.append(chunk[-TAIL_BYTES:])
        self._kept += len(self._tail[-1])
        while self._kept - len(self._tail[0]) >= TAIL_BYTES:
            self._kept -= len(self._tail.popleft())

    def sums(self) -> Sums:
        """Of all bytes so far."""
        tail = b"".join(self._tail)[-TAIL_BYTES:]
        tail_md5 = hashlib.md5(tail, usedforsecurity=False).hexdigest()
        return Sums(self._size, tail_md5, self._full.hexdigest(), self._sha256.hexdigest())


def text(md5: str) -> bytes:
    """What a sidecar holds: 32 digits and a newline, no file name."""
    return f"{md5}\n".encode("ascii")


def read(data: bytes) -> str | None:
    """The MD5 in a sidecar, lower-case; None where there is none. A file name behind it is passed over."""
    match = _MD5.match(data[:256])
    return match[1].decode("ascii").lower() if match else None
