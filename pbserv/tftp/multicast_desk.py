"""Which read requests are served by multicast (RFC 2090), and by which group.

One rule: what cannot be served by multicast is served by unicast, without the option; nobody is refused here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pbserv.net.sockets import RouteMtus
from pbserv.net.udp import Datagram
from pbserv.tftp.catalogue import MadeFile, RealFile
from pbserv.tftp.config import TftpConf
from pbserv.tftp.files import ContentStore, FileId, block_count
from pbserv.tftp.multicast import MOST_BLOCKS, MOST_MEMBERS
from pbserv.tftp.multicast_member import MemberKey
from pbserv.tftp.multicast_session import GroupAddress, MulticastGroup, Newcomer
from pbserv.tftp.options import Limits, negotiate
from pbserv.tftp.packet import Request
from pbserv.tftp.report import Reporter
from pbserv.tftp.transfer import Outcome

ADDRESSES = 256
MOST_GROUPS = 64
"""Each holds a socket and a file; further requests are served by unicast."""
MOST_PER_ADDRESS = 8
SWEEP_S = 0.01
OPTION = b"multicast"

LimitsFor = Callable[[int], Limits]
Key = tuple[str, int, str]
"""Client address, client port, our address."""

_GroupKey = tuple[FileId, int, str]


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """What the settings say about groups; transfers of a running group keep theirs."""

    first: ipaddress.IPv4Address
    port: int
    ttl: int
    port_range: tuple[int, int] | None = None

    @classmethod
    def of(cls, settings: TftpConf) -> GroupPlan | None:
        """None: no multicast."""
        # A single port is for NAT and containers, which multicast does not pass; groups have ports of their own.
        if not settings.multicast or settings.single_port or OPTION.decode() in settings.refused_options:
            return None
        first = ipaddress.IPv4Address(settings.multicast_address)
        return cls(first, settings.multicast_port, settings.multicast_ttl, settings.port_range)


class MulticastDesk:
    """The groups of one service. ``plan`` may be replaced at any time and counts for the groups to come."""

    def __init__(self, plan: GroupPlan | None, store: ContentStore, reporter: Reporter) -> None:
        self.plan = plan
        self._store = store
        self._reporter = reporter
        self._mtus = RouteMtus()
        self._groups: dict[_GroupKey, MulticastGroup] = {}
        self._keys: dict[MulticastGroup, _GroupKey] = {}
        self._by_client: dict[Key, MulticastGroup] = {}
        self._per_address: Counter[str] = Counter()
        # Two servers in one LAN should not begin with the same address.
        self._turn = secrets.randbelow(ADDRESSES)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Members of all groups."""
        return len(self._by_client)

    def of(self, address: str) -> int:
        """Members that ``address`` has."""
        return self._per_address[address]

    @property
    def groups(self) -> int:
        return len(self._groups)

    def take_request(self, datagram: Datagram, now: float) -> bool:
        """Before anything else is done with a request: True when it repeats one that a group is serving."""
        group = self._by_client.get((datagram.peer, datagram.port, datagram.local))
        return group is not None and group.take_request((datagram.peer, datagram.port), datagram.data, now)

    def take(
        self, datagram: Datagram, request: Request, found: RealFile | MadeFile, limits: LimitsFor, now: float
    ) -> bool:
        """Serve it by multicast, and take the descriptor over; False when it is to be served by unicast.

        ``limits`` makes them for the MTU of the way to the client.
        """
        if self.plan is None or not isinstance(found, RealFile) or not _asks(request) or ":" in datagram.local:
            return False
        try:
            mtu_bytes = self._mtus.of(datagram.local, datagram.peer)
        except OSError:
            return False
        # Blocks are acknowledged one by one in a group. The value of the option depends on the group.
        offer = limits(mtu_bytes)._replace(window=1, multicast=b"")
        terms = negotiate(request.options, found.facts.st_size, offer)
        if not terms.multicast:
            return False
        identity = FileId.of(found.facts)
        if block_count(identity.size, terms.block_size) > MOST_BLOCKS:
            return False
        if self.take_request(datagram, now):
            os.close(found.fd)
            return True
        if self._per_address[datagram.peer] >= MOST_PER_ADDRESS:
            return False
        key = (identity, terms.block_size, datagram.local)
        newcomer = Newcomer((datagram.peer, datagram.port), datagram.data, request, terms)
        group = self._groups.get(key)
        if group is not None:
            if len(group) >= MOST_MEMBERS:
                return False
            os.close(found.fd)
            self._admit(group, newcomer, now)
            return True
        group = self._open(self.plan, key)
        if group is None:
            return False
        self._admit(group, newcomer, now)
        try:
            self._store.obtain(found.fd, identity, terms.block_size, 1, group.begin, terms.rollover)
        except Exception as fault:
            self._reporter.bug("multicast", fault)
            group.fail(Outcome.BUG, "internal error")
        return True

    def _sweep(self) -> None:
        now = time.monotonic()
        for group in [group for group in self._groups.values() if group.deadline <= now]:
            group.on_deadline(now)
        self._timer = self._loop.call_later(SWEEP_S, self._sweep) if self._groups else None

    def close(self) -> None:
        """End what still runs; the members are told."""
        for group in list(self._groups.values()):
            group.fail(Outcome.STOPPED, "the server is stopping")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _open(self, plan: GroupPlan, key: _GroupKey) -> MulticastGroup | None:
        address = self._free_address(plan)
        if len(self._groups) >= MOST_GROUPS or address is None:
            return None
        where = GroupAddress(key[2], address, plan.port, plan.ttl)
        try:
            raw = where.open(plan.port_range)
        except OSError:
            return None
        group = MulticastGroup(where, raw, key[0].size, key[1], self._reporter, self._left, self._over)
        self._groups[key] = group
        self._keys[group] = key
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        return group

    def _free_address(self, plan: GroupPlan) -> str | None:
        """The one that was in use longest ago: late blocks of a group must not reach members of another."""
        used = {group.where.group for group in self._groups.values()}
        for _ in range(ADDRESSES):
            address = str(plan.first + self._turn)
            self._turn = (self._turn + 1) % ADDRESSES
            if address not in used:
                return address
        return None

    def _admit(self, group: MulticastGroup, newcomer: Newcomer, now: float) -> None:
        self._by_client[(*newcomer.key, group.where.local)] = group
        self._per_address[newcomer.key[0]] += 1
        self._reporter.metrics.members = len(self._by_client)
        group.admit(newcomer, now)

    def _left(self, group: MulticastGroup, key: MemberKey) -> None:
        del self._by_client[(*key, group.where.local)]
        self._reporter.metrics.members = len(self._by_client)
        self._per_address[key[0]] -= 1
        if not self._per_address[key[0]]:
            del self._per_address[key[0]]

    def _over(self, group: MulticastGroup) -> None:
        del self._groups[self._keys.pop(group)]


def _asks(request: Request) -> bool:
    return request.mode == "octet" and any(name.lower() == OPTION for name, _ in request.options)
