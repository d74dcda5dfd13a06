"""Directories of single clients below TFTPDirectory: what they are called, and who may see them. Pure.

One rule: while clients have directories, no client reaches another's by its name: it is as if there were none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

_MAC = re.compile(rb"[0-9a-f]{2}(?:-[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class Home:
    """What one request may see. ``own`` is the client's directory; None: it has none, or its MAC is not known."""

    kind: str
    own: bytes | None

    @property
    def private(self) -> bool:
        return self.kind != "none"

    def hides(self, name: bytes) -> bool:
        """Whether ``name``, relative and without ``..``, leads into the directory of another client."""
        if self is NOBODYS or not self.private:
            return False
        owner = _owner(self.kind, name.partition(b"/")[0])
        return owner is not None and (self.own is None or owner != _owner(self.kind, self.own))


NOBODYS = Home("none", None)


def home_of(kind: str, peer: str, mac: Callable[[], str | None]) -> Home:
    """``kind`` is "none", "ip" or "mac"; ``mac`` is only called for the last."""
    match kind:
        case "ip":
            return Home(kind, _by_address(peer))
        case "mac":
            found = mac()
            return Home(kind, found.lower().replace(":", "-").encode() if found else None)
        case _:
            return NOBODYS


def _by_address(peer: str) -> bytes:
    """10.0.0.7, or fe80--1 for fe80::1: colons are troublesome on shares and in map files."""
    address = ipaddress.ip_address(peer.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(address).replace(":", "-").encode()


def _owner(kind: str, folder: bytes) -> object:
    """Whose directory this is, in a form that can be compared; None: nobody's."""
    if kind == "mac":
        return folder.lower() if _MAC.fullmatch(folder.lower()) else None
    try:
        return ipaddress.ip_address(folder.decode("ascii").replace("-", ":"))
    except ValueError:  # not ASCII, or not an address
        return None


def without_dots(name: bytes) -> bytes:
    """``name`` with each ``..`` taken back: where links may lead elsewhere, only the letters count."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part != b"..":
            parts.append(part)
        elif parts:
            parts.pop()
    return b"/".join(parts)
