"""netascii on the wire (RFC 764 as RFC 1350 uses it): LF becomes CR LF, a bare CR becomes CR NUL. Pure."""

from __future__ import annotations


def to_netascii(data: bytes) -> bytes:
    """The whole file at once, so that no state has to cross block borders."""
    return data.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")
