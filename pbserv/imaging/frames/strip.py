"""Takes partclone's checksums out of the stream of used blocks, after looking at each of them. Pure.

One rule: what comes out is exactly the used blocks; a checksum that does not fit names the blocks it stands for.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pbserv.imaging.faults import ChecksumMismatch, ShortBody
from pbserv.imaging.formats.model import FormatError
from pbserv.imaging.frames.head import CRC_BYTES, PartcloneHead
from pbserv.imaging.frames.index import Buffer

_ALL: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class StripPoint:
    """Where a Stripper stands: plain bytes passed, running CRC, whether a checksum comes next, what of it is there."""

    passed: int = 0
    crc: int = 0
    owed: bool = False
    seen: bytes = b""


class Stripper:
    """The body of a partclone stream on its way. ``address_of`` gives the device address of the n-th used block."""

    def __init__(self, head: PartcloneHead, address_of: Callable[[int], int], point: StripPoint | None = None) -> None:
        at = point or StripPoint()
        self._head = head
        self._address_of = address_of
        self._passed = at.passed
        self._crc = at.crc
        self._seen = bytearray(at.seen)
        self._group = head.per_checksum * head.block_bytes
        self._owed = at.owed

    def checkpoint(self) -> StripPoint:
        """What ``Stripper(head, address_of, point)`` goes on from."""
        return StripPoint(self._passed, self._crc, self._owed, bytes(self._seen))

    def feed(self, data: Buffer) -> list[memoryview]:
        """The used blocks' bytes of ``data``. Raises ChecksumMismatch, and FormatError for bytes after the end."""
        view, plain = memoryview(data), list[memoryview]()
        while view:
            if self._owed:
                view = self._check(view)
                continue
            room = self._room()
            if not room:
                raise FormatError(
                    f"partclone stream: {len(view)} bytes or more after the last of {self._head.used} used blocks"
                )
            piece, view = view[:room], view[room:]
            plain.append(piece)
            self._passed += len(piece)
            if self._group:
                self._crc = zlib.crc32(piece, self._crc)
                self._owed = self._complete_group()
        return plain

    def finish(self) -> None:
        """The stream has ended; raises ShortBody where a block or checksum is missing."""
        head = self._head
        if self._passed < head.body_bytes:
            number = self._passed // head.block_bytes
            raise ShortBody(
                f"the partclone stream ends in used block {number} of {head.used} (device address "
                f"{self._address_of(number):#x}); the capture did not finish"
            )
        if self._owed:
            raise ShortBody("the partclone stream ends before its last checksum; the capture did not finish")

    def _room(self) -> int:
        left = self._head.body_bytes - self._passed
        return min(left, self._group - self._passed % self._group) if self._group else left

    def _complete_group(self) -> bool:
        """Asked right after bytes that may have been a group's last ones: a checksum comes now."""
        return self._passed == self._head.body_bytes or self._passed % self._group == 0

    def _check(self, view: memoryview) -> memoryview:
        count = CRC_BYTES - len(self._seen)
        self._seen += view[:count]
        if len(self._seen) < CRC_BYTES:
            return view[count:]
        if int.from_bytes(self._seen, "little") != self._crc ^ _ALL:
            raise self._mismatch()
        self._seen.clear()
        self._owed = False
        if self._head.reseed:
            self._crc = 0
        return view[count:]

    def _mismatch(self) -> ChecksumMismatch:
        head = self._head
        last = self._passed // head.block_bytes - 1
        first = last - last % head.per_checksum
        return ChecksumMismatch(
            f"partclone's checksum over used blocks {first} to {last} (device addresses {self._address_of(first):#x} "
            f"to {self._address_of(last):#x}) does not fit; they were damaged on the way: send them again"
        )
