"""What is known of an image by its first bytes, and the bounded view on these bytes. Pure.

One rule: nothing outside of the bytes that were given is ever read; what is cut off is a FormatError that says where.
"""

from __future__ import annotations

from dataclasses import dataclass

from pbserv.errors import PbservError

HEAD_BYTES = 128 * 1024
"""So many bytes of an image are enough for every format here."""


class FormatError(PbservError):
    """Bytes that begin like a format and are not it; the message says what, at which byte, and what to do."""


@dataclass(frozen=True, slots=True)
class Found:
    """An image. Sizes in bytes, 0 where the format does not say; ``file_system`` of a disk is its table: gpt or mbr.

    ``device_bytes`` is what a restore needs; ``used_bytes`` what of it holds data; ``facts`` are for people.
    """

    tool: str
    file_system: str
    device_bytes: int = 0
    used_bytes: int = 0
    block_bytes: int = 0
    checksum: str = "none"
    version: str = ""
    label: str = ""
    facts: tuple[tuple[str, str], ...] = ()


class Head:
    """The first bytes of something; ``what`` names it in errors."""

    __slots__ = ("data", "what")

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.what = what

    def take(self, offset: int, size: int) -> bytes:
        """Exactly these bytes; raises FormatError where they are not there."""
        piece = self.data[offset : offset + size] if offset >= 0 and size >= 0 else b""
        if len(piece) != size:
            raise FormatError(
                f"{self.what}: ends at byte {len(self.data)}, and {size} bytes are needed at {offset};"
                " the file is not complete: copy it again"
            )
        return piece

    def has(self, offset: int, magic: bytes) -> bool:
        return self.data[offset : offset + len(magic)] == magic

    def little(self, offset: int, size: int) -> int:
        return int.from_bytes(self.take(offset, size), "little")

    def big(self, offset: int, size: int) -> int:
        return int.from_bytes(self.take(offset, size), "big")

    def text(self, offset: int, size: int, encoding: str = "utf-8") -> str:
        """Text up to its first zero; what cannot be decoded or printed is a question mark."""
        text = self.take(offset, size).decode(encoding, "replace").split("\0", 1)[0].strip()
        return "".join(c if c.isprintable() and c != "\ufffd" else "?" for c in text)

    def must(self, holds: bool, offset: int, why: str) -> None:
        """Raises FormatError unless it holds."""
        if not holds:
            raise FormatError(f"{self.what}: byte {offset}: {why}; the file is damaged: copy it again")
