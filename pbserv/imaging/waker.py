"""Wakes the devices whose work asks for it: at the order, and then again until they ask for their work.

One rule: no more devices at once than can begin: who wakes and finds the queue full has been woken too early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from pbserv.errors import PbservError
from pbserv.imaging.jobs import History
from pbserv.log import ServiceLog
from pbserv.net import wol
from pbserv.registry.records import Device, Work, WorkState
from pbserv.registry.registry import Registry, first_line
from pbserv.types import MacAddress

TIMES: Final = 3
EVERY_S: Final = 30.0
AT_ONCE: Final = 50
"""Devices that are woken in one turn, at most: their power supplies are switched on together."""
SPARE: Final = 2
"""So many more are woken than there are places: some do not wake."""

Send = Callable[[Iterable[MacAddress], str], wol.Woken]


class Places(Protocol):
    def room(self) -> int | None:
        """How many devices could begin now; below 0: so many more wait. None: there is no limit."""


class Waker:
    """:meth:`turn` belongs into an owned task. ``changed`` is told by the registry of every device."""

    def __init__(
        self, registry: Registry, history: History, log: ServiceLog, places: Places, *, send: Send = wol.wake,
        calendar: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._registry = registry
        self._history = history
        self._log = log
        self._places = places
        self._send = send
        self._calendar = calendar
        self._next: datetime | None = None
        self._ordered = True  # what an earlier process left

    def device_changed(self, device: Device) -> None:
        """Work that asks for it is new: its device is woken with the next turn."""
        work = device.work
        if work is not None and work.wake and work.state is WorkState.QUEUED and work.woken is None:
            self._ordered = True

    async def turn(self) -> None:
        """Wake who is to be woken now; between orders that is asked of the registry every 30 seconds."""
        now = self._calendar()
        if not self._ordered and self._next is not None and now < self._next:
            return
        self._ordered, self._next = False, now + timedelta(seconds=EVERY_S)
        try:
            await self._wake_due(now)
        except (PbservError, SQLAlchemyError) as fault:
            self._log.warning("devices are not woken yet", reason=first_line(fault))

    async def _wake_due(self, now: datetime) -> None:
        room = self._places.room()
        most = AT_ONCE if room is None else min(AT_ONCE, max(0, room + SPARE))
        if not most:
            return
        due = await self._registry.works_to_wake(now - timedelta(seconds=EVERY_S), most, TIMES)
        for work in due:
            await self._wake_for(work)
        if due:
            await self._registry.set_woken([work.id for work in due], now)

    async def _wake_for(self, work: Work) -> None:
        sent = await self.wake(await self._registry.device(work.mac))
        if not sent.to:
            self._log.warning("device not woken", device=work.mac, work=work.id, reason="; ".join(sent.faults))

    async def wake(self, device: Device) -> wol.Woken:
        """Magic packets for each of the device's addresses."""
        macs = [MacAddress.parse(mac) for mac in (device.mac, *device.macs)]
        sent = await asyncio.to_thread(self._send, macs, device.address)
        reason = "; ".join(sent.faults) or "no interface has a broadcast address"
        self._history.add(device.mac, "woken", f"by {', '.join(sent.to)}" if sent.to else f"not woken: {reason}")
        return sent
