"""A bounded byte cursor: every length is checked before use (RFC-independent; used by all codecs)."""

from __future__ import annotations

from pbserv.errors import WireError


class Reader:
    """Reads big-endian fields from ``data``; raises :class:`WireError` instead of reading past the end."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = start
        self.end = len(data) if end is None else end

    @property
    def remaining(self) -> int:
        return self.end - self.position

    def take(self, count: int, field: str) -> bytes:
        """The next ``count`` bytes."""
        stop = self.position + count
        if count < 0 or stop > self.end:
            raise WireError(self.position, field, f"needs {count} bytes, {self.remaining} are left")
        piece = self.data[self.position : stop]
        self.position = stop
        return piece

    def u8(self, field: str) -> int:
        return self.take(1, field)[0]

    def u16(self, field: str) -> int:
        return int.from_bytes(self.take(2, field), "big")

    def u32(self, field: str) -> int:
        return int.from_bytes(self.take(4, field), "big")
