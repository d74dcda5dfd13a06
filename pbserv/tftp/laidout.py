"""A whole file in one buffer, laid out for the wire: each block stands behind its 4-byte DATA header.

One rule: a window of blocks is one slice of one buffer, so no block is ever touched by Python when it is sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from pbserv.net.mmsg import address_of
from pbserv.tftp.content import (
    HEADER_BYTES,
    FileFault,
    FileId,
    block_count,
    laid_out_bytes,
    no_matter,
    write_numbers,
    write_opcodes,
)
from pbserv.tftp.netascii import to_netascii
from pbserv.tftp.scatter import Slots

Key = tuple[FileId, int, int, bool]
"""The file, the block size, the rollover if there is one, whether it is netascii."""

SMALL_BYTES = 32 << 10
"""Up to this, copying blocks is faster than telling the kernel where each belongs."""
_SHORTER = "the file became shorter while it was read"


class LaidOut:
    """All blocks, shared by all transfers of them, from ``address`` on for ``length`` bytes.

    It is a snapshot: a file that is rewritten meanwhile is sent as it was when it was read, to the end.
    """

    __slots__ = ("_buffer", "_view", "address", "key", "length", "on_idle", "size_bytes", "stride", "users")

    def __init__(self, buffer: bytearray, size_bytes: int, block_size: int) -> None:
        self._buffer = buffer
        self._view = memoryview(buffer)  # an exported buffer can be neither moved nor resized
        self.address = address_of(buffer)
        self.length = len(buffer)
        self.stride = block_size + HEADER_BYTES
        self.size_bytes = size_bytes
        self.users = 0  # kept by the store
        self.key: Key | None = None
        self.on_idle: Callable[[LaidOut], None] | None = None

    @classmethod
    def of_bytes(cls, data: bytes, block_size: int, rollover: int = 0) -> LaidOut:
        """Content that is no file, or no longer."""
        size = len(data)
        if size < block_size:
            return cls(bytearray(b"\0\3\0\1" + data), size, block_size)
        blocks, stride = block_count(size, block_size), block_size + HEADER_BYTES
        buffer = bytearray(laid_out_bytes(size, block_size))
        write_opcodes(buffer, stride)
        write_numbers(buffer, 0, stride, 1, blocks, rollover)
        view, source = memoryview(buffer), memoryview(data)
        start = HEADER_BYTES
        for position in range(0, size - block_size + 1, block_size):
            view[start : start + block_size] = source[position : position + block_size]
            start += stride
        view[start:] = source[size - size % block_size :]
        return cls(buffer, size, block_size)

    @classmethod
    def of_file(cls, fd: int, identity: FileId, block_size: int, rollover: int = 0) -> LaidOut:
        """Read all of ``fd``; raises FileFault when it changed meanwhile."""
        if identity.size < SMALL_BYTES:
            return cls.of_bytes(_whole(fd, identity), block_size, rollover)
        blocks = block_count(identity.size, block_size)
        slots = Slots(bytearray(laid_out_bytes(identity.size, block_size)), block_size)
        write_numbers(slots.buffer, 0, slots.stride, 1, blocks, rollover)
        position = 0
        try:
            while position < identity.size:
                position -= position % block_size  # a read may stop anywhere: back to where a block begins
                got = slots.read(fd, position // block_size, blocks - position // block_size, position)
                position += got
                if got < block_size and position < identity.size:
                    raise FileFault(_SHORTER)
            _compare(fd, identity)
        except OSError as fault:
            raise FileFault(f"cannot be read: {fault.strerror}") from None
        return cls(slots.buffer, identity.size, block_size)

    @classmethod
    def of_text(cls, fd: int, identity: FileId, block_size: int, rollover: int = 0) -> LaidOut:
        """All of a file that is not large, as netascii; raises FileFault when it changed meanwhile."""
        return cls.of_bytes(to_netascii(_whole(fd, identity)), block_size, rollover)

    def flight(self, first: int, count: int, again: Callable[[], None] = no_matter, /) -> memoryview:
        start = (first - 1) * self.stride
        return self._view[start : start + count * self.stride]

    def close(self) -> None:
        self.users -= 1
        if not self.users and self.on_idle is not None:
            self.on_idle(self)


def _whole(fd: int, identity: FileId) -> bytes:
    try:
        data = os.pread(fd, identity.size, 0)
        _compare(fd, identity)
    except OSError as fault:
        raise FileFault(f"cannot be read: {fault.strerror}") from None
    if len(data) != identity.size:
        raise FileFault(_SHORTER)
    return data


def _compare(fd: int, identity: FileId) -> None:
    if not identity.still(os.fstat(fd)):
        raise FileFault("the file changed while it was read")
