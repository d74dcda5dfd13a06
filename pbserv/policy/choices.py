"""What becomes of an item that somebody chose in the Preboot Menu on the device itself. Pure.

One rule: a choice is a ruling like any other. What is done once needs work, so the device must have been accepted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pbserv.policy.decide import Query, Ruling, imaging_of
from pbserv.policy.model import Bundle, MenuItem
from pbserv.policy.orders import MAINTENANCE
from pbserv.policy.rendering.places import DECISION
from pbserv.policy.snapshot import Snapshot
from pbserv.registry.records import CLIENT_KINDS, BundleKind, DeviceState
from pbserv.types import Decision, Verdict

_PLAIN: Final = {"local": Verdict.LOCAL}
"""Other actions leave the loader, which does them by itself; one that asks nevertheless is told to go on."""
_KERNEL_KINDS: Final = (*CLIENT_KINDS, BundleKind.LINUX, BundleKind.INSTALL, BundleKind.EFI, BundleKind.MEMTEST)


@dataclass(frozen=True, slots=True)
class Order:
    """Work has to be made for the device before it can begin."""

    bundle: Bundle
    assignment: str = ""


def chosen(query: Query, ruling: Ruling, name: str, snapshot: Snapshot) -> Ruling | Order:
    """The item ``name`` of the menu of ``ruling``; the menu again when it has no such item."""
    if ruling.menu is None or ruling.refused:
        return ruling
    if name == DECISION:
        return _decided(query, ruling)
    item = next((each for each in ruling.menu.items if each.name == name), None)
    if item is None:
        return ruling
    if item.bundle:
        bundle = snapshot.objects.bundles.get(item.bundle)
        if bundle is None:
            return _plain(Verdict.LOCAL, f"menu item {name}: there is no bundle {item.bundle}")
        return _begin(query, _with(bundle, item), f"chosen in the menu: {bundle.name}")
    match item.action:
        case "decision":
            return _decided(query, ruling)
        case "imaging":
            return _imaging(query, snapshot)
        case "maintenance":
            return _begin(query, _with(MAINTENANCE, item), "chosen in the menu: imaging maintenance")
        case _:
            return _plain(_PLAIN.get(item.action, Verdict.SILENT), f"chosen in the menu: {item.title}")


def _decided(query: Query, ruling: Ruling) -> Ruling | Order:
    """What the device would do without its menu."""
    if ruling.without_menu is None:
        return _plain(Verdict.LOCAL, "nothing else was decided")
    if ruling.order and ruling.bundle is not None:
        return _begin(query, ruling.bundle, ruling.decision.reason, ruling.order)
    reason = ruling.decision.reason.partition("by itself ")[2] or ruling.decision.reason
    decision = replace(ruling.decision, verdict=ruling.without_menu, reason=reason)
    return replace(ruling, menu=None, without_menu=None, decision=decision)


def _imaging(query: Query, snapshot: Snapshot) -> Ruling | Order:
    found = imaging_of(query, snapshot)
    if found is None:
        return _plain(Verdict.LOCAL, "no imaging is assigned to this device")
    return _begin(query, found[0], f"chosen in the menu: {found[0].name}", found[1])


def _begin(query: Query, bundle: Bundle, reason: str, assignment: str = "") -> Ruling | Order:
    """What is done once gets its work first; all else is booted at once."""
    match bundle.kind:
        case BundleKind.LOCAL:
            return _plain(Verdict.LOCAL, reason)
        case BundleKind.NOTHING:
            return _plain(Verdict.SILENT, reason)
    if not bundle.once and not assignment:
        return Ruling(Decision(Verdict.BOOT, reason, bundle=bundle.name), bundle=bundle)
    if query.device is None or query.device.state is not DeviceState.KNOWN:
        return _plain(Verdict.LOCAL, f"{bundle.name}: the device has to be accepted first")
    return Order(bundle, assignment)


def _with(bundle: Bundle, item: MenuItem) -> Bundle:
    if not item.arguments or bundle.kind not in _KERNEL_KINDS:
        return bundle
    return replace(bundle, arguments=f"{bundle.arguments} {item.arguments}".strip())


def _plain(verdict: Verdict, reason: str) -> Ruling:
    return Ruling(Decision(verdict, reason))
