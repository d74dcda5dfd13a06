"""Devices as the tables have them, put together: row, further addresses, groups, active work and runs.

One rule: plain columns, no mapped objects, a thousand devices at a time; a hundred thousand take a second or so, and
others get the loop in between.
"""

from __future__ import annotations

import asyncio
import json
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from sys import intern
from typing import Any, Final  # Any: the columns of a row

from sqlalchemy import ColumnElement, Row, ScalarSelect, Text, and_, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from pbserv.registry.faults import NotFoundError
from pbserv.registry.models import ACTIVE, DeviceGroupRow, DeviceMacRow, DeviceRow, DeviceRunRow, WorkRow
from pbserv.registry.options import WorkOptions
from pbserv.registry.records import BundleKind, Device, DeviceState, Finish, Labels, Run, Work, WorkState

AT_ONCE: Final = 1000
"""Devices, or addresses, of one statement."""
_BETWEEN: Final = "\x1f"
_WITHIN: Final = "\x1e"
"""What stands between the parts of what a statement gathers, and within one; names have no such characters."""
_STATES: Final = {state.value: state for state in DeviceState}
_WORK_STATES: Final = {state.value: state for state in WorkState}
# Columns of the tables, not of the classes: what reads those costs as much again for each row.
_D, _W = DeviceRow.__table__.c, WorkRow.__table__.c
_M, _G, _R = DeviceMacRow.__table__.c, DeviceGroupRow.__table__.c, DeviceRunRow.__table__.c


def _gathered(of: ColumnElement[str], key: ColumnElement[str]) -> ScalarSelect[str]:
    """All of a device in one text, or NULL: a row for each device takes a third of the time of a row for each part."""
    return select(func.aggregate_strings(of, _BETWEEN)).where(key == _D.mac).correlate(DeviceRow).scalar_subquery()


_RUN: Final = _R.assignment + _WITHIN + _R.state + _WITHIN + cast(_R.ended, Text)
_DEVICE: Final = select(
    _D.labels, _D.learned, _D.mac, _D.uuid, _D.name, _D.arch, _D.state, _D.address, _D.first_seen, _D.last_seen,
    _D.serial, _D.asset, _D.folder, _D.menu, _D.loader, _D.arguments,
    _gathered(_M.mac, _M.device), _gathered(_G.name, _G.mac), _gathered(_RUN, _R.mac),
)  # fmt: skip
_ACTIVE: Final = select(*_W).where(ACTIVE)
"""With the words of the index ``ux_work_active``, or SQLite looks at all active work each time."""
_Rows = Sequence[Row[*tuple[Any, ...]]]


def chunks(names: Collection[str]) -> Iterable[list[str]]:
    """``AT_ONCE`` at a time: a statement has a limited number of parameters."""
    listed = list(names)
    return (listed[at : at + AT_ONCE] for at in range(0, len(listed), AT_ONCE))


async def all_devices(session: AsyncSession) -> list[Device]:
    """Ordered by MAC. The database prepares a page while the one before is put together."""
    found: list[Device] = []
    before, rows = "", await _page(session, "")
    while rows:
        last = rows[-1].mac
        active = await _active(session, and_(_W.mac > before, _W.mac <= last))
        async with asyncio.TaskGroup() as group:
            following = group.create_task(_page(session, last))
            await asyncio.sleep(0)  # it is asked for
            found += _devices(rows, active)
        before, rows = last, following.result()
    return found


async def _page(session: AsyncSession, last: str) -> _Rows:
    """The devices after that with the MAC ``last``."""
    return (await session.execute(_DEVICE.where(_D.mac > last).order_by(_D.mac).limit(AT_ONCE))).all()


async def devices_of(session: AsyncSession, macs: Collection[str]) -> list[Device]:
    """Those that are registered by one of these names, ordered by MAC."""
    found: list[Device] = []
    for some in chunks(macs):
        rows = (await session.execute(_DEVICE.where(_D.mac.in_(some)))).all()
        found += _devices(rows, await active_work(session, some))
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


async def active_work(session: AsyncSession, macs: Collection[str]) -> dict[str, Work]:
    """Device -> the work that it has; at most one (``ux_work_active``). ``macs``: at most ``AT_ONCE``."""
    return await _active(session, _W.mac.in_(macs))


async def _active(session: AsyncSession, chosen: ColumnElement[bool]) -> dict[str, Work]:
    rows = (await session.execute(_ACTIVE.where(chosen))).all()
    return {row.mac: work_of(typing.cast("WorkRow", row)) for row in rows}


def _devices(rows: _Rows, active: Mapping[str, Work]) -> list[Device]:
    """Rows of ``_DEVICE``."""
    return [
        Device(
            mac, uuid, name, arch, _STATES[state], address, first_seen, last_seen, active.get(mac), _parts(macs),
            serial, asset, intern(folder), _parts(groups), own, found, intern(menu), loader, arguments, _runs(runs),
        )
        for own, found, (_, _, mac, uuid, name, arch, state, address, first_seen, last_seen, serial, asset, folder,
                         menu, loader, arguments, macs, groups, runs)
        in zip(_labels([row[0] for row in rows]), _labels([row[1] for row in rows]), rows, strict=True)
    ]  # fmt: skip


def _labels(texts: Sequence[str]) -> list[Labels]:
    """Read all together, which takes a third of the time, and then their names are shared. They were written sorted."""
    return [tuple(each.items()) for each in json.loads(f"[{','.join(texts)}]")]


@lru_cache(maxsize=16_384)
def _parts(gathered: str | None) -> tuple[str, ...]:
    """Many devices are in the same groups: they share their memory."""
    return tuple(sorted(map(intern, gathered.split(_BETWEEN)))) if gathered else ()


def _runs(gathered: str | None) -> tuple[Run, ...]:
    """By the assignment's name. Both databases write times alike, in UTC."""
    if not gathered:
        return ()
    found = []
    for each in sorted(gathered.split(_BETWEEN)):
        assignment, state, ended = each.split(_WITHIN)
        found.append(Run(intern(assignment), _WORK_STATES[state], datetime.fromisoformat(ended + "+00:00")))
    return tuple(found)


def work_of(row: WorkRow) -> Work:
    return Work(
        id=row.id, mac=row.mac, kind=BundleKind(row.kind), image=row.image, target_disk=row.target_disk or "",
        finish=Finish(row.finish), overwrite=row.overwrite, state=WorkState(row.state), reason=row.reason or "",
        created=row.created, bundle=row.bundle or "", document=row.document or "", assignment=row.assignment or "",
        expires=row.expires, retries=row.retries or 0, attempts=row.attempts or 0, options=_options(row.options),
        priority=row.priority or 0, wake=bool(row.wake), woken=row.woken, woken_times=row.woken_times or 0,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _options(text: str | None) -> WorkOptions:
    return WorkOptions.read(text or "")
