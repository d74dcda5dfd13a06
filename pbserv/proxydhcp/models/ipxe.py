"""iPXE: src/net/udp/dhcp.c, src/usr/autoboot.c, src/usr/pxemenu.c, src/core/settings.c. Pure.

One rule: it waits for nobody. DISCOVER ends with one DHCP offer and one proxy offer in hand, or two seconds after the
DHCP offer; a boot server has two seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pbserv.errors import WireError
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
from pbserv.proxydhcp.models.message import boot_file, pxe_options
from pbserv.proxydhcp.packet import Packet, dotted, undotted
from pbserv.types import ClientArch

NO_CONFIGURATION: Final = "iPXE 040ee119"
NOTHING_TO_BOOT: Final = "iPXE 2d03e13b"

PROXY_WAIT_S: Final = 2.0  # DHCP_DISC_PROXY_TIMEOUT_SEC, DHCP_REQ_PROXY_TIMEOUT_SEC; the specification says 11 and 7
_BOOT_SERVER_WAIT_S: Final = 3.0  # PXEBS_MAX_TIMEOUT_SEC, for each server
_PARAMETERS: Final = bytes.fromhex("010306070c0f111a2b3c4243778081828384858687afcb")
_FEATURES_BIOS: Final = bytes.fromhex(
    "b105011af41000eb03010000170101220101130101110101270101190101290101100102210101150101180101120101"
)
_FEATURES_EFI: Final = bytes.fromhex("b105011af41000eb030100001701012401011301011101012701012901011501011b0101120101")
_SECS_REQUEST: Final = 11  # as recorded
_SECS_PROXY: Final = 15
_NO_PROXY: Final = 176
_PRIORITY: Final = 1


@dataclass(frozen=True, slots=True)
class _Offers:
    """What DISCOVER ended with."""

    lease: Heard | None
    proxy: Heard | None


@dataclass(frozen=True, slots=True)
class Ipxe:
    """iPXE as a network card's ROM, or chain-loaded: ``itself`` is then the file that it was loaded as.

    ``bare``: on the firmware's UNDI driver (undionly.kpxe) its class is the word PXEClient alone (measured).
    """

    name: str = "ipxe"
    arch: int = ClientArch.BIOS
    waits_s: tuple[float, ...] = (10.0, 10.0)
    itself: str = ""
    bare: bool = False

    def discover(self, who: Identity, attempt: int = 0) -> Sent:
        data = self._message(1, who, secs=4 * (attempt + 1))
        return Sent(data, UNSPECIFIED, CLIENT_PORT, BROADCAST, SERVER_PORT)

    def request(self, lease: Heard, who: Identity) -> Sent:
        chosen = [(dhcp.SERVER_ID, undotted(message.server_id(lease.packet))), (50, lease.packet.yiaddr)]
        data = self._message(3, who, chosen, secs=_SECS_REQUEST)
        return Sent(data, UNSPECIFIED, CLIENT_PORT, BROADCAST, SERVER_PORT)

    def choose(self, offers: Sequence[Heard], who: Identity = Identity(), operator: Operator = Operator()) -> Choice:
        """dhcp_discovery_rx and dhcp_request_rx, then netboot()."""
        found = _collect(offers)
        if found.lease is None:
            why = "proxy offers, but no DHCP offer" if found.proxy else "no DHCP offer"
            return Fails(NO_CONFIGURATION, why, again=True)
        lease = found.lease
        if found.proxy is None or _encapsulated(lease.packet).get(_NO_PROXY, b"\0") != b"\0":
            return self._netboot(lease, None, who, operator)
        if _has_pxe_options(found.proxy.packet):
            return self._netboot(lease, found.proxy.packet, who, operator)
        return self._ask_proxy(lease, found.proxy, who, operator)

    def _ask_proxy(self, lease: Heard, proxy: Heard, who: Identity, operator: Operator) -> Choice:
        """dhcp_proxy_rx: same identity, PXE options, from port 4011; OFFER or ACK; two seconds, then without."""
        identity = _identity(proxy)

        def after(replies: Sequence[Heard]) -> Choice:
            for reply in replies:
                if (
                    reply.port == CLIENT_PORT
                    and reply.source_port == BOOT_SERVER_PORT
                    and reply.packet.message_type in (dhcp.OFFER, dhcp.ACK)
                    and _identity(reply) == identity
                    and _has_pxe_options(reply.packet)
                ):
                    return self._netboot(lease, reply.packet, who, operator)
            return self._netboot(lease, None, who, operator)

        address = dotted(lease.packet.yiaddr)
        # Once it has an address its class is the word alone and the broadcast flag is set (measured: iPXE in QEMU).
        data = self._message(
            3, who, [(dhcp.SERVER_ID, undotted(identity))], secs=_SECS_PROXY, ciaddr=address,
            flags=dhcp.BROADCAST_FLAG, plain_class=True,
        )  # fmt: skip
        sent = Sent(data, address, CLIENT_PORT, identity, BOOT_SERVER_PORT)
        return Ask(sent, "the proxy offer names no file and has no menu", PROXY_WAIT_S, after, lease)

    def _netboot(self, lease: Heard, proxy: Packet | None, who: Identity, operator: Operator) -> Choice:
        """The settings: by option 175.1, and of equals the DHCP server's come first (reprioritise_settings)."""
        blocks = [lease.packet] if proxy is None else [lease.packet, proxy]
        blocks.sort(key=_priority, reverse=True)  # stable, so equals stay in this order
        named = next((block for block in blocks if boot_file(block)), None)
        classes = (block.options.get(dhcp.VENDOR_CLASS) for block in blocks)
        vendor_class = next((value for value in classes if value is not None), b"").rstrip(b"\0")
        menu = next((block for block in blocks if pxe_options(block).menu), None)
        if vendor_class == b"PXEClient" and menu is not None:
            skips = pxe_options(menu).control & message.JUST_BOOT and named is not None
            if not skips:
                return self._menu(lease, menu, who, operator)
        if named is None:
            return Fails(NOTHING_TO_BOOT, "nothing names a file", lease)
        # Name and server come from the same block of settings (fetch_next_server_and_filename).
        return self._fetch(lease, named, "proxy" if named is proxy else "DHCP server")

    def _menu(self, lease: Heard, offer: Packet, who: Identity, operator: Operator) -> Choice:
        """pxe_menu_boot: without a prompt the menu waits; a timeout of 0 takes the first item."""
        options = pxe_options(offer)
        if self.itself and self._arch(who) != ClientArch.BIOS and 0 < (options.timeout_s or 0) < message.MENU_WAITS:
            # Measured: snponly.efi of 2019, chain-loaded, says "No more network devices" at a menu with a prompt.
            return Fails(NOTHING_TO_BOOT, "a chain-loaded iPXE gives up at a menu with a prompt", lease)
        waits = options.timeout_s is None or options.timeout_s == message.MENU_WAITS
        shown = waits or (options.timeout_s and operator.presses_menu_key)
        if shown and operator.picks is None:
            return Fails(NOTHING_TO_BOOT, "the menu waits for a key", lease)
        picked = min(operator.picks or 0, len(options.menu) - 1) if shown else 0
        type_ = options.menu[picked][0]
        if type_ == 0:
            return LocalDisk("the item has type 0, the local disk", lease)
        servers: list[str] = []  # start_pxebs: multicast, broadcast, and then the list
        if not options.control & message.NO_MULTICAST and options.multicast is not None:
            servers.append(options.multicast)
        if not options.control & message.NO_BROADCAST:
            servers.append(BROADCAST)
        listed = options.addresses(type_)
        servers.extend(listed)
        accepted = listed if options.control & message.LISTED_SERVERS_ONLY else None
        return self._ask_server(lease, servers, type_, accepted, who)

    def _ask_server(
        self, lease: Heard, servers: Sequence[str], type_: int, accepted: Sequence[str] | None, who: Identity
    ) -> Choice:
        """dhcp_pxebs_rx: an ACK that names the type, from port 67 or 4011, of a listed server where 43.6 says so."""
        if not servers:
            return Fails("", f"connection timed out: no boot server of type {type_} answers", lease)

        def good(reply: Heard) -> bool:
            return (
                reply.port == CLIENT_PORT
                and reply.source_port in (SERVER_PORT, BOOT_SERVER_PORT)
                and reply.packet.message_type == dhcp.ACK
                and pxe_options(reply.packet).item == type_
                and (accepted is None or _identity(reply) in accepted)
            )

        def after(replies: Sequence[Heard]) -> Choice:
            reply = next((reply for reply in replies if good(reply)), None)
            if reply is None:
                return self._ask_server(lease, servers[1:], type_, accepted, who)
            if not boot_file(reply.packet):
                return Fails(NOTHING_TO_BOOT, "the boot server names no file", lease)
            return self._fetch(lease, reply.packet, f"boot server of type {type_}")

        return self._question(lease, servers[0], type_, who, after)

    def _question(
        self, lease: Heard, server: str, type_: int, who: Identity, after: Callable[[Sequence[Heard]], Choice]
    ) -> Ask:
        """The xid of this one is 0 and its class has no architecture (measured: iPXE in QEMU)."""
        address = dotted(lease.packet.yiaddr)
        data = self._message(
            3, who, [(dhcp.VENDOR_SPECIFIC, message.boot_item(type_))], secs=4, xid=0, ciaddr=address,
            flags=dhcp.BROADCAST_FLAG, plain_class=True,
        )  # fmt: skip
        port = SERVER_PORT if server == BROADCAST else BOOT_SERVER_PORT
        sent = Sent(data, address, CLIENT_PORT, server, port)
        return Ask(sent, f"the boot server of type {type_}", _BOOT_SERVER_WAIT_S, after, lease)

    def _fetch(self, lease: Heard, source: Packet, whose: str) -> Choice:
        file = boot_file(source)
        if self.itself and file.rpartition("/")[2] == self.itself:
            # ipxe#908: it loads itself, asks again and is handed itself again.
            return Fails("", f"a loop: iPXE is handed {file}, which is itself", lease)
        scheme, has_scheme, rest = file.partition("://")
        if has_scheme:
            return Boot(rest.partition("/")[0].partition(":")[0], file, f"the {whose} names it", lease, protocol=scheme)
        server = dotted(source.siaddr)
        if server == UNSPECIFIED:
            return Fails(NOTHING_TO_BOOT, f"the {whose} names {file} without siaddr", lease)
        return Boot(server, file, f"the {whose} names it", lease)

    def _arch(self, who: Identity) -> int:
        return self.arch if who.arch is None else who.arch

    def _message(
        self,
        kind: int,
        who: Identity,
        more: Sequence[tuple[int, bytes]] = (),
        *,
        secs: int,
        xid: int | None = None,
        ciaddr: str = UNSPECIFIED,
        flags: int = 0,
        plain_class: bool = False,
    ) -> bytes:
        arch = self._arch(who)
        major, minor = who.undi or ((2, 1) if arch == ClientArch.BIOS else (3, 16))
        text = "PXEClient" if plain_class or self.bare else f"PXEClient:Arch:{arch:05d}:UNDI:{major:03d}{minor:03d}"
        options = [
            (dhcp.MESSAGE_TYPE, bytes((kind,))), (dhcp.MAX_SIZE, b"\x05\xc0"),
            (dhcp.ARCHITECTURE, arch.to_bytes(2, "big")), (94, bytes((1, major, minor))),
            (dhcp.VENDOR_CLASS, text.encode()), (dhcp.USER_CLASS, b"iPXE"), (55, _PARAMETERS),
            (dhcp.IPXE, _FEATURES_BIOS if arch == ClientArch.BIOS else _FEATURES_EFI),
            (dhcp.CLIENT_ID, b"\x01" + who.mac.octets),
        ]  # fmt: skip
        if who.uuid is not None:
            options.append((dhcp.CLIENT_UUID, b"\0" + who.uuid))
        options += more
        own_xid = who.xid if xid is None else xid
        if self.bare:
            flags = dhcp.BROADCAST_FLAG
        return message.write(options, mac=who.mac, xid=own_xid, secs=secs, flags=flags, ciaddr=ciaddr)


def _collect(offers: Sequence[Heard]) -> _Offers:
    """Offers in the order of arrival until DISCOVER ends; equal priority replaces, so the last arrival wins."""
    lease: Heard | None = None
    proxy: Heard | None = None
    for offer in offers:
        if lease is not None and (proxy is not None or offer.at_s > lease.at_s + PROXY_WAIT_S):
            break
        if offer.port != CLIENT_PORT:
            continue
        if dotted(offer.packet.yiaddr) != UNSPECIFIED and offer.source_port == SERVER_PORT:
            lease = offer if lease is None or _priority(offer.packet) >= _priority(lease.packet) else lease
        # yiaddr is not looked at: a DHCP offer with PXEClient is its own proxy offer.
        if message.is_pxe(offer.packet) and _identity(offer) != UNSPECIFIED:
            proxy = offer if proxy is None or _priority(offer.packet) >= _priority(proxy.packet) else proxy
    return _Offers(lease, proxy)


def _identity(heard: Heard) -> str:
    """Option 54, else siaddr, else where it came from."""
    for address in (message.server_id(heard.packet), dotted(heard.packet.siaddr)):
        if address != UNSPECIFIED:
            return address
    return heard.source


def _has_pxe_options(packet: Packet) -> bool:
    """dhcp_has_pxeopts: siaddr and a file name, or a menu."""
    return bool((packet.siaddr != dhcp.ZERO and boot_file(packet)) or pxe_options(packet).menu)


def _encapsulated(packet: Packet) -> dict[int, bytes]:
    try:
        return dhcp.suboptions(packet.options.get(dhcp.IPXE, b""))
    except WireError:
        return {}


def _priority(packet: Packet) -> int:
    """Option 175.1, a signed byte; 0 when it is missing."""
    return int.from_bytes(_encapsulated(packet).get(_PRIORITY, b"\0")[:1], "big", signed=True)
