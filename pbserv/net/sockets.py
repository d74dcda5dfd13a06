"""UDP sockets for both families: how they are opened, what they are told, and what the way to a peer carries.

One rule: an address is text everywhere else; ``fe80::1%eth0`` names its interface, and no other form is used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import time
from collections.abc import Iterator, Sequence

from pbserv.errors import StartError
from pbserv.net.mmsg import IP_PKTINFO, IP_RECVERR, IPV6_RECVERR, Sockaddr
from pbserv.net.udp import bind_fault

IP_MTU = 14
IP_MTU_DISCOVER = 10
IPV6_MTU = 24
IPV6_MTU_DISCOVER = 23
PMTUDISC_DONT = 0
RECEIVE_BUFFER_BYTES = 1 << 22
MTU_AGE_S = 30.0
MTUS_KEPT = 4096


def sockaddr_of(address: str, port: int) -> Sockaddr:
    """As the socket module wants it; raises OSError when the scope of a link-local address is gone."""
    if ":" not in address:
        return address, port
    host, _, scope = address.partition("%")
    return host, port, 0, (int(scope) if scope.isdigit() else socket.if_nametoindex(scope)) if scope else 0


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def has_ipv6() -> bool:
    """Whether the kernel has IPv6 at all; an administrator may have switched it off."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as raw:
            raw.bind(("::1", 0))
    except OSError:
        return False
    return True


def open_listener(
    address: str, port: int, beside: Sequence[int] = (), receive_buffer: int = RECEIVE_BUFFER_BYTES
) -> socket.socket:
    """A socket on which requests are heard, with packet info; raises StartError with the remedy.

    ``beside``: descriptors of listeners that this one is going to replace. Their addresses may overlap with the new
    one only during the call; afterwards another program gets "address in use" as ever.
    """
    try:
        raw = _open(family_of(address))
    except OSError as fault:
        raise StartError(bind_fault("udp", address, port, fault)) from None
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if raw.family == socket.AF_INET6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            raw.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        if beside:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with _shareable(beside):
            raw.bind(sockaddr_of(address, port))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as fault:
        raw.close()
        raise StartError(bind_fault("udp", address, port, fault)) from None
    return raw


@contextlib.contextmanager
def _shareable(listeners: Sequence[int]) -> Iterator[None]:
    """ip(7): a bind succeeds when both sockets have SO_REUSEADDR at that moment."""
    with contextlib.ExitStack() as stack:
        for fd in listeners:
            same = stack.enter_context(socket.socket(fileno=os.dup(fd)))
            same.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stack.callback(same.setsockopt, socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield


def open_transfer_socket(local: str, ports: tuple[int, int] | None = None) -> socket.socket:
    """A socket for transfers on a free port of ``local``, within ``ports`` when given; raises OSError.

    Errors of single datagrams wait in its error queue, because it is not connected to anybody.
    """
    raw = _open(family_of(local))
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        level, kind = (
            (socket.IPPROTO_IPV6, IPV6_RECVERR) if raw.family == socket.AF_INET6 else (socket.IPPROTO_IP, IP_RECVERR)
        )
        raw.setsockopt(level, kind, 1)
        bind_within(raw, local, ports)
    except OSError:
        raw.close()
        raise
    return raw


def bind_within(raw: socket.socket, local: str, ports: tuple[int, int] | None) -> None:
    """Bind to a free port of ``local``, within ``ports`` when given; raises OSError."""
    if ports is None:
        raw.bind(sockaddr_of(local, 0))
        return
    first, last = ports
    count = last - first + 1
    start = random.randrange(count)  # noqa: S311  # RFC 1350 section 4: identifiers are chosen at random
    for step in range(min(count, 4096)):
        try:
            raw.bind(sockaddr_of(local, first + (start + step) % count))
        except OSError as fault:
            if fault.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
        else:
            return
    raise OSError(errno.EADDRINUSE, f"no port from {first} to {last} is free")


def _open(family: socket.AddressFamily) -> socket.socket:
    raw = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    _may_fragment(raw)
    return raw


def _may_fragment(raw: socket.socket) -> None:
    """Boot ROMs cannot reassemble, so blocks fit the route; a narrower hop behind it may still fragment."""
    if raw.family == socket.AF_INET6:
        raw.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT)
    else:
        raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)


class RouteMtus:
    """The MTU of the way from one of our addresses to a peer, asked again after half a minute."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[int, float]] = {}

    def of(self, local: str, peer: str) -> int:
        """Bytes; raises OSError when there is no way."""
        now = time.monotonic()
        known = self._known.get((local, peer))
        if known is not None and now < known[1]:
            return known[0]
        with socket.socket(family_of(peer), socket.SOCK_DGRAM) as raw:
            raw.bind(sockaddr_of(local, 0))
            raw.connect(sockaddr_of(peer, 9))  # nothing is sent
            option = (socket.IPPROTO_IPV6, IPV6_MTU) if raw.family == socket.AF_INET6 else (socket.IPPROTO_IP, IP_MTU)
            mtu = raw.getsockopt(*option)
        if len(self._known) >= MTUS_KEPT:
            self._known.clear()
        self._known[local, peer] = (mtu, now + MTU_AGE_S)
        return mtu
