"""Collects the events of devices without making anybody wait, and writes them to the registry in batches.

One rule: bounded. When the database cannot keep up, the oldest unwritten event is dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from pbserv.registry.records import Event

WAITING_EVENTS = 4096
REMEMBERED_ADDRESSES = 16_384


class Store(Protocol):
    async def record(self, events: Sequence[Event]) -> None: ...


class History:
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

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits; called once more when the process stops."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(200, len(self._waiting)))]
            await self._store.record(batch)
