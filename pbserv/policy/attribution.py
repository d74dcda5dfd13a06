"""Whose request is this? TFTP and HTTP know an address only; devices are known by their MAC.

One rule: a neighbour is who the kernel says it is, because what DHCP once told of an address may be another's by now.
What was learned counts for clients behind a router, whom the kernel does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pbserv.policy.ports import Neighbours
from pbserv.types import Instant

_NEIGHBOUR_S: Final = 1.0
_STRANGER_S: Final = 10.0
"""Who asks us something over a link has asked for our MAC address before: a stranger is no neighbour soon after."""
_REMEMBERED: Final = 16_384


class Attribution:
    """Owns ``neighbours``; one per running policy service."""

    def __init__(self, neighbours: Neighbours, learned: Callable[[str], str | None]) -> None:
        self._neighbours = neighbours
        self._learned = learned
        self._told: dict[str, tuple[float, str | None]] = {}  # address: until when, what the kernel said

    def mac_of(self, address: str, now: float) -> str | None:
        """``aa:bb:cc:dd:ee:ff``, or None: nobody can say."""
        return self.neighbour(address, now) or self._learned(address)

    def neighbour(self, address: str, now: float) -> str | None:
        """What the kernel says alone; None for a stranger and for who is behind a router."""
        until, mac = self._told.get(address, (0.0, None))
        return mac if now < until else self._ask(address, now)

    def _ask(self, address: str, now: float) -> str | None:
        try:
            mac = self._neighbours.mac_of(address, Instant(now))
        except ValueError:  # not an address: a Unix socket, for instance, has none
            return None
        if len(self._told) >= _REMEMBERED:
            self._told.clear()
        self._told[address] = (now + (_STRANGER_S if mac is None else _NEIGHBOUR_S), mac)
        return mac

    def close(self) -> None:
        self._neighbours.close()
