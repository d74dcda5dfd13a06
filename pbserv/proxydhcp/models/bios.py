"""The Intel boot agent and ROMs of its family (PXE 2.1 on a BIOS). Pure.

Their source is closed: what is here comes from captures (ASRock, Hyper-V, HP) and from servers that they are known to
boot from (netboot pixiecore/dhcp.go, staticdhcpd#3). Where offers compete, the order of EDK2 is taken, which
implements the same specification; that is an inference.

One rule: a proxy offer needs option 43 with discovery control, otherwise port 4011 must answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

NO_OFFERS: Final = "PXE-E51"
NO_DHCP_OFFER: Final = "PXE-E52"
NO_FILE: Final = "PXE-E53"
NO_BOOT_SERVER: Final = "PXE-E55"
TFTP_OPEN: Final = "PXE-E32"
BAD_SERVER_LIST: Final = "PXE-E77"
NO_TYPED_SERVER: Final = "PXE-E78"

_PARAMETERS: Final = bytes.fromhex("0102030405060b0c0d0f10111216171c28292a2b3233363a3b3c42438081828384858687")
_SECS: Final = (4, 8, 12, 28)
_WAITS_S: Final = (4.0, 8.0, 16.0, 32.0)
_BOOT_SERVER_WAIT_S: Final = 7.0  # the specification's time for port 4011 (ipxe config/dhcp.h)
_BYTES: Final = 548
_DEFAULT_GROUP: Final = "224.0.1.2"  # PXE 2.1: where 43.7 names none


@dataclass(frozen=True, slots=True)
class Bios:
    """An Intel boot agent."""

    name: str = "bios"
    arch: int = ClientArch.BIOS
    waits_s: tuple[float, ...] = _WAITS_S

    def discover(self, who: Identity, attempt: int = 0) -> Sent:
        data = self._message([(dhcp.MESSAGE_TYPE, b"\x01")], who, attempt, flags=dhcp.BROADCAST_FLAG)
        return Sent(data, UNSPECIFIED, CLIENT_PORT, BROADCAST, SERVER_PORT)

    def request(self, lease: Heard, who: Identity) -> Sent:
        options = [
            (dhcp.MESSAGE_TYPE, b"\x03"), (50, lease.packet.yiaddr),
            (dhcp.SERVER_ID, undotted(message.server_id(lease.packet))),
        ]  # fmt: skip
        data = self._message(options, who, 0, flags=dhcp.BROADCAST_FLAG)
        return Sent(data, UNSPECIFIED, CLIENT_PORT, BROADCAST, SERVER_PORT)

    def choose(self, offers: Sequence[Heard], who: Identity = Identity(), operator: Operator = Operator()) -> Choice:
        known = [offer for offer in offers if offer.source_port == SERVER_PORT]
        leases = [offer for offer in known if message.gives_address(offer.packet)]
        proxies = [o for o in known if not message.gives_address(o.packet) and message.is_pxe(o.packet)]
        if not leases:
            code, why = (NO_DHCP_OFFER, "proxy offers, but no address") if proxies else (NO_OFFERS, "no offer")
            return Fails(code, why, again=True)
        plain = next((offer for offer in leases if not message.is_pxe(offer.packet)), None)
        controlled = [offer for offer in proxies if pxe_options(offer.packet).discovers]
        own = next((offer for offer in leases if message.is_pxe(offer.packet)), None)
        if own is not None and pxe_options(own.packet).discovers:
            return self._discovery(own, own.packet, who, operator)
        if plain is not None and controlled:
            return self._discovery(plain, controlled[0].packet, who, operator)
        if own is not None:
            return self._ask(own, [next_server(own.packet)], who, operator, None)
        if plain is not None and proxies:
            servers = [next_server(offer.packet) for offer in proxies]
            return self._ask(plain, servers, who, operator, None)
        lease = next((offer for offer in leases if boot_file(offer.packet)), leases[0])
        return self._fetch(lease, lease.packet, "the DHCP server names it, and there is no proxy")

    def _discovery(self, lease: Heard, offer: Packet, who: Identity, operator: Operator) -> Choice:
        """Bit 3 of 43.6 and a file: boots it. Otherwise the menu, its prompt and its boot servers."""
        options = pxe_options(offer)
        if options.control & message.JUST_BOOT and boot_file(offer):
            return self._fetch(lease, offer, "43.6 says just boot the file")
        if not options.menu:
            if boot_file(offer):
                return self._fetch(lease, offer, "no menu, but a file")
            return Fails(NO_FILE, "no menu and no file", lease)
        waits = options.timeout_s is None or options.timeout_s == message.MENU_WAITS
        shown = waits or (options.timeout_s and operator.presses_menu_key)
        if shown and operator.picks is None:
            return Fails("", "the menu waits for a key", lease)
        picked = min(operator.picks or 0, len(options.menu) - 1) if shown else 0
        type_ = options.menu[picked][0]
        if type_ == 0:
            return LocalDisk("the item has type 0, the local disk", lease)
        return self._boot_server(lease, options, type_, who, operator)

    def _boot_server(self, lease: Heard, options: PxeOptions, type_: int, who: Identity, operator: Operator) -> Choice:
        servers: list[str] = []
        if not options.control & message.NO_MULTICAST:
            servers.append(options.multicast or _DEFAULT_GROUP)
        if not options.control & message.NO_BROADCAST:
            servers.append(BROADCAST)
        servers.extend(options.addresses(type_))
        if not servers:
            return Fails(BAD_SERVER_LIST, f"no way to find a boot server of type {type_}", lease)
        accepted = options.addresses(type_) if options.control & message.LISTED_SERVERS_ONLY else None
        return self._ask(lease, servers, who, operator, type_, accepted)

    def _ask(
        self,
        lease: Heard,
        servers: Sequence[str],
        who: Identity,
        operator: Operator,
        type_: int | None,
        accepted: Sequence[str] | None = None,
    ) -> Choice:
        """REQUEST to port 4011 of each server in turn, from port 68, where the answer is expected too."""
        if not servers:
            if type_ is None:
                return Fails(NO_BOOT_SERVER, "nobody answers on port 4011", lease)
            return Fails(NO_TYPED_SERVER, f"no boot server of type {type_} answers", lease)

        def after(replies: Sequence[Heard]) -> Choice:
            for reply in replies:
                if reply.port != CLIENT_PORT or reply.packet.message_type != dhcp.ACK:
                    continue
                if accepted is not None and message.server_id(reply.packet) not in accepted:
                    continue
                if type_ is None and pxe_options(reply.packet).discovers:
                    return self._discovery(lease, reply.packet, who, operator)
                return self._fetch(lease, reply.packet, "the answer on port 4011 names it")
            return self._ask(lease, servers[1:], who, operator, type_, accepted)

        options = [(dhcp.MESSAGE_TYPE, b"\x03")]
        if type_ is not None:
            options.append((dhcp.VENDOR_SPECIFIC, message.boot_item(type_)))
        address = dotted(lease.packet.yiaddr)
        data = self._message(options, who, 0, ciaddr=address)
        port = SERVER_PORT if servers[0] == BROADCAST else BOOT_SERVER_PORT
        why = "the offer has no discovery control" if type_ is None else f"the boot server of type {type_}"
        return Ask(Sent(data, address, CLIENT_PORT, servers[0], port), why, _BOOT_SERVER_WAIT_S, after, lease)

    def _fetch(self, lease: Heard, source: Packet, why: str) -> Choice:
        file = boot_file(source)
        if not file:
            return Fails(NO_FILE, "nobody names a boot file", lease)
        if "://" in file:
            return Fails(TFTP_OPEN, f"takes the URL {file} for the name of a TFTP file", lease)
        return Boot(next_server(source), file, why, lease)

    def _message(
        self,
        first: Sequence[tuple[int, bytes]],
        who: Identity,
        attempt: int,
        *,
        ciaddr: str = UNSPECIFIED,
        flags: int = 0,
    ) -> bytes:
        """53, 55, 57, 97, 93, 94, 60. The xid: the last four bytes of the MAC address, the try added to the first."""
        arch = self.arch if who.arch is None else who.arch
        major, minor = who.undi or (2, 1)
        last = who.mac.octets[2:]
        options = [
            *first, (55, _PARAMETERS), (dhcp.MAX_SIZE, b"\x04\xec"),
            (dhcp.CLIENT_UUID, b"\0" + (who.uuid or bytes(16))), (dhcp.ARCHITECTURE, arch.to_bytes(2, "big")),
            (94, bytes((1, major, minor))),
            (dhcp.VENDOR_CLASS, f"PXEClient:Arch:{arch:05d}:UNDI:{major:03d}{minor:03d}".encode()),
        ]  # fmt: skip
        xid = int.from_bytes(bytes(((last[0] + attempt + 1) & 0xFF,)) + last[1:], "big")
        return message.write(
            options, mac=who.mac, xid=xid, secs=_SECS[attempt], flags=flags, ciaddr=ciaddr, least_bytes=_BYTES
        )
