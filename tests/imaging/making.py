"""Streams as partclone writes them, made from nothing: any bitmap, any block size, with and without checksums."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MODE_NONE, MODE_CRC32, MODE_XXH64 = 0x00, 0x20, 0x30


def block_of(number: int, size: int, seed: int = 0) -> bytes:
    """The bytes of one block of a device: they differ by address and seed, and compress somewhat."""
    line = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return (line * (size // len(line) + 1))[:size]


def bitmap_of(used: Iterable[int], blocks: int) -> bytes:
    """One bit per block, least significant first."""
    bitmap = bytearray((blocks + 7) // 8)
    for number in used:
        bitmap[number >> 3] |= 1 << (number & 7)
    return bytes(bitmap)


def crc(data: bytes, before: int = 0) -> int:
    """zlib's running value; partclone writes its complement."""
    return zlib.crc32(data, before)


def complement(value: int) -> bytes:
    return struct.pack("<I", value ^ 0xFFFFFFFF)


@dataclass(frozen=True)
class Made:
    """A stream of format 0002 and what is in it."""

    used: tuple[int, ...]
    blocks: int
    block_bytes: int
    device_bytes: int
    header: bytes
    bitmap: bytes
    contents: tuple[bytes, ...]
    per_checksum: int = 0
    reseed: bool = True

    @property
    def head(self) -> bytes:
        """Header, bitmap and the bitmap's checksum."""
        return self.header + self.bitmap + complement(crc(self.bitmap))

    @property
    def plain(self) -> bytes:
        """The same stream as partclone writes it with ``-a 0``."""
        return header_with(self, MODE_NONE, 0) + self.head[110:] + b"".join(self.contents)

    @property
    def stream(self) -> bytes:
        """The whole stream, with its checksums if it has them."""
        return self.head + b"".join(self._body())

    def device(self) -> bytes:
        """The device itself; unused blocks are zeros."""
        device = bytearray(self.device_bytes)
        for number, block in zip(self.used, self.contents, strict=True):
            device[number * self.block_bytes : (number + 1) * self.block_bytes] = block
        return bytes(device)

    def _body(self) -> Iterable[bytes]:
        if not self.per_checksum:
            yield from self.contents
            return
        running = 0
        for start in range(0, len(self.contents), self.per_checksum):
            group = b"".join(self.contents[start : start + self.per_checksum])
            running = crc(group, 0 if self.reseed else running)
            yield group + complement(running)


def header_with(made: Made, mode: int, per_checksum: int) -> bytes:
    """The header of ``made`` with another kind of checksum."""
    size = {MODE_NONE: 0, MODE_CRC32: 4}.get(mode, 8)
    return _header(
        made.used, made.blocks, made.block_bytes, made.device_bytes, mode, size, per_checksum, made.reseed, b"EXTFS"
    )


def _header(
    used: Sequence[int], blocks: int, block: int, device: int,
    mode: int, size: int, per: int, reseed: bool, fs: bytes, bitmap_mode: int = 1,
) -> bytes:  # fmt: skip
    head = struct.pack(
        "<16s14s4s2s16sQQQQIIHHHHIBB",
        b"partclone-image", b"0.3.23", b"0002", b"\xde\xc0", fs, device, blocks, len(used), len(used),
        block, 18, 2, 64, mode, size, per, reseed, bitmap_mode,
    )  # fmt: skip
    return head + complement(crc(head))


def partclone(
    used: Iterable[int],
    blocks: int,
    *,
    block_bytes: int = 4096,
    per_checksum: int | None = None,
    reseed: bool = True,
    device_bytes: int | None = None,
    seed: int = 0,
    seeds: dict[int, int] | None = None,
    fs: bytes = b"EXTFS",
    stray: bool = False,
) -> Made:
    """A stream of the blocks ``used`` of ``blocks``; ``per_checksum`` None is ``-a 0``, else CRC32 after so many.

    ``stray`` marks blocks after the last one in the bitmap, as partclone.fat does.

    ``seed`` makes the contents; ``seeds`` gives single blocks contents of their own, as an update does.
    """
    numbers = tuple(sorted(set(used)))
    device = blocks * block_bytes if device_bytes is None else device_bytes
    mode, size = (MODE_NONE, 0) if per_checksum is None else (MODE_CRC32, 4)
    header = _header(numbers, blocks, block_bytes, device, mode, size, per_checksum or 0, reseed, fs)
    contents = tuple(block_of(n, block_bytes, (seeds or {}).get(n, seed)) for n in numbers)
    bitmap = bitmap_of([*numbers, *(range(blocks, -(-blocks // 8) * 8) if stray else ())], blocks)
    return Made(numbers, blocks, block_bytes, device, header, bitmap, contents, per_checksum or 0, reseed)


def foreign_header(*, mode: int = MODE_NONE, size: int = 0, bitmap_mode: int = 1) -> bytes:
    """A sound header of 8 unused blocks that is not ours to cut: XXH64 (mode 0x30, 8 bytes) or another bitmap."""
    return _header((), 8, 4096, 8 * 4096, mode, size, 1 if size else 0, True, b"EXTFS", bitmap_mode)
