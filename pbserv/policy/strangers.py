"""Pending devices about which nobody decided, and which are not seen any more, leave the registry.

One rule: anybody can make up addresses, so what they leave behind has an end; a device that comes again is new again.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from pbserv.log import ServiceLog
from pbserv.policy.register import MAX_PENDING
from pbserv.policy.snapshot import Snapshot
from pbserv.registry.records import DeviceState
from pbserv.registry.registry import ConflictError, NotFoundError, first_line

EVERY_S: Final = 60.0
AT_ONCE: Final = 200
"""Devices of one sweep: each is a transaction, and others write too."""
CROWDED: Final = MAX_PENDING * 9 // 10
CROWDED_AFTER: Final = timedelta(hours=1)
"""Where so many are pending, those go that were not seen for so long: real ones find no place otherwise."""


class Store(Protocol):
    async def forget(self, mac: str, *, state: DeviceState | None = None) -> None: ...


class Policy(Protocol):
    @property
    def snapshot(self) -> Snapshot: ...

    @property
    def pending_days(self) -> int: ...

    def forget(self, mac: str) -> None: ...


class Strangers:
    """:meth:`run` is the owned task."""

    def __init__(
        self, store: Store, policy: Policy, log: ServiceLog,
        calendar: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._store = store
        self._policy = policy
        self._log = log
        self._calendar = calendar

    async def run(self) -> None:
        """Sweep again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.sweep()

    async def sweep(self) -> int:
        """How many devices went; some may wait for the next sweep."""
        snapshot, gone = self._policy.snapshot, 0
        if not snapshot.pending:
            return 0
        found = await asyncio.to_thread(stale, snapshot, self._calendar(), self._policy.pending_days)
        for mac in found:
            try:
                await self._store.forget(mac, state=DeviceState.PENDING)
            except (ConflictError, NotFoundError):  # somebody decided meanwhile
                continue
            except SQLAlchemyError as fault:
                self._log.warning("pending devices stay for now", reason=first_line(fault))
                break
            self._policy.forget(mac)
            gone += 1
        if gone:
            self._log.transaction("pending devices forgotten", count=gone, reason="not seen any more (PendingDays)")
        return gone


def stale(snapshot: Snapshot, today: datetime, days: int) -> Sequence[str]:
    """Whom to forget, those that were seen longest ago first; ``AT_ONCE`` at most."""
    limit = CROWDED_AFTER if snapshot.pending >= CROWDED else timedelta(days=days)
    waiting = (
        (device.last_seen, device.mac) for device in snapshot.devices.values()
        if device.state is DeviceState.PENDING and today - device.last_seen > limit
    )  # fmt: skip
    return [mac for _, mac in heapq.nsmallest(AT_ONCE, waiting)]
