"""Devices: who they are, what administrators say of them, and which addresses are theirs.

One rule: an address belongs to one device; a call that is given a further address means the device that has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import ColumnElement, case, delete, func, insert, literal_column, or_, select, update
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from pbserv.registry.device_changes import change_rows, new_values
from pbserv.registry.device_rows import (
    all_devices,
    device_of,
    devices_of,
    labels_text,
    owners_of,
)
from pbserv.registry.engine import Upsert
from pbserv.registry.faults import ConflictError
from pbserv.registry.identity import join_identity
from pbserv.registry.models import (
    BootSessionRow,
    DeviceGroupRow,
    DeviceMacRow,
    DeviceRow,
    DeviceRunRow,
    EventRow,
    IdentityRow,
    JobRow,
    PoolValueRow,
    StrategyRow,
    WorkRow,
)
from pbserv.registry.orders import DeviceChange
from pbserv.registry.records import Device, DeviceState
from pbserv.registry.store import Store

SEEN_AT_ONCE = 50
"""Devices per statement: packets that come meanwhile are answered in between."""
_EMPTY: Final[ColumnElement[str]] = literal_column("''")
_NO_LABELS: Final[ColumnElement[str]] = literal_column("'{}'")
_OF_DEVICE: Final = (
    EventRow, JobRow, WorkRow, BootSessionRow, StrategyRow, IdentityRow, PoolValueRow, DeviceGroupRow, DeviceRunRow,
    DeviceMacRow, DeviceRow,
)  # fmt: skip
"""In this order: none of them is named by one that is still there."""


class Devices(Store):
    """The part of the registry that is about devices."""

    async def devices(self) -> list[Device]:
        """All, ordered by MAC."""
        async with self._read() as session:
            return await all_devices(session)

    async def device(self, mac: str) -> Device:
        """The device that has this address, its first or a further one; raises NotFoundError."""
        async with self._read() as session:
            return await device_of(session, mac)

    async def page_devices(
        self,
        *,
        after: str = "",
        limit: int = 100,
        state: DeviceState | None = None,
        folder: str | None = None,
        group: str | None = None,
        text: str = "",
    ) -> list[Device]:
        """At most ``limit`` devices behind the MAC ``after``, ordered by MAC.

        ``folder``: in it or below. ``text`` is looked for in MACs, name, serial, asset and address, in any case.
        """
        query = select(DeviceRow.mac).where(DeviceRow.mac > after).order_by(DeviceRow.mac).limit(limit)
        if state is not None:
            query = query.where(DeviceRow.state == state.value)
        if folder is not None and folder != "/":
            below = DeviceRow.folder.startswith(f"{folder}/", autoescape=True)
            query = query.where(or_(DeviceRow.folder == folder, below))
        if group is not None:
            query = query.where(DeviceRow.mac.in_(select(DeviceGroupRow.mac).where(DeviceGroupRow.name == group)))
        if text:
            places = (DeviceRow.mac, DeviceRow.name, DeviceRow.serial, DeviceRow.asset, DeviceRow.address)
            further = select(DeviceMacRow.device).where(_holds(DeviceMacRow.mac, text))
            query = query.where(or_(*(_holds(place, text) for place in places), DeviceRow.mac.in_(further)))
        async with self._read() as session:
            return await devices_of(session, (await session.scalars(query)).all())

    async def see(self, devices: Sequence[Device]) -> None:
        """Store what was seen of devices, all in one transaction. Nobody is told: whoever calls knows it already.

        Written are address, arch, UUID, serial, asset, learned labels and the last time, each where it says something;
        a name where the record has none; further addresses that nobody has. A state is written for a new device only.
        """
        async with self._write() as change:
            for at in range(0, len(devices), SEEN_AT_ONCE):
                await _see(change.session, self._upsert, devices[at : at + SEEN_AT_ONCE])

    async def change_device(self, mac: str, change: DeviceChange) -> Device:
        """Change what is known of a device; one that was never seen is created (state known unless given), so that
        work can be prepared for it. To deny or retire a device cancels its work."""
        return (await self.change_devices({mac: change}))[0]

    async def change_devices(self, changes: Mapping[str, DeviceChange]) -> list[Device]:
        """The same for several, in one transaction; in the order given."""
        async with self._write() as change:
            names = await change_rows(change, changes)
        return [change.devices[name] for name in names]

    async def join_devices(self, mac: str, other: str) -> Device:
        """``other``, with all its addresses, becomes a further address of ``mac``; its work, jobs and history go there.

        All else of its record goes. Raises NotFoundError when one is not registered, and ConflictError while ``other``
        has active work or when it is the same device.
        """
        async with self._write() as change:
            session = change.session
            kept, gone = await device_of(session, mac), await device_of(session, other)
            if kept.mac == gone.mac:
                raise ConflictError(f"{other} is an address of device {kept.mac} already")
            if gone.mac != other:
                raise ConflictError(f"{other} is an address of device {gone.mac}; name that one, or split it off first")
            _refuse_work(gone)
            for table in (WorkRow, JobRow, EventRow):
                await session.execute(update(table).where(table.mac == gone.mac).values(mac=kept.mac))
            await _move_runs(session, gone, kept)
            await join_identity(session, gone.mac, kept.mac)
            await session.execute(delete(DeviceMacRow).where(DeviceMacRow.device == gone.mac))
            for part in (DeviceGroupRow, DeviceRow):
                await session.execute(delete(part).where(part.mac == gone.mac))
            await session.execute(
                insert(DeviceMacRow), [{"mac": each, "device": kept.mac} for each in (gone.mac, *gone.macs)]
            )
            change.touch(kept.mac)
        return change.devices[kept.mac]

    async def split_device(self, mac: str, other: str) -> Device:
        """The further address ``other`` of ``mac`` becomes a device of its own, pending; that one is returned."""
        async with self._write() as change:
            session = change.session
            device = await device_of(session, mac)
            if other not in device.macs:
                raise ConflictError(f"{other} is no further address of device {device.mac}")
            await session.execute(delete(DeviceMacRow).where(DeviceMacRow.mac == other))
            await session.execute(insert(DeviceRow), [new_values(other, DeviceState.PENDING)])
            change.touch(device.mac)
            change.touch(other)
        return change.devices[other]

    async def forget(self, mac: str, *, state: DeviceState | None = None) -> None:
        """Remove a device with everything that is known of it and its addresses; refused while it has work.

        ``state``: raises ConflictError when it has another one.
        """
        async with self._write() as change:
            session = change.session
            device = await device_of(session, mac)
            if state not in (None, device.state):
                raise ConflictError(f"device {mac} is {device.state}, not {state}")
            _refuse_work(device)
            macs = (device.mac, *device.macs)
            for table in _OF_DEVICE:
                await session.execute(delete(table).where(table.mac.in_(macs)))


async def _move_runs(session: AsyncSession, gone: Device, kept: Device) -> None:
    """Of an assignment that ran on both, the newer run stays."""
    ours = {run.assignment: run.ended for run in kept.runs}
    newer = [run for run in gone.runs if run.assignment not in ours or ours[run.assignment] < run.ended]
    names = [run.assignment for run in newer]
    await session.execute(delete(DeviceRunRow).where(DeviceRunRow.mac == kept.mac, DeviceRunRow.assignment.in_(names)))
    await session.execute(delete(DeviceRunRow).where(DeviceRunRow.mac == gone.mac))
    rows = [{"mac": kept.mac, "assignment": r.assignment, "state": r.state.value, "ended": r.ended} for r in newer]
    if rows:
        await session.execute(insert(DeviceRunRow), rows)


def _refuse_work(device: Device) -> None:
    if device.work is not None:
        number = device.work.id
        raise ConflictError(f"device {device.mac} has work {number}; cancel it first: pbserv work cancel {number}")


def _holds(column: InstrumentedAttribute[str], text: str) -> ColumnElement[bool]:
    return column.icontains(text, autoescape=True)


async def _see(session: AsyncSession, upsert: Upsert, devices: Sequence[Device]) -> None:
    further = {mac for device in devices for mac in device.macs}
    owners = await owners_of(session, {device.mac for device in devices} | further)
    connection = await session.connection()
    await connection.execute(_seeing(upsert), [_seen(device, owners[device.mac]) for device in devices])
    further = {mac for mac in further if owners[mac] == mac}
    if further:
        taken = await session.scalars(select(DeviceRow.mac).where(DeviceRow.mac.in_(further)))
        free = further - set(taken)
        rows = [{"mac": mac, "device": owners[d.mac]} for d in devices for mac in d.macs if mac in free]
        if rows:
            await connection.execute(upsert(DeviceMacRow).on_conflict_do_nothing(), rows)


def _seeing(upsert: Upsert) -> Insert:
    """What was seen of a device wins over what is stored, where it says something; the state stays what it is."""
    new = upsert(DeviceRow)
    seen = new.excluded
    said = {
        name: case((seen[name] != nothing, seen[name]), else_=getattr(DeviceRow, name))
        for name, nothing in (("address", _EMPTY), ("serial", _EMPTY), ("asset", _EMPTY), ("learned", _NO_LABELS))
    }
    return new.on_conflict_do_update(
        index_elements=[DeviceRow.mac],
        set_={
            **said,
            "name": case((DeviceRow.name == _EMPTY, seen.name), else_=DeviceRow.name),
            "uuid": func.coalesce(seen.uuid, DeviceRow.uuid),
            "arch": func.coalesce(seen.arch, DeviceRow.arch),
            "last_seen": seen.last_seen,
        },
    )


def _seen(device: Device, owner: str) -> dict[str, object]:
    return {
        "mac": owner, "uuid": device.uuid or None, "name": device.name, "arch": device.arch,
        "state": device.state.value, "address": device.address, "first_seen": device.first_seen,
        "last_seen": device.last_seen, "serial": device.serial, "asset": device.asset,
        "learned": labels_text(device.learned),
    }  # fmt: skip
