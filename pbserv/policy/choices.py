"""What becomes of an item that somebody chose in the Preboot Menu on the device itself.

One rule: a choice is a ruling like any other. What is done once needs work, so the device must have been accepted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pbserv.policy.decide import Query, Ruling, imaging_of
from pbserv.policy.model import Bundle, MenuItem
from pbserv.policy.orders import MAINTENANCE
from pbserv.policy.service import PolicyService
from pbserv.registry.records import CLIENT_KINDS, BundleKind, Device, DeviceState
from pbserv.types import Decision, Sighting, Verdict

_PLAIN: Final = {"local": Verdict.LOCAL, "exit": Verdict.SILENT, "shell": Verdict.SILENT, "reboot": Verdict.SILENT,
                 "poweroff": Verdict.SILENT}  # fmt: skip
"""Actions that the loader does by itself; a loader that asks for one nevertheless is told to go on."""
_KERNEL_KINDS: Final = (*CLIENT_KINDS, BundleKind.LINUX, BundleKind.INSTALL, BundleKind.EFI, BundleKind.MEMTEST)


async def choose(policy: PolicyService, sighting: Sighting, name: str) -> Ruling:
    """The ruling for the item ``name`` of the menu that the device has; the menu again when it has no such item."""
    ruling = await policy.settle(sighting)
    item = next((each for each in ruling.menu.items if each.name == name), None) if ruling.menu else None
    if item is None or ruling.refused:
        return ruling
    policy.note(str(sighting.mac), "menu", f"{item.name}: {item.title}")
    if item.bundle:
        bundle = policy.snapshot.objects.bundles.get(item.bundle)
        if bundle is None:
            return _plain(Verdict.LOCAL, f"menu item {name}: there is no bundle {item.bundle}")
        return await _begin(policy, sighting, _with(bundle, item), f"chosen in the menu: {bundle.name}")
    match item.action:
        case "decision":
            return await _decided(policy, sighting, ruling)
        case "imaging":
            return await _imaging(policy, sighting)
        case "maintenance":
            return await _begin(policy, sighting, _with(MAINTENANCE, item), "chosen in the menu: imaging maintenance")
        case _:
            return _plain(_PLAIN.get(item.action, Verdict.LOCAL), f"chosen in the menu: {item.title}")


async def _decided(policy: PolicyService, sighting: Sighting, ruling: Ruling) -> Ruling:
    """What the device would do without its menu."""
    verdict = ruling.without_menu
    if verdict is None:
        return _plain(Verdict.LOCAL, "nothing else was decided")
    decision = replace(ruling.decision, verdict=verdict, reason=ruling.decision.reason.partition("by itself ")[2])
    bare = replace(ruling, menu=None, without_menu=None, decision=decision)
    if ruling.order and ruling.bundle is not None:
        return await _begin(policy, sighting, ruling.bundle, decision.reason, ruling.order)
    return bare


async def _imaging(policy: PolicyService, sighting: Sighting) -> Ruling:
    device = policy.snapshot.device(str(sighting.mac))
    found = imaging_of(Query(str(sighting.mac), device, dict(sighting.details)), policy.snapshot)
    if found is None:
        return _plain(Verdict.LOCAL, "no imaging is assigned to this device")
    return await _begin(policy, sighting, found[0], f"chosen in the menu: {found[0].name}", found[1])


async def _begin(
    policy: PolicyService, sighting: Sighting, bundle: Bundle, reason: str, assignment: str = ""
) -> Ruling:
    """What is done once gets its work first; all else is booted at once."""
    match bundle.kind:
        case BundleKind.LOCAL:
            return _plain(Verdict.LOCAL, reason)
        case BundleKind.NOTHING:
            return _plain(Verdict.SILENT, reason)
    if not bundle.once and not assignment:
        return Ruling(Decision(Verdict.BOOT, reason, bundle=bundle.name), bundle=bundle)
    device: Device | None = policy.snapshot.device(str(sighting.mac))
    if device is None or device.state is not DeviceState.KNOWN:
        return _plain(Verdict.LOCAL, f"{bundle.name}: the device has to be accepted first")
    if not await policy.order(device.mac, bundle, assignment):
        return _plain(Verdict.LOCAL, f"{bundle.name}: no work could be made; see: pbserv work list")
    return policy.ruling(sighting)


def _with(bundle: Bundle, item: MenuItem) -> Bundle:
    if not item.arguments or bundle.kind not in _KERNEL_KINDS:
        return bundle
    return replace(bundle, arguments=f"{bundle.arguments} {item.arguments}".strip())


def _plain(verdict: Verdict, reason: str) -> Ruling:
    return Ruling(Decision(verdict, reason))
