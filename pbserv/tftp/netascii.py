"""netascii on the wire (RFC 764 as RFC 1350 uses it): LF becomes CR LF, a bare CR becomes CR NUL. Pure."""

from __future__ import annotations


def to_netascii(data: bytes) -> bytes:
    """The whole file at once, so that no state has to cross block borders."""
    return data.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")


class NetasciiDecoder:
    """The way back, piece by piece: CR LF is LF, CR NUL is CR, and a CR before anything else is kept as it is.

    A CR that ends a piece waits for the next one, so it does not matter where blocks and windows begin.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting = b""

    def feed(self, data: bytes) -> bytes:
        """What is certain so far."""
        data = self._waiting + data
        self._waiting = b"\r" if data.endswith(b"\r") else b""
        if self._waiting:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r\0", b"\r")

    def finish(self) -> bytes:
        """A CR that was the last byte of all."""
        rest, self._waiting = self._waiting, b""
        return rest
