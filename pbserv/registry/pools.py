"""Pools of names and addresses: JSON bodies that only the imaging service can read, and what each has given out.

One rule: a pool that devices have values of is not deleted, unless these are to be taken from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from pbserv.registry.faults import ConflictError, NotFoundError, RevisionError
from pbserv.registry.models import NamePoolRow, PoolValueRow
from pbserv.registry.store import Store

_P: Final = NamePoolRow.__table__.c
_V: Final = PoolValueRow.__table__.c
MOST_POOLS: Final = 1000


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """``revision`` grows by one with every change; it is the ETag of the pool. ``given``: how many values it gave."""

    name: str
    body: str
    revision: int
    given: int = 0


@dataclass(frozen=True, slots=True)
class PoolValue:
    """A value that the device ``mac`` has."""

    value: str
    mac: str
    given: datetime


class Pools(Store):
    """The part of the registry that keeps pools."""

    async def pools(self) -> list[PoolRecord]:
        """By name, with how many values each gave."""
        async with self._read() as session:
            rows = await session.execute(select(_V.pool, func.count()).group_by(_V.pool))
            counts = {name: count for name, count in rows}
            found = await pool_records(session)
        return [PoolRecord(each.name, each.body, each.revision, counts.get(each.name, 0)) for each in found]

    async def pool(self, name: str) -> tuple[PoolRecord, list[PoolValue]]:
        """With all that it gave, the newest last. Raises NotFoundError."""
        async with self._read() as session:
            row = _found(await session.get(NamePoolRow, name), name)
            query = select(_V.value, _V.mac, _V.given).where(_V.pool == name).order_by(_V.given, _V.value)
            values = [PoolValue(*each) for each in (await session.execute(query)).all()]
            return PoolRecord(row.name, row.body, row.revision, len(values)), values

    async def put_pool(self, name: str, body: str, expected: int | None) -> PoolRecord:
        """Make or replace it. An equal body changes nothing. ``expected``: its revision now, 0: it must be new, None:
        whatever it is. Raises RevisionError."""
        async with self._write() as change:
            row = await change.session.get(NamePoolRow, name)
            _check(name, row, expected)
            if row is None:
                count = await change.session.scalar(select(func.count()).select_from(NamePoolRow)) or 0
                if count >= MOST_POOLS:
                    raise ConflictError(f"there are {count} pools already: delete some (pbserv pool delete NAME)")
                row = NamePoolRow(name=name, body=body, revision=1)
                change.session.add(row)
            elif row.body != body:
                row.body, row.revision = body, row.revision + 1
            return PoolRecord(row.name, row.body, row.revision)

    async def delete_pool(self, name: str, expected: int | None = None, *, release: bool = False) -> int:
        """How many values devices lost by it. Raises NotFoundError, RevisionError, and, unless ``release``,
        ConflictError when devices have values of it."""
        async with self._write() as change:
            session = change.session
            row = _found(await session.get(NamePoolRow, name), name)
            _check(name, row, expected)
            users = (await session.scalars(select(_V.mac).where(_V.pool == name).distinct().limit(4))).all()
            if users and not release:
                more = ", ..." if len(users) > 3 else ""
                raise ConflictError(
                    f"devices have values of pool {name!r}: {', '.join(users[:3])}{more}; to take these from them too:"
                    " pbserv pool delete --release"
                )
            gone = await session.scalar(select(func.count()).select_from(PoolValueRow).where(_V.pool == name)) or 0
            await session.execute(delete(PoolValueRow).where(_V.pool == name))
            await session.delete(row)
        return gone


async def pool_records(session: AsyncSession) -> list[PoolRecord]:
    """All, by name; ``given`` is not counted."""
    rows = await session.execute(select(_P.name, _P.body, _P.revision))
    return sorted((PoolRecord(*row) for row in rows), key=lambda each: each.name)


def _found(row: NamePoolRow | None, name: str) -> NamePoolRow:
    if row is None:
        raise NotFoundError(f"no pool {name!r}; see: pbserv pool list")
    return row


def _check(name: str, row: NamePoolRow | None, expected: int | None) -> None:
    is_now = 0 if row is None else row.revision
    if expected is not None and expected != is_now:
        state = f"has revision {is_now}" if is_now else "does not exist"
        raise RevisionError(f"pool {name!r} {state}, {expected or 'none'} was expected. Read it again")
