"""Where requests are heard: every address of the host, or those that TFTPInterface names.

One rule: all of them or none. A reload binds the new ones beside the old ones before anything changes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pbserv.errors import StartError
from pbserv.net.interfaces import addresses_at
from pbserv.net.sockets import has_ipv6, open_listener
from pbserv.net.udp import Datagram
from pbserv.tftp.channel import Channel
from pbserv.tftp.switchboard import Switchboard


@dataclass(frozen=True, slots=True)
class Place:
    """A bound socket; ``local`` is its address, empty when it is bound to all."""

    raw: socket.socket
    local: str


def bind_all(interfaces: Sequence[str], port: int, beside: Sequence[int]) -> list[Place]:
    """Bind every address that ``interfaces`` names; raises StartError, and then none is bound.

    A ``port`` of 0 takes a free one, the same for all addresses.
    """
    wanted = _addresses(interfaces)
    found: list[Place] = []
    try:
        for address in wanted:
            raw = open_listener(address, port, beside)
            port = port or raw.getsockname()[1]
            found.append(Place(raw, "" if address in ("0.0.0.0", "::") else address))
    except StartError:
        for place in found:
            place.raw.close()
        raise
    return found


def _addresses(interfaces: Sequence[str]) -> list[str]:
    if not interfaces:
        return ["0.0.0.0", "::"] if has_ipv6() else ["0.0.0.0"]
    found: dict[str, None] = {}
    for place in interfaces:
        here = addresses_at(place)
        if not here:
            raise StartError(f"TFTPInterface: this host has no address or interface {place}; see: ip address")
        found.update(dict.fromkeys(here))
    return list(found)


def listening(
    places: Sequence[Place], switchboard: Switchboard, heard: Callable[[Datagram, Channel], None]
) -> list[Channel]:
    return [switchboard.listen(place.raw, place.local, heard) for place in places]
