"""What was seen of devices and is not in the registry yet: collected without waiting, written in batches.

One rule: nothing is lost while the registry cannot be written; a device waits once, however often it is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from pbserv.log import ServiceLog
from pbserv.registry.records import Device
from pbserv.registry.registry import first_line

RETRY_S = 2.0
GATHER_S = 0.5
"""What is seen meanwhile is written with it: a room that is switched on is answered first and written down then."""
Namer = Callable[[Device], Awaitable[str]]
"""The name for a device that has none; empty while what it is made of is not known."""


class Store(Protocol):
    async def see(self, devices: Sequence[Device]) -> None: ...


async def _nameless(_device: Device) -> str:
    return ""


class Sightings:
    """``put`` is cheap and callable from packet handlers; :meth:`run` is the owned writer task.

    ``named`` is told of devices that got their name while they were written.
    """

    def __init__(self, store: Store, log: ServiceLog) -> None:
        self._store = store
        self._log = log
        self._waiting: dict[str, Device] = {}
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self.namer: Namer = _nameless
        self.named: Callable[[Device], None] = lambda device: None

    def put(self, device: Device) -> None:
        self._waiting[device.mac] = device
        self._wake.set()

    def forget(self, mac: str) -> None:
        self._waiting.pop(mac, None)

    def merged(self, device: Device) -> Device:
        """The registry's record of a device with what was seen of it since."""
        seen = self._waiting.get(device.mac)
        if seen is None:
            return device
        device = replace(
            device,
            uuid=seen.uuid or device.uuid,
            arch=device.arch if seen.arch is None else seen.arch,
            address=seen.address or device.address,
            last_seen=seen.last_seen,
            macs=(*device.macs, *(mac for mac in seen.macs if mac not in device.macs)),
            serial=device.serial or seen.serial,
            asset=device.asset or seen.asset,
            learned=tuple(sorted({**dict(device.learned), **dict(seen.learned)}.items())),
        )
        self._waiting[device.mac] = device
        return device

    async def run(self) -> None:
        """Write what was seen, until cancelled; a registry that cannot be written is tried again."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            if not await self.flush():
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def flush(self) -> bool:
        """Write what waits now, in one transaction; False when the registry could not be written (nothing is lost).

        What was seen before the call is in the registry after it, also where somebody else is writing it.
        """
        async with self._writing:
            return await self._flush()

    async def _flush(self) -> bool:
        batch, self._waiting = self._waiting, {}
        if not batch:
            return True
        try:
            named = [await self._named(device) for device in batch.values()]
            await self._store.see(named)
        except SQLAlchemyError as fault:
            self._waiting = batch | self._waiting
            self._log.critical("registry cannot be written", waiting=len(self._waiting), reason=first_line(fault))
            return False
        for device in named:
            if device.name != batch[device.mac].name:
                self.named(device)
        return True

    async def _named(self, device: Device) -> Device:
        name = "" if device.name else await self.namer(device)
        return replace(device, name=name) if name else device
