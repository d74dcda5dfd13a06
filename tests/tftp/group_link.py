"""A simulated network between the core of a multicast group and models of its clients, on a clock that only jumps."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from itertools import count

from pbserv.tftp.multicast import MulticastTransfer
from pbserv.tftp.multicast_member import Member, MemberKey, oacks
from pbserv.tftp.options import Terms
from pbserv.tftp.packet import Error, OptionAck, decode, encode_ack

NEVER = float("inf")
GROUP = "239.1.2.3"


@dataclass
class Listener:
    """A client as atftp is one: a map of what it has, ACKs only as master, gone without dallying when it is done.

    ``tells_end``: it sends its last ACK as a listener too (EDK2). ``leaves_silently``: as a listener it just goes when
    it has everything (iPXE). ``dies_at``: it says nothing after that time.
    """

    key: MemberKey
    last: int
    joins_at: float = 0.0
    tells_end: bool = False
    leaves_silently: bool = False
    dies_at: float = NEVER
    deaf: bool = False
    timeout_s: float = 5.0
    master: bool = False
    joined: bool = False
    done: bool = False
    got: set[int] = field(default_factory=set)
    heard_at: float = 0.0

    @property
    def hole(self) -> int:
        """How many blocks it has without a gap."""
        number = 0
        while number + 1 in self.got:
            number += 1
        return number

    def gone(self, now: float) -> bool:
        return self.done or now >= self.dies_at

    def acknowledge(self) -> list[int]:
        number = self.hole
        self.done = number == self.last
        return [number]

    def oack(self, mc: int) -> list[int]:
        self.joined = True
        self.master = mc == 1
        return self.acknowledge() if self.master else []

    def block(self, number: int) -> list[int]:
        if not self.joined or self.deaf:
            return []
        self.got.add(number)
        if self.master:
            return self.acknowledge()
        if len(self.got) == self.last and (self.tells_end or self.leaves_silently):
            self.done = True
            return [self.last] if self.tells_end else []
        return []


class GroupLink:
    """``loss`` counts for every packet and every receiver by itself; delays differ by up to ``jitter_s``."""

    def __init__(
        self,
        last: int,
        clients: list[Listener],
        *,
        seed: int = 1,
        loss: float = 0.0,
        jitter_s: float = 0.0,
        lossy: tuple[str, ...] = ("data", "ack", "oack"),
    ) -> None:
        self.core = MulticastTransfer((last - 1) * 512 + 100, 512)
        assert self.core.last == last
        self.clients = {client.key: client for client in clients}
        self.members: dict[MemberKey, Member] = {}
        self.now = 100.0
        self.blocks: list[int] = []
        self.first_block_at = NEVER
        self.first_ack_at = NEVER
        self.oacks: dict[MemberKey, list[int]] = {key: [] for key in self.clients}
        self.errors: list[MemberKey] = []
        self._dice = random.Random(seed)
        self._loss, self._jitter_s, self._lossy = loss, jitter_s, lossy
        self._order = count()
        self._events: list[tuple[float, int, str, MemberKey, int]] = []
        for client in clients:
            client.dies_at += self.now
            self._at(self.now + client.joins_at, "ask", client.key, 0)

    def _at(self, instant: float, kind: str, key: MemberKey, number: int) -> None:
        heapq.heappush(self._events, (instant, next(self._order), kind, key, number))

    def _carry(self, kind: str, key: MemberKey, number: int) -> None:
        if kind not in self._lossy or self._dice.random() >= self._loss:
            self._at(self.now + 0.0005 + self._dice.random() * self._jitter_s, kind, key, number)

    def _act(self, actions: list) -> None:
        for action in actions:
            if isinstance(action, int):
                assert 1 <= action <= self.core.last
                self.blocks.append(action)
                self.first_block_at = min(self.first_block_at, self.now)
                for key in self.clients:
                    self._carry("data", key, action)
                continue
            key, datagram = action
            packet = decode(datagram)
            if isinstance(packet, Error):
                self.errors.append(key)
                continue
            assert isinstance(packet, OptionAck)
            mc = int(dict(packet.options)[b"multicast"].rpartition(b",")[2])
            self.oacks[key].append(mc)
            self._carry("oack", key, mc)

    def run(self, patience_s: float = 3600.0) -> None:
        """Until nobody is left on either side."""
        stop = self.now + patience_s
        while self.core.members or any(kind == "ask" for _, _, kind, _, _ in self._events):
            arrival = self._events[0][0] if self._events else NEVER
            self.now = max(self.now, min(arrival, self.core.deadline))
            assert self.now < stop, "the group never ends"
            if arrival <= self.now:
                _, _, kind, key, number = heapq.heappop(self._events)
                self._arrive(kind, key, number)
            else:
                self._act(self.core.on_deadline(self.now))

    def _arrive(self, kind: str, key: MemberKey, number: int) -> None:
        client = self.clients[key]
        if kind == "ack":
            self.first_ack_at = min(self.first_ack_at, self.now)
            self._act(self.core.receive(key, encode_ack(number), self.now))
            return
        if client.gone(self.now):
            return
        if kind == "ask":
            self._ask(client)
        elif kind == "timer":
            self._timer(client)
        else:
            client.heard_at = self.now
            for block in client.oack(number) if kind == "oack" else client.block(number):
                self._carry("ack", key, block)

    def _ask(self, client: Listener) -> None:
        """The request; it is never lost here, for a lost one is one that comes later."""
        if client.key in self.core.members:
            self._act(self.core.on_request_again(client.key, self.now))
        elif client.key not in self.members:
            member = Member(client.key, terms(), oacks(terms().accepted, GROUP, 1758), self.now)
            self.members[client.key] = member
            self._act(self.core.join(member, self.now))
            self._at(self.now + client.timeout_s, "timer", client.key, 0)

    def _timer(self, client: Listener) -> None:
        if self.now - client.heard_at >= client.timeout_s:
            if client.master:
                self._carry("ack", client.key, client.hole)
            elif not client.joined:
                self._ask(client)
        self._at(self.now + client.timeout_s, "timer", client.key, 0)


def terms(timeout_s: float = 1.0, *, fixed: bool = False) -> Terms:
    return Terms(512, 1, timeout_s, fixed, ((b"tsize", b"1"), (b"multicast", b"")))
