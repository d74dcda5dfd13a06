"""What administrators change of devices, of one or of 50,000 at once, within a transaction.

One rule: a hundred devices cost a few statements, and others get the loop between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, cast

from sqlalchemy import Table, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from pbserv.registry.device_rows import chunks, labels_text, owners_of
from pbserv.registry.identity import release_values
from pbserv.registry.models import ACTIVE, DeviceGroupRow, DeviceRow, WorkRow
from pbserv.registry.orders import DeviceChange
from pbserv.registry.records import DeviceState, WorkState
from pbserv.registry.store import Change, now

AT_ONCE: Final = 100
_PLAIN: Final = ("name", "serial", "asset", "folder", "menu", "loader", "arguments")
_BARRED: Final = (DeviceState.DENIED, DeviceState.RETIRED)
_DEVICE, _GROUP = cast("Table", DeviceRow.__table__), cast("Table", DeviceGroupRow.__table__)
_Batch = Sequence[tuple[str, DeviceChange]]


async def change_rows(change: Change, changes: Mapping[str, DeviceChange]) -> list[str]:
    """The names of the devices, in the order of ``changes``. Those that are not there are made; work of those that are
    barred now ends."""
    session = change.session
    owners = await owners_of(session, changes)
    wanted = [(owners[mac], each) for mac, each in changes.items()]
    there = await _registered(session, owners.values())
    connection = await session.connection()
    for batch in _batches(wanted):
        new = [name for name, _ in batch if name not in there]
        if new:
            await connection.execute(insert(_DEVICE), [new_values(name, DeviceState.KNOWN) for name in new])
            there.update(new)
        await _set(connection, batch)
        await _put_in_groups(connection, batch)
        await _end_work(change, batch)
        await _release(connection, batch)
        for name, _ in batch:
            change.touch(name)
    return [name for name, _ in wanted]


def new_values(mac: str, state: DeviceState) -> dict[str, object]:
    """Of a device that was never seen."""
    at = now()
    return {"mac": mac, "state": state.value, "first_seen": at, "last_seen": at}


def _batches(wanted: _Batch) -> Iterator[_Batch]:
    """``AT_ONCE`` at most, each device once: what is said later of the same one comes after."""
    batch: dict[str, DeviceChange] = {}
    for name, each in wanted:
        if len(batch) == AT_ONCE or name in batch:
            yield tuple(batch.items())
            batch = {}
        batch[name] = each
    if batch:
        yield tuple(batch.items())


async def _registered(session: AsyncSession, names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for some in chunks(set(names)):
        found.update((await session.scalars(select(DeviceRow.mac).where(DeviceRow.mac.in_(some)))).all())
    return found


async def _set(connection: AsyncConnection, batch: _Batch) -> None:
    """One statement for all that change the same columns."""
    alike: dict[tuple[str, ...], list[dict[str, object]]] = {}
    for name, wanted in batch:
        values = _values(wanted)
        if values:
            row = {"of": name, **{f"new_{column}": value for column, value in values.items()}}
            alike.setdefault(tuple(values), []).append(row)
    for columns, rows in alike.items():
        new: dict[str, object] = {column: bindparam(f"new_{column}") for column in columns}
        await connection.execute(update(_DEVICE).where(_DEVICE.c.mac == bindparam("of")).values(new), rows)


def _values(wanted: DeviceChange) -> dict[str, object]:
    values: dict[str, object] = {name: getattr(wanted, name) for name in _PLAIN if getattr(wanted, name) is not None}
    if wanted.labels is not None:
        values["labels"] = labels_text(wanted.labels)
    if wanted.state is not None:
        values["state"] = wanted.state.value
    return values


async def _put_in_groups(connection: AsyncConnection, batch: _Batch) -> None:
    groups = {name: wanted.groups for name, wanted in batch if wanted.groups is not None}
    if not groups:
        return
    await connection.execute(delete(_GROUP).where(_GROUP.c.mac.in_(groups)))
    rows = [{"mac": mac, "name": name} for mac, names in groups.items() for name in dict.fromkeys(names)]
    if rows:
        await connection.execute(insert(_GROUP), rows)


async def _end_work(change: Change, batch: _Batch) -> None:
    barred = {name: wanted.state for name, wanted in batch if wanted.state in _BARRED}
    if barred:
        for work in await change.session.scalars(select(WorkRow).where(WorkRow.mac.in_(barred), ACTIVE)):
            change.end(work, WorkState.CANCELLED, f"the device was {barred[work.mac]}")


async def _release(connection: AsyncConnection, batch: _Batch) -> None:
    """Others may have the names and addresses of those that are retired."""
    retired = [name for name, wanted in batch if wanted.state is DeviceState.RETIRED]
    if retired:
        await release_values(connection, retired)
