"""What an answer is worth to one kind of firmware: which rules of the wire it breaks, and what follows. Pure.

One rule: a finding names the client that minds. An answer that one firmware drops may boot another.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from pbserv.probe.explain import boot_servers, menu_items
from pbserv.probe.firmware import Firmware, firmware_of
from pbserv.probe.offer import (
    BOOT_MENU,
    BOOT_SERVERS,
    DISCOVERY_CONTROL,
    JUST_FILE,
    MENU_PROMPT,
    NO_MULTICAST,
    Offer,
    raw_options,
)
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.client import HTTP_CLASS, PXE_CLASS
from pbserv.proxydhcp.packet import ZERO, dotted

_BROADCAST: Final = "255.255.255.255"
_EDK2: Final = frozenset(("edk2", "http"))
_PXE10: Final = range(6, 11)
_LINE: Final = 70
_PI_TEXT: Final = b"Raspberry Pi Boot"
_PI_DOC: Final = "Raspberry Pi documentation"
_DHCP_C: Final = "EDK2 PxeBcDhcp4.c"
_BOOT_C: Final = "EDK2 PxeBcBoot.c"
_HTTP_C: Final = "EDK2 HttpBootDhcp4.c"


class Severity(enum.Enum):
    """``error``: this firmware cannot use the answer. ``warning``: others cannot, or not always."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about an answer. ``source`` is where the rule is from."""

    severity: Severity
    what: str
    source: str


Rule = Callable[[Offer, Firmware], Iterator[Finding]]


def judge(offer: Offer, kind: str) -> tuple[Finding, ...]:
    """All findings about an answer to a firmware of this kind, the gravest first; raises UsageError for the kind."""
    firmware = firmware_of(kind)
    found = [finding for rule in _RULES for finding in rule(offer, firmware)]
    return tuple(sorted(found, key=lambda finding: list(Severity).index(finding.severity)))


def usable(findings: tuple[Finding, ...]) -> bool:
    """Whether nothing stops this firmware from using the answer."""
    return all(finding.severity is not Severity.ERROR for finding in findings)


def _error(what: str, source: str) -> Finding:
    return Finding(Severity.ERROR, what, source)


def _warning(what: str, source: str) -> Finding:
    return Finding(Severity.WARNING, what, source)


def _note(what: str, source: str) -> Finding:
    return Finding(Severity.NOTE, what, source)


def _grave(severe: bool, what: str, source: str) -> Finding:
    return _error(what, source) if severe else _warning(what, source)


def _message(offer: Offer, firmware: Firmware) -> Iterator[Finding]:
    kind = offer.packet.message_type
    if offer.asked == 4011:
        if kind != dhcp.ACK:
            yield _warning(f"answers on port 4011 with {_name(kind)} instead of ACK", "PXE 2.1 proxyDHCP")
        if offer.is_dhcp:
            yield _warning("has yiaddr in an answer from port 4011: EDK2 takes it for a DHCP offer", _DHCP_C)
    elif kind is None:
        yield _note("is BOOTP: it has no message type", "RFC 951")
    elif kind != dhcp.OFFER:
        yield _error(f"answers a DISCOVER with {_name(kind)} instead of OFFER", "RFC 2131 3.1")


def _name(kind: int | None) -> str:
    return "BOOTP" if kind is None else dhcp.MESSAGE_NAMES.get(kind, f"type {kind}")


def _ports(offer: Offer, firmware: Firmware) -> Iterator[Finding]:
    listens = 4011 if offer.asked == 4011 and firmware.model == "edk2" else 68
    if offer.port != listens:
        yield _error(f"was sent to port {offer.port}; this firmware asked from {listens} and hears there", _DHCP_C)
    if offer.source_port == offer.asked:
        return
    severe = firmware.model == "ipxe" or (offer.asked == 67 and firmware.model in _EDK2)
    who = "iPXE and EDK2 drop" if offer.asked == 67 else "iPXE drops"
    yield _grave(severe, f"comes from port {offer.source_port}, not {offer.asked}: {who} it", "iPXE dhcp.c")


def _server(offer: Offer, firmware: Firmware) -> Iterator[Finding]:
    value = offer.packet.options.get(dhcp.SERVER_ID)
    if value is None:
        yield _error("option 54 (server identifier) is missing: EDK2 drops such offers", "RFC 2131 table 3")
    elif len(value) != 4 or not any(value):
        yield _error(f"option 54 (server identifier) is {value.hex() or 'empty'}", "RFC 2132 9.7")


def _class(offer: Offer, firmware: Firmware) -> Iterator[Finding]:
    wanted = HTTP_CLASS if firmware.http else PXE_CLASS
    found = offer.boot_class
    if found is not None and found != wanted:
        yield _error(
            f"is of class {found.decode()}, the client of class {wanted.decode()}: classes must not be mixed",
            "EDK2 BZ 880",
        )
    elif found is None and not offer.is_dhcp:
        what = "option 60 is missing, so it is no proxy offer to anybody"
        value = offer.packet.options.get(dhcp.VENDOR_CLASS)
        if value is not None:
            what = f"option 60 is {value[:32].decode('ascii', 'backslashreplace')!r} and not {wanted.decode()}"
        yield _error(what, "PXE 2.1, RFC 4578")
    elif found is None and firmware.http and offer.file:
        yield _error("option 60 is not HTTPClient: HTTP Boot takes the address and drops the URI", _HTTP_C)


def _uuid(offer: Offer, firmware: Firmware) -> Iterator[Finding]:
    if offer.is_proxy and firmware.model != "uboot" and dhcp.CLIENT_UUID not in offer.packet.options:
        yield _note("option 97 (UUID) is not repeated, which some ROMs compare", "RFC 4578 2.3")


def _size(offer: Offer, firmware: Firmware) -> Iterator[Finding]:
    size = len(offer.data)
    if size < dhcp.LEAST_BYTES:
        yield _warning(f"has {size} bytes; BOOTP has at least {dhcp.LEAST_BYTES}", "RFC 1542 2.1")
    if size > dhcp.MOST_BYTES:
        severe = firmware.model in _EDK2
        yield _grave(severe, f"has {size} bytes; EDK2 ignores what is above {dhcp.MOST_BYTES}", "EDK2 PxeBcDhcp4.h")
    elif size > max(firmware.limit, dhcp.LEAST_LIMIT):
        yield _error(f"has {size} bytes; the client said that it takes {firmware.limit}", "RFC 2132 9.10")


def _framing(offer: Offer, firmware: Firmware) -> Iterator[Finding]:
    raw = raw_options(offer.data)
    tags = [tag for tag, _ in raw]
    if dhcp.OVERLOAD in tags:
        severe = firmware.model == "edk2" and not offer.packet.options.get(dhcp.BOOT_FILE)
        yield _grave(severe, "option 52 (overload) is used: EDK2 then takes no file name from the header", _DHCP_C)
    for tag in (dhcp.VENDOR_SPECIFIC, dhcp.BOOT_FILE):
        if tags.count(tag) > 1:
            severe = firmware.model in ("edk2", "ipxe", "http")
            yield _grave(severe, f"option {tag} is split: EDK2 and iPXE read its first piece", "EDK2, iPXE dhcp.c")
    value = dict(raw).get(dhcp.BOOT_FILE)
    if value is not None and not value.endswith(b"\0"):
        last = tags[-1] == dhcp.BOOT_FILE
        what = "option 67 does not end with NUL: EDK2 writes one behind it"
        if last:
            yield _note(f"{what}, which does no harm at the end", _DHCP_C)
        else:
            behind = tags[tags.index(dhcp.BOOT_FILE) + 1]
            yield _grave(firmware.model == "edk2", f"{what}, over the option that follows ({behind})", _DHCP_C)


def _way(offer: Offer, firmware: Firmware) -> Iterator[Finding]:
    packet = offer.packet
    if not offer.is_dhcp and packet.ciaddr == ZERO and offer.destination != _BROADCAST:
        yield _error(f"went to {offer.destination}: a client without an address hears only broadcasts", "RFC 2131 4.1")
    if offer.asked == 67 and offer.seconds > firmware.patience_s:
        late = f"came after {offer.seconds:.1f} s; this firmware waits {firmware.patience_s:g} s"
        if firmware.model != "ipxe":
            yield _warning(f"{late} and then asks again", "the client's timer")
        elif not offer.is_dhcp:
            yield _error(f"{late} for a proxy", "iPXE config/dhcp.h")


def _file(offer: Offer, firmware: Firmware) -> Iterator[Finding]:
    """Who names a file must name it where small loaders look: in the header, with siaddr (RFC 2131 table 1)."""
    packet, file = offer.packet, offer.file
    if not file or firmware.http:
        return
    if packet.siaddr == ZERO:
        severe = firmware.model in ("ipxe", "raspberrypi")
        yield _grave(
            severe, "names a file and no siaddr: iPXE, shim, GRUB and Raspberry Pi read that field", "iPXE dhcp.c"
        )
    if not packet.file and firmware.model != "ipxe":
        yield _warning("names the file in option 67 only: shim and GRUB read the header", "shim netboot.c")
    if "://" in file and firmware.model != "ipxe":
        yield _error("names a URL: this firmware asks TFTP for a file of that name", "EDK2 BZ 880")
    name = packet.options.get(dhcp.TFTP_SERVER, b"").rstrip(b"\0").decode("ascii", "replace")
    if name and not _is_address(name):
        yield _warning(f"option 66 is the host name {name}: ROMs look up no names, siaddr counts", "RFC 2132 9.4")


def _uri(offer: Offer, firmware: Firmware) -> Iterator[Finding]:
    if not firmware.http or offer.boot_class != HTTP_CLASS:
        return
    try:
        parts = urlsplit(offer.file)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not host:
        yield _error(f"names no URI of HTTP ({offer.file or 'no file'}): HTTP Boot drops it", _HTTP_C)
    elif not _is_address(host):
        yield _grave(
            not offer.is_dhcp,
            f"its URI has the host name {host}; without DNS only an address works",
            _HTTP_C,
        )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _vendor(offer: Offer, firmware: Firmware) -> Iterator[Finding]:
    """Option 43 as PXE clients read it: sub-options 6 to 10 make it a PXE 1.0 offer, without them it is BINL."""
    if offer.boot_class != PXE_CLASS or firmware.model in ("http", "uboot"):
        return
    value = offer.packet.options.get(dhcp.VENDOR_SPECIFIC)
    parts = offer.vendor
    if value is not None and parts is None:
        yield _error("option 43 cannot be read as sub-options", "PXE 2.1, RFC 2132 8.4")
        return
    if parts is None or not any(tag in _PXE10 for tag in parts):
        yield from _no_discovery(offer, firmware, parts or {})
        return
    control = parts.get(DISCOVERY_CONTROL, b"\0")
    if len(control) != 1:
        yield _error(f"43.6 (discovery control) has {len(control)} bytes instead of one", "PXE 2.1")
        return
    yield from _control(offer, firmware, parts, control[0])
    yield from _menu(firmware, parts)


def _no_discovery(offer: Offer, firmware: Firmware, parts: dict[int, bytes]) -> Iterator[Finding]:
    if all(tag in parts for tag in range(1, 6)):
        yield _grave(firmware.model == "edk2", "is a WfM 1.1a offer (43.1 to 43.5): EDK2 discards it", _DHCP_C)
    elif firmware.model == "edk2" and offer.asked == 67:
        asked = dotted(offer.packet.siaddr) if offer.packet.siaddr != ZERO else offer.server
        yield _note(f"has no option 43 (BINL): EDK2 asks {asked} on port 4011 and needs an answer", _DHCP_C)
    elif firmware.model == "bios" and offer.asked == 67:
        yield _note("has no discovery control in option 43: Intel ROMs ask port 4011 (PXE-E55)", "staticdhcpd#3")
    elif firmware.model == "raspberrypi":
        yield _error("has no option 43 with the Raspberry Pi menu", _PI_DOC)


def _control(offer: Offer, firmware: Firmware, parts: dict[int, bytes], control: int) -> Iterator[Finding]:
    uefi = firmware.model == "edk2"
    if firmware.model == "raspberrypi":
        yield from _pi_menu(parts)
        return
    if control & JUST_FILE and not offer.file:
        yield _error("43.6 says to boot the named file (bit 3), and no file is named", _BOOT_C)
    if not control & JUST_FILE and BOOT_MENU not in parts:
        yield _grave(uefi, "43.6 does not say to boot the file (bit 3), and there is no menu: EDK2 aborts", _BOOT_C)
    if not control & NO_MULTICAST and not control & JUST_FILE:
        severe = uefi and 7 not in parts
        yield _grave(severe, "43.6 lacks bit 1 (no multicast): EDK2 without 43.7 asks 0.0.0.0 and fails", _BOOT_C)


def _pi_menu(parts: dict[int, bytes]) -> Iterator[Finding]:
    lines = parts.get(BOOT_MENU, b"")
    if _PI_TEXT not in lines:
        yield _error("its menu (43.9) has no entry 'Raspberry Pi Boot'", _PI_DOC)
    elif _PI_TEXT.ljust(20) not in lines:
        yield _error("'Raspberry Pi Boot' lacks three spaces behind it, which the ROM of a Pi 3 wants", "rpi-eeprom#60")
    if MENU_PROMPT not in parts:
        yield _error("has no menu prompt (43.10)", _PI_DOC)


def _menu(firmware: Firmware, parts: dict[int, bytes]) -> Iterator[Finding]:
    try:
        servers = boot_servers(parts.get(BOOT_SERVERS, b""))
    except ValueError:
        yield _error("43.8 (boot servers) cannot be read", "PXE 2.1")
        return
    try:
        items = menu_items(parts.get(BOOT_MENU, b""))
    except ValueError:
        yield _error("43.9 (menu) cannot be read", "PXE 2.1")
        return
    if not items:
        return
    known = {kind for kind, _ in servers}
    for kind, text in items:
        if len(text) > _LINE:
            yield _note(f"menu line {text[:20]!r}... is cut at {_LINE} characters", _BOOT_C)
        if kind and servers and kind not in known:
            yield _warning(f"menu line {text!r} has type {kind}, for which 43.8 lists no server", "PXE 2.1")
    prompt = parts.get(MENU_PROMPT, b"\0")[:1]
    if items[0][0] == 0 and firmware.model == "edk2" and prompt != b"\xff":
        yield _note("its first menu line is local boot: EDK2 ends the network boot with PXE-E21", _BOOT_C)


def _uboot(offer: Offer, firmware: Firmware) -> Iterator[Finding]:
    if firmware.model == "uboot" and not offer.is_dhcp:
        yield _error(
            "is a proxy offer: U-Boot takes none, unless built with CONFIG_SERVERIP_FROM_PROXYDHCP",
            "U-Boot cmd/Kconfig",
        )


def _address(offer: Offer, firmware: Firmware) -> Iterator[Finding]:
    if offer.is_dhcp and offer.boot_class == PXE_CLASS and firmware.model == "edk2" and offer.asked == 67:
        yield _warning("is an address and PXEClient in one: it comes before most other proxies", _DHCP_C)
    if offer.packet.giaddr != ZERO:
        yield _note(f"came through the relay {dotted(offer.packet.giaddr)}", "RFC 1542")


_RULES: Final[tuple[Rule, ...]] = (
    _message, _ports, _server, _class, _uboot, _uuid, _size, _framing, _way, _file, _uri, _vendor, _address,
)  # fmt: skip
