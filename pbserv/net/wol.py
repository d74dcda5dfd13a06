"""Wake-on-LAN: magic packets by every interface of this host (AMD, "Magic Packet Technology", 20213).

One rule: a packet leaves by each interface that has a broadcast address, from its own address: the route to
255.255.255.255 leads out of one of them alone, and a device may be behind any.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pbserv.net.interfaces import InterfaceAddress, addresses
from pbserv.types import MacAddress

PORT: Final = 9
"""Discard; network cards look at the content alone, wherever it goes."""


@dataclass(frozen=True, slots=True)
class Woken:
    """``to``: the broadcast addresses that packets went to; ``faults``: in words, where they could not go."""

    to: tuple[str, ...]
    faults: tuple[str, ...] = ()


def magic_packet(mac: MacAddress) -> bytes:
    """102 bytes: six of all ones, then the address sixteen times."""
    return b"\xff" * 6 + mac.octets * 16


def wake(macs: Iterable[MacAddress], last_address: str = "") -> Woken:
    """Send a magic packet for each of ``macs`` by each interface to its broadcast address and to 255.255.255.255.

    ``last_address``: where the device was seen last; a subnet that this host is not in gets a packet by the router,
    too, which passes it on only where it was told to (directed broadcasts). Blocks for microseconds.
    """
    packets = [magic_packet(mac) for mac in macs]
    sent: dict[str, None] = {}
    faults: list[str] = []
    own = addresses()
    for entry in own:
        if entry.broadcast is not None:
            _send(packets, entry.address, [entry.broadcast, "255.255.255.255"], sent, faults)
    away = _directed(last_address, own)
    if away:
        _send(packets, "", [away], sent, faults)
    return Woken(tuple(sent), tuple(faults))


def _send(packets: Sequence[bytes], source: str, targets: Sequence[str], sent: dict[str, None], faults: list[str]
          ) -> None:  # fmt: skip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.setblocking(False)
        out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        try:
            out.bind((source, 0))
            for target in targets:
                for packet in packets:
                    out.sendto(packet, (target, PORT))
                sent[target] = None
        except OSError as fault:
            faults.append(f"{source or 'by route'}: {fault.strerror or fault}")


def _directed(address: str, own: Iterable[InterfaceAddress]) -> str:
    """The broadcast address of the /24 in which a device was seen; empty for one on a link of this host, or none."""
    try:
        seen = ipaddress.IPv4Address(address)
    except ValueError:
        return ""
    if seen.is_loopback or seen.is_unspecified or seen.is_multicast:
        return ""
    for entry in own:
        if seen in ipaddress.ip_network((entry.address, entry.prefix_length), strict=False):
            return ""
    return str(ipaddress.ip_network((address, 24), strict=False).broadcast_address)
