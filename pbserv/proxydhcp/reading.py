"""What the boot journal shows of a packet: kind, client and options. Pure; never raises, the packets are anybody's."""

from __future__ import annotations

from typing import Final

from pbserv.errors import WireError
from pbserv.journal.steps import DhcpText, glance
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.client import architecture, classify
from pbserv.proxydhcp.outcome import Ignore
from pbserv.proxydhcp.packet import Packet, decode, dotted

_MOST_CLASS: Final = 60  # characters of option 60 that a line has room for
_NAMED: Final = ("ciaddr", "yiaddr", "siaddr", "giaddr")


def text_of(data: bytes) -> DhcpText:
    """See :data:`pbserv.journal.steps.Describe`; broken packets are read as far as :func:`glance` gets."""
    try:
        packet = decode(data)
    except WireError:
        return glance(data)
    kind = packet.message_type
    found = classify(packet.options, packet.chaddr[: packet.hlen])
    arch = architecture(packet.options.get(dhcp.ARCHITECTURE, b""))
    named = packet.options.get(dhcp.VENDOR_CLASS)
    return DhcpText(
        "BOOTP" if kind is None else dhcp.MESSAGE_NAMES.get(kind, f"type {kind}"), packet.xid, packet.secs,
        "" if isinstance(found, Ignore) else found.kind.value, "" if arch is None else str(arch),
        _shown(named)[:_MOST_CLASS] if named else "",
    )  # fmt: skip


def spell(data: bytes) -> tuple[str, ...]:
    """Every header field that says something and every option, in the order of the packet."""
    try:
        packet = decode(data)
    except WireError as fault:
        return (f"broken: {fault}",)
    return (*_header(packet), *(_option(tag, value) for tag, value in packet.options.items()))


def _header(packet: Packet) -> list[str]:
    fields = [
        f"xid {packet.xid:08x}, secs {packet.secs}, flags {packet.flags:04x}, hops {packet.hops}",
        f"chaddr {packet.chaddr[: packet.hlen].hex(':')}",
    ]
    for name in _NAMED:
        address: bytes = getattr(packet, name)
        if address != dhcp.ZERO:
            fields.append(f"{name} {dotted(address)}")
    fields += [f"{name} {_shown(text)}" for name, text in (("sname", packet.sname), ("file", packet.file)) if text]
    return fields


def _option(tag: int, value: bytes) -> str:
    name = f"option {tag}{_NAMES.get(tag, '')}"
    if tag in (dhcp.VENDOR_SPECIFIC, dhcp.IPXE):
        try:
            parts = dhcp.suboptions(value)
        except WireError:
            return f"{name}: {value.hex()}"
        read = _PXE if tag == dhcp.VENDOR_SPECIFIC else {}
        return f"{name}: " + ", ".join(f"{n}={read.get(n, bytes.hex)(part) or '-'}" for n, part in parts.items())
    if tag in _ADDRESSES and len(value) % 4 == 0:
        return f"{name}: " + ", ".join(dotted(value[at : at + 4]) for at in range(0, len(value), 4))
    if tag == dhcp.MESSAGE_TYPE and len(value) == 1:
        return f"{name}: {dhcp.MESSAGE_NAMES.get(value[0], value[0])}"
    if tag == dhcp.ARCHITECTURE and (arch := architecture(value)) is not None:
        return f"{name}: {int(arch)} ({arch})"
    if tag in _NUMBERS:
        return f"{name}: {_number(value)}"
    return f"{name}: {_shown(value)}"


def _servers(value: bytes) -> str:
    """43.8: type, number of addresses, addresses; again and again."""
    found, at = [], 0
    while at + 3 <= len(value) and at + 3 + 4 * value[at + 2] <= len(value):
        end = at + 3 + 4 * value[at + 2]
        found.append(
            f"{_number(value[at : at + 2])} " + " ".join(dotted(value[n : n + 4]) for n in range(at + 3, end, 4))
        )
        at = end
    return f"[{'; '.join(found)}]" if at == len(value) else value.hex()


def _menu(value: bytes) -> str:
    """43.9: type, length, text; again and again."""
    found, at = [], 0
    while at + 3 <= len(value) and at + 3 + value[at + 2] <= len(value):
        end = at + 3 + value[at + 2]
        found.append(f"{_number(value[at : at + 2])} {_shown(value[at + 3 : end])}")
        at = end
    return f"[{'; '.join(found)}]" if at == len(value) else value.hex()


def _prompt(value: bytes) -> str:
    """43.10: seconds, text."""
    return f"[{value[0]} s {_shown(value[1:])}]" if value else ""


def _item(value: bytes) -> str:
    """43.71: type, layer."""
    return f"[type {_number(value[:2])} layer {_number(value[2:])}]" if len(value) == 4 else value.hex()


def _number(value: bytes) -> str:
    return str(int.from_bytes(value, "big"))


def _shown(value: bytes) -> str:
    """Text where it is text, else hexadecimal."""
    text = value.rstrip(b"\0")
    if len(text) > 2 and all(32 <= octet < 127 for octet in text):
        return text.decode("ascii")
    return value.hex() or "(empty)"


_NAMES: Final = {
    1: " subnet mask", 3: " router", 6: " name servers", 12: " host name", 43: " vendor options",
    50: " requested address", 51: " lease time", 53: " message type", 54: " server", 55: " wanted options",
    57: " maximum size", 60: " vendor class", 61: " client identifier", 66: " TFTP server", 67: " boot file",
    77: " user class", 82: " relay agent", 93: " architecture", 94: " network interface", 97: " client UUID",
    175: " iPXE", 209: " configuration file", 210: " path prefix",
}  # fmt: skip
_PXE: Final = {8: _servers, 9: _menu, 10: _prompt, 71: _item}
_ADDRESSES: Final = (1, 3, 6, 50, 54)
_NUMBERS: Final = (51, 57)
