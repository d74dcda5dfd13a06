"""Collects the events of devices without making anybody wait, and writes them to the registry in batches.

One rule: bounded. When the database cannot keep up, the oldest unwritten event is dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from pbserv.registry.records import Event

WAITING_EVENTS = 4096
REMEMBERED_ADDRESSES = 16_384
BATCH = 200
RETRY_S = 2.0


class Store(Protocol):
    async def record(self, events: Sequence[Event]) -> None: ...


class Journal:
    """``add`` is cheap and callable from packet handlers; :meth:`run` is the owned writer task."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[Event] = deque(maxlen=WAITING_EVENTS)
        self._wake = asyncio.Event()
        self._macs: dict[str, str] = {}
        self.dropped = 0

    def add(self, mac: str, what: str, detail: str = "") -> None:
        if len(self._waiting) == WAITING_EVENTS:
            self.dropped += 1
        self._waiting.append(Event(datetime.now(UTC), mac, what, detail))
        self._wake.set()

    def learn(self, address: str, mac: str) -> None:
        """Remember which device spoke from ``address``; TFTP knows addresses only."""
        if not address or address == "0.0.0.0":
            return
        self._macs.pop(address, None)
        if len(self._macs) >= REMEMBERED_ADDRESSES:
            del self._macs[next(iter(self._macs))]
        self._macs[address] = mac

    def mac_of(self, address: str) -> str | None:
        return self._macs.get(address)

    def forget(self, mac: str) -> None:
        """The device was removed from the registry: what waits to be written about it goes too."""
        kept = [event for event in self._waiting if event.mac != mac]
        self._waiting.clear()
        self._waiting.extend(kept)

    async def run(self) -> None:
        """Write until cancelled; a registry that cannot be written is tried again."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not await self.flush():
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def flush(self) -> bool:
        """Write everything that waits now; False when the registry could not be written."""
        return await self.flush_events()

    async def flush_events(self) -> bool:
        """Write the events that wait now; False when the registry could not be written (what fits is kept)."""
        for _ in range(0, len(self._waiting), BATCH):
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                await self._store.record(batch)
            except SQLAlchemyError:
                room = WAITING_EVENTS - len(self._waiting)
                self.dropped += max(0, len(batch) - room)
                self._waiting.extendleft(reversed(batch[-room:] if room else []))
                return False
        return True
