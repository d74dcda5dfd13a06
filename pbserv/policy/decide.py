"""What is this device to do? A pure function; the order of its steps is the policy.

One rule: the first step that has an answer wins, and every step that was passed is named in the decision.
"""

from __future__ import annotations

from pbserv.registry.records import Device, DeviceState
from pbserv.types import Decision, Verdict


def decide(mac: str, device: Device | None, zone_default: str, engine: str = "") -> Decision:
    """``device`` is None for one that is not registered. ``zone_default`` is silent, local, loader or menu.

    ``engine``: the other server that decides (NovellPolicyEngine); this one only sends its own denied devices away.
    """
    refused = refusal(mac, device, engine)
    if refused:
        denied = device is not None and device.state is DeviceState.DENIED
        return Decision(Verdict.SILENT, refused, ("denied",) if denied else ("not denied", "pending"))
    if engine:
        return Decision(Verdict.LOADER, f"NovellPolicyEngine {engine} decides", ("not denied", "another server"))
    if device is None:
        return Decision(
            Verdict.SILENT,
            "device is not registered and is not to be (NewDevices = ignore, or too many new ones)",
            ("not registered",),
        )
    work = device.work
    if work is not None and work.active:
        text = f"work {work.id}: {work.kind} {work.image}"
        return Decision(Verdict.BOOT, text, ("not denied", "known", text), work.id)
    steps = ("not denied", "known", "no work", f"zone default: {zone_default}")
    return Decision(Verdict(zone_default), f"nothing assigned; ZoneDefault = {zone_default}", steps)


def refusal(mac: str, device: Device | None, engine: str = "") -> str:
    """Why the device gets nothing at all, over DHCP, TFTP and HTTP alike; empty when it may ask.

    That is not ZoneDefault = silent, which leaves a known device to other servers: these may send it here for files.
    """
    if device is not None and device.state is DeviceState.DENIED:
        return "device is denied"
    if device is not None and device.state is DeviceState.PENDING and not engine:
        return f"device is pending; accept it with: pbserv device accept {mac}"
    return ""
