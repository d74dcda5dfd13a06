"""What proxyDHCP needs from others: a policy that answers from memory, and a journal that is told everything."""

from __future__ import annotations

from typing import Protocol

from pbserv.journal.steps import DhcpStep, Told
from pbserv.types import Decision, Sighting


class Policy(Protocol):
    """What decides about a device."""

    def decide(self, sighting: Sighting) -> Decision:
        """Asked for every packet: must answer from memory, and remember what it answered."""


class Journal(Protocol):
    """Told of every packet of a boot client; must not wait."""

    def dhcp(self, mac: bytes, step: DhcpStep) -> None: ...

    def packet(self, mac: bytes, at: float, told: Told, data: bytes) -> None:
        """The same for one of many packets of a device that are answered alike; ``at`` and ``data`` are its own."""

    def add(self, mac: str, what: str, detail: str = "") -> None:
        """Anything else that happened to the device."""

    def learn(self, address: str, mac: str, *, sure: bool = True) -> None:
        """The device has this address now; ``sure``: its packet came from there."""

    def strategy_learned(self, mac: str, name: str) -> None:
        """Keep the strategy that works for a device; an empty name: the usual one does."""
