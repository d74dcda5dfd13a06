"""A connected UDP socket that sends many equal datagrams with one system call (udp(7), UDP_SEGMENT).

One rule: the offload is an optimisation. When a network card or kernel refuses it, it is off for that route until
the process ends, and the same bytes leave one datagram at a time.
"""

from __future__ import annotations

import errno
import socket

UDP_SEGMENT = 103  # linux/udp.h; missing from the socket module of CPython 3.11
IP_MTU_DISCOVER = 10
IP_PMTUDISC_DONT = 0
IP_MTU = 14
MAX_SEGMENTS = 64  # kernels before 6.9 refuse more; newer ones take 128
MAX_BYTES = 65_507
MIN_SEGMENT = 256
"""Shorter blocks go out one by one: with the offload on, a control packet longer than a segment would be cut up."""

_NO_OFFLOAD = frozenset({errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.EMSGSIZE})


class OffloadRoutes:
    """Which local addresses must do without the offload; shared by all sockets of a service."""

    __slots__ = ("refused",)

    def __init__(self) -> None:
        self.refused: set[str] = set()


class ConnectedUdp:
    """Non-blocking IPv4 UDP between one local address and one peer; other senders get ICMP from the kernel.

    Give :meth:`fileno` to ``loop.add_reader``. :meth:`recv` and :meth:`send` raise ConnectionRefusedError when the
    peer's port is closed.
    """

    __slots__ = ("_one_call", "_per_call", "_raw", "_routes", "_segment", "local", "recv", "send_one")

    def __init__(self, local: str, peer: str, port: int, routes: OffloadRoutes) -> None:
        """Raises OSError (no descriptors left, no route ...)."""
        raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            # Boot ROMs cannot reassemble, so blocks fit the route; a narrower hop behind it may still fragment.
            raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
            raw.bind((local, 0))
            raw.connect((peer, port))
        except OSError:
            raw.close()
            raise
        self._raw = raw
        self._routes = routes
        self.local = local
        self.recv = raw.recv  # bound once: this is the hot path
        self.send_one = raw.send
        self._segment = 0
        self._one_call = 0  # bytes that one send takes
        self._per_call = 0  # the same with the offload on, else 0

    def fileno(self) -> int:
        return self._raw.fileno()

    @property
    def mtu_bytes(self) -> int:
        """MTU of the route to the peer."""
        return self._raw.getsockopt(socket.IPPROTO_IP, IP_MTU)

    @property
    def offload(self) -> bool:
        return self._per_call > 0

    def segment(self, size_bytes: int, most: int) -> None:
        """Flights of up to ``most`` datagrams of ``size_bytes`` (the last may be shorter) will be sent."""
        self._segment = self._one_call = size_bytes
        if most < 2 or size_bytes < MIN_SEGMENT or self.local in self._routes.refused:
            return
        try:
            self._raw.setsockopt(socket.SOL_UDP, UDP_SEGMENT, size_bytes)
        except OSError:
            self._routes.refused.add(self.local)
            return
        self._one_call = self._per_call = min(MAX_SEGMENTS, MAX_BYTES // size_bytes) * size_bytes

    def send_flight(self, buffer: memoryview) -> bool:
        """Send ``buffer`` as datagrams of the segment size; False when the kernel has no room at the moment."""
        try:
            if len(buffer) <= self._one_call:
                self.send_one(buffer)
                return True
            if not self._per_call:
                return self._send_singly(buffer)
            for start in range(0, len(buffer), self._per_call):
                self.send_one(buffer[start : start + self._per_call])
        except ConnectionRefusedError:
            raise
        except OSError as fault:
            if not self._per_call or fault.errno not in _NO_OFFLOAD:
                return False
            self._give_up_offload()
            return self._send_singly(buffer)
        return True

    def send_datagram(self, data: bytes | memoryview) -> bool:
        """One datagram; False when the kernel has no room or no route at the moment."""
        try:
            self.send_one(data)
        except ConnectionRefusedError:
            raise
        except OSError as fault:
            if self._per_call and fault.errno in _NO_OFFLOAD:
                self._give_up_offload()
                return self.send_datagram(data)
            return False
        return True

    def _send_singly(self, buffer: memoryview) -> bool:
        return all(
            self.send_datagram(buffer[start : start + self._segment]) for start in range(0, len(buffer), self._segment)
        )

    def _give_up_offload(self) -> None:
        self._routes.refused.add(self.local)
        self._per_call = 0
        self._one_call = self._segment
        self._raw.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 0)

    def close(self) -> None:
        self._raw.close()
