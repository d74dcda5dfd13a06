"""A UDP socket that knows on which interface and for which address a datagram came (ip(7), IP_PKTINFO).

One rule: what leaves, leaves by an interface that the caller names. A limited broadcast from an unbound socket
would leave by the default route, which is the wrong wire on every server with two NICs.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from pbserv.errors import StartError

IP_PKTINFO = 8  # linux/in.h; missing from the socket module of CPython 3.11
IP_FREEBIND = 15
_PKTINFO = struct.Struct("=I4s4s")  # ipi_ifindex, ipi_spec_dst, ipi_addr
_CONTROL_BYTES = socket.CMSG_SPACE(_PKTINFO.size)
MAX_DATAGRAM = 65_535


class Datagram(NamedTuple):
    """One received datagram. ``local`` is this host's address on the wire it came by (``ipi_spec_dst``);
    ``destination`` is what the sender wrote, which may be a broadcast."""

    data: bytes
    peer: str
    port: int
    local: str
    destination: str
    ifindex: int


class PacketInfoSocket:
    """Non-blocking IPv4 UDP; give :meth:`fileno` to ``loop.add_reader`` and drain with :meth:`receive`."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw

    @classmethod
    def bind(
        cls,
        address: str,
        port: int,
        *,
        broadcast: bool = False,
        freebind: bool = False,
        receive_buffer: int = 1 << 22,
    ) -> PacketInfoSocket:
        """Bind to ``address`` ("0.0.0.0" for all); raises StartError with the remedy when that fails."""
        raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            raw.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if broadcast:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            if freebind:
                raw.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            raw.bind((address, port))
        except OSError as fault:
            raw.close()
            raise StartError(bind_fault("udp", address, port, fault)) from None
        return cls(raw)

    def fileno(self) -> int:
        return self._raw.fileno()

    @property
    def name(self) -> tuple[str, int]:
        """The bound address and port."""
        address, port = self._raw.getsockname()
        return address, port

    def receive(self, limit: int = 64) -> list[Datagram]:
        """At most ``limit`` waiting datagrams; an empty list when there are none. ICMP errors are dropped."""
        found: list[Datagram] = []
        for _ in range(limit):
            try:
                data, control, _flags, source = self._raw.recvmsg(MAX_DATAGRAM, _CONTROL_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # an ICMP error for an earlier reply: not about this request
                continue
            ifindex, local, destination = 0, "0.0.0.0", "0.0.0.0"
            for level, kind, value in control:
                if level == socket.IPPROTO_IP and kind == IP_PKTINFO and len(value) >= _PKTINFO.size:
                    ifindex, spec, target = _PKTINFO.unpack_from(value)
                    local, destination = socket.inet_ntoa(spec), socket.inet_ntoa(target)
            found.append(Datagram(data, source[0], source[1], local, destination, ifindex))
        return found

    def send(self, data: bytes, peer: str, port: int, *, source: str | None = None, ifindex: int = 0) -> bool:
        """Send from ``source`` out of interface ``ifindex`` (0: by route). False when the kernel refused."""
        spec = socket.inet_aton(source) if source else b"\0\0\0\0"
        control = [(socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO.pack(ifindex, spec, b"\0\0\0\0"))]
        try:
            self._raw.sendmsg([data], control, 0, (peer, port))
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._raw.close()


def bind_fault(protocol: str, address: str, port: int, fault: OSError) -> str:
    """One line that says which address could not be bound, why, and what to do."""
    where = f"{protocol} {address}:{port}"
    match fault.errno:
        case errno.EADDRINUSE:
            return f"{where} is in use by another program; stop it (see: ss -lpn sport = :{port}) or change the port"
        case errno.EADDRNOTAVAIL:
            return f"{where}: this host has no address {address}; see: ip address"
        case errno.EACCES | errno.EPERM:
            return f"{where}: ports below 1024 need root or CAP_NET_BIND_SERVICE; start as root or change the port"
        case _:
            return f"{where}: {fault.strerror or fault}"
