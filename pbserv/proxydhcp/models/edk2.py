"""EDK2, OVMF and most UEFI firmware: NetworkPkg/UefiPxeBcDxe (PxeBcDhcp4.c, PxeBcBoot.c, PxeBcImpl.c). Pure.

One rule: an offer without usable option 43 always means a question to port 4011, whatever file it names.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models import message
from pbserv.proxydhcp.models.conversation import (
    BOOT_SERVER_PORT,
    BROADCAST,
    CLIENT_PORT,
    SERVER_PORT,
    UNSPECIFIED,
    Ask,
    Boot,
    Cached,
    Choice,
    Fails,
    Heard,
    Identity,
    LocalDisk,
    Operator,
    Sent,
)
from pbserv.proxydhcp.models.message import PxeOptions, boot_file, next_server, pxe_options
from pbserv.proxydhcp.packet import Packet, dotted, undotted
from pbserv.types import ClientArch

NO_OFFER: Final = "PXE-E16"  # EFI_NO_RESPONSE
TIMEOUT: Final = "PXE-E18"  # EFI_TIMEOUT
CANCELLED: Final = "PXE-E21"  # EFI_ABORTED
TFTP_ERROR: Final = "PXE-E23"  # EFI_TFTP_ERROR
UNEXPECTED: Final = "PXE-E99"

_MOST_BYTES: Final = 1472  # PXEBC_DHCP4_PACKET_MAX_SIZE
_PARAMETERS: Final = bytes.fromhex("0102030405060c0d0f111216171c28292a2b3233363a3b3c4243618081828384858687")
_SECS: Final = (0, 4, 12, 28)  # the time since the first DISCOVER
_WAITS_S: Final = (4.0, 8.0, 16.0, 32.0)
_BOOT_SERVER_WAIT_S: Final = 10.0  # four tries of 1, 2, 3 and 4 s
_REQUEST_XID_STEP: Final = 0x01010101  # the request to 4011 has an xid of its own


class OfferKind(enum.Enum):
    """What EDK2 takes an offer for (PxeBcParseDhcp4Packet)."""

    DHCP_PXE10 = "DHCP and PXE 1.0"
    PROXY_PXE10 = "proxy, PXE 1.0"
    DHCP_BINL = "DHCP and BINL"
    PROXY_BINL = "proxy, BINL"
    DHCP_ONLY = "DHCP only"
    BOOTP = "BOOTP"
    DISCARDED = "discarded"


def classify(packet: Packet) -> OfferKind:
    """The kind of an offer: by yiaddr, the class PXEClient, and which sub-options of option 43 it has."""
    proxy = not message.gives_address(packet)
    options = pxe_options(packet)
    if packet.message_type is None:
        return OfferKind.BOOTP if boot_file(packet) else OfferKind.DISCARDED
    if message.server_id(packet) == UNSPECIFIED:
        return OfferKind.DISCARDED  # Dhcp4Dxe drops offers without option 54
    if options.discovers:
        return OfferKind.PROXY_PXE10 if proxy else OfferKind.DHCP_PXE10
    if options.multicast_download:
        return OfferKind.DISCARDED  # WfM 1.1a, whose multicast download is not supported
    if message.is_pxe(packet):
        return OfferKind.PROXY_BINL if proxy else OfferKind.DHCP_BINL
    return OfferKind.DISCARDED if proxy else OfferKind.DHCP_ONLY


@dataclass(frozen=True, slots=True)
class _Boot:
    """One boot under way: who boots, with which address, and what has been cached."""

    who: Identity
    operator: Operator
    lease: Heard
    cached: Cached

    def fails(self, code: str, why: str) -> Fails:
        return Fails(code, why, self.lease)

    def asks(
        self, sent: Sent, why: str, then: Callable[[Sequence[Heard]], Choice], waits_s: float = _BOOT_SERVER_WAIT_S
    ) -> Ask:
        return Ask(sent, why, waits_s, then, self.lease)


@dataclass(frozen=True, slots=True)
class Edk2:
    """UEFI PXE."""

    name: str = "edk2"
    arch: int = ClientArch.EFI_X64
    waits_s: tuple[float, ...] = _WAITS_S

    def discover(self, who: Identity, attempt: int = 0) -> Sent:
        options = [(dhcp.MESSAGE_TYPE, b"\x01"), (dhcp.MAX_SIZE, b"\x05\xc0"), *self._about(who)]
        data = message.write(options, mac=who.mac, xid=who.xid, secs=_SECS[attempt], flags=dhcp.BROADCAST_FLAG)
        return Sent(data, UNSPECIFIED, CLIENT_PORT, BROADCAST, SERVER_PORT)

    def request(self, lease: Heard, who: Identity) -> Sent:
        options = [
            (dhcp.MESSAGE_TYPE, b"\x03"), (dhcp.SERVER_ID, undotted(message.server_id(lease.packet))),
            (50, lease.packet.yiaddr), (dhcp.MAX_SIZE, b"\xff\x00"), *self._about(who),
        ]  # fmt: skip
        data = message.write(options, mac=who.mac, xid=who.xid, flags=dhcp.BROADCAST_FLAG)
        return Sent(data, UNSPECIFIED, CLIENT_PORT, BROADCAST, SERVER_PORT)

    def choose(self, offers: Sequence[Heard], who: Identity = Identity(), operator: Operator = Operator()) -> Choice:
        """PxeBcSelectDhcp4Offer: the order of preference, then PxeBcHandleDhcp4Offer and PxeBcDiscoverBootFile."""
        found: dict[OfferKind, list[Heard]] = {kind: [] for kind in OfferKind}
        for offer in offers:
            # Dhcp4Impl.c configures its port 68 for the remote port 67; longer packets are ignored.
            if offer.source_port == SERVER_PORT and offer.size_bytes <= _MOST_BYTES:
                found[classify(offer.packet)].append(offer)

        def boot(lease: Heard, proxy: Packet | None = None) -> _Boot:
            return _Boot(who, operator, lease, Cached(lease.packet, proxy))

        only = found[OfferKind.DHCP_ONLY]
        if found[OfferKind.DHCP_PXE10]:
            lease = found[OfferKind.DHCP_PXE10][0]
            return self._pxe10(boot(lease), lease.packet)
        if only and found[OfferKind.PROXY_PXE10]:
            proxy = found[OfferKind.PROXY_PXE10][0]  # of several only the first is kept
            return self._pxe10(boot(only[0], proxy.packet), proxy.packet)
        if found[OfferKind.DHCP_BINL]:
            lease = found[OfferKind.DHCP_BINL][0]
            return self._binl(boot(lease), [lease])
        if only and found[OfferKind.PROXY_BINL]:
            return self._binl(boot(only[0]), found[OfferKind.PROXY_BINL])
        for lease in (*only, *found[OfferKind.BOOTP]):
            if boot_file(lease.packet):
                return self._fetch(boot(lease), lease.packet, "the DHCP server names a file, and there is no proxy")
        return self._no_offer(offers)

    def _no_offer(self, offers: Sequence[Heard]) -> Fails:
        if not offers:
            return Fails(NO_OFFER, "no offer", again=True)
        if not any(message.gives_address(offer.packet) for offer in offers):
            return Fails(NO_OFFER, "proxy offers, but no address")
        kinds = ", ".join(sorted({classify(offer.packet).value for offer in offers}))
        return Fails(NO_OFFER, f"no usable combination among the offers ({kinds})")

    def _about(self, who: Identity) -> list[tuple[int, bytes]]:
        """55, 97, 94, 93, 60 as DISCOVER and REQUEST have them."""
        arch = self.arch if who.arch is None else who.arch
        major, minor = who.undi or (3, 0)
        identifier = b"\0" + (who.uuid or bytes(16))
        return [
            (55, _PARAMETERS), (dhcp.CLIENT_UUID, identifier), (94, bytes((1, major, minor))),
            (dhcp.ARCHITECTURE, arch.to_bytes(2, "big")),
            (dhcp.VENDOR_CLASS, f"PXEClient:Arch:{arch:05d}:UNDI:{major:03d}{minor:03d}".encode()),
        ]  # fmt: skip

    def _to_boot_server(self, boot: _Boot, destination: str, item: int | None = None) -> Sent:
        """PxeBcDhcp4Discover: options by number, no 50 or 54, from port 4011; a broadcast goes from 68 to 67."""
        options = [(dhcp.MESSAGE_TYPE, b"\x03"), (dhcp.MAX_SIZE, b"\x05\xc0"), *self._about(boot.who)]
        if item is not None:
            options.append((dhcp.VENDOR_SPECIFIC, message.boot_item(item)))
        wide = destination == BROADCAST
        address = dotted(boot.lease.packet.yiaddr)
        data = message.write(
            sorted(options), mac=boot.who.mac, xid=(boot.who.xid + _REQUEST_XID_STEP) & 0xFFFFFFFF,
            flags=dhcp.BROADCAST_FLAG if wide else 0, ciaddr=address,
        )  # fmt: skip
        port = CLIENT_PORT if wide else BOOT_SERVER_PORT
        return Sent(data, address, port, destination, SERVER_PORT if wide else BOOT_SERVER_PORT)

    def _binl(self, boot: _Boot, servers: Sequence[Heard]) -> Choice:
        """PxeBcRetryBinlOffer, for each BINL offer in turn."""
        if not servers:
            return boot.fails(NO_OFFER, "nobody answers on port 4011")
        address = next_server(servers[0].packet)
        if address == UNSPECIFIED:
            return self._binl(boot, servers[1:])

        def after(replies: Sequence[Heard]) -> Choice:
            for reply in replies:
                if reply.port != BOOT_SERVER_PORT or reply.size_bytes > _MOST_BYTES:
                    continue
                again = replace(boot, cached=replace(boot.cached, proxy_offer=reply.packet))
                # Its type is not looked at; a yiaddr in it would make it a DHCP offer and no proxy's.
                if classify(reply.packet) is OfferKind.PROXY_PXE10:
                    return self._pxe10(again, reply.packet)
                if boot_file(reply.packet):
                    return self._fetch(again, reply.packet, "the answer on port 4011 names the file")
                break
            return self._binl(boot, servers[1:])

        why = "an offer without option 43 is BINL, which means a second question"
        return boot.asks(self._to_boot_server(boot, address), why, after)

    def _pxe10(self, boot: _Boot, offer: Packet) -> Choice:
        """PxeBcSelectBootPrompt and PxeBcSelectBootMenu."""
        options = pxe_options(offer)
        if options.control & message.JUST_BOOT:
            if not boot_file(offer):
                return boot.fails(UNEXPECTED, "43.6 says just boot the file, and no file is named")
            return self._fetch(boot, offer, "43.6 says just boot the file")
        if not options.menu:
            return boot.fails(CANCELLED, "43.6 asks for discovery and there is no menu to take a type from")
        shown = options.timeout_s == message.MENU_WAITS or (options.timeout_s and boot.operator.presses_menu_key)
        if shown and boot.operator.picks is None:
            return boot.fails(CANCELLED, "the menu waits for a key")
        picked = min(boot.operator.picks or 0, len(options.menu) - 1) if shown else 0
        type_ = options.menu[picked][0]
        if type_ == 0:
            return LocalDisk("the item has type 0, which aborts the network boot", boot.lease, CANCELLED)
        return self._discover_server(boot, options, type_)

    def _discover_server(self, boot: _Boot, options: PxeOptions, type_: int) -> Choice:
        """EfiPxeBcDiscover: multicast if allowed, else broadcast if allowed, else the listed servers in turn."""
        listed = options.addresses(type_)
        if options.servers and not any(kind == type_ for kind, _ in options.servers):
            return boot.fails(UNEXPECTED, f"43.8 lists no server of type {type_}")
        strict = bool(options.control & message.LISTED_SERVERS_ONLY)
        if strict and not listed:
            return boot.fails(UNEXPECTED, "43.6 allows listed servers only, and none is listed")
        if not options.control & message.NO_MULTICAST:
            if options.multicast is None:
                return boot.fails(TIMEOUT, "43.6 allows multicast and there is no 43.7: it asks 0.0.0.0")
            return self._ask_server(boot, [options.multicast], type_, listed if strict else ())
        if not options.control & message.NO_BROADCAST:
            return self._ask_server(boot, [BROADCAST], type_, listed if strict else ())
        if not listed:
            return boot.fails(UNEXPECTED, "43.6 allows no way to find a boot server")
        return self._ask_server(boot, listed, type_, listed if strict else ())

    def _ask_server(self, boot: _Boot, servers: Sequence[str], type_: int, accepted: Sequence[str]) -> Choice:
        if not servers:
            return boot.fails(TIMEOUT, "no boot server answers")

        def after(replies: Sequence[Heard]) -> Choice:
            own = CLIENT_PORT if servers[0] == BROADCAST else BOOT_SERVER_PORT
            for reply in replies:
                # With bit 2 the reply's siaddr must be in the list.
                if reply.port != own or (accepted and dotted(reply.packet.siaddr) not in accepted):
                    continue
                offer = boot.cached.proxy_offer or reply.packet  # copied for loaders that look only there
                again = replace(boot, cached=replace(boot.cached, proxy_offer=offer, pxe_reply=reply.packet))
                return self._fetch(again, reply.packet, f"the boot server of type {type_} names the file")
            return self._ask_server(boot, servers[1:], type_, accepted)

        return boot.asks(self._to_boot_server(boot, servers[0], type_), f"the boot server of type {type_}", after)

    def _fetch(self, boot: _Boot, source: Packet, why: str) -> Choice:
        """PxeBcDhcp4BootInfo: with bit 3 the first server of 43.8, else siaddr, else option 54."""
        options, file = pxe_options(source), boot_file(source)
        if not file:
            return boot.fails(UNEXPECTED, "the last answer names no file")
        if "://" in file:  # capture BZ-880: TFTP is asked for a file of this name
            return boot.fails(TFTP_ERROR, f"takes the URL {file} for the name of a TFTP file")
        server = next_server(source)
        if options.control & message.JUST_BOOT and options.servers and options.servers[0][1]:
            server = options.servers[0][1][0]
        return Boot(server, file, why, boot.lease, boot.cached)
