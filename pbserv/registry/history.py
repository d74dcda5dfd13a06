"""What happened to devices: events, boot sessions, and the strategies that were learned.

One rule: bounded, for each device and in all: MAC addresses are easily made up, and need not be registered to have a
history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from pbserv.registry.device_rows import owners_of
from pbserv.registry.journal_rows import boot_session, keep_session, keep_strategy, surplus_sessions, values_of
from pbserv.registry.models import BootSessionRow, DeviceMacRow, EventRow, StrategyRow
from pbserv.registry.records import BootSession, Event
from pbserv.registry.store import Store, now

EVENTS_PER_DEVICE = 500
MOST_SESSIONS = 20_000
MOST_EVENTS = 1_000_000
MOST_STRATEGIES = 16_384


class History(Store):
    """The part of the registry that the journal writes."""

    async def record(self, events: Sequence[Event]) -> None:
        """Append to the histories of devices; the newest ``EVENTS_PER_DEVICE`` of each stay, ``MOST_EVENTS`` in all."""
        if not events:
            return
        rows = [{"time": e.time, "mac": e.mac, "what": e.what, "detail": e.detail} for e in events]
        counted = select(EventRow.mac).where(EventRow.mac.in_({e.mac for e in events})).group_by(EventRow.mac)
        async with self._write() as change:
            session = change.session
            await session.execute(insert(EventRow), rows)
            for mac in await session.scalars(counted.having(func.count() > EVENTS_PER_DEVICE)):
                newest = select(EventRow.id).where(EventRow.mac == mac).order_by(EventRow.id.desc())
                oldest_kept = newest.offset(EVENTS_PER_DEVICE - 1).limit(1).scalar_subquery()
                await session.execute(delete(EventRow).where(EventRow.mac == mac, EventRow.id < oldest_kept))
            newest_id = select(func.max(EventRow.id)).scalar_subquery()
            await session.execute(delete(EventRow).where(EventRow.id <= newest_id - MOST_EVENTS))

    async def history(self, mac: str, limit: int = 200) -> list[Event]:
        """The newest ``limit`` events of a device, of all its addresses, oldest first."""
        async with self._read() as session:
            query = select(EventRow).where(EventRow.mac.in_(await _addresses(session, mac)))
            rows = (await session.scalars(query.order_by(EventRow.id.desc()).limit(limit))).all()
        return [Event(row.time, row.mac, row.what, row.detail) for row in reversed(rows)]

    async def addresses(self, mac: str) -> tuple[str, ...]:
        """All addresses of the device that has ``mac``, its name first; ``mac`` alone where there is no such device."""
        async with self._read() as session:
            return await _addresses(session, mac)

    # boot sessions

    async def keep_sessions(self, sessions: Sequence[BootSession]) -> None:
        """Write sessions, or write them again. Of each of their devices the newest ones stay (``journal_rows``)."""
        if not sessions:
            return
        async with self._write() as change:
            await change.session.execute(keep_session(self._upsert), [values_of(kept) for kept in sessions])
            await change.session.execute(surplus_sessions({kept.mac for kept in sessions}))

    async def drop_old_sessions(self, days: int) -> None:
        """Remove what ended more than ``days`` ago, and the oldest above ``MOST_SESSIONS``."""
        first_kept = select(BootSessionRow.id).order_by(BootSessionRow.id.desc()).offset(MOST_SESSIONS - 1).limit(1)
        async with self._write() as change:
            session = change.session
            await session.execute(delete(BootSessionRow).where(BootSessionRow.ended < now() - timedelta(days=days)))
            await session.execute(delete(BootSessionRow).where(BootSessionRow.id < first_kept.scalar_subquery()))

    async def sessions(self, *, mac: str | None = None, limit: int = 100) -> list[BootSession]:
        """Newest first, by the time of their last step; with ``mac`` those of its device, whichever address booted."""
        query = select(BootSessionRow).order_by(BootSessionRow.ended.desc(), BootSessionRow.id.desc()).limit(limit)
        async with self._read() as session:
            if mac is not None:
                query = query.where(BootSessionRow.mac.in_(await _addresses(session, mac)))
            return [boot_session(row) for row in (await session.scalars(query)).all()]

    async def strategies(self) -> dict[str, str]:
        """MAC address -> name of the strategy that was learned for it."""
        async with self._read() as session:
            return {row.mac: row.name for row in (await session.scalars(select(StrategyRow))).all()}

    async def remember_strategies(self, learned: Mapping[str, str]) -> None:
        """MAC address -> name; an empty name forgets what was learned. The newest ``MOST_STRATEGIES`` stay."""
        kept = [{"mac": mac, "name": name, "learned": now()} for mac, name in learned.items() if name]
        async with self._write() as change:
            session = change.session
            if kept:
                await session.execute(keep_strategy(self._upsert), kept)
            await session.execute(
                delete(StrategyRow).where(StrategyRow.mac.in_([m for m in learned if not learned[m]]))
            )
            newest = select(StrategyRow.mac).order_by(StrategyRow.learned.desc()).limit(MOST_STRATEGIES)
            if (await session.scalar(select(func.count()).select_from(StrategyRow)) or 0) > MOST_STRATEGIES:
                await session.execute(delete(StrategyRow).where(StrategyRow.mac.not_in(newest)))


async def _addresses(session: AsyncSession, mac: str) -> tuple[str, ...]:
    owner = (await owners_of(session, (mac,)))[mac]
    further = select(DeviceMacRow.mac).where(DeviceMacRow.device == owner).order_by(DeviceMacRow.mac)
    return owner, *await session.scalars(further)
