"""Boards without a PXE firmware: U-Boot (net/bootp.c, cmd/Kconfig) and the Raspberry Pi (ROM, EEPROM). Pure."""

from __future__ import annotations

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
from pbserv.proxydhcp.models.message import boot_file, next_server, pxe_options
from pbserv.proxydhcp.packet import Packet, undotted
from pbserv.types import ClientArch

_LEAST_BYTES: Final = 300
_ARM64_UBOOT: Final = 22


@dataclass(frozen=True, slots=True)
class UBoot:
    """U-Boot. ``takes_proxies``: built with CONFIG_SERVERIP_FROM_PROXYDHCP, which stock builds are not.

    Boards without a configured architecture (``tells_arch``) send no option 93 and the bare class.
    """

    name: str = "uboot"
    arch: int = _ARM64_UBOOT
    waits_s: tuple[float, ...] = (0.3, 0.5)
    takes_proxies: bool = False
    vendor_class: str = "U-Boot.armv8"
    tells_arch: bool = True

    def discover(self, who: Identity, attempt: int = 0) -> Sent:
        return self._send([(dhcp.MESSAGE_TYPE, b"\x01"), (dhcp.MAX_SIZE, b"\x02\x40")], who, who.xid + attempt)

    def request(self, lease: Heard, who: Identity) -> Sent:
        options = [
            (dhcp.MESSAGE_TYPE, b"\x03"), (dhcp.MAX_SIZE, b"\x02\x40"),
            (dhcp.SERVER_ID, undotted(message.server_id(lease.packet))), (50, lease.packet.yiaddr),
        ]  # fmt: skip
        return self._send(options, who, lease.packet.xid)

    def choose(self, offers: Sequence[Heard], who: Identity = Identity(), operator: Operator = Operator()) -> Choice:
        lease = next((offer for offer in offers if message.gives_address(offer.packet)), None)
        if lease is None:
            return Fails("", "no DHCP offer", again=True)
        proxy = next((offer for offer in offers if not message.gives_address(offer.packet)), None)
        if proxy is not None and self.takes_proxies and boot_file(proxy.packet):
            return Boot(next_server(proxy.packet), boot_file(proxy.packet), "built to take a proxy's server", lease)
        if boot_file(lease.packet):
            return Boot(next_server(lease.packet), boot_file(lease.packet), "the DHCP server names it", lease)
        return Fails("", "U-Boot takes no proxy offers, and the DHCP server names no file", lease)

    def _send(self, options: list[tuple[int, bytes]], who: Identity, xid: int) -> Sent:
        arch = self.arch if who.arch is None else who.arch
        if self.tells_arch:
            options.append((dhcp.ARCHITECTURE, arch.to_bytes(2, "big")))
        options += [
            (94, b"\x01\0\0"),
            (dhcp.VENDOR_CLASS, self.vendor_class.encode()), (55, b"\x01\x03\x06\x0c\x11"),
        ]  # fmt: skip
        data = message.write(options, mac=who.mac, xid=xid & 0xFFFFFFFF, least_bytes=_LEAST_BYTES)
        return Sent(data, UNSPECIFIED, CLIENT_PORT, BROADCAST, SERVER_PORT)


_PI_XID: Final = 0x26F30339
_PI_TEXT: Final = "Raspberry Pi Boot"
_PI_PADDED: Final = 20
_PI_FILE: Final = "<serial>/config.txt"


@dataclass(frozen=True, slots=True)
class RaspberryPi:
    """The ROM of a Pi 3, the pickiest of them: constant xid, and a menu whose text has 20 bytes."""

    name: str = "raspberrypi"
    arch: int = ClientArch.BIOS  # it says that it is a BIOS
    waits_s: tuple[float, ...] = (5.0, 5.0, 5.0)

    def discover(self, who: Identity, attempt: int = 0) -> Sent:
        return self._send(who, [(dhcp.MESSAGE_TYPE, b"\x01")])

    def request(self, lease: Heard, who: Identity) -> Sent:
        options = [
            (dhcp.MESSAGE_TYPE, b"\x03"), (50, lease.packet.yiaddr),
            (dhcp.SERVER_ID, undotted(message.server_id(lease.packet))),
        ]  # fmt: skip
        return self._send(who, options)

    def choose(self, offers: Sequence[Heard], who: Identity = Identity(), operator: Operator = Operator()) -> Choice:
        lease = next((offer for offer in offers if message.gives_address(offer.packet)), None)
        if lease is None:
            return Fails("", "no DHCP offer", again=True)
        offer = next((offer for offer in offers if _names_the_pi(offer.packet)), None)
        if offer is None:
            return Fails("", "no offer has the menu item Raspberry Pi Boot", lease, again=True)
        return Boot(next_server(offer.packet), _PI_FILE, "the offer has the menu item Raspberry Pi Boot", lease)

    def _send(self, who: Identity, options: list[tuple[int, bytes]]) -> Sent:
        octets = who.mac.octets
        # Made from the MAC address: its last three bytes backwards and 0xbd, four times (capture of a Pi 3).
        identifier = (bytes((octets[5], octets[4], octets[3], 0xBD)) * 4) if who.uuid is None else who.uuid
        options += [
            (55, bytes.fromhex("2b3c438081828384858687420103")), (dhcp.ARCHITECTURE, b"\0\0"), (94, b"\x01\x02\x01"),
            (dhcp.CLIENT_UUID, b"\0" + identifier), (dhcp.VENDOR_CLASS, b"PXEClient:Arch:00000:UNDI:002001"),
        ]  # fmt: skip
        return Sent(message.write(options, mac=who.mac, xid=_PI_XID), UNSPECIFIED, CLIENT_PORT, BROADCAST, SERVER_PORT)


def _names_the_pi(packet: Packet) -> bool:
    """43.6, a prompt, and one item whose text is 20 bytes (tinkerbell smee, rpi-eeprom#60)."""
    options = pxe_options(packet)
    texts = [text for _, text in options.menu]
    named = any(text.startswith(_PI_TEXT) and len(text) >= _PI_PADDED for text in texts)
    return named and options.timeout_s is not None and 6 in options.tags
