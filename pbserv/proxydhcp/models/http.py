"""UEFI HTTP Boot: NetworkPkg/HttpBootDxe (HttpBootDhcp4.c). Pure.

One rule: the URL comes from an OFFER of the class HTTPClient; there is no port 4011.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models import message
from pbserv.proxydhcp.models.conversation import (
    BROADCAST,
    CLIENT_PORT,
    SERVER_PORT,
    UNSPECIFIED,
    Boot,
    Choice,
    Fails,
    Heard,
    Identity,
    Operator,
    Sent,
)
from pbserv.proxydhcp.models.message import boot_file
from pbserv.proxydhcp.packet import Packet, undotted
from pbserv.types import ClientArch

NO_OFFER: Final = "PXE-E16"
_MOST_BYTES: Final = 1472
_SECS: Final = (0, 4, 12, 28)
_WAITS_S: Final = (4.0, 8.0, 16.0, 32.0)
_DNS: Final = 6
# The byte before 67 and 97 is not initialised: 0x00, 0xcc and 0xeb were seen.
_PARAMETERS: Final = bytes.fromhex("0102030405060c0d0f111216171c28292a2b3233363a3b3c004361")
_URL: Final = re.compile(r"https?://(?P<host>[^/:?#]+)", re.IGNORECASE)
_LITERAL: Final = re.compile(r"\d+\.\d+\.\d+\.\d+")


class OfferKind(enum.Enum):
    """HttpBootParseDhcp4Packet, with and without a name server where that decides."""

    DHCP_ADDRESS_URL = "DHCP, URL with an address"
    DHCP_NAME_URL = "DHCP, URL with a name"
    DHCP_NAME_URL_DNS = "DHCP, URL with a name, DNS"
    DHCP_ONLY = "DHCP only"
    DHCP_DNS = "DHCP only, DNS"
    PROXY_ADDRESS_URL = "proxy, URL with an address"
    PROXY_NAME_URL = "proxy, URL with a name"
    DISCARDED = "discarded"


def classify(packet: Packet) -> OfferKind:
    """The kind of an offer."""
    proxy, dns = not message.gives_address(packet), _DNS in packet.options
    if not packet.options.get(dhcp.VENDOR_CLASS, b"").startswith(b"HTTPClient"):
        if proxy:
            return OfferKind.DISCARDED
        return OfferKind.DHCP_DNS if dns else OfferKind.DHCP_ONLY
    url = _URL.match(boot_file(packet))
    if url is None:
        return OfferKind.DISCARDED
    if _LITERAL.fullmatch(url["host"]):
        return OfferKind.PROXY_ADDRESS_URL if proxy else OfferKind.DHCP_ADDRESS_URL
    if proxy:
        return OfferKind.PROXY_NAME_URL
    return OfferKind.DHCP_NAME_URL_DNS if dns else OfferKind.DHCP_NAME_URL


# HttpBootSelectDhcpOffer: which offer gives the address, and which the URL.
_PREFERENCE: Final = (
    (OfferKind.DHCP_ADDRESS_URL, None),
    (OfferKind.DHCP_NAME_URL_DNS, None),
    (OfferKind.DHCP_ONLY, OfferKind.PROXY_ADDRESS_URL),
    (OfferKind.DHCP_DNS, OfferKind.PROXY_ADDRESS_URL),
    (OfferKind.DHCP_DNS, OfferKind.PROXY_NAME_URL),
    (OfferKind.DHCP_DNS, OfferKind.DHCP_NAME_URL),
)


@dataclass(frozen=True, slots=True)
class Http:
    """UEFI HTTP Boot without a URL in the boot option."""

    name: str = "http"
    arch: int = ClientArch.HTTP_X64
    waits_s: tuple[float, ...] = _WAITS_S

    def discover(self, who: Identity, attempt: int = 0) -> Sent:
        options = [(dhcp.MESSAGE_TYPE, b"\x01"), (dhcp.MAX_SIZE, b"\x05\xc0"), *self._about(who)]
        return self._broadcast(options, who, _SECS[attempt])

    def request(self, lease: Heard, who: Identity) -> Sent:
        options = [
            (dhcp.MESSAGE_TYPE, b"\x03"), (dhcp.SERVER_ID, undotted(message.server_id(lease.packet))),
            (50, lease.packet.yiaddr), (dhcp.MAX_SIZE, b"\x05\xc0"), *self._about(who),
        ]  # fmt: skip
        return self._broadcast(options, who, 0)

    def choose(self, offers: Sequence[Heard], who: Identity = Identity(), operator: Operator = Operator()) -> Choice:
        found: dict[OfferKind, Heard] = {}
        for offer in offers:
            if offer.source_port == SERVER_PORT and offer.size_bytes <= _MOST_BYTES:
                found.setdefault(classify(offer.packet), offer)
        for address, url in _PREFERENCE:
            if address in found and (url is None or url in found):
                source = found[address if url is None else url]
                file = boot_file(source.packet)
                server = _URL.match(file)
                why = f"{(url or address).value}"
                return Boot(server["host"] if server else "", file, why, found[address], protocol="http")
        if not offers:
            return Fails(NO_OFFER, "no offer", again=True)
        if any(message.gives_address(offer.packet) for offer in offers):
            return Fails(NO_OFFER, "nobody offers a URL to the class HTTPClient")
        return Fails(NO_OFFER, "proxy offers, but no address")

    def _about(self, who: Identity) -> list[tuple[int, bytes]]:
        arch = self.arch if who.arch is None else who.arch
        major, minor = who.undi or (3, 0)
        return [
            (55, _PARAMETERS), (dhcp.CLIENT_UUID, b"\0" + (who.uuid or bytes(16))), (94, bytes((1, major, minor))),
            (dhcp.ARCHITECTURE, arch.to_bytes(2, "big")),
            (dhcp.VENDOR_CLASS, f"HTTPClient:Arch:{arch:05d}:UNDI:{major:03d}{minor:03d}".encode()),
        ]  # fmt: skip

    def _broadcast(self, options: Sequence[tuple[int, bytes]], who: Identity, secs: int) -> Sent:
        data = message.write(options, mac=who.mac, xid=who.xid, secs=secs, flags=dhcp.BROADCAST_FLAG)
        return Sent(data, UNSPECIFIED, CLIENT_PORT, BROADCAST, SERVER_PORT)
