"""The proxyDHCP rules (PXE 2.1 as clients have it): which packet gets which answer, where it goes. Pure.

One rule: DISCOVER on port 67 gets an OFFER that gives no address, REQUEST and INFORM on port 4011 get an ACK, and the
rest belongs to the DHCP server. Two steps, because the policy is asked in between: :func:`screen`, :func:`decide`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from pbserv.errors import WireError
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.asked import Asked
from pbserv.proxydhcp.client import BootItem, Client, hardware_address
from pbserv.proxydhcp.facts import Facts
from pbserv.proxydhcp.loaders import BootFile, Settings, boot_file, url_of
from pbserv.proxydhcp.outcome import ClientKind, Ignore, Listener, Reason, Reply, Summary
from pbserv.proxydhcp.packet import Head, Packet, dotted, undotted
from pbserv.proxydhcp.strategy import OWN_BOOT_SERVER, Menu, Strategy, vendor_options
from pbserv.proxydhcp.table import ABSENT, LOADER, SILENCE
from pbserv.types import Verdict

CLIENT_PORT: Final = 68
RELAY_PORT: Final = 67
BROADCAST: Final = "255.255.255.255"
_UNSPECIFIED: Final = "0.0.0.0"
_NO_MENU: Final = Menu()
LOCAL_MENU: Final = "local"
"""The strategy that only says "local disk"; it ends loops."""
ABSENT_FILE: Final = "local-disk"
"""There is no such file: OVMF goes on with its boot order when it learns that, and waits a minute without an answer."""


class Query(NamedTuple):
    """A packet that a proxy answers, if the policy lets it. ``message_type`` is that of the answer."""

    head: Head
    asked: Asked
    client: Client
    mac: bytes
    message_type: int
    uuid: bytes
    """The value of option 97, 17 bytes, or nothing."""


def screen(data: bytes, head: Head, asked: Asked, facts: Facts) -> Query | Ignore:
    """Whether the packet is a PXE client's question to a proxy."""
    mac = sender(data, head)
    if isinstance(mac, Ignore):
        return mac
    kind = purpose(asked, facts)
    if isinstance(kind, Ignore):
        return kind
    return query_of(data, head, asked, mac, kind)


def query_of(data: bytes, head: Head, asked: Asked, mac: bytes, message_type: int) -> Query:
    """The question of a packet that :func:`purpose` found to be one."""
    if asked.client is None:
        raise ValueError("no client asks here")
    uuid = data[asked.uuid_at : asked.uuid_at + 17] if asked.uuid_at else b""
    return Query(head, asked, asked.client, mac, message_type, uuid)


def sender(data: bytes, head: Head) -> bytes | Ignore:
    """The MAC address of whoever sent this request."""
    if head.op != dhcp.BOOTREQUEST:
        return Ignore(Reason.NOT_REQUEST, f"op {head.op}")
    mac = mac_of(data, head)
    if mac is None:
        return Ignore(Reason.BAD_HARDWARE_ADDRESS, f"hlen {head.hlen} {head.chaddr[: head.hlen].hex(':')}")
    return mac


def purpose(asked: Asked, facts: Facts) -> int | Ignore:
    """The type of the answer to all packets that ask like this; it depends on who sent them in nothing."""
    kind = asked.message_type
    if kind is None:
        return Ignore(Reason.NOT_DHCP, "no message type")
    client = asked.client
    if client is None:
        return asked.ignored or Ignore(Reason.NOT_PXE)
    if kind == dhcp.DISCOVER and facts.listener is Listener.DHCP:
        return dhcp.OFFER
    if kind in (dhcp.REQUEST, dhcp.INFORM):
        why = _request(asked, client, facts)
        return dhcp.ACK if why is None else why
    name = dhcp.MESSAGE_NAMES.get(kind, f"type {kind}")
    if facts.listener is Listener.BOOT_SERVER:
        return Ignore(Reason.NOT_A_BOOT_SERVER_REQUEST, name)
    return Ignore(Reason.MESSAGE_NOT_FOR_PROXY, name)


def mac_of(data: bytes, head: Head) -> bytes | None:
    """The client's MAC address; option 61 is looked at only where chaddr does not hold it."""
    if head.hlen == 6:
        return hardware_address(6, head.chaddr)
    try:
        return hardware_address(head.hlen, head.chaddr, dhcp.decode(data).options.get(dhcp.CLIENT_ID, b""))
    except WireError:
        return None


def _request(asked: Asked, client: Client, facts: Facts) -> Ignore | None:
    """Why a REQUEST or INFORM is not ours: ours are those on 4011, and on 67 boot-server discovery (43.71)."""
    item = asked.item
    if facts.listener is Listener.DHCP and item is None:
        return Ignore(Reason.ORDINARY_REQUEST_ON_67, "the client talks to its DHCP server")
    if client.kind is ClientKind.HTTP:
        return Ignore(Reason.HTTP_NEEDS_NO_BOOT_SERVER, "UEFI HTTP boot takes its URL from the OFFER")
    # Sent to our address it is for us, whatever it names; a broadcast may be meant for another proxy.
    if asked.server and not facts.unicast and facts.listener is Listener.BOOT_SERVER:
        named = dotted(asked.server)
        if named not in (facts.local, facts.advertised, _UNSPECIFIED):
            return Ignore(Reason.WRONG_SERVER, f"for {named}")
    return None


@dataclass(frozen=True, slots=True)
class Plan:
    """How a client is to be answered: the strategy, and the file that it is told."""

    strategy: Strategy
    file: BootFile


def plan(
    query: Query, facts: Facts, settings: Settings, verdict: Verdict, reason: str, *,
    chained: bool = False, strategy: str = "", looping: bool = False, own: str = "",
) -> Plan | Ignore:  # fmt: skip
    """What the policy's verdict means for this client.

    ``chained``: it is the iPXE that this device was handed a moment ago. ``strategy``: what was found to work, or is to
    be tried now. ``looping``: it fetched its loader again and again, and is to go to its local disk. ``own``: the boot
    file that this device has instead of its architecture's.
    """
    if verdict is Verdict.SILENT:
        return Ignore(Reason.POLICY_SILENT, reason)
    client = query.client
    rule = settings.table.rule(client.kind, client.arch, client.text, query.mac, _network(query, facts))
    if rule is None:
        return Ignore(Reason.ARCH_NOT_SERVED, f"no rule of the strategy table fits {client.kind.value} {client.arch}")
    if rule.ignore:
        return Ignore(Reason.QUIRK, rule.ignore)
    if looping and client.kind is not ClientKind.IPXE:
        return _loop(client, settings)
    if verdict is Verdict.LOCAL and rule.local != LOADER:
        if rule.local == SILENCE:
            return Ignore(Reason.NO_LOCAL_BOOT_ANSWER, f"a {client.kind.value} boots by itself when nobody answers")
        name = "" if rule.local != ABSENT else ABSENT_FILE
        strategy = rule.strategy if rule.local == ABSENT else rule.local
        return Plan(settings.table.strategies[strategy], BootFile(name, is_loader=False))
    file = _chosen(query, settings) or boot_file(client, verdict, settings, rule, chained, own)
    if isinstance(file, Ignore):
        return file
    wanted = strategy or (settings.menu is not None and rule.with_menu) or rule.strategy
    return Plan(settings.table.strategies[wanted], file)


def _loop(client: Client, settings: Settings) -> Plan | Ignore:
    """The menu whose only item is the local disk; where that means nothing, no answer."""
    local = settings.table.strategies.get(LOCAL_MENU)
    if local is None or client.kind not in (ClientKind.BIOS, ClientKind.UEFI):
        return Ignore(Reason.LOOP, "it fetched the same loader again and again")
    return Plan(local, BootFile("", is_loader=False))


def _chosen(query: Query, settings: Settings) -> BootFile | Ignore | None:
    """The file of the menu's entry that the client has chosen (43.71); None: it is the first, or there was no choice"""
    item = query.asked.item
    if item is None or (item.type == OWN_BOOT_SERVER and not item.layer):
        return None
    return _item_file(item, settings.menu or _NO_MENU)


def _item_file(item: BootItem, menu: Menu) -> BootFile | Ignore:
    if item.wants_credentials:
        return Ignore(Reason.BOOT_ITEM_WANTS_CREDENTIALS, str(item))
    file = None if item.layer else menu.file_of(item.type)
    return Ignore(Reason.BOOT_ITEM_NOT_OURS, str(item)) if file is None else BootFile(file, is_loader=False)


def _network(query: Query, facts: Facts) -> str:
    giaddr = query.head.giaddr
    return facts.local if giaddr == dhcp.ZERO else dotted(giaddr)


def ladder(query: Query, facts: Facts, settings: Settings) -> tuple[str, ...]:
    """The strategies to try for this client, the usual one first."""
    client = query.client
    rule = settings.table.rule(client.kind, client.arch, client.text, query.mac, _network(query, facts))
    if rule is None or rule.ignore:
        return ()
    first = (settings.menu is not None and rule.with_menu) or rule.strategy
    return (first, *(name for name in rule.escalate if name != first))


def decide(query: Query, facts: Facts, settings: Settings, chosen: Plan) -> Reply | Ignore:
    """The answer as it leaves."""
    target = route(query.head, facts)
    if isinstance(target, Ignore):
        return target
    try:
        data = dhcp.encode(_answer(query, facts, settings, chosen, target), query.asked.limit)
    except WireError as fault:
        return Ignore(Reason.REPLY_TOO_LONG, f"{chosen.file.name}: {fault}")
    return Reply(data, target.address, target.port, facts.local, target.ifindex, summary_of(query, facts, chosen))


def summary_of(query: Query, facts: Facts, chosen: Plan) -> Summary:
    return Summary(
        dhcp.MESSAGE_NAMES[query.message_type], query.client.kind, query.client.arch, chosen.strategy.name,
        chosen.file.name, facts.advertised, query.message_type == dhcp.ACK, chosen.file.is_loader,
    )  # fmt: skip


class Target(NamedTuple):
    """Where a reply goes. ``flag``: the BOOTP broadcast flag must be set in it."""

    address: str
    port: int
    ifindex: int
    flag: bool = False


def route(head: Head, facts: Facts) -> Target | Ignore:
    """The way back to the client (RFC 2131 4.1, with yiaddr always 0)."""
    for address in (head.giaddr, head.ciaddr):
        if address[0] >= 224:
            return Ignore(Reason.BAD_RETURN_ADDRESS, dotted(address))
    if head.giaddr != dhcp.ZERO and facts.listener is Listener.DHCP:
        giaddr = dotted(head.giaddr)
        # There is no address to unicast to, so the relay must broadcast, whatever the client's flag says.
        return Target(giaddr, RELAY_PORT, facts.interface_to(giaddr), flag=True)
    known = head.ciaddr != dhcp.ZERO
    ciaddr = dotted(head.ciaddr) if known else _UNSPECIFIED
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


def _answer(query: Query, facts: Facts, settings: Settings, chosen: Plan, target: Target) -> Packet:
    """The reply. siaddr, sname and file stand in the header too: shim, GRUB, iPXE and the Pi read nothing else."""
    asked, head, strategy = query.asked, query.head, chosen.strategy
    local = undotted(facts.advertised)
    offer = query.message_type == dhcp.OFFER
    # HTTP Boot takes its URL from the offer or not at all.
    named = strategy.file_in_offer or not offer or query.client.kind is ClientKind.HTTP
    name = _name(query, facts, settings, chosen) if named else b""
    server = facts.advertised.encode()
    options: dict[int, bytes] = {
        dhcp.MESSAGE_TYPE: bytes((query.message_type,)),
        dhcp.SERVER_ID: local,
        dhcp.VENDOR_CLASS: query.client.vendor_class,
    }
    if query.uuid:
        options[dhcp.CLIENT_UUID] = query.uuid
    if asked.relay is not None:
        options[dhcp.RELAY_INFO] = asked.relay  # RFC 3046 2.2: echoed as it came
    item = asked.item
    echoed = b"" if item is None else item.type.to_bytes(2, "big") + item.layer.to_bytes(2, "big")
    vendor = vendor_options(strategy, settings.menu or _NO_MENU, facts.advertised, echoed, offer)
    if vendor is not None:
        options[dhcp.VENDOR_SPECIFIC] = vendor
    if strategy.option175 is not None:
        options[dhcp.IPXE] = strategy.option175
    if query.client.kind is not ClientKind.HTTP:  # it has a URL
        options[dhcp.TFTP_SERVER] = server + b"\0"
    if name:
        options[dhcp.BOOT_FILE] = name + b"\0"
    return Packet(
        dhcp.BOOTREPLY, head.xid, head.chaddr, head.htype, head.hlen,
        flags=head.flags | dhcp.BROADCAST_FLAG if target.flag else head.flags,
        ciaddr=head.ciaddr if not offer else dhcp.ZERO,
        siaddr=local, giaddr=head.giaddr, sname=server,
        # A name that the header cannot hold with its NUL is in option 67 only.
        file=name if len(name) < 128 else b"",
        options=options,
    )  # fmt: skip


def _name(query: Query, facts: Facts, settings: Settings, chosen: Plan) -> bytes:
    name = chosen.file.name
    if name and query.client.kind is ClientKind.HTTP:
        name = url_of(name, facts.advertised, settings.http_port)
    return name.encode()
