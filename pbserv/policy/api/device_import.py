"""Many devices at once, out of a file and into one.

One rule: either all rows of a file are taken, or none is and every faulty one is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal  # Any: the description of the API

from fastapi import Query, Request
from fastapi.responses import JSONResponse, Response

from pbserv.httpapi import ApiError, faults
from pbserv.policy.api.bodies import changed
from pbserv.policy.api.desk import Desk, Routers
from pbserv.policy.api.device_files import (
    COLUMNS,
    Row,
    Table,
    numbered,
    read_csv,
    read_json,
    write_csv,
    write_json,
)
from pbserv.policy.api.views import ImportRefused, ImportView, RowFault
from pbserv.policy.model import DEFAULT_MENU
from pbserv.policy.snapshot import Objects
from pbserv.registry.orders import DeviceChange
from pbserv.registry.records import Device

_CSV: Final = "text/csv"
_JSON: Final = "application/json"
_READERS: Final[dict[str, Callable[[str], Table]]] = {_CSV: read_csv, _JSON: read_json}
_NOTED_AT_ONCE: Final = 100
_SAID: Final = 20
"""Faults that the sentence names; ``errors`` has all."""
_TEXT: Final = {"type": "string"}
_LIST: Final = {
    "type": "array",
    "items": {"type": "object", "properties": {name: {} for name in COLUMNS}, "required": ["mac"]},
}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {_CSV: {"schema": _TEXT, "example": "mac,name,groups\n52:54:00:12:34:56,pc-1,lab 1|lab 2\n"},
                    _JSON: {"schema": _LIST}},
    }
}  # fmt: skip


def add(routers: Routers, desk: Desk) -> None:
    """Before the routes of single devices: ``export`` is no MAC address."""

    @routers.viewer.get(
        "/devices/export", tags=["devices"], summary="All devices, as import reads them", response_class=Response,
        responses={200: {"content": {_CSV: {"schema": _TEXT}, _JSON: {"schema": _LIST}}}},
    )  # fmt: skip
    async def export(form: Annotated[Literal["csv", "json"], Query(alias="format")] = "csv") -> Response:
        await desk.policy.flush()
        devices = await desk.devices()
        text = await asyncio.to_thread(_written, devices, write_csv if form == "csv" else write_json)
        headers = {"Content-Disposition": f'attachment; filename="devices.{form}"'}
        return Response(text, media_type=f"{_CSV}; charset=utf-8" if form == "csv" else _JSON, headers=headers)

    @routers.admin.post(
        "/devices/import", tags=["devices"], summary="Create and change devices as a file says", openapi_extra=_BODY,
        response_model=ImportView,
        responses={**faults(409, 415), 422: {"model": ImportRefused, "description": "nothing was changed"}},
    )  # fmt: skip
    async def read(request: Request, dry_run: bool = False) -> ImportView | Response:
        table = await _table(request)
        async with desk.changing:
            there = await desk.many([row.mac for row in table.rows])
            plan = await asyncio.to_thread(_plan, table, there, (await desk.stock()).objects)
            if plan.faults:
                return _refusal(plan.faults)
            if plan.wanted and not dry_run:
                await desk.registry.change_devices(plan.wanted)
        for number, mac in enumerate(() if dry_run else plan.wanted):
            desk.note(mac, "changed", "by a file that an administrator imported")
            if number % _NOTED_AT_ONCE == 0:
                await asyncio.sleep(0)
        changed_rows = len(plan.wanted)
        return ImportView(
            created=plan.new, changed=changed_rows - plan.new, unchanged=len(table.rows) - changed_rows
        )  # fmt: skip


def _written(devices: Iterable[Device], write: Callable[[Iterable[Device]], str]) -> str:
    return write(sorted(devices, key=lambda device: device.mac))


async def _table(request: Request) -> Table:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _READERS:
        raise ApiError(415, f"send the devices as {_CSV} or {_JSON}, and say which in Content-Type")
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError:
        raise ApiError(422, "the file is not UTF-8; save it as CSV UTF-8") from None
    return await asyncio.to_thread(_READERS[kind], text)


@dataclass(frozen=True, slots=True)
class _Plan:
    """``faults``: row and what is wrong there, all there are. ``wanted``: the devices that change, ``new`` of them."""

    faults: tuple[tuple[int, str], ...] = ()
    wanted: Mapping[str, DeviceChange] = field(default_factory=dict)
    new: int = 0


def _plan(table: Table, there: Mapping[str, Device | None], stock: Objects) -> _Plan:
    """For a thread: a file may have 50,000 rows."""
    faults = [*table.faults, *_misfits(table.rows, there, stock)]
    if faults:
        return _Plan(tuple(sorted(faults)))
    wanted: dict[str, DeviceChange] = {}
    new = 0
    for row in table.rows:
        before, change = there[row.mac], row.device.change()
        if _differs(before, change):
            wanted[before.mac if before else row.mac] = change
            new += before is None
    return _Plan((), wanted, new)


def _misfits(rows: Sequence[Row], there: Mapping[str, Device | None], stock: Objects) -> list[tuple[int, str]]:
    """Rows that name groups or menus that there are not, or a device that another row has too."""
    found: list[tuple[int, str]] = []
    first: dict[str, int] = {}
    for row in rows:
        missing = [f"there is no group {name!r}" for name in row.device.groups or () if name not in stock.groups]
        menu = row.device.menu
        if menu and menu not in stock.menus and menu != DEFAULT_MENU.name:
            missing.append(f"there is no menu {menu!r}")
        device = there[row.mac]
        mac = device.mac if device else row.mac
        if first.setdefault(mac, row.number) != row.number:
            missing.append(f"{row.mac} is an address of the device in row {first[mac]}")
        found += [(row.number, each) for each in missing]
    return found


def _differs(before: Device | None, change: DeviceChange) -> bool:
    return before is None or changed(before, change) != before


def _refusal(found: Sequence[tuple[int, str]]) -> Response:
    more = f"; and {len(found) - _SAID} more" if len(found) > _SAID else ""
    refused = ImportRefused(
        created=0, changed=0, unchanged=0, errors=[RowFault(row=row, error=text) for row, text in found],
        error=f"nothing was imported: {'; '.join(numbered(found[:_SAID]))}{more}",
    )  # fmt: skip
    return JSONResponse(refused.model_dump(), 422)
