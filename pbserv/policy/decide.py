"""What is this device to do? A pure function; the order of its steps is the policy.

One rule: the first step that has an answer wins, and every step that was passed is named in the decision.
"""

from __future__ import annotations

from pbserv.registry.records import Device, DeviceState
from pbserv.types import Decision, Verdict


def decide(mac: str, device: Device | None, zone_default: str) -> Decision:
    """``device`` is None for one that is not registered. ``zone_default`` is silent, local, loader or menu."""
    if device is None:
        return Decision(
            Verdict.SILENT,
            "device is not registered and is not to be (NewDevices = ignore, or too many new ones)",
            ("not registered",),
        )
    if device.state is DeviceState.DENIED:
        return Decision(Verdict.SILENT, "device is denied", ("denied",))
    if device.state is DeviceState.PENDING:
        return Decision(
            Verdict.SILENT, f"device is pending; accept it with: pbserv device accept {mac}", ("not denied", "pending")
        )
    work = device.work
    if work is not None and work.active:
        text = f"work {work.id}: {work.kind} {work.image}"
        return Decision(Verdict.BOOT, text, ("not denied", "known", text), work.id)
    steps = ("not denied", "known", "no work", f"zone default: {zone_default}")
    return Decision(Verdict(zone_default), f"nothing assigned; ZoneDefault = {zone_default}", steps)
