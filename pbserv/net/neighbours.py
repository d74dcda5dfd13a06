"""Which MAC address a neighbour has, by the kernel's ARP and NDP tables: rtnetlink(7), asked directly.

One rule: the answer is what the kernel knew a second ago, or None. Clients behind a router are no neighbours.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct

from pbserv.net.interfaces import netlink_attributes, netlink_messages
from pbserv.types import Instant

_RTM_NEWNEIGH = 28
_RTM_GETNEIGH = 30
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST_DUMP = 0x301
_NDA_DST = 1
_NDA_LLADDR = 2
_NUD_INCOMPLETE = 0x01
_NUD_FAILED = 0x20
_NUD_NOARP = 0x40
_UNUSABLE = _NUD_INCOMPLETE | _NUD_FAILED | _NUD_NOARP
_MESSAGE = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_NEIGHBOUR = struct.Struct("=BBHiHBB")  # ndmsg: family, padding, padding, index, state, flags, type
_REPLY_BYTES = 1 << 16
_MISS_AGE_S = 0.05
"""A neighbour that is not in the table may have come since; but not every packet of a stranger asks the kernel."""


class NeighbourTable:
    """The neighbours, asked again when they are older than ``max_age_s``.

    The netlink socket is opened at once and kept, so the table goes on describing the network namespace in which it
    was made.
    """

    def __init__(self, max_age_s: float = 1.0) -> None:
        self._max_age_s = max_age_s
        self._link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._link.settimeout(2.0)  # the kernel answers within microseconds; a bound all the same
        self._macs: dict[tuple[bytes, int], str] = {}
        self._asked: Instant | None = None
        self._sequence = 0

    def mac_of(self, address: str, now: Instant) -> str | None:
        """``aa:bb:cc:dd:ee:ff``; None for strangers, and for everybody when the kernel does not answer.

        ``address`` may carry a zone (``fe80::1%eth0``): link-local addresses mean nothing without one, and any
        interface that knows the address counts.
        """
        plain, _, zone = address.partition("%")
        ip = ipaddress.ip_address(plain)
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        key = (ip.packed, _index(zone))
        age_s = self._max_age_s if key in self._macs else min(self._max_age_s, _MISS_AGE_S)
        if self._asked is None or now - self._asked >= age_s:
            self._asked = now
            self._macs = self._ask()
        return self._macs.get(key)

    def _ask(self) -> dict[tuple[bytes, int], str]:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        request = _NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0)
        head = _MESSAGE.pack(_MESSAGE.size + len(request), _RTM_GETNEIGH, _NLM_F_REQUEST_DUMP, self._sequence, 0)
        found: dict[tuple[bytes, int], str] = {}
        with contextlib.suppress(OSError):  # a table half read is still true
            self._link.send(head + request)
            while self._read(found):
                pass
        return found

    def _read(self, found: dict[tuple[bytes, int], str]) -> bool:
        """One datagram of the answer; False: it was the last."""
        for kind, number, payload in netlink_messages(self._link.recv(_REPLY_BYTES)):
            if number != self._sequence:  # the rest of an earlier answer that was given up
                continue
            if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                return False
            if kind == _RTM_NEWNEIGH and len(payload) >= _NEIGHBOUR.size:
                _enter(payload, found)
        return True

    def close(self) -> None:
        self._link.close()


def _enter(payload: bytes, found: dict[tuple[bytes, int], str]) -> None:
    family, _, _, index, state, _, _ = _NEIGHBOUR.unpack_from(payload)
    if family not in (socket.AF_INET, socket.AF_INET6) or state & _UNUSABLE:
        return
    attributes = dict(netlink_attributes(payload, _NEIGHBOUR.size))
    address, mac = attributes.get(_NDA_DST), attributes.get(_NDA_LLADDR)
    if address is None or mac is None or len(mac) != 6:  # InfiniBand has 20 bytes
        return
    found[address, index] = mac.hex(":")
    found.setdefault((address, 0), mac.hex(":"))


def _index(zone: str) -> int:
    """The interface of a zone; 0 means any."""
    if zone.isdecimal():
        return int(zone)
    try:
        return socket.if_nametoindex(zone) if zone else 0
    except OSError:
        return 0
