"""Work that no device has begun by its time is written down as expired.

One rule: a sweep over the registry, not a timer for each piece of work, which a restart would lose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from pbserv.log import ServiceLog
from pbserv.registry.records import Work
from pbserv.registry.registry import first_line

EVERY_S: Final = 15.0


class Store(Protocol):
    async def expire_works(self, at: datetime) -> list[Work]: ...


class Journal(Protocol):
    def add(self, mac: str, what: str, detail: str = "") -> None: ...


class Expiry:
    """:meth:`run` is the owned task; the decision looks at the time by itself and need not wait for it."""

    def __init__(
        self, store: Store, journal: Journal, log: ServiceLog,
        calendar: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._store = store
        self._journal = journal
        self._log = log
        self._calendar = calendar

    async def run(self) -> None:
        """Sweep now, and then again and again, until cancelled."""
        while True:
            await self.sweep()
            await asyncio.sleep(EVERY_S)

    async def sweep(self) -> Sequence[Work]:
        """What ended now; nothing while the registry cannot be written."""
        try:
            ended = await self._store.expire_works(self._calendar())
        except SQLAlchemyError as fault:
            self._log.warning("work that expired is not written down yet", reason=first_line(fault))
            return ()
        for work in ended:
            self._journal.add(work.mac, "work", f"{work.id}: {work.state}: {work.reason}")
            self._log.transaction("work expired", device=work.mac, work=work.id, reason=work.reason)
        return ended
