"""Devices as the tables have them, put together: row, further addresses, groups, active work and runs.

One rule: plain columns, no mapped objects, a thousand devices at a time; a hundred thousand take a second or so, and
others get the loop in between.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from sys import intern
from typing import Any, Final, cast  # Any: the columns of a row

from sqlalchemy import ColumnElement, Row, Select, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from pbserv.registry.faults import NotFoundError
from pbserv.registry.models import DeviceGroupRow, DeviceMacRow, DeviceRow, WorkRow
from pbserv.registry.records import ACTIVE_WORK, BundleKind, Device, DeviceState, Finish, Labels, Run, Work, WorkState

AT_ONCE: Final = 1000
"""Devices, or addresses, of one statement."""
_STATES: Final = {state.value: state for state in DeviceState}
_DEVICE: Final = select(
    DeviceRow.mac, DeviceRow.uuid, DeviceRow.name, DeviceRow.arch, DeviceRow.state, DeviceRow.address,
    DeviceRow.first_seen, DeviceRow.last_seen, DeviceRow.serial, DeviceRow.asset, DeviceRow.folder, DeviceRow.labels,
    DeviceRow.learned, DeviceRow.menu, DeviceRow.loader, DeviceRow.arguments,
)  # fmt: skip
_WORK: Final = select(*(column.label(column.key) for column in WorkRow.__table__.columns))
_DeviceRows = Sequence[Row[*tuple[Any, ...]]]
"""Of ``_DEVICE``: more columns than SQLAlchemy's types tell apart."""
MacColumn = InstrumentedAttribute[str]
Chosen = Callable[[MacColumn], ColumnElement[bool]]
"""Which devices, as a condition on whatever column has their name."""


def chunks(names: Collection[str]) -> Iterable[list[str]]:
    """``AT_ONCE`` at a time: a statement has a limited number of parameters."""
    listed = list(names)
    return (listed[at : at + AT_ONCE] for at in range(0, len(listed), AT_ONCE))


async def all_devices(session: AsyncSession) -> list[Device]:
    """Ordered by MAC."""
    found: list[Device] = []
    last = ""
    while True:
        rows = (await session.execute(_DEVICE.where(DeviceRow.mac > last).order_by(DeviceRow.mac).limit(AT_ONCE))).all()
        if rows:
            found += await _completed(session, rows, _between(last, rows[-1][0]))
            last = rows[-1][0]
        if len(rows) < AT_ONCE:
            return found


async def devices_of(session: AsyncSession, macs: Collection[str]) -> list[Device]:
    """Those that are registered by one of these names, ordered by MAC."""
    found: list[Device] = []
    for some in chunks(macs):
        chosen = _among(some)
        rows = (await session.execute(_DEVICE.where(chosen(DeviceRow.mac)))).all()
        found += await _completed(session, rows, chosen)
    return sorted(found, key=lambda device: device.mac)


async def device_of(session: AsyncSession, mac: str) -> Device:
    """By its name or by a further address; raises NotFoundError."""
    found = await devices_of(session, (await owners_of(session, (mac,))).values())
    if not found:
        raise no_device(mac)
    return found[0]


async def owners_of(session: AsyncSession, macs: Iterable[str]) -> dict[str, str]:
    """Each address -> the name of the device that has it; an address that is no further one is its own name."""
    owners = {mac: mac for mac in macs}
    for some in chunks(owners):
        query = select(DeviceMacRow.mac, DeviceMacRow.device).where(DeviceMacRow.mac.in_(some))
        owners.update((mac, device) for mac, device in (await session.execute(query)).all())
    return owners


def no_device(mac: str) -> NotFoundError:
    return NotFoundError(f"no device {mac}; see: pbserv device list")


def labels_text(labels: Iterable[tuple[str, str]]) -> str:
    return json.dumps(dict(labels), sort_keys=True, ensure_ascii=False)


def _labels(text: str) -> Labels:
    """Written sorted. Names are few: they share their memory."""
    return tuple((intern(name), value) for name, value in json.loads(text).items()) if text != "{}" else ()


def _between(after: str, last: str) -> Chosen:
    return lambda mac: and_(mac > after, mac <= last)


def _among(macs: Sequence[str]) -> Chosen:
    return lambda mac: mac.in_(macs)


async def _completed(session: AsyncSession, rows: _DeviceRows, chosen: Chosen) -> list[Device]:
    macs = await _pairs(session, select(DeviceMacRow.device, DeviceMacRow.mac).where(chosen(DeviceMacRow.device)))
    groups = await _pairs(session, select(DeviceGroupRow.mac, DeviceGroupRow.name).where(chosen(DeviceGroupRow.mac)))
    active = await active_work(session, chosen)
    runs = await _runs(session, chosen)
    return [
        Device(
            mac, uuid, name, arch, _STATES[state], address, first_seen, last_seen, active.get(mac), macs.get(mac, ()),
            serial, asset, intern(folder), groups.get(mac, ()), _labels(labels), _labels(learned), intern(menu), loader,
            arguments, runs.get(mac, ()),
        )
        for (mac, uuid, name, arch, state, address, first_seen, last_seen, serial, asset, folder, labels, learned,
             menu, loader, arguments) in rows
    ]  # fmt: skip


async def _pairs(session: AsyncSession, query: Select[str, str]) -> dict[str, tuple[str, ...]]:
    """Device -> the sorted values of the second column."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for mac, value in (await session.execute(query)).all():
        found[mac].append(intern(value))
    return {mac: tuple(sorted(values)) for mac, values in found.items()}


async def active_work(session: AsyncSession, chosen: Chosen) -> dict[str, Work]:
    """Device -> the work that it has; at most one (``ux_work_active``)."""
    rows = (await session.execute(_WORK.where(WorkRow.state.in_(ACTIVE_WORK), chosen(WorkRow.mac)))).all()
    return {row.mac: work_of(cast("WorkRow", row)) for row in rows}


async def active_work_of(session: AsyncSession, macs: Sequence[str]) -> dict[str, Work]:
    return await active_work(session, _among(macs))


async def _runs(session: AsyncSession, chosen: Chosen) -> dict[str, tuple[Run, ...]]:
    """Device -> the newest ended work of each assignment, by the assignment's name."""
    place = func.row_number().over(
        partition_by=(WorkRow.mac, WorkRow.assignment), order_by=(WorkRow.ended.desc(), WorkRow.id.desc())
    )
    ended = (
        select(WorkRow.mac, WorkRow.assignment, WorkRow.state, WorkRow.ended, place.label("place"))
        .where(chosen(WorkRow.mac), WorkRow.assignment != "", WorkRow.ended.is_not(None))
        .subquery()
    )
    query = select(ended.c.mac, ended.c.assignment, ended.c.state, ended.c.ended).where(ended.c.place == 1)
    found: defaultdict[str, list[Run]] = defaultdict(list)
    for mac, assignment, state, when in (await session.execute(query)).all():
        found[mac].append(Run(intern(assignment), WorkState(state), when))
    return {mac: tuple(sorted(runs, key=lambda run: run.assignment)) for mac, runs in found.items()}


def work_of(row: WorkRow) -> Work:
    return Work(
        id=row.id, mac=row.mac, kind=BundleKind(row.kind), image=row.image, target_disk=row.target_disk or "",
        finish=Finish(row.finish), overwrite=row.overwrite, state=WorkState(row.state), reason=row.reason or "",
        created=row.created, bundle=row.bundle or "", document=row.document or "", assignment=row.assignment or "",
        expires=row.expires, retries=row.retries or 0, attempts=row.attempts or 0,
    )  # fmt: skip
