"""An IPv4 UDP port that hears broadcasts and answers each from the interface it came by, in batches.

One rule: a reply that is queued leaves with the next :meth:`BatchPort.flush`; the kernel refusing one stops no other.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pbserv.errors import StartError
from pbserv.net import roomy
from pbserv.net.mmsg import BATCH, COPY_BYTES, IP_PKTINFO, Endpoint, Inbox, Outbox, route_control
from pbserv.net.udp import Datagram, bind_fault

RECEIVE_BYTES = 1 << 22
"""A thousand machines that are powered on together fit: a DISCOVER takes about 2 KB of it."""
_SLOT_BYTES = 4097  # one more than is read: longer packets are refused, and must not pass for shorter ones


class Unsent(NamedTuple):
    """A reply that the kernel refused."""

    peer: str
    port: int
    ifindex: int
    reason: str


class Way(Endpoint):
    """To ``peer``:``port`` from our address ``source_address`` out of interface ``ifindex`` (0: by route).

    It costs more than a packet: keep it for all replies that go there.
    """

    __slots__ = ("ifindex", "peer", "port", "source_address")

    def __init__(self, peer: str, port: int, source_address: str, ifindex: int) -> None:
        super().__init__((peer, port), route_control(source_address, ifindex))
        self.peer, self.port, self.source_address, self.ifindex = peer, port, source_address, ifindex


class Port(Protocol):
    """Where packets are heard and answered."""

    @property
    def name(self) -> tuple[str, int]:
        """The bound address and port."""

    def fileno(self) -> int: ...

    def receive(self) -> Sequence[Datagram]:
        """One batch; empty when nothing waits."""

    def queue(self, data: bytes | bytearray, way: Way) -> None:
        """To be sent at the next flush."""

    def flush(self) -> Sequence[Unsent]:
        """Send what is queued; what the kernel refused."""

    def close(self) -> None: ...


class BatchPort:
    """A bound UDP socket; one recvmmsg(2) and one sendmmsg(2) for up to 64 packets."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._inbox = Inbox(socket.AF_INET, _SLOT_BYTES, packet_info=True)
        self._outbox = Outbox(socket.AF_INET, self._send)
        self._unsent: list[Unsent] = []

    @classmethod
    def bind(cls, address: str, port: int) -> BatchPort:
        """Raises StartError with the remedy."""
        raw = roomy.take()
        if raw is None:
            raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            roomy.force_room(raw, RECEIVE_BYTES)
        try:
            raw.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            raw.bind((address, port))
        except OSError as fault:
            raw.close()
            raise StartError(bind_fault("udp", address, port, fault)) from None
        return cls(raw)

    @property
    def name(self) -> tuple[str, int]:
        address, port = self._raw.getsockname()
        return address, port

    def fileno(self) -> int:
        return self._raw.fileno()

    def receive(self) -> Sequence[Datagram]:
        inbox = self._inbox
        count = inbox.receive(self._raw.fileno())  # -1: an ICMP error of an earlier reply, about no request
        return [
            Datagram(data, peer, port, local, destination, ifindex)
            for data, (peer, port), (local, destination, ifindex) in inbox.arrivals(count)
        ]

    def queue(self, data: bytes | bytearray, way: Way) -> None:
        if len(data) > COPY_BYTES:
            self._send_large(data, way)
        else:
            self._outbox.put_copy(way, data)

    def _send_large(self, data: bytes | bytearray, way: Way) -> None:
        try:
            self._raw.sendmsg([data], way.source, 0, (way.peer, way.port))
        except OSError as fault:
            self._refused(way, fault.strerror or str(fault))

    def _refused(self, way: Way, reason: str) -> None:
        self._unsent.append(Unsent(way.peer, way.port, way.ifindex, reason))

    def flush(self) -> Sequence[Unsent]:
        if self._outbox.waiting:
            self._send()
        if not self._unsent:
            return ()
        unsent, self._unsent = self._unsent, []
        return unsent

    def _send(self) -> None:
        box, done, again = self._outbox, 0, True
        while done < len(box.waiting):
            sent, fault = box.send(self._raw.fileno(), done)
            done += sent
            if not fault:
                again = True
            elif again:  # it may be the ICMP error of an earlier reply: ask once more
                again = False
            else:
                way = box.waiting[done]
                if isinstance(way, Way):  # there is nothing else
                    self._refused(way, os.strerror(fault))
                done, again = done + 1, True
        box.clear()

    def close(self) -> None:
        self._raw.close()


class SinglePort:
    """Listeners that send one packet at a time, such as :class:`pbserv.net.tap.PacketTap`, as a :class:`Port`."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._unsent: list[Unsent] = []

    @property
    def name(self) -> tuple[str, int]:
        return self._listener.name

    def fileno(self) -> int:
        return self._listener.fileno()

    def receive(self) -> Sequence[Datagram]:
        return self._listener.receive(BATCH)

    def queue(self, data: bytes | bytearray, way: Way) -> None:
        peer, port, ifindex = way.peer, way.port, way.ifindex
        if not self._listener.send(bytes(data), peer, port, source=way.source_address, ifindex=ifindex):
            self._unsent.append(Unsent(peer, port, ifindex, "refused by the kernel"))

    def flush(self) -> Sequence[Unsent]:
        unsent, self._unsent = self._unsent, []
        return unsent

    def close(self) -> None:
        self._listener.close()


class Listener(Protocol):
    """What :class:`SinglePort` wraps."""

    @property
    def name(self) -> tuple[str, int]: ...
    def fileno(self) -> int: ...
    def receive(self, limit: int = 64) -> Sequence[Datagram]: ...
    def send(self, data: bytes, peer: str, port: int, *, source: str | None = None, ifindex: int = 0) -> bool: ...
    def close(self) -> None: ...
