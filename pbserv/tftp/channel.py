"""A UDP socket that many transfers share: each datagram goes to the transfer of its sender (RFC 1350 section 4).

One rule: an acknowledgement of a whole flight costs a few array accesses; the blocks that answer all of a batch leave
with one system call. Everything else is collected, and acted on when the batch has been read.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from pbserv.net.gso import MAX_BYTES, MAX_SEGMENTS, NO_OFFLOAD, OffloadRoutes
from pbserv.net.mmsg import COPY_BYTES, UDP_SEGMENT, Endpoint, Inbox, Key, Outbox, unreachable_peers
from pbserv.net.sockets import sockaddr_of

_now = time.monotonic
_NO_ROOM = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EINTR})
REQUESTS = (b"\0\1", b"\0\2")
UDP4_HEADERS, UDP6_HEADERS = 28, 48
RECENT_KEPT = 1024
"""Clients whose transfers are over: what they still send is late, not strange."""


class Member(Protocol):
    """A transfer as its channel sees it. ``expect``: the first four bytes, as a machine word, of the ACK that completes
    the running flight; -1 when every datagram is to be collected."""

    expect: int

    @property
    def answered(self) -> bool:
        """The client has said something after its request."""

    def advance(self, now: float) -> None:
        """The expected ACK came."""

    def collect(self, datagram: bytes) -> bool:
        """Any other datagram; True when it is the first one since :meth:`act`."""

    def act(self, now: float) -> None:
        """The batch has been read."""

    def unreachable(self) -> None:
        """ICMP: nobody listens on the client's port."""

    def unsent(self, now: float) -> None:
        """The kernel had no room for what was queued."""

    def bug(self, fault: Exception) -> None:
        """``advance`` raised it."""


class Link(Endpoint):
    """One client on one channel; see session.Link for the contract."""

    __slots__ = ("_channel", "member", "mtu_bytes", "peer")

    def __init__(self, channel: Channel, peer: str, port: int, source: bytes, mtu_bytes: int) -> None:
        super().__init__(sockaddr_of(peer, port), source)
        self._channel = channel
        self.peer = peer
        self.mtu_bytes = mtu_bytes
        self.member: Member | None = None

    def move(self, channel: Channel) -> None:
        """Before a member is attached."""
        self._channel = channel

    def attach(self, member: Member) -> None:
        self.member = member
        self._channel.members[self.key] = member

    def close(self) -> None:
        self._channel.dismiss(self)

    def poll(self) -> None:
        """Handle what has come in; a listener is in the middle of its own batch when it is asked."""
        if not self._channel.listening:
            self._channel.readable()

    @property
    def offload(self) -> bool:
        return self._channel.offload

    def send(self, data: bytes | memoryview) -> bool:
        """One datagram now; False when the kernel has no room or no route at the moment."""
        return self._channel.transmit(self, data, 0)

    def send_flight(self, buffer: memoryview, size_bytes: int) -> bool:
        """``buffer`` as datagrams of ``size_bytes`` now, the last may be shorter; False as above."""
        if len(buffer) <= size_bytes:
            return self.send(buffer)
        step = self.per_call(size_bytes)
        for start in range(0, len(buffer), step):
            piece = buffer[start : start + step]
            if not self._channel.transmit(self, piece, size_bytes if len(piece) > size_bytes else 0):
                return False
        return True

    def per_call(self, size_bytes: int) -> int:
        """How many bytes of a flight one datagram of the kernel's takes."""
        headers = UDP4_HEADERS if len(self.sockaddr) == 2 else UDP6_HEADERS
        if not self._channel.offload or size_bytes + headers > self.mtu_bytes:  # a fragment cannot be cut by the card
            return size_bytes
        return min(MAX_SEGMENTS, MAX_BYTES // size_bytes) * size_bytes

    @property
    def endpoint(self) -> Endpoint:
        return self

    @property
    def outbox(self) -> Outbox:
        """What is put there leaves with the batch."""
        return self._channel.outbox

    def send_soon(self, data: bytes) -> bool:
        """One small datagram, which leaves with the batch; False is told later, by ``unsent``."""
        if len(data) > COPY_BYTES:
            return self.send(data)
        self._channel.outbox.put_copy(self, data)
        self._channel.flush_soon(self._channel)
        return True

    def queue_flight(self, address: int, length: int, size_bytes: int) -> None:
        """As :meth:`send_flight`, but with the batch; the memory must stay until then."""
        step = self.per_call(size_bytes)
        if size_bytes != self.segment_bytes:
            self.segment(size_bytes)
        box = self._channel.outbox
        for start in range(0, length, step):
            size = min(step, length - start)
            if size > size_bytes:
                box.put_flight(self, address + start, size)
            else:
                box.put(self, address + start, size)

    def unsent(self) -> None:
        if self.member is not None:
            self.member.unsent(_now())


class Channel:
    """``stranger`` gets the number of a datagram in the inbox whose sender has no transfer here."""

    def __init__(
        self,
        raw: socket.socket,
        local: str,
        inbox: Inbox,
        routes: OffloadRoutes,
        stranger: Callable[[Channel, int], None],
        emptied: Callable[[Channel], None],
        flush_soon: Callable[[Channel], None],
        *,
        listening: bool = False,
    ) -> None:
        """Owns ``raw``. ``local`` is its address, empty for all; ``emptied`` is called after the last transfer;
        ``flush_soon`` when something is queued outside of a batch of this channel."""
        self.flush_soon = flush_soon
        self.listening = listening
        self.last_answered = ""
        """The client of the last transfer that was more than a request."""
        self.deaf = False  # a listener that is going to close
        self._raw = raw
        self._fd = raw.fileno()
        self.family = raw.family
        self.local = local
        self.inbox = inbox
        self.outbox = Outbox(raw.family, self.flush)
        self.members: dict[Key, Member] = {}
        self.recent: OrderedDict[Key, None] = OrderedDict()
        self._routes = routes
        self._stranger = stranger
        self._emptied = emptied
        self.closed = False

    def fileno(self) -> int:
        return self._fd

    @property
    def name(self) -> tuple[str, int]:
        """The bound address and port."""
        found = self._raw.getsockname()
        return found[0], found[1]

    @property
    def offload(self) -> bool:
        return self._routes.usable(self.local, _now())

    # -- receiving ------------------------------------------------------------------------------------------------

    def readable(self) -> None:
        """The hot path: one batch."""
        inbox = self.inbox
        count = inbox.receive(self._fd)
        if count <= 0:  # woken for what is in the error queue
            self._errors()
            return
        now = _now()
        find = self.members.get
        touched: list[Member] = []
        for n, key, head, length in inbox.summaries(count):
            member = find(key)
            if member is None:
                self._stranger(self, n)
            elif head == member.expect and length >= 4:
                try:
                    member.advance(now)
                except Exception as fault:
                    member.bug(fault)
            else:
                self._collect(member, n, touched)
        for member in touched:
            member.act(now)
        if self.outbox.waiting:
            self.flush()

    def _collect(self, member: Member, n: int, touched: list[Member]) -> None:
        datagram = self.inbox.datagram(n)
        if datagram[:2] in REQUESTS:  # single port: the client asks again, or for something else
            self._stranger(self, n)
        elif member.collect(datagram):
            touched.append(member)

    def _errors(self) -> None:
        for sockaddr in unreachable_peers(self._raw):
            member = self.members.get(Endpoint(sockaddr).key)
            if member is not None:
                member.unreachable()

    # -- sending --------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what is queued."""
        box = self.outbox
        if self.closed:
            box.clear()
            return
        done, blamed = 0, -1
        while done < len(box.waiting) and not self.closed:
            sent, fault = box.send(self._fd, done)
            done += sent
            if not fault:
                continue
            if fault in _NO_ROOM:
                break
            if blamed != done:  # it may be an ICMP error of an earlier datagram, to somebody else: ask again
                blamed = done
                self._errors()
                continue
            if box.is_flight(done) and self._refused(fault):
                self._send_singly(box, done)
            else:
                box.waiting[done].unsent()
            done += 1
        unsent = box.waiting[done:]
        box.clear()
        for endpoint in unsent:
            endpoint.unsent()

    def _refused(self, fault: int) -> bool:
        """Whether ``fault`` means that the datagrams of a flight may pass one by one."""
        if fault == errno.EMSGSIZE:  # the MTU became smaller than these blocks; others still fit
            return True
        if fault in NO_OFFLOAD:
            self._routes.refuse(self.local, _now())
            return True
        return False

    def _send_singly(self, box: Outbox, n: int) -> None:
        link = box.waiting[n]
        data, size = box.copy(n), link.segment_bytes
        for start in range(0, len(data), size):
            self.transmit(link, data[start : start + size], 0)

    def transmit(self, to: Endpoint, data: bytes | memoryview, segment: int) -> bool:
        """One datagram, or with ``segment`` several; False when nothing left."""
        control = to.source
        if segment:
            control.append((socket.SOL_UDP, UDP_SEGMENT, segment.to_bytes(2, sys.byteorder)))
        fault = self._try(data, control, to)
        if fault and fault not in _NO_ROOM:  # it may be an ICMP error of an earlier datagram, to somebody else
            self._errors()
            fault = self._try(data, control, to)
        if segment and fault and self._refused(fault):
            pieces = (data[start : start + segment] for start in range(0, len(data), segment))
            return all([self.transmit(to, piece, 0) for piece in pieces])
        return not fault

    def _try(self, data: bytes | memoryview, control: list[tuple[int, int, bytes]], to: Endpoint) -> int:
        """0, or the errno."""
        if self.closed:
            return errno.EBADF
        try:
            self._raw.sendmsg([data], control, socket.MSG_DONTWAIT, to.sockaddr)
        except OSError as fault:
            return fault.errno or errno.EIO
        return 0

    # -- members --------------------------------------------------------------------------------------------------

    def dismiss(self, link: Link) -> None:
        """The transfer of ``link`` is over."""
        if link.member is None or self.members.get(link.key) is not link.member:
            return
        del self.members[link.key]
        if link.member.answered:
            self.last_answered = link.peer
        self.recent[link.key] = None
        self.recent.move_to_end(link.key)
        if len(self.recent) > RECENT_KEPT:
            self.recent.popitem(last=False)
        if not self.members:
            self._emptied(self)

    def when_emptied(self, call: Callable[[Channel], None]) -> None:
        """From now on ``call`` is told of the end of the last transfer."""
        self._emptied = call

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._raw.close()
