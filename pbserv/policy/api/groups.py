"""The members of groups. They stand in the devices' records; here a group's are changed all at once."""

from __future__ import annotations

from fastapi import Request, Response

from pbserv.httpapi import ApiError, faults
from pbserv.httppages import PAGED, Limit, cut
from pbserv.policy.api.bodies import MembersBody
from pbserv.policy.api.desk import Desk, Routers, checked_name
from pbserv.policy.api.fields import MAX_GROUPS, NamePath, Wanted
from pbserv.policy.api.views import DeviceView, MembersView, device_view
from pbserv.registry.orders import DeviceChange
from pbserv.registry.records import Device


def add(routers: Routers, desk: Desk) -> None:
    @routers.viewer.get("/groups/{name}/members", tags=["groups"], summary="The devices of a group",
                        responses={**PAGED, **faults(404)})  # fmt: skip
    async def members(
        name: NamePath, request: Request, response: Response, after: Wanted = "", limit: Limit = 100
    ) -> list[DeviceView]:
        await exists(name)
        await desk.policy.flush()
        found = await desk.registry.page_devices(after=after, limit=limit + 1, group=name)
        return [device_view(each) for each in cut(found, limit, lambda device: device.mac, request, response)]

    @routers.operator.post("/groups/{name}/members", tags=["groups"], summary="Put devices in, take others out",
                           responses=faults(404, 409))  # fmt: skip
    async def change(name: NamePath, body: MembersBody) -> MembersView:
        """Every device has to be registered, else nothing is changed; who is in or out already stays so."""
        async with desk.changing:
            await exists(name)
            joining, leaving = await registered(body.add), await registered(body.remove)
            both = joining.keys() & leaving.keys()
            if both:
                raise ApiError(422, f"to be put in and taken out at once: {', '.join(sorted(both))}")
            joining = {mac: each for mac, each in joining.items() if name not in each.groups}
            leaving = {mac: each for mac, each in leaving.items() if name in each.groups}
            full = [mac for mac, each in joining.items() if len(each.groups) >= MAX_GROUPS]
            if full:
                raise ApiError(409, f"in {MAX_GROUPS} groups already: {', '.join(full[:20])}")
            changes = {mac: _groups({*each.groups, name}) for mac, each in joining.items()}
            changes |= {mac: _groups({*each.groups} - {name}) for mac, each in leaving.items()}
            for device in await desk.registry.change_devices(changes):
                way = "joined" if name in device.groups else "left"
                desk.note(device.mac, "changed", f"{way} group {name} by an administrator")
        return MembersView(group=name, added=sorted(joining), removed=sorted(leaving))

    async def exists(name: str) -> None:
        await desk.registry.document("group", checked_name("group", name))

    async def registered(macs: list[str]) -> dict[str, Device]:
        found = await desk.many(macs)
        missing = [mac for mac, device in found.items() if device is None]
        if missing:
            more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
            raise ApiError(404, f"no device {', '.join(missing[:20])}{more}; see: pbserv device list")
        return {device.mac: device for device in found.values() if device is not None}


def _groups(names: set[str]) -> DeviceChange:
    return DeviceChange(groups=tuple(sorted(names)))
