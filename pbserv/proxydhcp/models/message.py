"""Clients' messages byte by byte, and servers' replies as clients read them. Pure.

One rule: the options stand in the order in which they are given, since firmware is known by that order too.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pbserv.errors import WireError
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models.conversation import UNSPECIFIED
from pbserv.proxydhcp.packet import Packet, dotted, undotted
from pbserv.types import MacAddress

NO_BROADCAST: Final = 1
NO_MULTICAST: Final = 2
LISTED_SERVERS_ONLY: Final = 4
JUST_BOOT: Final = 8
MENU_WAITS: Final = 255
_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")


def write(
    options: Sequence[tuple[int, bytes]],
    *,
    mac: MacAddress,
    xid: int,
    secs: int = 0,
    flags: int = 0,
    ciaddr: str = UNSPECIFIED,
    least_bytes: int = 0,
) -> bytes:
    """A BOOTREQUEST with its options in this order, END, and zeros up to ``least_bytes``."""
    head = _HEADER.pack(
        dhcp.BOOTREQUEST, 1, 6, 0, xid, secs, flags, undotted(ciaddr), dhcp.ZERO, dhcp.ZERO, dhcp.ZERO,
        mac.octets.ljust(16, b"\0"), b"", b"", dhcp.COOKIE,
    )  # fmt: skip
    body = b"".join(bytes((tag, len(value))) + value for tag, value in options)
    return (head + body + b"\xff").ljust(least_bytes, b"\0")


def boot_item(type_: int) -> bytes:
    """Option 43 of a request to a boot server: 71, the item's type and layer 0."""
    return dhcp.encapsulate({71: type_.to_bytes(2, "big") + b"\0\0"}) + b"\xff"


def is_pxe(packet: Packet) -> bool:
    """Whether option 60 begins with PXEClient: clients compare nine bytes (edk2 PxeBcDhcp4.c, ipxe dhcp.c)."""
    return packet.options.get(dhcp.VENDOR_CLASS, b"").startswith(b"PXEClient")


def gives_address(packet: Packet) -> bool:
    """Whether it comes from a DHCP server; EDK2 looks at the first byte of yiaddr only (PxeBcDhcp4.c)."""
    return packet.yiaddr[0] != 0


def boot_file(packet: Packet) -> str:
    """Option 67, else the field ``file`` (edk2 PxeBcParseDhcp4Packet); empty when there is neither."""
    value = packet.options.get(dhcp.BOOT_FILE, b"").partition(b"\0")[0] or packet.file
    return value.decode("ascii", "backslashreplace")


def server_id(packet: Packet) -> str:
    """Option 54; 0.0.0.0 when it is missing or broken."""
    value = packet.options.get(dhcp.SERVER_ID, b"")
    return dotted(value) if len(value) == 4 else UNSPECIFIED


def next_server(packet: Packet) -> str:
    """siaddr, else option 54 (edk2 PxeBcRetryBinlOffer and PxeBcDhcp4BootInfo)."""
    return dotted(packet.siaddr) if packet.siaddr[0] else server_id(packet)


@dataclass(frozen=True, slots=True)
class PxeOptions:
    """Option 43 as a PXE client reads it. None: not there; an unreadable list has what could be read."""

    tags: frozenset[int] = frozenset()
    control: int = 0
    multicast: str | None = None
    servers: tuple[tuple[int, tuple[str, ...]], ...] = ()
    menu: tuple[tuple[int, str], ...] = ()
    timeout_s: int | None = None
    item: int | None = None

    @property
    def discovers(self) -> bool:
        """Any of 6 to 10: what makes an offer a PXE 1.0 one (edk2 IS_VALID_DISCOVER_VENDOR_OPTION)."""
        return any(6 <= tag <= 10 for tag in self.tags)

    @property
    def multicast_download(self) -> bool:
        """All of 1 to 5, which stands for the WfM 1.1a multicast TFTP (edk2 IS_VALID_MTFTP_VENDOR_OPTION)."""
        return self.tags.issuperset((1, 2, 3, 4, 5))

    def addresses(self, type_: int) -> tuple[str, ...]:
        """The listed servers of a type."""
        return tuple(address for kind, listed in self.servers if kind == type_ for address in listed)


def pxe_options(packet: Packet) -> PxeOptions:
    """Option 43 of a PXEClient reply; empty when there is none or when it is no list of options."""
    value = packet.options.get(dhcp.VENDOR_SPECIFIC)
    if value is None or not is_pxe(packet):
        return PxeOptions()
    try:
        found = dhcp.suboptions(value)
    except WireError:
        return PxeOptions()
    multicast = found.get(7, b"")
    prompt = found.get(10, b"")
    item = found.get(71, b"")
    return PxeOptions(
        frozenset(found),
        int.from_bytes(found.get(6, b"\0")[:1], "big"),
        dotted(multicast) if len(multicast) == 4 else None,
        _servers(found.get(8, b"")),
        _menu(found.get(9, b"")),
        prompt[0] if prompt else None,
        int.from_bytes(item[:2], "big") if len(item) == 4 else None,
    )


def _servers(value: bytes) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """43.8: type, count, addresses, and the next."""
    found: list[tuple[int, tuple[str, ...]]] = []
    at = 0
    while at + 3 <= len(value):
        end = at + 3 + 4 * value[at + 2]
        if end > len(value):
            break
        listed = tuple(dotted(value[here : here + 4]) for here in range(at + 3, end, 4))
        found.append((int.from_bytes(value[at : at + 2], "big"), listed))
        at = end
    return tuple(found)


def _menu(value: bytes) -> tuple[tuple[int, str], ...]:
    """43.9: type, length, text, and the next."""
    found: list[tuple[int, str]] = []
    at = 0
    while at + 3 <= len(value):
        end = at + 3 + value[at + 2]
        if end > len(value):
            break
        text = value[at + 3 : end].decode("ascii", "backslashreplace")
        found.append((int.from_bytes(value[at : at + 2], "big"), text))
        at = end
    return tuple(found)
