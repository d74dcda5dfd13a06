"""What the imaging client tells of its machine, read into labels. Pure.

One rule: nothing that a client says can make its question fail. What is no value of its kind is left out, a text is
put into one line and cut, and only the fields named here are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pbserv.types import MacAddress

MAX_VALUE: Final = 128
"""Characters of a label's value."""
MAX_IDENTITY: Final = 64
"""Characters of a serial number or asset tag."""
MAX_DISKS: Final = 64
MAX_MACS: Final = 7
"""So many addresses fit into the value of a label."""
_GIGABYTE: Final = 10**9
_TEXTS: Final = (
    "manufacturer", "product", "board", "board_serial", "bios_vendor", "bios_version", "bios_date", "cpu", "machine",
)  # fmt: skip
"""Fields that become the label of the same name as they are."""
_NUMBERS: Final = ("memory_mb", "cores", "cpus")
_FIRMWARES: Final = ("bios", "uefi")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DISK: Final = re.compile(r"/dev/\S{1,64} size=([0-9]{1,18})(?= |$)(.*)")
_VALUE: Final = re.compile(r"(\w+)=(\S*)")


@dataclass(frozen=True, slots=True)
class Machine:
    """``labels`` holds what was told and could be read; empty texts: not told."""

    labels: Mapping[str, str] = field(default_factory=dict)
    serial: str = ""
    asset: str = ""
    uuid: str | None = None


def read_machine(told: Mapping[str, str]) -> Machine:
    """The form of ``POST /client/v1/work`` (docs/wire/client.md)."""
    labels = {name: _line(told.get(name, "")) for name in _TEXTS}
    labels |= {name: told[name] for name in _NUMBERS if _NUMBER.fullmatch(told.get(name, ""))}
    labels |= _of_disks(told.get("disks", "").splitlines()[:MAX_DISKS])
    labels["macs"] = ",".join(_addresses(told.get("macs", "").split()[: 4 * MAX_MACS])[:MAX_MACS])
    if told.get("firmware") in _FIRMWARES:
        labels["firmware"] = told["firmware"]
    uuid = told.get("uuid", "").strip().lower()
    return Machine(
        {name: value for name, value in labels.items() if value},
        _line(told.get("serial", ""), MAX_IDENTITY),
        _line(told.get("asset", ""), MAX_IDENTITY),
        uuid if _UUID.fullmatch(uuid) else None,
    )


def _line(text: str, most: int = MAX_VALUE) -> str:
    """One line of printable characters."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * most])
    return " ".join(shown.split())[:most].rstrip()


def _of_disks(lines: Iterable[str]) -> dict[str, str]:
    """Internal disks alone: lines whose words after the values name no reason why a disk is not one."""
    disks: list[tuple[int, str]] = []
    for line in lines:
        found = _DISK.fullmatch(_line(line, 4 * MAX_VALUE))
        if found is None:
            continue
        values = dict(_VALUE.findall(found[2]))
        if not _VALUE.sub("", found[2]).strip():
            disks.append((int(found[1]), values.get("model", "").replace("_", " ").strip()))
    if not disks:
        return {}
    size, model = max(disks)
    return {"disks": str(len(disks)), "disk_gb": str(round(size / _GIGABYTE)), "disk_model": _line(model)}


def _addresses(words: Iterable[str]) -> list[str]:
    found: set[str] = set()
    for word in words:
        try:
            address = MacAddress.parse(word)
        except ValueError:
            continue
        if any(address.octets) and not address.octets[0] & 1:
            found.add(str(address))
    return sorted(found)
