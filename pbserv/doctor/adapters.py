"""The interfaces of this network namespace: sysfs (Documentation/ABI/testing/sysfs-class-net) and their addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pbserv.doctor.facts import Link
from pbserv.net.interfaces import InterfaceAddress, addresses

_SYS: Final = Path("/sys/class/net")
_SETTINGS: Final = Path("/proc/sys/net/ipv4/conf")
_IFF_UP: Final = 0x1
_IFF_BROADCAST: Final = 0x2
_IFF_LOOPBACK: Final = 0x8


def links() -> tuple[Link, ...]:
    """All interfaces, by index."""
    by_index: dict[int, list[InterfaceAddress]] = {}
    for entry in addresses():
        by_index.setdefault(entry.ifindex, []).append(entry)
    found = (_link(path, by_index) for path in _SYS.iterdir() if (path / "ifindex").exists())
    return tuple(sorted(found, key=lambda link: link.index))


def _link(path: Path, by_index: dict[int, list[InterfaceAddress]]) -> Link:
    index, flags = _number(path / "ifindex"), _number(path / "flags", 16)
    carrier = _number(path / "carrier", missing=-1)
    return Link(
        path.name,
        index,
        up=bool(flags & _IFF_UP),
        carrier=None if carrier < 0 else bool(carrier),
        broadcasts=bool(flags & _IFF_BROADCAST),
        loopback=bool(flags & _IFF_LOOPBACK),
        master=(path / "master").resolve().name if (path / "master").exists() else "",
        addresses=tuple(by_index.get(index, ())),
        # ip-sysctl.rst: the larger one of all and the interface's own counts.
        rp_filter=max(_number(_SETTINGS / name / "rp_filter") for name in ("all", path.name)),
    )


def _number(path: Path, base: int = 10, missing: int = 0) -> int:
    """The number that a file holds; the carrier of an interface that is down cannot be read."""
    try:
        return int(path.read_text(), base)
    except (OSError, ValueError):
        return missing
