"""What the policy service needs from others: the journal of the devices, and the kernel's word on addresses."""

from __future__ import annotations

from typing import Protocol

from pbserv.types import Instant


class Journal(Protocol):
    """What happens to the devices is told to it. Nothing here waits."""

    def add(self, mac: str, what: str, detail: str = "") -> None: ...

    def learn(self, address: str, mac: str) -> None:
        """The device spoke from ``address``."""

    def mac_of(self, address: str) -> str | None:
        """Who was learned to have ``address`` last."""

    def forget(self, mac: str) -> None:
        """What waits of the device's lines is not written any more."""

    async def flush_events(self) -> bool: ...


class Progress(Protocol):
    """Who wants to know how far a device came."""

    def fetched(self, mac: str, name: str, *, complete: bool) -> None:
        """It asked TFTP or HTTP for a file; ``complete``: it has all of it."""

    def progressed(self, mac: str) -> None:
        """What it loaded runs: it asked for its script."""


class Neighbours(Protocol):
    """The kernel's ARP and NDP tables (:class:`pbserv.net.neighbours.NeighbourTable`)."""

    def mac_of(self, address: str, now: Instant) -> str | None:
        """None for strangers; raises ValueError for what is no address."""

    def close(self) -> None: ...
