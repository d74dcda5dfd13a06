"""A whole policy at once: what it would change, and changing it.

One rule: everything is checked before anything is changed, and all changes in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final

from pydantic import JsonValue

from pbserv.httpapi import ApiError, faults
from pbserv.policy import diff
from pbserv.policy.api.bodies import ApplyBody, changed
from pbserv.policy.api.desk import Desk, Key, Routers, Stock
from pbserv.policy.api.device_files import plain
from pbserv.policy.api.objects import canonical
from pbserv.policy.api.views import ApplyView, ChangeView
from pbserv.policy.diff import Change
from pbserv.policy.documents import PolicyError, encode, read_object, values_of
from pbserv.policy.model import KINDS, PolicyObject
from pbserv.registry.orders import DeviceChange
from pbserv.registry.records import Device, DeviceState

_MAX_OBJECTS: Final = 20_000
_DEVICE: Final = "device"
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SAID: Final = 20
"""Faults of a policy that one sentence names."""


def add(routers: Routers, desk: Desk) -> None:
    @routers.viewer.get("/export", tags=["policy"], summary="All objects, as apply reads them")
    async def export() -> dict[str, dict[str, dict[str, JsonValue]]]:
        """Kind -> name -> what differs from the defaults."""
        found: dict[str, dict[str, dict[str, JsonValue]]] = {kind: {} for kind in KINDS}
        for (kind, name), each in sorted((await desk.stock()).decoded.items()):
            found[kind][name] = values_of(each)
        return found

    @routers.admin.post("/apply", tags=["policy"], summary="Make the policy what a file says; tell what changes",
                        responses=faults(409, 412))  # fmt: skip
    async def apply(body: ApplyBody) -> ApplyView:
        """All or nothing. Devices are created and changed, and never deleted."""
        given = _objects(body)
        async with desk.changing:
            stock = await desk.stock()
            made = diff.changes(stock.objects, given.values(), prune=body.prune)
            after = stock.with_changes(given, [_key(each) for each in made if each.action == "delete"])
            devices = {mac: fields.change() for mac, fields in body.devices.items()}
            there = await desk.many(list(devices))
            _refuse_twins(there)
            await desk.check_objects(stock.objects, after, partial(_will_be, there=there, changes=devices))
            made += [_device_change(mac, there[mac], change) for mac, change in devices.items()]
            wanted = [each for each in made if each.action != "none"]
            if wanted and not body.dry_run:
                await _carry_out(desk, stock, given, wanted, devices, there)
            warnings = await desk.warnings(after)
        changes = [ChangeView.model_validate(each, from_attributes=True) for each in made]
        return ApplyView(changes=changes, applied=bool(wanted) and not body.dry_run, warnings=warnings)


def _objects(body: ApplyBody) -> dict[Key, PolicyObject]:
    """Raises ApiError 422 with all that is wrong."""
    if sum(len(named) for named in body.objects.values()) > _MAX_OBJECTS:
        raise ApiError(422, f"more than {_MAX_OBJECTS} objects")
    found: dict[Key, PolicyObject] = {}
    wrong: list[str] = []
    for kind, named in body.objects.items():
        for name, values in named.items():
            try:
                found[kind, name] = canonical(read_object(kind, name, values))
            except (PolicyError, ApiError) as fault:
                wrong.append(str(fault))
    if wrong:
        more = f"; and {len(wrong) - _SAID} more" if len(wrong) > _SAID else ""
        raise ApiError(422, "; ".join(wrong[:_SAID]) + more)
    return found


async def _carry_out(
    desk: Desk,
    stock: Stock,
    given: Mapping[Key, PolicyObject],
    wanted: Iterable[Change],
    devices: Mapping[str, DeviceChange],
    there: Mapping[str, Device | None],
) -> None:
    """``wanted``: the changes that change something; a device's are its MAC and what is in ``devices``."""
    of_objects = [each for each in wanted if each.kind in KINDS]
    puts = [(*_key(each), encode(given[_key(each)])) for each in of_objects if each.action != "delete"]
    deletes = [_key(each) for each in of_objects if each.action == "delete"]
    revisions = {_key(each): stock.documents.get(_key(each)) for each in of_objects}
    changed_devices = {_registered(each.name, there): devices[each.name] for each in wanted if each.kind == _DEVICE}
    await desk.registry.change_documents(
        puts,
        deletes,
        expected={key: 0 if document is None else document.revision for key, document in revisions.items()},
        devices=changed_devices,
    )
    for mac in changed_devices:
        desk.note(mac, "changed", "by a policy that an administrator applied")


def _refuse_twins(there: Mapping[str, Device | None]) -> None:
    """Two addresses of one device cannot both say what it is to be."""
    first: dict[str, str] = {}
    for mac in there:
        other = first.setdefault(_registered(mac, there), mac)
        if other != mac:
            raise ApiError(422, f"{other} and {mac} are addresses of one device: name it once")


def _will_be(
    devices: Iterable[Device], there: Mapping[str, Device | None], changes: Mapping[str, DeviceChange]
) -> Iterator[Device]:
    """All devices as they are when the changes are made."""
    by_name = {_registered(mac, there): change for mac, change in changes.items()}
    for device in devices:
        change = by_name.get(device.mac)
        yield device if change is None else changed(device, change)
    for mac, change in changes.items():
        if there[mac] is None:
            yield changed(_unseen(mac), change)


def _device_change(mac: str, before: Device | None, change: DeviceChange) -> Change:
    """With the fields alone that the policy names."""
    after = plain(changed(before or _unseen(mac), change))
    named = [key for key in after if getattr(change, key, None) is not None]
    was = None if before is None else {key: plain(before)[key] for key in named}
    return diff.changed(_DEVICE, mac, was, {key: after[key] for key in named})


def _unseen(mac: str) -> Device:
    """A device that is registered before it was seen."""
    return Device(mac, None, "", None, DeviceState.KNOWN, "", _NEVER, _NEVER)


def _registered(mac: str, there: Mapping[str, Device | None]) -> str:
    device = there[mac]
    return mac if device is None else device.mac


def _key(change: Change) -> Key:
    return change.kind, change.name
