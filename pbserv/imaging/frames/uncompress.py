"""Uncompresses an upload while it arrives. Blocking, for worker threads.

One rule: what one call can make is bounded whatever the bytes say (a bomb makes 32 MiB at a time), and an end in the
middle of a zstd frame is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import zstandard

from pbserv.imaging.faults import BadStream
from pbserv.imaging.frames.index import Buffer

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = b"\x2a\x4d\x18"

_SLICE: Final = 1024
"""A zstd block of 4 bytes makes 128 KiB: so much input makes 32 MiB at most."""
_GATHER: Final = 256 * 1024
_MAX_WINDOW: Final = 1 << 27
"""What the zstd program takes without --long."""

Compression = Literal["zstd", "none"]


def compression_of(first: bytes) -> Compression:
    """By the first four bytes: a frame of zstd, also one that is to be skipped, or something else."""
    return "zstd" if first[:4] == ZSTD_MAGIC or first[1:4] == _SKIPPABLE else "none"


class Uncompressor:
    """Any number of zstd frames one after the other, or bytes as they are."""

    def __init__(self, kind: Compression) -> None:
        self._maker = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW) if kind == "zstd" else None
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self.taken = 0

    def feed(self, data: Buffer) -> Iterator[Buffer]:
        """The uncompressed bytes of ``data``, in pieces; raises BadStream with the byte where it went wrong."""
        if self._maker is None:
            self.taken += len(data)
            yield data
            return
        made, size = list[bytes](), 0
        view = memoryview(data)
        for at in range(0, len(view), _SLICE):
            piece = self._uncompress(self._maker, bytes(view[at : at + _SLICE]))
            made.append(piece)
            size += len(piece)
            if size >= _GATHER:
                yield b"".join(made)
                made.clear()
                size = 0
        if size:
            yield b"".join(made)

    def finish(self) -> None:
        """The body has ended; raises BadStream in the middle of a frame."""
        if self._frame is not None:
            raise BadStream(f"the body ends inside a zstd frame, after {self.taken} bytes; it is not complete")

    def _uncompress(self, maker: zstandard.ZstdDecompressor, data: bytes) -> bytes:
        made = list[bytes]()
        self.taken += len(data)
        while data:
            frame = self._frame or maker.decompressobj()
            try:
                made.append(frame.decompress(data))
            except zstandard.ZstdError as fault:
                raise BadStream(
                    f"zstd cannot read the body near byte {self.taken}: {fault}; it was damaged on the way"
                ) from fault
            data = frame.unused_data if frame.eof else b""
            self._frame = None if frame.eof else frame
        return made[0] if len(made) == 1 else b"".join(made)
