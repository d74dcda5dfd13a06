"""What would a device get, and why? The decision with every step; nothing changes by asking."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import Query
from pydantic import AfterValidator, Field

from pbserv.httpapi import ApiError, faults
from pbserv.policy.api.desk import Desk, Routers
from pbserv.policy.api.fields import MacText, arch_of
from pbserv.policy.api.views import ExplainView, device_view, work_view
from pbserv.policy.decide import Ruling
from pbserv.policy.labels import MAX_LABELS, MAX_VALUE
from pbserv.policy.orders import bundle_of
from pbserv.registry.records import Device

_LABEL: Final = re.compile(r"([a-z][a-z0-9_]{0,31})=(.*)", re.DOTALL)


def _arch(text: str) -> str:
    arch_of(text)
    return text


def _label(text: str) -> str:
    found = _LABEL.fullmatch(text)
    if not found or len(found[2]) > MAX_VALUE or not found[2].isprintable():
        raise ValueError("write NAME=VALUE, such as manufacturer=LENOVO")
    return text


_UUID: Final = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
Uuid = Annotated[str | None, Query(max_length=36, pattern=_UUID)]
Arch = Annotated[
    Annotated[str, Field(max_length=40), AfterValidator(_arch)] | None,
    Query(description="number of DHCP option 93, or its name, such as UEFI x64", examples=["7"]),
]
LabelText = Annotated[str, Field(max_length=200), AfterValidator(_label)]
LabelTexts = Annotated[list[LabelText] | None, Query(max_length=MAX_LABELS, description="NAME=VALUE, as if it were so")]


def add(routers: Routers, desk: Desk) -> None:
    @routers.viewer.get("/explain", tags=["policy"], summary="What a device would get now, and why",
                        responses=faults(404, 503))  # fmt: skip
    async def explain(
        mac: Annotated[MacText | None, Query()] = None,
        uuid: Uuid = None,
        arch: Arch = None,
        label: LabelTexts = None,
    ) -> ExplainView:
        """For a device that is registered, by any of its addresses or its UUID, or for an address that is not."""
        if not desk.policy.running:
            raise ApiError(503, "the policy service is not running; start it with: pbserv start policy")
        device = _device(desk, mac, uuid)
        asking = mac or (device.mac if device else "")
        labels = dict(text.split("=", 1) for text in label or ())
        ruling = desk.policy.explain(asking, arch=None if arch is None else arch_of(arch), labels=labels)
        return _view(asking, device, ruling)


def _device(desk: Desk, mac: str | None, uuid: str | None) -> Device | None:
    snapshot = desk.policy.snapshot
    if mac is not None:
        return snapshot.device(mac)
    if uuid is None:
        raise ApiError(422, "say of which device: mac or uuid")
    found = snapshot.by_uuid(uuid.lower())
    if found is None:
        raise ApiError(404, f"no device has the UUID {uuid}, or several have; say which by its mac")
    return found


def _view(mac: str, device: Device | None, ruling: Ruling) -> ExplainView:
    decision = ruling.decision
    bundle = ruling.bundle or (bundle_of(ruling.work) if ruling.work is not None else None)
    return ExplainView(
        mac=mac, verdict=decision.verdict.value, reason=decision.reason, steps=list(decision.steps),
        bundle=decision.bundle, kind=None if bundle is None else bundle.kind,
        work=None if ruling.work is None else work_view(ruling.work), order=ruling.order,
        menu="" if ruling.menu is None else ruling.menu.name,
        without_menu="" if ruling.without_menu is None else ruling.without_menu.value,
        arguments=ruling.arguments, refused=ruling.refused, device=None if device is None else device_view(device),
    )  # fmt: skip
