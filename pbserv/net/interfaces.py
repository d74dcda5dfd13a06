"""Which addresses this host has, and on which interface: rtnetlink(7), asked directly.

One rule: the answer is a value with an age. Addresses come and go while the server runs, so nobody keeps one longer
than :class:`InterfaceTable` says.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pbserv.types import Instant

_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST_DUMP = 0x301
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_LABEL = 3
_IFA_BROADCAST = 4
_MESSAGE = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")
_REPLY_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """One IPv4 address of this host. ``broadcast`` is None on links that have none (loopback, point to point)."""

    ifindex: int
    name: str
    address: str
    prefix_length: int
    broadcast: str | None = None


class InterfaceTable:
    """The host's addresses, asked again when they are older than ``max_age_s``.

    The netlink socket is opened at once and kept, so the table goes on describing the network namespace in which it
    was made.
    """

    def __init__(self, max_age_s: float = 1.0) -> None:
        self._max_age_s = max_age_s
        self._link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._link.settimeout(2.0)  # the kernel answers within microseconds; a bound all the same
        self._addresses: tuple[InterfaceAddress, ...] = ()
        self._asked: Instant | None = None
        self._sequence = 0

    def addresses(self, now: Instant) -> tuple[InterfaceAddress, ...]:
        """All addresses; the primary ones of an interface come before its secondary ones."""
        if self._asked is None or now - self._asked >= self._max_age_s:
            self._sequence = (self._sequence + 1) & 0xFFFFFFFF
            self._addresses = _ask(self._link, self._sequence)
            self._asked = now
        return self._addresses

    def close(self) -> None:
        self._link.close()


def addresses() -> tuple[InterfaceAddress, ...]:
    """All IPv4 addresses of this host now."""
    table = InterfaceTable()
    try:
        return table.addresses(Instant(0.0))
    finally:
        table.close()


def address_on_host(address: str) -> bool:
    """Whether datagrams to ``address`` end on this host (all of a loopback interface's subnet does)."""
    return interface_of(address) is not None


def interface_of(address: str) -> int | None:
    """The index of the interface that has ``address``; None when no interface has it."""
    wanted = ipaddress.IPv4Address(address)
    for entry in addresses():
        if entry.address == address:
            return entry.ifindex
        if wanted.is_loopback and wanted in ipaddress.ip_network((entry.address, entry.prefix_length), strict=False):
            return entry.ifindex
    return None


def address_of(ifindex: int) -> str | None:
    """The primary address of an interface; None when it has none."""
    return next((entry.address for entry in addresses() if entry.ifindex == ifindex), None)


def name_of(ifindex: int) -> str:
    """The interface's name for messages; ``if7`` when interface 7 is gone, ``any`` for 0 (by route)."""
    if ifindex == 0:
        return "any"
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return f"if{ifindex}"


def foreign_places(places: Iterable[str]) -> list[str]:
    """Those of ``places`` (addresses or names of interfaces) that this host does not have."""
    return [place for place in places if not addresses_at(place)]


def addresses_at(place: str) -> list[str]:
    """The addresses to bind for ``place``: itself when it is an address of this host, or all that an interface has.

    Link-local IPv6 addresses come with their scope, ``fe80::1%eth0``.
    """
    try:
        wanted = ipaddress.ip_address(place)
    except ValueError:
        return [_scoped(entry) for entry in (*addresses(), *addresses6()) if entry.name.partition(":")[0] == place]
    if wanted.version == 4:
        return [place] if wanted.is_unspecified or address_on_host(place) else []
    if wanted.is_unspecified:
        return [place]
    return [_scoped(entry) for entry in addresses6() if entry.address == str(wanted)][:1]


def _scoped(entry: InterfaceAddress) -> str:
    return f"{entry.address}%{entry.name}" if entry.address.startswith("fe80:") else entry.address


def addresses6() -> tuple[InterfaceAddress, ...]:
    """All IPv6 addresses of this host now; empty where IPv6 is switched off."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as link:
        link.settimeout(2.0)
        try:
            return _ask(link, 1, socket.AF_INET6)
        except OSError:
            return ()


def _ask(link: socket.socket, sequence: int, family: int = socket.AF_INET) -> tuple[InterfaceAddress, ...]:
    request = _ADDRESS.pack(family, 0, 0, 0, 0)
    head = _MESSAGE.pack(_MESSAGE.size + len(request), _RTM_GETADDR, _NLM_F_REQUEST_DUMP, sequence, 0)
    link.send(head + request)
    found: list[InterfaceAddress] = []
    while True:
        for kind, number, payload in netlink_messages(link.recv(_REPLY_BYTES)):
            if number != sequence:  # the rest of an earlier answer that was given up
                continue
            if kind == _NLMSG_DONE:
                return tuple(found)
            if kind == _NLMSG_ERROR:
                raise OSError(-struct.unpack_from("=i", payload)[0], "the kernel refused to list addresses")
            if kind == _RTM_NEWADDR and (entry := _entry(payload)) is not None:
                found.append(entry)


def netlink_messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    position = 0
    while position + _MESSAGE.size <= len(data):
        length, kind, _flags, sequence, _port = _MESSAGE.unpack_from(data, position)
        if length < _MESSAGE.size:
            return
        yield kind, sequence, data[position + _MESSAGE.size : position + length]
        position += (length + 3) & ~3


def _entry(payload: bytes) -> InterfaceAddress | None:
    family, prefix_length, _flags, _scope, index = _ADDRESS.unpack_from(payload)
    if family == socket.AF_INET6:
        return _entry6(payload, prefix_length, index)
    if family != socket.AF_INET:
        return None
    attributes = dict(netlink_attributes(payload, _ADDRESS.size))
    # On a point-to-point link IFA_ADDRESS is the peer; IFA_LOCAL is always this host.
    own = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if own is None:
        return None
    broadcast = attributes.get(_IFA_BROADCAST)
    return InterfaceAddress(
        index,
        attributes.get(_IFA_LABEL, b"").rstrip(b"\0").decode("utf-8", "replace") or f"if{index}",
        socket.inet_ntoa(own),
        prefix_length,
        None if broadcast is None else socket.inet_ntoa(broadcast),
    )


def _entry6(payload: bytes, prefix_length: int, index: int) -> InterfaceAddress | None:
    attributes = dict(netlink_attributes(payload, _ADDRESS.size))
    own = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if own is None:
        return None
    return InterfaceAddress(index, name_of(index), socket.inet_ntop(socket.AF_INET6, own), prefix_length)


def netlink_attributes(data: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    while position + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[position + _ATTRIBUTE.size : position + length]
        position += (length + 3) & ~3
