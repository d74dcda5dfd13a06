"""What a DHCP packet says, field by field, for people. Pure.

One rule: every field that says something is shown; a value that makes no sense is shown as its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pbserv.errors import WireError
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.packet import MESSAGE_NAMES, ZERO, Packet, dotted, suboptions
from pbserv.types import ClientArch

# RFC 2132, RFC 4578, RFC 3004, RFC 3046, RFC 5071; 175 is iPXE's.
OPTION_NAMES: Final[Mapping[int, str]] = {
    1: "subnet mask", 3: "routers", 6: "DNS servers", 12: "host name", 13: "boot file size", 15: "domain",
    17: "root path", 28: "broadcast address", 43: "PXE", 50: "requested address", 51: "lease", 53: "message",
    54: "server identifier", 55: "parameters wanted", 57: "largest message", 58: "renewal", 59: "rebinding",
    60: "vendor class", 61: "client identifier", 66: "TFTP server", 67: "boot file", 77: "user class",
    82: "relay", 93: "architecture", 94: "UNDI", 97: "UUID", 119: "search domains", 150: "TFTP servers",
    175: "iPXE", 208: "PXELINUX magic", 209: "configuration file", 210: "path prefix", 211: "reboot after",
}  # fmt: skip
# PXE 2.1: sub-options of option 43.
_PXE_NAMES: Final[Mapping[int, str]] = {
    1: "MTFTP address", 2: "MTFTP client port", 3: "MTFTP server port", 4: "MTFTP timeout", 5: "MTFTP delay",
    6: "discovery control", 7: "multicast address", 8: "boot servers", 9: "boot menu", 10: "menu prompt",
    71: "boot item",
}  # fmt: skip
_IPXE_NAMES: Final[Mapping[int, str]] = {1: "priority", 8: "keep-san", 176: "no-pxedhcp", 177: "bus id", 235: "version"}
_CONTROL_BITS: Final = ("no broadcast", "no multicast", "only listed servers", "just the boot file")
_SECONDS: Final = frozenset((51, 58, 59, 211))
_ADDRESSES: Final = frozenset((1, 3, 6, 28, 50, 54, 150))
_TEXTS: Final = frozenset((12, 15, 17, 60, 66, 67, 77, 209, 210))

Field = tuple[str, str]


def fields(packet: Packet) -> Iterator[Field]:
    """Name and value of every header field and option that says something."""
    for name in ("ciaddr", "yiaddr", "siaddr", "giaddr"):
        address: bytes = getattr(packet, name)
        if address != ZERO or name in ("yiaddr", "siaddr"):
            yield name, dotted(address)
    for name, text in (("sname", packet.sname), ("file", packet.file)):
        if text:
            yield name, readable(text)
    if packet.flags:
        yield "flags", f"{packet.flags:04x}" + (" broadcast" if packet.flags & dhcp.BROADCAST_FLAG else "")
    for tag, value in packet.options.items():
        yield from _option(tag, value)


def readable(value: bytes) -> str:
    """Text where it is text, else hexadecimal; a NUL at the end is left out."""
    text = value[:-1] if value.endswith(b"\0") else value
    if text and all(32 <= octet < 127 for octet in text):
        return text.decode("ascii")
    return value.hex() or "empty"


def _option(tag: int, value: bytes) -> Iterator[Field]:
    name = f"{tag} {OPTION_NAMES.get(tag, '')}".rstrip()
    match tag:
        case dhcp.VENDOR_SPECIFIC:
            yield from _encapsulated(name, tag, value, _PXE_NAMES, _PXE_VALUES)
        case dhcp.IPXE:
            yield from _encapsulated(name, tag, value, _IPXE_NAMES, {})
        case _:
            yield name, _value(tag, value)


def _value(tag: int, value: bytes) -> str:
    number = int.from_bytes(value, "big")
    if tag in _ADDRESSES and value and len(value) % 4 == 0:
        return " ".join(dotted(value[at : at + 4]) for at in range(0, len(value), 4))
    if tag in _TEXTS:
        return readable(value)
    if tag in _SECONDS and len(value) == 4:
        return "for ever" if number == 0xFFFFFFFF else f"{number} s"
    match tag, len(value):
        case dhcp.MESSAGE_TYPE, 1:
            return MESSAGE_NAMES.get(number, f"type {number}")
        case dhcp.ARCHITECTURE, size if size and size % 2 == 0:
            codes = (int.from_bytes(value[at : at + 2], "big") for at in range(0, size, 2))
            return ", ".join(f"{code} {ClientArch(code)}" for code in codes)
        case dhcp.CLIENT_UUID, 17:
            return f"type {value[0]}, {value[1:].hex()}"
        case ((dhcp.MAX_SIZE | 13), 2):
            return f"{number} bytes" if tag == dhcp.MAX_SIZE else f"{number} blocks of 512 bytes"
    return readable(value)


def _encapsulated(
    name: str, tag: int, value: bytes, names: Mapping[int, str], values: Mapping[int, Callable[[bytes], str]]
) -> Iterator[Field]:
    yield name, value.hex() or "empty"
    try:
        parts = suboptions(value)
    except WireError as fault:
        yield f"{tag}.?", f"cannot be read: {fault}"
        return
    for sub, content in parts.items():
        try:
            shown = values.get(sub, bytes.hex)(content)
        except (IndexError, ValueError):
            shown = f"{content.hex()} (cannot be read)"
        yield f"{tag}.{sub} {names.get(sub, '')}".rstrip(), shown or "empty"


def control_bits(value: int) -> str:
    """The discovery control byte in words."""
    words = [word for bit, word in enumerate(_CONTROL_BITS) if value & 1 << bit]
    return f"{value:02x} ({', '.join(words) or 'broadcast and multicast allowed'})"


def boot_servers(value: bytes) -> list[tuple[int, list[str]]]:
    """43.8: type and addresses; raises ValueError when it ends too early."""
    found, at = [], 0
    while at < len(value):
        if at + 3 > len(value) or (stop := at + 3 + 4 * value[at + 2]) > len(value):
            raise ValueError("ends too early")
        addresses = [dotted(value[place : place + 4]) for place in range(at + 3, stop, 4)]
        found.append((int.from_bytes(value[at : at + 2], "big"), addresses))
        at = stop
    return found


def menu_items(value: bytes) -> list[tuple[int, str]]:
    """43.9: type and text; raises ValueError when it ends too early."""
    found, at = [], 0
    while at < len(value):
        if at + 3 > len(value) or (stop := at + 3 + value[at + 2]) > len(value):
            raise ValueError("ends too early")
        found.append((int.from_bytes(value[at : at + 2], "big"), readable(value[at + 3 : stop])))
        at = stop
    return found


def _servers(value: bytes) -> str:
    return "; ".join(f"type {kind}: {' '.join(addresses) or 'any'}" for kind, addresses in boot_servers(value))


def _menu(value: bytes) -> str:
    local = " (local boot)"
    return "; ".join(f"{kind}{local if kind == 0 else ''} {text!r}" for kind, text in menu_items(value))


def _prompt(value: bytes) -> str:
    waits = {0: "the first item at once", 255: "waits for ever"}.get(value[0], f"{value[0]} s to press F8")
    return f"{value[0]} ({waits}) {readable(value[1:])!r}"


def _item(value: bytes) -> str:
    if len(value) != 4:
        raise ValueError("four bytes")
    return f"type {int.from_bytes(value[:2], 'big')}, layer {int.from_bytes(value[2:], 'big')}"


_PXE_VALUES: Final[Mapping[int, Callable[[bytes], str]]] = {
    6: lambda value: control_bits(value[0]),
    7: dotted,
    8: _servers,
    9: _menu,
    10: _prompt,
    71: _item,
}
