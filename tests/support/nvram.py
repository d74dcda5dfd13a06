"""The BootOrder variable of an OVMF variable store, changed in place.

OVMF lists its entries card by card: PXE over IPv4, then HTTP boot over IPv4 and IPv6 of the same card, each of which
waits a minute for nobody, and only then the disk. Real machines are set up as "network, then disk"; this does the same.
Layout: UEFI PI 1.7 volume 3, authenticated variable header (60 bytes), UCS-2 name, data.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

_HEADER = struct.Struct("<HBBIQ16sIII16s")
_START, _VALID = 0x55AA, 0x3F


class NvramError(RuntimeError):
    """The variable store does not hold what was looked for."""


def boot_entries(store: bytes) -> dict[int, str]:
    """Number and description of each Boot#### variable that is valid."""
    found: dict[int, str] = {}
    for name, start, size in _variables(store):
        if len(name) == 8 and name.startswith("Boot") and name[4:].isalnum() and name != "BootNext":
            data = store[start : start + size]
            end = next(at for at in range(6, len(data) - 1, 2) if data[at : at + 2] == b"\0\0")
            found[int(name[4:], 16)] = data[6:end].decode("utf-16-le")
    return found


def order_boot(path: Path, rank: Callable[[str], int]) -> list[str]:
    """Sort BootOrder by ``rank`` of the description, in place, and return the descriptions in their new order."""
    store = path.read_bytes()
    entries = boot_entries(store)
    place = next(((start, size) for name, start, size in _variables(store) if name == "BootOrder"), None)
    if place is None:
        raise NvramError(f"{path} has no BootOrder yet; the firmware writes it at its first start")
    start, size = place
    numbers = sorted(struct.unpack_from(f"<{size // 2}H", store, start), key=lambda n: rank(entries.get(n, "")))
    with path.open("r+b") as target:
        target.seek(start)
        target.write(struct.pack(f"<{len(numbers)}H", *numbers))
    return [entries.get(number, "?") for number in numbers]


def boot_order(path: Path) -> list[str]:
    """The descriptions of the entries in BootOrder, in that order; nothing is changed."""
    store = path.read_bytes()
    entries = boot_entries(store)
    for name, start, size in _variables(store):
        if name == "BootOrder":
            return [entries.get(number, "?") for number in struct.unpack_from(f"<{size // 2}H", store, start)]
    raise NvramError(f"{path} has no BootOrder yet; the firmware writes it at its first start")


def _variables(store: bytes) -> list[tuple[str, int, int]]:
    """Name, offset and size of the data of every valid variable."""
    found = []
    at = store.find(struct.pack("<HB", _START, _VALID))
    while 0 <= at <= len(store) - _HEADER.size:
        start, state, _, _, _, _, _, name_size, data_size, _ = _HEADER.unpack_from(store, at)
        if start == _START and state == _VALID and 0 < name_size < 512 and data_size < 65536:
            name_at = at + _HEADER.size
            name = store[name_at : name_at + name_size - 2].decode("utf-16-le", "replace")
            found.append((name, name_at + name_size, data_size))
        at = store.find(struct.pack("<HB", _START, _VALID), at + 1)
    return found
