"""What all packets have in common that come by one wire and ask alike: found out once. Pure.

One rule: no answer that is kept here depends on who asked; only the way back does.
"""

from __future__ import annotations

from typing import Final

from pbserv.net.dhcp_port import Way
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.answers import Prepared
from pbserv.proxydhcp.asked import Asked
from pbserv.proxydhcp.decide import Target, purpose, route
from pbserv.proxydhcp.facts import Facts
from pbserv.proxydhcp.outcome import ClientKind, Ignore
from pbserv.proxydhcp.packet import Head

LANES_KEPT: Final = 4096
RELAYS_KEPT: Final = 16
"""Whose details one lane keeps."""
_NOBODY: Final = Head(
    dhcp.BOOTREQUEST, 1, 6, 0, 0, 0, 0, dhcp.ZERO, dhcp.ZERO, dhcp.ZERO, dhcp.ZERO, bytes(16)
)  # fmt: skip


class Lane:
    """Packets that ask alike. ``ignored`` says why they are none of ours; else ``answer`` is the type of the answer.

    ``broadcast`` is the target of clients without an address, ``way`` the way there; ``prepared`` are the answers that
    were made already, ``details`` what the policy is told, by the relay that passed the packet on.
    """

    __slots__ = ("answer", "broadcast", "details", "facts", "firmware", "ignored", "ipxe", "port", "prepared", "way")

    def __init__(self, asked: Asked, facts: Facts) -> None:
        self.facts = facts
        self.port = facts.listener.value
        found = purpose(asked, facts)
        self.ignored = found if isinstance(found, Ignore) else None
        self.answer = 0 if isinstance(found, Ignore) else found
        kind = None if asked.client is None else asked.client.kind
        self.ipxe = kind is ClientKind.IPXE
        self.firmware = kind in (ClientKind.BIOS, ClientKind.UEFI)
        self.broadcast: Target | Ignore = route(_NOBODY, facts)
        self.way = None if isinstance(self.broadcast, Ignore) else self._way(self.broadcast)
        self.details: dict[str, tuple[tuple[str, str], ...]] = {}
        self.prepared: dict[tuple[str, bool, str, bool, str], Prepared | Ignore] = {}

    def target(self, head: Head, source: str, port: int) -> Target | Ignore:
        """The way back to whoever sent a packet with this head from ``source``:``port``."""
        if head.giaddr == dhcp.ZERO == head.ciaddr and self.answer == dhcp.OFFER:
            return self.broadcast
        return route(head, self.facts._replace(source=source, source_port=port))

    def way_to(self, target: Target) -> Way:
        """All that broadcast share one."""
        return self.way if self.way is not None and target is self.broadcast else self._way(target)

    def _way(self, target: Target) -> Way:
        return Way(target.address, target.port, self.facts.local, target.ifindex)


class Wire:
    """One interface and address: ``facts`` are those of its packets but for their source, which is any one's."""

    __slots__ = ("facts", "lanes")

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.lanes: dict[Asked, Lane] = {}

    def lane(self, asked: Asked) -> Lane:
        if len(self.lanes) >= LANES_KEPT:
            self.lanes.clear()
        lane = self.lanes[asked] = Lane(asked, self.facts)
        return lane
