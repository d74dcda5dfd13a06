"""Who asks: class, architecture, hardware address and UUID of a DHCP message. Pure.

One rule: the architecture comes from option 93 only. The text of option 60 carries one too, but firmware writes it in
decimal, in hexadecimal or not at all (RFC 4578 2.1 has the registry).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pbserv.errors import WireError
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.outcome import ClientKind, Ignore, Reason
from pbserv.proxydhcp.table import Vendor
from pbserv.types import ClientArch

PXE_CLASS: Final = b"PXEClient"
HTTP_CLASS: Final = b"HTTPClient"
UEFI_PXE: Final = frozenset((2, 6, 7, 9, 10, 11, 25, 27, 29, 37, 39))
HTTP_BOOT: Final = frozenset((15, 16, 17, 18, 19, 20, 26, 28, 30, 38, 40))
_REGISTERED: Final = range(42)  # IANA "Processor Architecture Types"

_PI_CLASS: Final = b"PXEClient:Arch:00000:UNDI:002001"
PI_VENDORS: Final = frozenset(bytes.fromhex(oui) for oui in ("b827eb", "dca632", "e45f01", "28cdc1", "d83add"))
_NOBODY: Final = frozenset(
    (
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "03000200-0400-0500-0006-000700080009",  # left in place by thousands of ASRock, Beelink and other boards
    )
)


@dataclass(frozen=True, slots=True)
class Client:
    """A client that a proxy may answer. ``vendor_class`` is what its reply must carry in option 60; ``text`` is all
    that the client wrote there."""

    kind: ClientKind
    arch: ClientArch
    vendor_class: bytes
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class BootItem:
    """Option 43.71: the menu entry that the client has chosen."""

    type: int
    layer: int

    @property
    def wants_credentials(self) -> bool:
        return bool(self.layer & 0x8000)  # BIS, which nobody serves

    def __str__(self) -> str:
        return f"type {self.type} layer {self.layer}"


def classify(options: Mapping[int, bytes], mac: bytes = b"", vendors: Sequence[Vendor] = ()) -> Client | Ignore:
    """Kind and architecture from options 60, 77, 93 and 175; ``mac`` tells a Raspberry Pi from a BIOS.

    ``vendors``: further classes that count as one of the two.
    """
    text = options.get(dhcp.VENDOR_CLASS)
    if text is None:
        return Ignore(Reason.NOT_PXE, "no vendor class")
    # Only the prefix counts: architecture, UNDI version or a NUL may follow.
    vendor_class = next((name for name in (PXE_CLASS, HTTP_CLASS) if text.startswith(name)), None)
    if vendor_class is None:
        # The reply repeats the client's own class there: "HW-Client" is what such a server compares.
        vendor_class = next((vendor.vendor_class for vendor in vendors if text.startswith(vendor.prefix)), None)
    if vendor_class is None:
        shown = text[:40].decode("ascii", "backslashreplace")
        if text.startswith(b"U-Boot"):
            return Ignore(Reason.U_BOOT, shown, "U-Boot takes no proxy offers: set siaddr and file in the DHCP server")
        return Ignore(Reason.NOT_PXE, shown)
    arch = architecture(options.get(dhcp.ARCHITECTURE, b""))
    if arch is None:
        return Ignore(Reason.NO_ARCH, "option 93 is missing or broken")
    return Client(_kind(options, vendor_class, text, arch, mac), arch, vendor_class, text)


def _kind(options: Mapping[int, bytes], vendor_class: bytes, text: bytes, arch: ClientArch, mac: bytes) -> ClientKind:
    if vendor_class == HTTP_CLASS:
        return ClientKind.HTTP if arch in HTTP_BOOT else ClientKind.UNSUPPORTED
    if arch == ClientArch.RPIBOOT:
        return ClientKind.RASPBERRY_PI
    if dhcp.IPXE in options or is_ipxe_user_class(options.get(dhcp.USER_CLASS, b"")):
        return ClientKind.IPXE
    if arch == ClientArch.BIOS:
        # A Pi's ROM says that it is an x86 BIOS; the vendor of its MAC address is all that gives it away.
        pi = text == _PI_CLASS and mac[:3] in PI_VENDORS
        return ClientKind.RASPBERRY_PI if pi else ClientKind.BIOS
    return ClientKind.UEFI if arch in UEFI_PXE else ClientKind.UNSUPPORTED


def is_ipxe_user_class(value: bytes) -> bool:
    """iPXE sends its name raw; others in the list form of RFC 3004 (length, text, length, text ...)."""
    if value == b"iPXE":
        return True
    position = 0
    while position < len(value):
        stop = position + 1 + value[position]
        if stop <= len(value) and value[position + 1 : stop] == b"iPXE":
            return True
        position = stop
    return False


def architecture(value: bytes) -> ClientArch | None:
    """Option 93 is a list of 16-bit codes: the first registered one, else the first; None when there is none."""
    if not value or len(value) % 2:
        return None
    codes = [int.from_bytes(value[at : at + 2], "big") for at in range(0, len(value), 2)]
    return ClientArch(next((code for code in codes if code in _REGISTERED), codes[0]))


def hardware_address(hlen: int, chaddr: bytes, identifier: bytes = b"") -> bytes | None:
    """The six bytes of the client's MAC address; None when the message holds none that makes sense.

    EDK2 with SendGUID puts the system GUID into chaddr and says hlen 16. Then option 61 has the address, or the last
    six bytes of the GUID are the best name that the client gives (the node field of a version 1 UUID is the MAC).
    """
    if hlen == 6:
        octets = chaddr[:6]
    elif hlen == 16:
        octets = identifier[1:] if len(identifier) == 7 and identifier[0] == 1 else chaddr[10:16]
    else:
        return None
    if octets[0] & 1 or octets == bytes(6):  # a group address and none at all name nobody
        return None
    return octets


def system_uuid(value: bytes) -> str | None:
    """Option 97 in the textual form that ``dmidecode`` and the kernel show; None when it names no one machine.

    The wire has the bytes as SMBIOS has them: type 0, then the first three fields little-endian and the rest in
    order. (pxelinux prints the bytes as they come, so the file name that it asks for differs in these fields.)
    """
    if len(value) != 17 or value[0] != 0:
        return None
    low, mid, high, rest = value[4:0:-1], value[6:4:-1], value[8:6:-1], value[9:]
    text = f"{low.hex()}-{mid.hex()}-{high.hex()}-{rest[:2].hex()}-{rest[2:].hex()}"
    return None if text in _NOBODY else text


def boot_item(options: Mapping[int, bytes]) -> BootItem | None:
    """Option 43.71; raises WireError when option 43 is not a list of options or 71 is not four bytes."""
    vendor = options.get(dhcp.VENDOR_SPECIFIC)
    if vendor is None:
        return None
    value = dhcp.suboptions(vendor).get(71)
    if value is None:
        return None
    if len(value) != 4:
        raise WireError(0, "option 43.71", f"has {len(value)} bytes instead of 4")
    return BootItem(int.from_bytes(value[:2], "big"), int.from_bytes(value[2:], "big"))
