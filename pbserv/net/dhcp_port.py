"""An IPv4 UDP port that hears broadcasts and answers each from the interface it came by, in batches.

One rule: a reply that is queued leaves with the next :meth:`BatchPort.flush`; the kernel refusing one stops no other.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from functools import lru_cache
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


class Port(Protocol):
    """Where packets are heard and answered."""

    @property
    def name(self) -> tuple[str, int]:
        """The bound address and port."""

    def fileno(self) -> int: ...

    def receive(self) -> Sequence[Datagram]:
        """One batch; empty when nothing waits."""

    def queue(self, data: bytes | bytearray, peer: str, port: int, source: str, ifindex: int) -> None:
        """To ``peer``:``port`` from ``source`` out of interface ``ifindex`` (0: by route), at the next flush."""

    def flush(self) -> Sequence[Unsent]:
        """Send what is queued; what the kernel refused."""

    def close(self) -> None: ...


class BatchPort:
    """A bound UDP socket; one recvmmsg(2) and one sendmmsg(2) for up to 64 packets."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._inbox = Inbox(socket.AF_INET, _SLOT_BYTES, packet_info=True)
        self._outbox = Outbox(socket.AF_INET, self._overflow)
        self._unsent: list[Unsent] = []
        self._ways: list[tuple[str, int, int]] = []

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

    def queue(self, data: bytes | bytearray, peer: str, port: int, source: str, ifindex: int) -> None:
        if len(data) > COPY_BYTES:
            self._send_large(data, peer, port, source, ifindex)
            return
        self._outbox.put_copy(_endpoint(peer, port, source, ifindex), data)
        self._ways.append((peer, port, ifindex))

    def _send_large(self, data: bytes | bytearray, peer: str, port: int, source: str, ifindex: int) -> None:
        try:
            self._raw.sendmsg([data], _endpoint(peer, port, source, ifindex).source, 0, (peer, port))
        except OSError as fault:
            self._unsent.append(Unsent(peer, port, ifindex, fault.strerror or str(fault)))

    def _overflow(self) -> None:
        self._send()

    def flush(self) -> Sequence[Unsent]:
        if self._ways:
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
                self._unsent.append(Unsent(*self._ways[done], os.strerror(fault)))
                done, again = done + 1, True
        box.clear()
        self._ways.clear()

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

    def queue(self, data: bytes | bytearray, peer: str, port: int, source: str, ifindex: int) -> None:
        if not self._listener.send(bytes(data), peer, port, source=source, ifindex=ifindex):
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


@lru_cache(maxsize=8192)
def _endpoint(peer: str, port: int, source: str, ifindex: int) -> Endpoint:
    """The way to a peer; machines of a room share that of the broadcast."""
    return Endpoint((peer, port), route_control(source, ifindex))
