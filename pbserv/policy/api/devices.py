"""Devices: who they are, who may boot, what is said of them."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Final

from fastapi import Query, Request, Response

from pbserv import httpetags as etags
from pbserv.httpapi import ApiError, faults
from pbserv.httpetags import NOT_MODIFIED, IfMatch, Seen
from pbserv.httppages import PAGED, Limit, cut
from pbserv.policy.api.bodies import DeviceBody, DeviceFields, NameBody, OtherBody
from pbserv.policy.api.desk import Desk, Routers
from pbserv.policy.api.fields import FolderText, MacPath, Name, Wanted
from pbserv.policy.api.views import DeviceView, EventView, device_view, event_view
from pbserv.registry.orders import DeviceChange
from pbserv.registry.records import Device, DeviceState

_TAGS: Final[list[str | Enum]] = ["devices"]


def add(routers: Routers, desk: Desk) -> None:
    _reading(routers, desk)
    _changing(routers, desk)
    _deciding(routers, desk)
    _joining(routers, desk)


def _reading(routers: Routers, desk: Desk) -> None:
    @routers.viewer.get("/devices", tags=_TAGS, summary="The devices, by MAC address", responses=PAGED)
    async def devices(
        request: Request,
        response: Response,
        state: DeviceState | None = None,
        folder: Annotated[FolderText | None, Query(description="in this folder or below")] = None,
        group: Annotated[Name | None, Query()] = None,
        text: Annotated[Wanted, Query(description="found in MAC, name, serial number, asset tag or address")] = "",
        after: Wanted = "",
        limit: Limit = 100,
    ) -> list[DeviceView]:
        await desk.policy.flush()
        found = await desk.registry.page_devices(
            after=after, limit=limit + 1, state=state, folder=folder, group=group, text=text
        )
        return [device_view(each) for each in cut(found, limit, lambda device: device.mac, request, response)]

    @routers.viewer.get("/devices/{mac}", tags=_TAGS, summary="One device", response_model=DeviceView,
                        responses={**faults(404), **NOT_MODIFIED})  # fmt: skip
    async def device(response: Response, mac: MacPath, seen: Seen = None) -> DeviceView | Response:
        view = device_view(await desk.device(mac))
        return etags.known(seen, response, etags.of_view(view)) or view

    @routers.viewer.get("/devices/{mac}/history", tags=_TAGS, summary="What happened to it, the newest last",
                        responses=faults(404))  # fmt: skip
    async def history(mac: MacPath, limit: Annotated[int, Query(ge=1, le=500)] = 200) -> list[EventView]:
        found = await desk.device(mac)
        await desk.policy.flush_history()
        return [event_view(each) for each in await desk.registry.history(found.mac, limit)]


def _changing(routers: Routers, desk: Desk) -> None:
    @routers.operator.post("/devices", status_code=201, tags=_TAGS, summary="A device that was never seen",
                           responses=faults(409))  # fmt: skip
    async def create(body: DeviceBody, response: Response) -> DeviceView:
        async with desk.changing:
            there = await desk.find(body.mac)
            if there is not None:
                raise ApiError(409, f"there is a device {body.mac} already" + _also(there, body.mac))
            made = await change(body.mac, body.change())
        desk.note(made.mac, "registered", f"{made.state.value} by an administrator")
        return tagged(response, made)

    @routers.operator.patch("/devices/{mac}", tags=_TAGS, summary="Change what is said of it",
                            responses=faults(404, 412))  # fmt: skip
    async def patch(mac: MacPath, body: DeviceFields, response: Response, if_match: IfMatch = None) -> DeviceView:
        async with desk.changing:
            before = await held(mac, if_match)
            after = await change(before.mac, body.change())
        fields = sorted(key for key in body.model_fields_set if getattr(before, key) != getattr(after, key))
        if fields:
            desk.note(after.mac, "changed", f"{', '.join(fields)} by an administrator")
        return tagged(response, after)

    @routers.admin.delete("/devices/{mac}", status_code=204, tags=_TAGS, summary="Forget it, with all its history",
                          responses=faults(404, 409, 412))  # fmt: skip
    async def forget(mac: MacPath, if_match: IfMatch = None) -> None:
        async with desk.changing:
            device = await held(mac, if_match)
            await desk.registry.forget(device.mac)
            desk.policy.forget(device.mac)

    async def held(mac: str, if_match: str | None) -> Device:
        """The device, if it is the one that the caller has seen."""
        found = await desk.device(mac)
        etags.demand(if_match, None, etags.of_view(device_view(found)))
        return found

    async def change(mac: str, wanted: DeviceChange) -> Device:
        await desk.check_references(wanted.groups or (), wanted.menu or "")
        return await desk.registry.change_device(mac, wanted)


def _deciding(routers: Routers, desk: Desk) -> None:
    @routers.operator.post("/devices/{mac}/accept", tags=_TAGS, summary="It may boot; it need not have been seen yet")
    async def accept(mac: MacPath, response: Response, body: NameBody | None = None) -> DeviceView:
        return await decide(mac, response, DeviceState.KNOWN, body.name if body else None)

    @routers.operator.post("/devices/{mac}/deny", tags=_TAGS, summary="It gets nothing; its work is cancelled")
    async def deny(mac: MacPath, response: Response) -> DeviceView:
        return await decide(mac, response, DeviceState.DENIED)

    @routers.operator.post("/devices/{mac}/retire", tags=_TAGS, summary="Its record is kept, it gets nothing any more",
                           responses=faults(404))  # fmt: skip
    async def retire(mac: MacPath, response: Response) -> DeviceView:
        await desk.device(mac)
        return await decide(mac, response, DeviceState.RETIRED)

    async def decide(mac: str, response: Response, state: DeviceState, name: str | None = None) -> DeviceView:
        async with desk.changing:
            before = await desk.find(mac)
            change = DeviceChange(state=state, name=name)
            device = await desk.registry.change_device(before.mac if before else mac, change)
        desk.note(device.mac, "state", f"{state.value} by an administrator")
        return tagged(response, device)


def _joining(routers: Routers, desk: Desk) -> None:
    @routers.operator.post("/devices/{mac}/join", tags=_TAGS, summary="Another device is this one: they become one",
                           responses=faults(404, 409))  # fmt: skip
    async def join(mac: MacPath, body: OtherBody, response: Response) -> DeviceView:
        async with desk.changing:
            one, other = await desk.device(mac), await desk.device(body.mac)
            if one.mac == other.mac:
                raise ApiError(409, f"{body.mac} is an address of device {one.mac} already")
            joined = await desk.registry.join_devices(one.mac, other.mac)
            desk.policy.joined(other.mac)
        desk.note(joined.mac, "joined", f"{other.mac} by an administrator")
        return tagged(response, joined)

    @routers.operator.post("/devices/{mac}/split", tags=_TAGS, summary="A further address becomes a device of its own",
                           responses=faults(404, 409))  # fmt: skip
    async def split(mac: MacPath, body: OtherBody, response: Response) -> DeviceView:
        async with desk.changing:
            one = await desk.device(mac)
            if body.mac not in one.macs:
                raise ApiError(409, f"{body.mac} is no further address of device {one.mac}")
            made = await desk.registry.split_device(one.mac, body.mac)
        desk.note(made.mac, "split", f"from {one.mac} by an administrator")
        return tagged(response, made)


def tagged(response: Response, device: Device) -> DeviceView:
    """The answer to a change, with the ETag for the next one."""
    view = device_view(device)
    response.headers["ETag"] = etags.of_view(view)
    return view


def _also(device: Device, mac: str) -> str:
    return "" if device.mac == mac else f": it is a further address of {device.mac}"
