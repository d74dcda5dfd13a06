"""What a policy file, or a list of devices, says about one device: read, checked, and written. Pure.

One rule: what is not said is left alone; an entry holds only what stood there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final  # Any: values of TOML, JSON and CSV on their way into a checked entry

from pbserv.policy.labels import MAX_LABELS, MAX_VALUE
from pbserv.policy.model import MAX_LINE, ROOT, check_folder, check_name, check_place
from pbserv.registry.records import Device, DeviceState
from pbserv.types import MacAddress

Entry = dict[str, Any]
"""Some of :data:`DEVICE_FIELDS` with texts, but a list of texts for ``groups`` and names with texts for ``labels``."""
DEVICE_FIELDS: Final = (
    "state", "name", "serial", "asset", "folder", "groups", "labels", "menu", "loader", "arguments",
)  # fmt: skip
_LABEL: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_LONGEST: Final = {"name": 64, "serial": 128, "asset": 128}
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


def read_entry(mac: str, values: Mapping[str, Any]) -> tuple[str, Entry]:
    """A device of a file: its MAC address in its one spelling, and its fields. Raises ValueError with all faults."""
    address = device_mac(mac)
    faults: list[str] = []
    entry: Entry = {}
    for key, value in values.items():
        try:
            entry[key] = _checked(key, value)
        except ValueError as fault:
            faults.append(f"{key}: {fault}")
    if faults:
        raise ValueError("; ".join(faults))
    return address, entry


def device_of(mac: str, entry: Entry) -> Device:
    """A record as the file describes it, for trying a policy out: known unless it says otherwise."""
    return Device(
        mac=mac, uuid=None, name=entry.get("name", ""), arch=None, state=DeviceState(entry.get("state", "known")),
        address="", first_seen=_NEVER, last_seen=_NEVER, serial=entry.get("serial", ""), asset=entry.get("asset", ""),
        folder=entry.get("folder", ROOT), groups=tuple(entry.get("groups", ())),
        labels=tuple(sorted(entry.get("labels", {}).items())), menu=entry.get("menu", ""),
        loader=entry.get("loader", ""), arguments=entry.get("arguments", ""),
    )  # fmt: skip


def entry_of(device: Device) -> Entry:
    """What a file says about a device so that it stands as it does; fields without a value are left out."""
    entry: Entry = {"state": device.state.value}
    for key in DEVICE_FIELDS[1:]:
        value = getattr(device, key)
        if value and not (key == "folder" and value == ROOT):
            entry[key] = dict(value) if key == "labels" else list(value) if key == "groups" else value
    return entry


def device_mac(text: str) -> str:
    """The one spelling of a device's address. Raises ValueError."""
    address = MacAddress.parse(text)
    if address.octets[0] & 1 or not any(address.octets):
        raise ValueError(f"{address} is no device's address: it is a group's, or empty")
    return str(address)


def _checked(key: str, value: Any) -> Any:
    """A field of a device. Raises ValueError."""
    if key not in DEVICE_FIELDS:
        raise ValueError(f"there is no such field; there are {', '.join(DEVICE_FIELDS)}")
    if key == "labels":
        return _labels(value)
    if key == "groups":
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ValueError("a list of names was expected")
        for each in value:
            check_name(each, "group")
        return list(dict.fromkeys(value))
    if not isinstance(value, str):
        raise ValueError("a text was expected")
    _check_text(key, value)
    return value


def _check_text(key: str, value: str) -> None:
    if key == "state":
        if value not in list(DeviceState):
            raise ValueError(f"{value!r} is none of {', '.join(DeviceState)}")
    elif key == "folder":
        check_folder(value)
    elif key == "menu" and value:
        check_name(value, "menu")
    elif key == "loader" and value:
        check_place(value, "loader")
    if len(value) > _LONGEST.get(key, MAX_LINE) or not value.isprintable():
        raise ValueError(f"one line of at most {_LONGEST.get(key, MAX_LINE)} printable characters")


def _labels(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError('names and texts were expected: { room = "3.14" }')
    if len(value) > MAX_LABELS:
        raise ValueError(f"a device has at most {MAX_LABELS} labels")
    for name, text in value.items():
        if not _LABEL.fullmatch(name):
            raise ValueError(f"{name!r} is no label: a to z, 0 to 9 and _, 32 at most, the first a letter")
        if not 0 < len(text) <= MAX_VALUE or not text.isprintable():
            raise ValueError(f"{name}: 1 to {MAX_VALUE} printable characters")
    return dict(value)
