"""Simulated networks: our server by its real functions, and small honest DHCP servers, rivals and a relay beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models import Heard, Sent
from pbserv.proxydhcp.outcome import Ignore, Listener
from pbserv.proxydhcp.packet import Packet, decode, encapsulate, undotted
from tests.proxydhcp.models.our_side import Interface, OurSide

OURS: Final = "10.1.0.5"
OURS_THERE: Final = "10.2.0.5"
DHCP_SERVER: Final = "10.1.0.1"
RIVAL: Final = "10.1.0.9"
CLIENT: Final = "10.1.0.77"
ROUTER_THERE: Final = "10.2.0.1"
CLIENT_THERE: Final = "10.2.0.77"
BROADCAST: Final = "255.255.255.255"
DHCP_FILE: Final = "theirs/pxelinux.0"
RIVAL_FILE: Final = "rival/boot.efi"
RELAY_OPTION: Final = b"\x01\x04port"
_ETH0: Final = Interface(OURS, 2, 24, "eth0")
_ETH1: Final = Interface(OURS_THERE, 3, 24, "eth1")


@dataclass(frozen=True, slots=True)
class DhcpServer:
    """A DHCP server: gives ``lease``, and says what it is configured to say besides."""

    address: str = DHCP_SERVER
    lease: str = CLIENT
    file: str = ""
    vendor_class: bytes = b""
    at_s: float = 0.5  # many ping the address first

    def answer(self, asked: Packet) -> Packet | None:
        kind = asked.message_type
        named = asked.options.get(dhcp.SERVER_ID)
        if kind == dhcp.DISCOVER:
            return self._reply(asked, dhcp.OFFER)
        return self._reply(asked, dhcp.ACK) if kind == dhcp.REQUEST and named == undotted(self.address) else None

    def _reply(self, asked: Packet, kind: int) -> Packet:
        options = {dhcp.MESSAGE_TYPE: bytes((kind,)), dhcp.SERVER_ID: undotted(self.address), 51: b"\0\0\x0e\x10"}
        if self.vendor_class:
            options[dhcp.VENDOR_CLASS] = self.vendor_class
        if self.file:
            options |= {dhcp.TFTP_SERVER: self.address.encode(), dhcp.BOOT_FILE: self.file.encode()}
        return Packet(
            dhcp.BOOTREPLY, asked.xid, asked.chaddr, yiaddr=undotted(self.lease),
            siaddr=undotted(self.address) if self.file else dhcp.ZERO, file=self.file.encode(), options=options,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rival:
    """Another proxyDHCP server. ``direct``: 43.6 = 8 and the file in its offer; otherwise BINL, as dnsmasq for UEFI."""

    direct: bool
    at_s: float
    address: str = RIVAL

    def answer(self, asked: Packet, port: int) -> Packet | None:
        if not asked.options.get(dhcp.VENDOR_CLASS, b"").startswith(b"PXEClient"):
            return None
        kind = asked.message_type
        if kind == dhcp.DISCOVER and port == 67:
            return self._reply(asked, dhcp.OFFER, RIVAL_FILE if self.direct else "")
        if kind == dhcp.REQUEST and port == 4011:
            return self._reply(asked, dhcp.ACK, RIVAL_FILE)
        return None

    def _reply(self, asked: Packet, kind: int, file: str) -> Packet:
        options = {
            dhcp.MESSAGE_TYPE: bytes((kind,)), dhcp.SERVER_ID: undotted(self.address), dhcp.VENDOR_CLASS: b"PXEClient",
        }  # fmt: skip
        if self.direct:
            options[dhcp.VENDOR_SPECIFIC] = encapsulate({6: b"\x08"}) + b"\xff"
        siaddr = undotted(self.address)
        return Packet(
            dhcp.BOOTREPLY, asked.xid, asked.chaddr, siaddr=siaddr, file=file.encode(), options=options
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Environment:
    """One kind of network: who is there, and how packets get to them."""

    name: str
    text: str
    dhcp: DhcpServer | None = DhcpServer()
    rival: Rival | None = None
    relayed: bool = False
    interfaces: tuple[Interface, ...] = (_ETH0,)
    arrives_on: Interface = _ETH0
    listeners: tuple[Listener, ...] = (Listener.DHCP, Listener.BOOT_SERVER)
    at_s: float = 0.02

    @property
    def our_address(self) -> str:
        return self.arrives_on.address

    def network(self, ours: OurSide) -> Callable[[Sent], Sequence[Heard]]:
        """What a client hears after each thing it sends. ``ours`` supplies the strategy."""
        here = dataclasses.replace(ours, interfaces=self.interfaces, listeners=self.listeners)
        return lambda sent: [*self._from_dhcp(sent), *self._from_us(sent, here), *self._from_rival(sent)]

    def _from_dhcp(self, sent: Sent) -> list[Heard]:
        if self.dhcp is None or sent.port != 67 or sent.destination not in (BROADCAST, self.dhcp.address):
            return []
        reply = self.dhcp.answer(decode(sent.data))
        if reply is None:
            return []
        source = ROUTER_THERE if self.relayed else self.dhcp.address
        return [Heard(reply, source, 67, 68, self.dhcp.at_s)]

    def _from_rival(self, sent: Sent) -> list[Heard]:
        if self.rival is None or sent.destination not in (BROADCAST, self.rival.address):
            return []
        reply = self.rival.answer(decode(sent.data), sent.port)
        if reply is None:
            return []
        port = sent.source_port if sent.port == 4011 else 68
        return [Heard(reply, self.rival.address, sent.port, port, self.rival.at_s)]

    def _from_us(self, sent: Sent, ours: OurSide) -> list[Heard]:
        """Our reply, if it reaches the client at all: that is what the destination rules are for."""
        if sent.destination not in (BROADCAST, self.our_address) or sent.port not in (67, 4011):
            return []
        listener = Listener(sent.port)
        relayed = self.relayed and sent.destination == BROADCAST
        arrived = _relayed(sent, self.our_address) if relayed else sent
        reply = ours.answer(arrived, listener, self.arrives_on.ifindex, self.our_address)
        if isinstance(reply, Ignore):
            return []
        packet = decode(reply.data)
        source, source_port, port = reply.source, sent.port, reply.port
        if relayed:
            if (reply.destination, reply.port) != (ROUTER_THERE, 67):
                return []
            if packet.options.get(dhcp.RELAY_INFO) != RELAY_OPTION:
                return []  # RFC 3046: a relay throws away what does not echo its option
            options = {tag: value for tag, value in packet.options.items() if tag != dhcp.RELAY_INFO}
            packet, source, source_port, port = dataclasses.replace(packet, options=options), ROUTER_THERE, 67, 68
        elif reply.destination == BROADCAST:
            if reply.ifindex != self.arrives_on.ifindex:
                return []  # it left by another wire
        elif reply.destination != sent.source:
            return []
        return [Heard(packet, source, source_port, port, self.at_s, len(reply.data))]


def _relayed(sent: Sent, server: str) -> Sent:
    """The DISCOVER as a relay agent sends it on: giaddr, one hop more, option 82 at the end."""
    data = bytearray(sent.data.rstrip(b"\0"))
    data[3] += 1
    data[24:28] = undotted(ROUTER_THERE)
    data[-1:] = bytes((dhcp.RELAY_INFO, len(RELAY_OPTION))) + RELAY_OPTION + b"\xff"
    return Sent(bytes(data).ljust(dhcp.LEAST_BYTES, b"\0"), ROUTER_THERE, 67, server, 67)


ENVIRONMENTS: Final = (
    Environment("plain DHCP", "The DHCP server gives addresses and says nothing about booting."),
    Environment(
        "DHCP with 66/67",
        "The DHCP server names a boot server and a boot file of its own (siaddr, file, options 66 and 67).",
        dhcp=DhcpServer(file=DHCP_FILE),
    ),
    Environment(
        "DHCP with 60",
        "The DHCP server says that it is a PXE server (option 60) and is none: nobody there answers on port 4011.",
        dhcp=DhcpServer(vendor_class=b"PXEClient"),
    ),
    Environment(
        "a fast DHCP with 60",
        "The same, and its offer comes before ours: to iPXE it is an address and a proxy's offer at once.",
        dhcp=DhcpServer(vendor_class=b"PXEClient", at_s=0.005),
    ),
    Environment(
        "a slower BINL proxy",
        "A second proxyDHCP server, which offers without option 43 (as dnsmasq does for UEFI) and comes after us.",
        rival=Rival(direct=False, at_s=0.04),
    ),
    Environment(
        "a faster BINL proxy",
        "The same, and it comes before us.",
        rival=Rival(direct=False, at_s=0.01),
    ),
    Environment(
        "a slower direct proxy",
        "A second proxyDHCP server, which offers its file with 43.6 = 8 and comes after us.",
        rival=Rival(direct=True, at_s=0.04),
    ),
    Environment(
        "a faster direct proxy",
        "The same, and it comes before us.",
        rival=Rival(direct=True, at_s=0.01),
    ),
    Environment(
        "both faster",
        "The same, and the DHCP server's offer comes before ours too: iPXE has all that it waits for.",
        dhcp=DhcpServer(at_s=0.005),
        rival=Rival(direct=True, at_s=0.01),
    ),
    Environment(
        "relay",
        "The client is in another subnet; a relay agent sends its broadcasts to the DHCP server and to us.",
        dhcp=DhcpServer(lease=CLIENT_THERE),
        relayed=True,
    ),
    Environment(
        "two NICs",
        "This server has two networks, and the client is on the second.",
        dhcp=DhcpServer(address=ROUTER_THERE, lease=CLIENT_THERE),
        interfaces=(_ETH0, _ETH1),
        arrives_on=_ETH1,
    ),
    Environment(
        "same host",
        "The DHCP server runs on this host and sends option 60; only port 4011 is ours (LocalDHCPFlag = 1).",
        dhcp=DhcpServer(address=OURS, vendor_class=b"PXEClient"),
        listeners=(Listener.BOOT_SERVER,),
    ),
    Environment(
        "same host, both ports",
        "The DHCP server runs on this host and says nothing; its packets are read beside it (LocalDHCPFlag = 0).",
        dhcp=DhcpServer(address=OURS),
    ),
    Environment("no DHCP", "Nobody gives addresses: the proxy is alone.", dhcp=None),
)
