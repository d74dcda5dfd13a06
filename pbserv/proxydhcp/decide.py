"""The proxyDHCP rules (PXE 2.1 as clients have it): which packet gets which answer, where it goes. Pure.

One rule: DISCOVER on port 67 gets an OFFER that gives no address, REQUEST and INFORM on port 4011 get an ACK, and the
rest belongs to the DHCP server. Two steps, because the policy is asked in between: :func:`screen`, :func:`decide`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from pbserv.errors import WireError
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.client import BootItem, Client, boot_item, classify, hardware_address, system_uuid
from pbserv.proxydhcp.facts import Facts
from pbserv.proxydhcp.outcome import ClientKind, Ignore, Listener, Reason, Reply, Summary
from pbserv.proxydhcp.packet import Packet, dotted, undotted
from pbserv.proxydhcp.strategy import STRATEGIES, BootFile, Settings, Strategy, boot_file
from pbserv.types import Decision, MacAddress, Sighting, Verdict

OWN_BOOT_SERVER: Final = 0x8000  # PXE 2.1: types 32768-65534 are the vendor's; the first one is this server
CLIENT_PORT: Final = 68
RELAY_PORT: Final = 67
BROADCAST: Final = "255.255.255.255"
_UNSPECIFIED: Final = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class Query:
    """A packet that a proxy answers, if the policy lets it. ``message_type`` is that of the answer."""

    packet: Packet
    client: Client
    mac: MacAddress
    uuid: str | None
    message_type: int
    item: BootItem | None = None

    @property
    def sighting(self) -> Sighting:
        """What the policy is asked with."""
        address = "" if self.packet.ciaddr == dhcp.ZERO else dotted(self.packet.ciaddr)
        return Sighting(
            self.mac, self.uuid, self.client.arch, "dhcp", address, (("kind", self.client.kind.value),)
        )  # fmt: skip


def screen(packet: Packet, facts: Facts) -> Query | Ignore:
    """Whether the packet is a PXE client's question to a proxy; raises WireError for a broken option 43."""
    if packet.op != dhcp.BOOTREQUEST:
        return Ignore(Reason.NOT_REQUEST, f"op {packet.op}")
    kind = packet.message_type
    if kind is None:
        return Ignore(Reason.NOT_DHCP, "no message type")
    mac = hardware_address(packet)
    if mac is None:
        return Ignore(Reason.BAD_HARDWARE_ADDRESS, f"hlen {packet.hlen} {packet.chaddr[: packet.hlen].hex(':')}")
    client = classify(packet.options, mac)
    if isinstance(client, Ignore):
        return client
    if kind == dhcp.DISCOVER and facts.listener is Listener.DHCP:
        return Query(packet, client, mac, system_uuid(packet.options), dhcp.OFFER)
    if kind in (dhcp.REQUEST, dhcp.INFORM):
        return _request(packet, client, mac, facts)
    name = dhcp.MESSAGE_NAMES.get(kind, f"type {kind}")
    if facts.listener is Listener.BOOT_SERVER:
        return Ignore(Reason.NOT_A_BOOT_SERVER_REQUEST, name)
    return Ignore(Reason.MESSAGE_NOT_FOR_PROXY, name)


def _request(packet: Packet, client: Client, mac: MacAddress, facts: Facts) -> Query | Ignore:
    """REQUEST and INFORM: ours on 4011, and on 67 only as boot-server discovery (43.71)."""
    item = boot_item(packet.options)
    if facts.listener is Listener.DHCP and item is None:
        return Ignore(Reason.ORDINARY_REQUEST_ON_67, "the client talks to its DHCP server")
    if client.kind is ClientKind.HTTP:
        return Ignore(Reason.HTTP_NEEDS_NO_BOOT_SERVER, "UEFI HTTP boot takes its URL from the OFFER")
    # Sent to our address it is for us, whatever it names; a broadcast may be meant for another proxy.
    server = packet.options.get(dhcp.SERVER_ID)
    if not facts.unicast and server is not None and facts.listener is Listener.BOOT_SERVER and len(server) == 4:
        named = dotted(server)
        if named not in (facts.local, _UNSPECIFIED):
            return Ignore(Reason.WRONG_SERVER, f"for {named}")
    if item is not None:
        if item.wants_credentials:
            return Ignore(Reason.BOOT_ITEM_WANTS_CREDENTIALS, str(item))
        if item.type != OWN_BOOT_SERVER or item.layer:
            return Ignore(Reason.BOOT_ITEM_NOT_OURS, str(item))
    return Query(packet, client, mac, system_uuid(packet.options), dhcp.ACK, item)


def decide(query: Query, facts: Facts, settings: Settings, decision: Decision, chained: bool = False) -> Reply | Ignore:
    """The answer to a screened packet under the policy's decision.

    ``chained``: the client is the iPXE that this device was handed a moment ago (:class:`HandedLoaders`).
    """
    match decision.verdict:
        case Verdict.SILENT:
            return Ignore(Reason.POLICY_SILENT, decision.reason)
        case Verdict.LOCAL | Verdict.LOADER | Verdict.MENU | Verdict.BOOT:
            file = boot_file(query.client, decision.verdict, settings, chained)
        case _ as never:
            assert_never(never)
    if isinstance(file, Ignore):
        return file
    target = route(query.packet, facts)
    if isinstance(target, Ignore):
        return target
    strategy = STRATEGIES[query.client.kind]
    try:
        data = dhcp.encode(_answer(query, facts, strategy, file, target), query.packet.limit)
    except WireError as fault:
        return Ignore(Reason.REPLY_TOO_LONG, f"{file.name}: {fault}")
    summary = Summary(
        dhcp.MESSAGE_NAMES[query.message_type], query.mac, query.client.kind, query.client.arch, strategy.name,
        file.name, facts.local, query.message_type == dhcp.ACK, file.is_loader,
    )  # fmt: skip
    return Reply(data, target.address, target.port, facts.local, target.ifindex, summary)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a reply goes. ``flag``: the BOOTP broadcast flag must be set in it."""

    address: str
    port: int
    ifindex: int
    flag: bool = False


def route(packet: Packet, facts: Facts) -> Target | Ignore:
    """The way back to the client (RFC 2131 4.1, with yiaddr always 0)."""
    for address in (packet.giaddr, packet.ciaddr):
        if address[0] >= 224:
            return Ignore(Reason.BAD_RETURN_ADDRESS, dotted(address))
    if packet.giaddr != dhcp.ZERO and facts.listener is Listener.DHCP:
        giaddr = dotted(packet.giaddr)
        # There is no address to unicast to, so the relay must broadcast, whatever the client's flag says.
        return Target(giaddr, RELAY_PORT, facts.interface_to(giaddr), flag=True)
    known = packet.ciaddr != dhcp.ZERO
    ciaddr = dotted(packet.ciaddr) if known else _UNSPECIFIED
    # The port of a source that is not the client's own address is not believed: it could be anybody's.
    believed = facts.source != _UNSPECIFIED and (facts.source == ciaddr if known else True)
    if believed and (known or facts.listener is Listener.BOOT_SERVER):
        # EDK2 asks and listens on 4011, iPXE on 68: the answer goes to where the question came from.
        return Target(facts.source, facts.source_port, facts.interface_to(facts.source))
    if known:
        return Target(ciaddr, CLIENT_PORT, facts.interface_to(ciaddr))
    port = facts.source_port if facts.listener is Listener.BOOT_SERVER else CLIENT_PORT
    # A clear broadcast flag (iPXE, U-Boot) cannot be obeyed: with yiaddr 0 nobody has an address.
    return Target(BROADCAST, port, facts.ifindex, flag=True)


def _answer(query: Query, facts: Facts, strategy: Strategy, file: BootFile, target: Target) -> Packet:
    """The reply. siaddr, sname and file stand in the header too: shim, GRUB, iPXE and the Pi read nothing else."""
    asked = query.packet
    local = undotted(facts.local)
    name = file.name.encode()
    server = facts.local.encode()
    options: dict[int, bytes] = {
        dhcp.MESSAGE_TYPE: bytes((query.message_type,)),
        dhcp.SERVER_ID: local,
        dhcp.VENDOR_CLASS: query.client.vendor_class,
    }
    uuid = asked.options.get(dhcp.CLIENT_UUID)
    if uuid is not None and len(uuid) == 17:
        options[dhcp.CLIENT_UUID] = uuid
    relay = asked.options.get(dhcp.RELAY_INFO)
    if relay is not None:
        options[dhcp.RELAY_INFO] = relay  # RFC 3046 2.2: echoed as it came
    item = query.item
    chosen = b"" if item is None else item.type.to_bytes(2, "big") + item.layer.to_bytes(2, "big")
    vendor = strategy.vendor_options(chosen)
    if vendor is not None:
        options[dhcp.VENDOR_SPECIFIC] = vendor
    if strategy.option175 is not None:
        options[dhcp.IPXE] = strategy.option175
    if strategy.names_tftp_server:
        options[dhcp.TFTP_SERVER] = server + b"\0"
    if name:
        options[dhcp.BOOT_FILE] = name + b"\0"
    return Packet(
        dhcp.BOOTREPLY, asked.xid, asked.chaddr, asked.htype, asked.hlen,
        flags=asked.flags | dhcp.BROADCAST_FLAG if target.flag else asked.flags,
        ciaddr=asked.ciaddr if query.message_type == dhcp.ACK else dhcp.ZERO,
        siaddr=local, giaddr=asked.giaddr, sname=server,
        # A name that the header cannot hold with its NUL is in option 67 only.
        file=name if len(name) < 128 else b"",
        options=options,
    )  # fmt: skip
