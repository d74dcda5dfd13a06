"""Image-safe data of devices: what was said of each, what pools gave it, and whether it was just imaged.

One rule: a value (a name, an address) is one device's alone, whoever gave it: it is looked for and written in one
transaction that nobody writes beside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final, cast

from sqlalchemy import Table, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from pbserv.registry.device_rows import AT_ONCE, device_of
from pbserv.registry.faults import ConflictError
from pbserv.registry.models import IdentityRow, PoolValueRow
from pbserv.registry.pools import PoolRecord, pool_records
from pbserv.registry.records import Device
from pbserv.registry.store import Store, now

BY_HAND: Final = ""
"""The pool of what administrators gave themselves."""
_V: Final = PoolValueRow.__table__.c
_ROWS: Final = 5_000
"""Of one statement, a few milliseconds."""


@dataclass(frozen=True, slots=True)
class IdentityRecord:
    """``body``: JSON of what was said, empty when nothing was; only the imaging service reads it. ``given``: pool and
    value of all that the device has, sorted. ``image`` and ``version``: what it was imaged with last."""

    mac: str
    body: str = ""
    given: tuple[tuple[str, str], ...] = ()
    just_imaged: bool = False
    image: str = ""
    version: int | None = None
    changed: datetime | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """One of ``values`` is wanted of ``pool``: the first that nobody has."""

    pool: str
    values: Iterable[str]


@dataclass(frozen=True, slots=True)
class IdentityWrite:
    """What is to stand: ``body``, of the values those in ``keep``, and one value for each of ``claims``.

    Of each sequence in ``claims`` the first is taken that has a value free; ``none_left``: the sentence for when none
    has, one for each; ``{holder}`` in it is whoever has the value. ``just_imaged``: None leaves the flag as it is.
    ``empty``: nothing is said any more, the record goes.
    """

    body: str
    keep: frozenset[str] = frozenset()
    claims: Sequence[Sequence[Claim]] = ()
    none_left: Sequence[str] = ()
    just_imaged: bool | None = None
    empty: bool = False


Decide = Callable[[Device, IdentityRecord, Sequence[PoolRecord]], IdentityWrite | None]
"""What becomes of an identity; None: it stays as it is. It is called within the transaction: it must not wait."""


class Identities(Store):
    """The part of the registry that is about image-safe data."""

    async def identity(self, mac: str) -> tuple[Device, IdentityRecord, list[PoolRecord]]:
        """Of the device that has this address, with all pools; an empty record when there is none. Raises
        NotFoundError for a device that is not registered."""
        async with self._read() as session:
            device = await device_of(session, mac)
            return device, await _record(session, device.mac), await pool_records(session)

    async def change_identity(self, mac: str, decide: Decide) -> tuple[Device, IdentityRecord, list[PoolRecord]]:
        """One transaction in which ``decide`` says what is to stand; the same as :meth:`identity` says after it.

        Raises NotFoundError, ConflictError for a value that another device has or when no value is free, and whatever
        ``decide`` raises; nothing is changed then.
        """
        async with self._write() as change:
            session = change.session
            device = await device_of(session, mac)
            before, pools = await _record(session, device.mac), await pool_records(session)
            wanted = decide(device, before, pools)
            if wanted is None:
                return device, before, pools
            await _write_values(session, device.mac, before, wanted)
            await _write_row(session, before, wanted)
            return device, await _record(session, device.mac), pools

    async def set_just_imaged(self, mac: str, wanted: bool) -> IdentityRecord:
        """The flag alone. Raises NotFoundError."""
        _, record, _ = await self.change_identity(
            mac,
            lambda _, before, __: IdentityWrite(
                before.body, frozenset(value for _, value in before.given), just_imaged=wanted
            ),
        )
        return record


async def mark_imaged(session: AsyncSession, mac: str, image: str, version: int | None) -> None:
    """A restore has succeeded on ``mac`` (a device's name): its image-safe data is to be applied."""
    await _touch_row(session, mac, {"just_imaged": True, "image": image, "version": version})


async def release_values(connection: AsyncConnection, macs: Sequence[str]) -> None:
    """Pools get back what they gave these devices; what administrators said stays."""
    await connection.execute(delete(PoolValueRow).where(_V.mac.in_(macs), _V.pool != BY_HAND))


async def join_identity(session: AsyncSession, gone: str, kept: str) -> None:
    """``gone`` becomes a further address of ``kept``, whose own identity wins where it has one."""
    ours = await _record(session, kept)
    for table in (PoolValueRow, IdentityRow):
        if ours.changed is None and not ours.given:
            await session.execute(update(table).where(table.mac == gone).values(mac=kept))
        else:
            await session.execute(delete(table).where(table.mac == gone))


async def _record(session: AsyncSession, mac: str) -> IdentityRecord:
    row = await session.get(IdentityRow, mac, populate_existing=True)
    found = await session.execute(select(_V.pool, _V.value).where(_V.mac == mac))
    given = tuple(sorted((pool, value) for pool, value in found))
    if row is None:
        return IdentityRecord(mac, given=given)
    return IdentityRecord(mac, row.body, given, row.just_imaged, row.image, row.version, row.changed)


async def _write_values(session: AsyncSession, mac: str, before: IdentityRecord, wanted: IdentityWrite) -> None:
    for pool, old in before.given:
        if old not in wanted.keep:
            await session.execute(delete(PoolValueRow).where(_V.pool == pool, _V.value == old))
    taken: dict[str, set[str]] = {BY_HAND: set()}
    for claims, none_left in zip(wanted.claims, wanted.none_left, strict=True):
        for claim in claims:
            value = await _free(session, claim, taken)
            if value is not None:
                row = {"pool": claim.pool, "value": value, "mac": mac, "given": now()}
                await session.execute(insert(PoolValueRow), [row])
                break
        else:
            raise ConflictError(none_left.replace("{holder}", await _holder(session, claims)))


async def _free(session: AsyncSession, claim: Claim, taken: dict[str, set[str]]) -> str | None:
    """The first value that no device has. Values that differ in case alone are the same. ``taken``: of pools that were
    asked already."""
    if claim.pool not in taken:
        taken[claim.pool] = await _given_by(session, claim.pool)
    given = taken[claim.pool]
    waiting = iter(claim.values)
    while some := list(islice(waiting, AT_ONCE)):
        for value in some:
            if value.lower() not in given and await _who_has(session, value) is None:
                return value
        await asyncio.sleep(0)  # a large pool takes its time; packets are answered in between
    return None


async def _given_by(session: AsyncSession, pool: str) -> set[str]:
    """All values that a pool gave, in small letters; some at a time."""
    found: set[str] = set()
    last: str | None = ""
    while last is not None:
        query = select(_V.value).where(_V.pool == pool, _V.value > last).order_by(_V.value).limit(_ROWS)
        some = (await session.scalars(query)).all()
        found.update(value.lower() for value in some)
        last = some[-1] if len(some) == _ROWS else None
    return found


async def _who_has(session: AsyncSession, value: str) -> tuple[str, str] | None:
    """Device and pool."""
    query = select(_V.mac, _V.pool).where(func.lower(_V.value) == value.lower()).limit(1)
    found = (await session.execute(query)).first()
    return None if found is None else (found[0], found[1])


async def _holder(session: AsyncSession, claims: Sequence[Claim]) -> str:
    """Whoever has the one value that was wanted; of many values it does not matter."""
    value = next((each for claim in claims for each in claim.values), "")
    found = await _who_has(session, value)
    if found is None:
        return "another device"
    return f"device {found[0]} (pool {found[1]!r})" if found[1] else f"device {found[0]}"


async def _write_row(session: AsyncSession, before: IdentityRecord, wanted: IdentityWrite) -> None:
    if wanted.empty:
        await session.execute(delete(IdentityRow).where(IdentityRow.mac == before.mac))
        return
    values: dict[str, object] = {}
    if wanted.body != before.body:
        values["body"] = wanted.body
    if wanted.just_imaged is not None and wanted.just_imaged != before.just_imaged:
        values["just_imaged"] = wanted.just_imaged
    if values or wanted.claims:
        await _touch_row(session, before.mac, values)


async def _touch_row(session: AsyncSession, mac: str, values: dict[str, object]) -> None:
    table = cast("Table", IdentityRow.__table__)
    values = {**values, "changed": now()}
    there = await session.scalar(select(table.c.mac).where(table.c.mac == mac))
    if there is None:
        await session.execute(insert(table), [{"mac": mac, "body": "", "just_imaged": False, "image": "", **values}])
    else:
        await session.execute(update(table).where(table.c.mac == mac).values(**values))
