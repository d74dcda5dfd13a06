"""What the service remembers between packets: two small, bounded tables with the time passed in. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from pbserv.types import Instant, MacAddress

CHAIN_SECONDS: Final = 120.0
MOST_DEVICES: Final = 8192


@dataclass(frozen=True, slots=True)
class _Handed:
    xid: int
    ipxe: bool
    at: Instant


class HandedLoaders:
    """Who was handed the loader of its architecture, so that iPXE is not told to load iPXE for ever.

    The loader that a device was given may be iPXE, and then asks again by itself: an iPXE client with another xid
    than the request that got the loader. A retransmission has the same xid and gets the same answer.
    """

    __slots__ = ("_devices",)

    def __init__(self) -> None:
        self._devices: OrderedDict[MacAddress, _Handed] = OrderedDict()

    def __len__(self) -> int:
        return len(self._devices)

    def record(self, mac: MacAddress, xid: int, ipxe: bool, now: Instant) -> None:
        """``mac`` was handed a loader in answer to ``xid``; ``ipxe``: it was iPXE already (a network ROM)."""
        self._devices[mac] = _Handed(xid, ipxe, now)
        self._devices.move_to_end(mac)
        if len(self._devices) > MOST_DEVICES:
            self._devices.popitem(last=False)

    def chained(self, mac: MacAddress, xid: int, now: Instant) -> bool:
        """Whether the iPXE that asks with ``xid`` is the loader that this device was just handed."""
        handed = self._devices.get(mac)
        if handed is None or now - handed.at > CHAIN_SECONDS:
            return False
        if not handed.ipxe:
            return True  # firmware was handed it, iPXE asks: some old ones derive the xid from the MAC as ROMs do
        return xid not in (handed.xid, 0)  # iPXE asks for a boot item with xid 0, which says nothing


class Quiet:
    """Lets a complaint through once per ``interval_s`` and key."""

    __slots__ = ("_interval_s", "_last", "_most")

    def __init__(self, interval_s: float, most: int = 1024) -> None:
        self._interval_s = interval_s
        self._most = most
        self._last: OrderedDict[Hashable, Instant] = OrderedDict()

    def allows(self, key: Hashable, now: Instant) -> bool:
        last = self._last.get(key)
        if last is not None and now - last < self._interval_s:
            return False
        self._last[key] = now
        self._last.move_to_end(key)
        if len(self._last) > self._most:
            self._last.popitem(last=False)
        return True
