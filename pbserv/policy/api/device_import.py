"""Many devices at once, out of a file and into one.

One rule: either all rows of a file are taken, or none is and every faulty one is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
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
from pbserv.registry.orders import DeviceChange
from pbserv.registry.records import Device

_CSV: Final = "text/csv"
_JSON: Final = "application/json"
_READERS: Final[dict[str, Callable[[str], Table]]] = {_CSV: read_csv, _JSON: read_json}
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
        devices = sorted(await desk.devices(), key=lambda device: device.mac)
        text = await asyncio.to_thread(write_csv if form == "csv" else write_json, devices)
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
            found = [*table.faults, *await _misfits(desk, table.rows, there)]
            if found:
                return _refusal(sorted(found))
            changes = [(row, there[row.mac]) for row in table.rows if _differs(there[row.mac], row.device.change())]
            wanted = {before.mac if before else row.mac: row.device.change() for row, before in changes}
            if wanted and not dry_run:
                await desk.registry.change_devices(wanted)
        for mac in () if dry_run else wanted:
            desk.note(mac, "changed", "by a file that an administrator imported")
        new = sum(before is None for _, before in changes)
        return ImportView(created=new, changed=len(changes) - new, unchanged=len(table.rows) - len(changes))


async def _table(request: Request) -> Table:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _READERS:
        raise ApiError(415, f"send the devices as {_CSV} or {_JSON}, and say which in Content-Type")
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError:
        raise ApiError(422, "the file is not UTF-8; save it as CSV UTF-8") from None
    return await asyncio.to_thread(_READERS[kind], text)


async def _misfits(desk: Desk, rows: Sequence[Row], there: Mapping[str, Device | None]) -> list[tuple[int, str]]:
    """Rows that name groups or menus that there are not, or a device that another row has too."""
    stock = (await desk.stock()).objects
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
