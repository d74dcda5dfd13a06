"""The network, asked as boot clients of two kinds would ask it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from pbserv.doctor.facts import Asked, OfferSeen
from pbserv.errors import PbservError
from pbserv.probe.offer import Offer
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.packet import ZERO, Packet, dotted

KINDS: Final = ("bios", "uefi")
WAIT_S: Final = 4.0


class Answers(Protocol):
    """What one probe heard."""

    @property
    def offers(self) -> Sequence[Offer]: ...


class Ask(Protocol):
    """Ask ``interface`` as a client of ``kind``; blocks for ``wait_s``. Raises PbservError when that cannot be."""

    def __call__(self, interface: str, kind: str, *, wait_s: float = ...) -> Answers: ...


def ask_all(ask: Ask, interfaces: Sequence[str], wait_s: float = WAIT_S) -> tuple[Asked, ...]:
    """Every kind after the other, the interfaces at the same time."""
    if not interfaces:
        return ()
    with ThreadPoolExecutor(len(interfaces), "probe") as pool:
        return tuple(
            asked
            for answers in pool.map(lambda name: [_ask(ask, name, kind, wait_s) for kind in KINDS], interfaces)
            for asked in answers
        )


def _ask(ask: Ask, interface: str, kind: str, wait_s: float) -> Asked:
    try:
        return Asked(interface, kind, tuple(seen(offer) for offer in ask(interface, kind, wait_s=wait_s).offers))
    except PbservError as fault:
        return Asked(interface, kind, fault=str(fault))


def seen(offer: Offer) -> OfferSeen:
    """What the checks want to know of an offer. With an address in it, it is a DHCP server's."""
    packet = offer.packet
    return OfferSeen(
        source=offer.source,
        mac=str(offer.source_mac),
        server_id=_address(packet.options.get(dhcp.SERVER_ID, b"")),
        is_dhcp=offer.is_dhcp,
        is_proxy=not offer.is_dhcp,
        next_server=_address(packet.siaddr),
        file=_text(packet.file),
        vendor_class=_option(packet, dhcp.VENDOR_CLASS),
        tftp_server=_option(packet, dhcp.TFTP_SERVER),
        boot_file=_option(packet, dhcp.BOOT_FILE),
        has_43=dhcp.VENDOR_SPECIFIC in packet.options,
    )


def _address(value: bytes) -> str:
    return dotted(value) if len(value) == 4 and value != ZERO else ""


def _option(packet: Packet, tag: int) -> str:
    return _text(packet.options.get(tag, b""))


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("ascii", "backslashreplace")
