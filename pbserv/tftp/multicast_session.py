"""One multicast group's shell: its socket, the content, and the pure core between them (RFC 2090).

One rule: everything leaves from one port of the address that was asked, blocks to the group and the rest to single
clients: a client checks the source of both (RFC 2090; atftp tftp_file.c, EDK2 Mtftp4Rrq.c).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from pbserv.net.sockets import bind_within
from pbserv.tftp.files import Content, FileFault
from pbserv.tftp.multicast import Action, MulticastTransfer
from pbserv.tftp.multicast_member import Member, MemberKey, oacks
from pbserv.tftp.names import shown
from pbserv.tftp.options import Terms
from pbserv.tftp.packet import Request
from pbserv.tftp.report import Ended, Reporter
from pbserv.tftp.transfer import NEVER, Outcome

IP_MTU_DISCOVER = 10
IP_PMTUDISC_DONT = 0
RECEIVE_BYTES = 576
_NO_ROOM = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class GroupAddress:
    """Where a group's blocks go, and from which address of ours (which names the interface)."""

    local: str
    group: str
    port: int
    ttl: int

    def open(self, port_range: tuple[int, int] | None) -> socket.socket:
        """A socket of its own port; raises OSError (no descriptors left, no port left ...)."""
        raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            own = socket.inet_aton(self.local)
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, self.ttl)
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)  # for a client on this host
            raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
            bind_within(raw, self.local, port_range)
        except OSError:
            raw.close()
            raise
        return raw


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A request that is to be served by the group; ``terms.accepted`` holds the multicast option with any value."""

    key: MemberKey
    datagram: bytes
    request: Request
    terms: Terms


class MulticastGroup:
    """From the first accepted request to the last member; calls ``on_left`` for each member and once ``on_end``."""

    def __init__(
        self,
        where: GroupAddress,
        raw: socket.socket,
        size_bytes: int,
        block_size: int,
        reporter: Reporter,
        on_left: Callable[[MulticastGroup, MemberKey], None],
        on_end: Callable[[MulticastGroup], None],
    ) -> None:
        self.where = where
        self.ended = False
        self._raw = raw
        self._to = (where.group, where.port)
        self._core = MulticastTransfer(size_bytes, block_size)
        self._size_bytes, self._block_size = size_bytes, block_size
        self._reporter = reporter
        self._on_left, self._on_end = on_left, on_end
        self._newcomers: dict[MemberKey, Newcomer] = {}
        self._content: Content | None = None
        self._reading = False
        self._blocks = self._joined = 0
        self._loop = asyncio.get_running_loop()
        self._trace = reporter.log if reporter.log.level >= 4 else None

    def __len__(self) -> int:
        return len(self._newcomers)

    @property
    def deadline(self) -> float:
        return self._core.deadline if not self._reading else NEVER

    # -- requests -------------------------------------------------------------------------------------------------

    def admit(self, newcomer: Newcomer, now: float) -> None:
        """It is answered when the content is there, so no ERROR ever follows an OACK."""
        self._newcomers[newcomer.key] = newcomer
        self._joined += 1
        if self._content is not None:
            self._join(newcomer, now)

    def begin(self, content: Content | FileFault) -> None:
        """The content is there, or is not."""
        if isinstance(content, FileFault):
            self.fail(Outcome.FILE_FAULT, str(content))
            return
        if self.ended:
            content.close()
            return
        self._content = content
        self._loop.add_reader(self._raw.fileno(), self.readable)
        now = time.monotonic()
        for newcomer in list(self._newcomers.values()):
            self._join(newcomer, now)

    def take_request(self, key: MemberKey, datagram: bytes, now: float) -> bool:
        """A request from a member's port. False: it is a new one, and the member is no longer here."""
        if datagram == self._newcomers[key].datagram:
            if self._content is None:
                return True
            if not self._core.abandoned_for(key, now):
                self._guarded(lambda: self._perform(self._core.on_request_again(key, now), now))
                return True
        if key not in self._core.members:  # asked for something else before this content was read
            self._core.join(self._member(self._newcomers[key], now), now)
        left = self._core.leave(self._core.members[key], Outcome.REPLACED, now)
        self._guarded(lambda: self._perform(left, now))
        return False

    def _join(self, newcomer: Newcomer, now: float) -> None:
        self._guarded(lambda: self._perform(self._core.join(self._member(newcomer, now), now), now))

    def _member(self, newcomer: Newcomer, now: float) -> Member:
        answers = oacks(newcomer.terms.accepted, self.where.group, self.where.port)
        return Member(newcomer.key, newcomer.terms, answers, now)

    # -- events ---------------------------------------------------------------------------------------------------

    def readable(self) -> None:
        """The hot path: one datagram."""
        try:
            datagram, source = self._raw.recvfrom(RECEIVE_BYTES)
        except OSError:
            return
        now = time.monotonic()
        if self._trace is not None:
            self._trace.debug("received", client=f"{source[0]}:{source[1]}", packet=datagram[:64].hex())
        self._guarded(lambda: self._perform(self._core.receive(source, datagram, now), now))

    def on_deadline(self, now: float) -> None:
        self._guarded(lambda: self._perform(self._core.on_deadline(now), now))

    def fail(self, outcome: Outcome, text: str) -> None:
        """End it from our side. Members hear of it when they have heard of us, else their request is answered so."""
        if self.ended:
            return
        now = time.monotonic()
        for newcomer in self._newcomers.values():
            if newcomer.key not in self._core.members:
                self._core.join(self._member(newcomer, now), now)
        self._perform(self._core.end(outcome, text), now)

    def _again(self) -> None:
        """The block that was missing has been read."""
        self._reading = False
        now = time.monotonic()
        if not self.ended and not self._core.calling:
            self._guarded(lambda: self._perform(self._core.send_again(now), now))

    # -- what the core wants --------------------------------------------------------------------------------------

    def _perform(self, actions: list[Action], now: float) -> None:
        for action in actions:
            if isinstance(action, int):
                self._send_block(action, now)
            else:
                self._send(action[1], action[0])
        if self._core.departed:
            departed, self._core.departed = self._core.departed, []
            for member in departed:
                self._depart(member, now)
            if not self._newcomers:
                self._finish()

    def _send_block(self, block: int, now: float) -> None:
        if self._reading or self._content is None:
            return
        try:
            data = self._content.flight(block, 1, self._again)
        except FileFault as fault:
            self.fail(Outcome.FILE_FAULT, str(fault))
            return
        if data is None:
            self._reading = True
            return
        self._blocks += 1
        if not self._send(data, self._to):
            self._core.on_unsent(now)

    def _send(self, data: bytes | memoryview, to: MemberKey) -> bool:
        """False when the kernel has no room; other faults are left to the timer."""
        if self._trace is not None:
            self._trace.debug("sending", client=f"{to[0]}:{to[1]}", packet=bytes(data[:64]).hex())
        try:
            self._raw.sendto(data, to)
        except OSError as fault:
            return fault.errno not in _NO_ROOM
        return True

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as fault:
            self._reporter.bug("multicast", fault)
            self.fail(Outcome.BUG, "internal error")

    # -- the end --------------------------------------------------------------------------------------------------

    def _depart(self, member: Member, now: float) -> None:
        newcomer = self._newcomers.pop(member.key)
        self._on_left(self, member.key)
        self._reporter.ended(
            Ended(
                kind="sent",
                client=f"{member.key[0]}:{member.key[1]}",
                name=newcomer.request.name,
                size_bytes=self._size_bytes,
                block_size=self._block_size,
                window=1,
                seconds=now - member.joined_at,
                outcome=member.outcome or Outcome.BUG,
                detail=member.detail,
                bytes_moved=min(member.position * self._block_size, self._size_bytes),
                blocks=member.blocks,
                retransmissions=member.retransmissions,
                stale=member.stale,
                rtt_s=member.rtt_s,
            )
        )
        if not self._newcomers and self._reporter.log.level >= 3:
            group = f"{self._to[0]}:{self._to[1]}"
            self._reporter.log.request(
                "group ended", group=group, file=shown(newcomer.request.name), clients=self._joined, blocks=self._blocks
            )

    def _finish(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._loop.remove_reader(self._raw.fileno())
        self._raw.close()
        if self._content is not None:
            self._content.close()
        self._on_end(self)
