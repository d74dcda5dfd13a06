"""`pbserv rule test`: is a condition true of these labels? Without a server, unless a device is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pbserv.commands.api import Api, named
from pbserv.commands.tables import Row, pairs, plain, print_json
from pbserv.errors import UsageError
from pbserv.policy.condition import ConditionError, parse_condition
from pbserv.policy.labels import KNOWN, labels_of
from pbserv.registry.records import Device, DeviceState

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def test(conf: Path, condition: str, labels: Sequence[str], mac: str | None, as_json: bool) -> int:
    """The exit code: 0 it is true, 1 it is not."""
    try:
        parsed = parse_condition(condition)
    except ConditionError as fault:
        raise UsageError(f"condition: {fault}") from None
    found: Mapping[str, str] = pairs(labels, "--label")
    if mac is not None:
        device = record_of(Api(conf).get(named("devices", mac)))
        found = labels_of(device.mac, device, found)
    truth = parsed.test(found)
    asked = {name: found.get(name) for name in sorted(parsed.names)}
    if as_json:
        print_json({"true": truth, "labels": asked})
        return int(not truth)
    print("true" if truth else "not true")
    for name, value in asked.items():
        print(f"  {name} = {plain(value)}" if value is not None else f"  {name} is missing")
    return int(not truth)


def labels(as_json: bool) -> None:
    """The labels that pbserv learns by itself."""
    if as_json:
        return print_json(dict(KNOWN))
    width = max(map(len, KNOWN))
    for name, about in KNOWN.items():
        print(f"{name:{width}}  {about}")
    return None


def record_of(view: Row) -> Device:
    """What a decision needs of a device that the API shows; without its work and runs."""
    return Device(
        mac=view["mac"], uuid=view["uuid"], name=view["name"], arch=view["arch"], state=DeviceState(view["state"]),
        address=view["address"], first_seen=_NEVER, last_seen=_NEVER, macs=tuple(view["macs"]), serial=view["serial"],
        asset=view["asset"], folder=view["folder"], groups=tuple(view["groups"]),
        labels=tuple(sorted(view["labels"].items())), learned=tuple(sorted(view["learned"].items())),
        menu=view["menu"], loader=view["loader"], arguments=view["arguments"],
    )  # fmt: skip
