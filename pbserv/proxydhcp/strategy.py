"""How replies are phrased: a strategy as data, the menu that it may show, and option 43 made of both. Pure.

One rule: option 43 is one instance of at most 255 bytes (EDK2 and iPXE read the first instance only).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from pbserv.proxydhcp.packet import encapsulate, undotted

OWN_BOOT_SERVER: Final = 0x8000  # PXE 2.1: types 32768-65534 are the vendor's; the first one is this server
LOCAL_DISK: Final = 0  # type 0 is "bootstrap": the local disk
_END: Final = b"\xff"
_LABEL_BYTES: Final = 70  # EDK2 cuts longer lines
DEFAULT_TIMEOUT_S: Final = 2
_SELF, _ENTRIES, _LOCAL = "self", "entries", "local"
ITEMS: Final = (_SELF, _ENTRIES, _LOCAL)


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to phrase a reply; the fields are those of strategies.toml.

    ``timeout_s`` None: that of the menu in the configuration. ``raw43`` is all of option 43, without END.
    """

    name: str
    control: int | None = None
    items: tuple[str, ...] = ()
    timeout_s: int | None = 0
    file_in_offer: bool = True
    raw43: bytes | None = None
    priority: int | None = None

    @property
    def option175(self) -> bytes | None:
        return None if self.priority is None else encapsulate({1: self.priority.to_bytes(1, "big", signed=True)})


@dataclass(frozen=True, slots=True)
class MenuEntry:
    """A line between this server's and the local disk's: a boot file of this server, or another boot server."""

    label: str
    file: str = ""
    server: str = ""


@dataclass(frozen=True, slots=True)
class Menu:
    """The menu of the configuration. ``timeout_s``: 0 takes the first item at once, 255 waits for ever."""

    entries: tuple[MenuEntry, ...] = ()
    timeout_s: int = DEFAULT_TIMEOUT_S
    own_label: str = "Boot from the network"
    local_label: str = "Boot from the local disk"
    prompt: str = "Press F8 for the boot menu"

    def file_of(self, item_type: int) -> str | None:
        """The boot file of an entry of ours; None when the type is none of them."""
        number = item_type - OWN_BOOT_SERVER - 1
        if 0 <= number < len(self.entries):
            return self.entries[number].file or None
        return None


def menu_entry(text: str) -> MenuEntry:
    """``text=file`` or ``text=address``, as MenuEntries has it."""
    label, _, target = (part.strip() for part in text.partition("="))
    try:
        undotted(target)
    except ValueError:
        return MenuEntry(label, file=target)
    return MenuEntry(label, server=target)


@functools.lru_cache(maxsize=512)
def vendor_options(strategy: Strategy, menu: Menu, server: str, chosen: bytes, offer: bool) -> bytes | None:
    """Option 43 of a reply; None: none is sent. ``chosen`` is 43.71 as the client wrote it, to be echoed.

    On port 4011 the client has chosen already, so the menu is not repeated there, unless it only says "local disk":
    SeaBIOS/iPXE and OVMF take that from an ACK too. Raises WireError for a menu that is too long.
    """
    parts = b"" if strategy.raw43 is None else strategy.raw43
    if strategy.items and (offer or strategy.items == (_LOCAL,)):
        parts += _menu(strategy, menu, server)
    elif strategy.control is not None and not strategy.items:
        parts += encapsulate({6: bytes((strategy.control,))})
    if chosen:
        parts += encapsulate({71: chosen})
    return parts + _END if parts else None


def _menu(strategy: Strategy, menu: Menu, server: str) -> bytes:
    """PXE 2.1: 43.6 discovery control, 43.8 boot servers by type, 43.9 the items, 43.10 the prompt."""
    lines = _lines(strategy.items, menu, server)
    servers = b"".join(
        kind.to_bytes(2, "big") + b"\1" + undotted(address) for kind, _label, address in lines if kind != LOCAL_DISK
    )
    items = b"".join(_line(kind, label) for kind, label, _address in lines)
    timeout = menu.timeout_s if strategy.timeout_s is None else strategy.timeout_s
    prompt = bytes((timeout,)) + menu.prompt.encode("ascii", "replace")[:_LABEL_BYTES]
    parts = {6: bytes((strategy.control if strategy.control is not None else 7,))}
    if servers:
        parts[8] = servers
    return encapsulate(parts | {9: items, 10: prompt})


def _lines(wanted: tuple[str, ...], menu: Menu, server: str) -> list[tuple[int, str, str]]:
    """Type, label and server of each line of the menu."""
    lines: list[tuple[int, str, str]] = []
    for item in wanted:
        match item:
            case "self":
                lines.append((OWN_BOOT_SERVER, menu.own_label, server))
            case "entries":
                for number, entry in enumerate(menu.entries, OWN_BOOT_SERVER + 1):
                    lines.append((number, entry.label, entry.server or server))
            case _:
                lines.append((LOCAL_DISK, menu.local_label, ""))
    return lines


def _line(kind: int, label: str) -> bytes:
    text = label.encode("ascii", "replace")[:_LABEL_BYTES]
    return kind.to_bytes(2, "big") + bytes((len(text),)) + text
