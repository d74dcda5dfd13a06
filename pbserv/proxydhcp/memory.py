"""What the service remembers about each device between its packets: bounded, with the time passed in. Pure.

One rule: what is remembered here only ever changes how a device is answered, never whether others are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Final

from pbserv.journal.steps import Told
from pbserv.net.dhcp_port import Way
from pbserv.proxydhcp.decide import Target
from pbserv.proxydhcp.outcome import Ignore, Reason
from pbserv.types import Instant, Sighting

MOST_DEVICES: Final = 16_384
MOST_LEARNED: Final = 16_384
"""Strategies of devices that are not in memory now."""
FORGOTTEN_AT_ONCE: Final = 1024
CHAIN_S: Final = 120.0
REPEATED_WITHIN_S: Final = 0.5
"""No firmware asks again sooner: iPXE waits 1 s, EDK2 4 s; U-Boot takes another xid."""
BURST_GAP_S: Final = 120.0
STOPS_BEFORE_NEXT: Final = 2
LOOP_WINDOW_S: Final = 600.0
NEVER: Final = Instant(float("-inf"))
_NOWHERE: Final = Ignore(Reason.BAD_RETURN_ADDRESS)


class Boots:
    """One device. ``sighting`` is what the policy was asked with, about the packet that ``sighted`` stands for."""

    __slots__ = (
        "_burst_at", "_burst_secs", "_burst_xid", "_count", "_fresh", "_handed_at", "_handed_ipxe", "_handed_xid",
        "_ladder", "_last", "_last_at", "_offered", "_reached", "_second", "_step", "_stops", "fetched", "fetches",
        "first_fetch", "kin", "learned", "loader", "prepared", "reason", "reply", "said", "said_at", "sighted",
        "sighting", "target", "told", "way",
    )  # fmt: skip

    def __init__(self, learned: str = "") -> None:
        self.sighting: Sighting | None = None
        self.sighted: object = None
        self.kin: object = None
        """What its packets have in common that it sends now: all that the answer depends on but their time and xid."""
        self.target: Target | Ignore = _NOWHERE
        self.way: Way | None = None
        """The way back to it, as long as its packets are of one ``kin``."""
        self.told: Told | None = None
        """What those were told, by ``prepared`` and for ``reason``, and one of the replies; None: nothing yet."""
        self.prepared: object = None
        self.reason = ""
        self.reply = b""
        self.said: object = None
        self.said_at = NEVER
        self.learned = learned
        """The strategy that was found to work; empty: the usual one."""
        self._second = self._count = 0
        self._last: object = None
        self._last_at = NEVER
        self._handed_xid, self._handed_ipxe, self._handed_at = 0, False, NEVER
        self._burst_at, self._burst_secs, self._burst_xid = NEVER, 0, 0
        self._offered = self._reached = False
        self._stops = self._step = 0
        self._ladder: tuple[str, ...] = ()
        self.loader = ""
        self._fresh = False  # a loader was handed out and not fetched yet
        self.fetched, self.fetches, self.first_fetch = "", 0, NEVER

    # -- how often it asks ----------------------------------------------------------------------------------------

    def too_many(self, limit: int, now: Instant) -> bool:
        """Whether this is more than the ``limit`` packets that are looked at in one second; 0: no limit."""
        second = int(now)
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return 0 < limit < self._count

    def repeated(self, packet: object, now: Instant) -> bool:
        """Whether this very packet was heard a moment ago; ``packet`` is what tells it from others."""
        again = packet == self._last and now - self._last_at < REPEATED_WITHIN_S
        if not again:
            self._last, self._last_at = packet, now
        return again

    # -- the loader that asks again by itself -----------------------------------------------------------------------

    def handed(self, file: str, xid: int, ipxe: bool, now: Instant) -> None:
        """It was handed the loader of its architecture; ``ipxe``: it was iPXE already (a network ROM)."""
        self.loader = file
        self._fresh = True
        self._handed_xid, self._handed_ipxe, self._handed_at = xid, ipxe, now

    def chained(self, xid: int, now: Instant) -> bool:
        """Whether the iPXE that asks with ``xid`` is the loader that this device was just handed."""
        if now - self._handed_at > CHAIN_S:
            return False
        if not self._handed_ipxe:
            return True  # firmware was handed it, iPXE asks: some old ones derive the xid from the MAC as ROMs do
        return xid not in (self._handed_xid, 0)  # iPXE asks for a boot item with xid 0, which says nothing

    # -- strategies -------------------------------------------------------------------------------------------------

    def discovers(self, secs: int, xid: int, now: Instant) -> bool:
        """A DISCOVER of its firmware; True when it begins a new burst and the last one stopped right after our offer
        for the second time: the next strategy is to be tried."""
        gap = now - self._burst_at
        fresh = secs < self._burst_secs or gap > BURST_GAP_S or (
            secs == self._burst_secs and xid != self._burst_xid and gap > 3.0
        )  # fmt: skip
        stopped = fresh and self._offered and not self._reached and gap <= 2 * LOOP_WINDOW_S
        if fresh:
            self._stops = self._stops + 1 if stopped else 0 if self._reached else self._stops
            self._offered = self._reached = False
        self._burst_at, self._burst_secs, self._burst_xid = now, secs, xid
        if stopped and self._stops >= STOPS_BEFORE_NEXT:
            self._stops = 0
            self._step += 1
            return True
        return False

    def escalate(self, ladder: tuple[str, ...]) -> str:
        """The strategy that has its turn now, of those in ``ladder``, whose first is the usual one."""
        self._ladder = ladder
        return self.strategy

    @property
    def strategy(self) -> str:
        """The one to use in the place of the usual one; empty: the usual one."""
        if self._step == 0 or not self._ladder:
            return self.learned
        return self._ladder[self._step % len(self._ladder)]

    def offered(self) -> None:
        """An offer that was to lead to a boot file left."""
        self._offered = True

    def reached(self) -> str | None:
        """It got further than our offer. The strategy that is to be remembered, if that is news."""
        self._reached = True
        self._stops = 0
        if self._step == 0 or not self._ladder:
            return None
        works = self.strategy
        self._step = 0
        news = "" if works == self._ladder[0] else works
        if news == self.learned:
            return None
        self.learned = news
        return news

    # -- loops --------------------------------------------------------------------------------------------------------

    def fetched_loader(self, name: str, now: Instant) -> None:
        """It fetched a loader to the end: counted once each time that it was told one, or others could fetch for it."""
        if not self._fresh:
            return
        self._fresh = False
        if name != self.fetched or now - self.first_fetch > LOOP_WINDOW_S:
            self.fetched, self.fetches, self.first_fetch = name, 0, now
        self.fetches += 1

    def progressed(self) -> None:
        """The loader did something: it asked for its script, its configuration or a kernel."""
        self.fetches = 0

    def loops(self, limit: int, now: Instant) -> bool:
        return 0 < limit <= self.fetches and now - self.first_fetch <= LOOP_WINDOW_S


class Devices:
    """The devices by MAC address, the oldest forgotten first. ``learned``: strategies by MAC address."""

    __slots__ = ("_boots", "_learned")

    def __init__(self) -> None:
        self._boots: dict[bytes, Boots] = {}
        self._learned: dict[bytes, str] = {}

    def __len__(self) -> int:
        return len(self._boots)

    def __iter__(self) -> Iterator[Boots]:
        return iter(self._boots.values())

    def remember(self, learned: dict[bytes, str]) -> None:
        """What was found to work before this process began."""
        for mac, name in learned.items():
            self._keep(mac, name)

    def _keep(self, mac: bytes, name: str) -> None:
        self._learned[mac] = name
        if len(self._learned) > MOST_LEARNED:
            del self._learned[next(iter(self._learned))]

    def of(self, mac: bytes) -> Boots:
        boots = self._boots.get(mac)
        if boots is None:
            if len(self._boots) >= MOST_DEVICES:
                for old in list(self._boots)[:FORGOTTEN_AT_ONCE]:
                    gone = self._boots.pop(old)
                    if gone.learned:
                        self._keep(old, gone.learned)
            boots = self._boots[mac] = Boots(self._learned.pop(mac, ""))
        return boots

    def known(self, mac: bytes) -> Boots | None:
        return self._boots.get(mac)


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
