"""The rules: every recorded packet, every destination, boot servers; replies as scapy and dpkt read them."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import dpkt
import pytest
from scapy.layers.dhcp import BOOTP, DHCP

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.decide import mac_of
from pbserv.proxydhcp.facts import Facts
from pbserv.proxydhcp.loaders import Loader, Settings
from pbserv.proxydhcp.outcome import Ignore, Listener, Reason, Reply
from pbserv.proxydhcp.packet import Packet, decode, encode
from pbserv.proxydhcp.strategy import Menu, MenuEntry
from tests.proxydhcp.samples import (
    AT_67,
    AT_4011,
    FIRMWARE,
    HTTP,
    IPXE_OPTIONS,
    RECORDED,
    SERVER,
    SETTINGS,
    answer,
    asks,
    facts_for,
    reason,
    recorded,
    reply,
    sent,
    settings,
)

WIDE = ("255.255.255.255", 68)
BACK = ("192.168.122.63", 4011)
OUTCOMES: dict[str, Reason | tuple[str, str, str, tuple[str, int]]] = {
    "asrock-bios-intel-discover": ("OFFER", "direct", "undionly.kpxe", WIDE),
    "plain-host-relayed-request": Reason.NOT_PXE,
    "ovmf-x64-discover-bz387": ("OFFER", "hybrid", "ipxe.efi", WIDE),
    "ovmf-x64-request-bz387": Reason.ORDINARY_REQUEST_ON_67,
    "ovmf-x64-4011-request-try1-bz387": ("ACK", "hybrid", "ipxe.efi", BACK),
    "ovmf-x64-4011-request-try2-bz387": ("ACK", "hybrid", "ipxe.efi", BACK),
    "ovmf-x64-4011-request-try3-bz387": ("ACK", "hybrid", "ipxe.efi", BACK),
    "ovmf-x64-4011-request-try4-bz387": ("ACK", "hybrid", "ipxe.efi", BACK),
    "ovmf-x64-pxe-discover-bz880": ("OFFER", "hybrid", "ipxe.efi", WIDE),
    "ovmf-x64-pxe-request-bz880": Reason.ORDINARY_REQUEST_ON_67,
    "ovmf-x64-httpboot-discover-bz880": ("OFFER", "http", "http://192.168.122.250:8067/ipxe.efi", WIDE),
    "ovmf-x64-httpboot-request-bz880": Reason.ORDINARY_REQUEST_ON_67,
    "rpi3-rom-discover": ("OFFER", "raspberrypi", "", WIDE),
    "armv8-uboot-request": Reason.U_BOOT,
    "riscv64-uboot-discover": Reason.U_BOOT,
}


def check(data: bytes, asked: Packet, server: str, names_file: str) -> Mapping[int, bytes]:
    """What every reply must be, by three decoders; its options."""
    ours, scapy, other = decode(data), BOOTP(data), dpkt.dhcp.DHCP(data)
    said: dict[str, object] = dict(entry[:2] for entry in scapy[DHCP].options if isinstance(entry, tuple))
    options = dict(other.opts)
    assert ours.options == options
    assert (scapy.op, scapy.xid, scapy.yiaddr, scapy.siaddr) == (2, asked.xid, "0.0.0.0", server)
    assert (scapy.ciaddr, scapy.giaddr) == (dhcp.dotted(ours.ciaddr), dhcp.dotted(asked.giaddr))
    assert (ours.chaddr, ours.htype, ours.hlen, ours.giaddr) == (asked.chaddr, asked.htype, asked.hlen, asked.giaddr)
    assert (other.op, other.xid, other.secs, other.hops) == (2, asked.xid, 0, 0)
    assert said["server_id"] == server != "0.0.0.0"
    assert said["message-type"] == (2 if asked.message_type == dhcp.DISCOVER else 5)
    assert options[54] == socket.inet_aton(server)
    assert asked.options[60].startswith(options[60])
    assert options.get(97) == asked.options.get(97)
    assert options.get(82) == asked.options.get(82)
    assert ours.sname == server.encode()
    assert ours.file == names_file.encode()
    assert 300 <= len(data) <= asked.limit
    assert 52 not in options
    assert next(iter(options)) == 53
    vendor = options.get(43)
    if vendor is not None:
        assert vendor.endswith(b"\xff")
        control = dhcp.suboptions(vendor).get(6)
        # Bit 1 not set makes EDK2 multicast to 0.0.0.0; 8 alone, which just boots the file, asks nobody.
        assert control is None or control[0] & 0x0A
    if names_file:
        assert options[67] == names_file.encode() + b"\0"
        assert list(options)[-1] == 67
        assert data.rstrip(b"\0").endswith(bytes((67, len(options[67]))) + options[67] + b"\xff")
    return options


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_packets_are_answered_as_they_should(name: str) -> None:
    packet, facts = decode(recorded(name)), facts_for(name)
    found = answer(recorded(name), facts)
    expected = OUTCOMES.get(name, Reason.NOT_REQUEST)  # the rest are servers' replies
    if isinstance(expected, Reason):
        assert isinstance(found, Ignore)
        assert found.reason is expected
        return
    assert isinstance(found, Reply)
    message, strategy, file, target = expected
    assert (found.summary.message, found.summary.strategy, found.summary.file) == (message, strategy, file)
    assert (found.destination, found.port) == target
    assert (found.source, found.ifindex, found.summary.server) == (SERVER, 3, SERVER)
    check(found.data, packet, SERVER, file)
    assert decode(found.data).message_type == (dhcp.ACK if message == "ACK" else dhcp.OFFER)
    assert found.summary.acknowledged == (message == "ACK")


@pytest.mark.parametrize("entry", FIRMWARE, ids=lambda entry: f"{entry['client']}-{entry['kind']}-{entry['hex'][8:16]}")
def test_packets_of_real_firmware(entry: dict[str, str]) -> None:
    data = bytes.fromhex(entry["hex"])
    packet = decode(data)
    boot_server = int(entry["dst_port"]) == 4011
    source = dhcp.dotted(packet.ciaddr)
    facts = Facts(
        Listener.BOOT_SERVER if boot_server else Listener.DHCP, source, int(entry["src_port"]), "10.77.0.3",
        "10.77.0.3", 2, boot_server, ((0x0A4D0000, 0xFFFFFF00),),
    )  # fmt: skip
    found = answer(data, facts)
    if entry["kind"] == "REQUEST":
        assert isinstance(found, Ignore)
        assert found.reason is Reason.ORDINARY_REQUEST_ON_67
    elif isinstance(found, Ignore):
        assert found.reason is Reason.BOOT_ITEM_NOT_OURS
        assert packet.options[43] == bytes.fromhex("470480020000ff")
    else:
        check(found.data, packet, "10.77.0.3", found.summary.file)
        assert (found.destination, found.port) == ((source, int(entry["src_port"])) if boot_server else WIDE)


STRATEGIES = sorted(SETTINGS.table.strategies)
MENU = Menu((MenuEntry("Memory test", file="memtest.0"), MenuEntry("WDS", server="10.0.0.9")), 7)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("arch", [0, 7])
@pytest.mark.parametrize("kind", [dhcp.DISCOVER, dhcp.REQUEST])
def test_every_strategy_obeys_the_rules_of_all_replies(strategy: str, arch: int, kind: int) -> None:
    wanted = settings(
        f'[[rule]]\nstrategy = "{strategy}"\nescalate = []\nsource = "here"', menu=MENU, ipxe="http://10.0.0.1/x.ipxe"
    )
    facts = AT_67 if kind == dhcp.DISCOVER else AT_4011
    for extra in ({}, IPXE_OPTIONS, {57: b"\x02\x40"}, {82: b"\1\4port"}):
        packet = asks(kind, arch, vendor_class=b"PXEClient:Arch:00000", extra=dict(extra))
        found = reply(packet, facts, wanted)
        file = "" if kind == dhcp.DISCOVER and strategy in ("binl", "local") else found.summary.file
        options = check(found.data, packet, SERVER, file)
        assert len(options.get(43, b"")) <= 255
        assert found.summary.strategy == strategy


# Where replies go ----------------------------------------------------------------------------------------------------


def test_broadcasts_carry_the_flag_whatever_the_client_said() -> None:
    found = reply(asks(extra=IPXE_OPTIONS, flags=0))
    assert (found.destination, found.port, found.ifindex) == ("255.255.255.255", 68, 3)
    assert decode(found.data).flags == 0x8000


def test_a_relay_gets_the_reply_on_port_67_with_its_option_82() -> None:
    near, far = bytes((192, 168, 122, 1)), bytes((10, 9, 8, 1))
    for relay, interface in ((near, 3), (far, 0)):
        packet = asks(arch=7, giaddr=relay, hops=1, extra={82: b"\x01\x04port\x02\x02id"})
        found = reply(packet, AT_67._replace(source=dhcp.dotted(relay), source_port=67, unicast=True))
        assert (found.destination, found.port, found.ifindex) == (dhcp.dotted(relay), 67, interface)
        answered = decode(found.data)
        assert answered.options[82] == b"\x01\x04port\x02\x02id"
        assert answered.giaddr == relay
        assert answered.flags == 0x8000


def test_a_relay_counts_on_port_67_only() -> None:
    packet = asks(dhcp.REQUEST, 7, giaddr=bytes((192, 168, 122, 1)), ciaddr=bytes((192, 168, 122, 63)))
    found = reply(packet, AT_4011)
    assert (found.destination, found.port) == BACK


def test_a_client_with_an_address_gets_the_reply_there() -> None:
    ciaddr = bytes((192, 168, 122, 63))
    found = reply(asks(ciaddr=ciaddr), AT_67._replace(source="192.168.122.63", source_port=4011))
    assert (found.destination, found.port) == ("192.168.122.63", 4011)
    assert decode(found.data).ciaddr == dhcp.ZERO  # an OFFER
    found = reply(asks(ciaddr=ciaddr))
    assert (found.destination, found.port) == ("192.168.122.63", 68)


def test_the_source_port_is_believed_only_of_the_clients_own_address() -> None:
    request = asks(dhcp.REQUEST, 7, ciaddr=bytes((192, 168, 122, 63)))
    for source, port, expected in (
        ("192.168.122.63", 4011, ("192.168.122.63", 4011)),
        ("192.168.122.63", 68, ("192.168.122.63", 68)),
        ("192.168.122.99", 53, ("192.168.122.63", 68)),
    ):
        found = reply(request, AT_4011._replace(source=source, source_port=port))
        assert (found.destination, found.port) == expected
        assert decode(found.data).ciaddr == request.ciaddr
    found = reply(asks(dhcp.REQUEST, 7), AT_4011._replace(source="192.168.122.99", source_port=1234))
    assert (found.destination, found.port) == ("192.168.122.99", 1234)
    found = reply(asks(dhcp.INFORM, 7), AT_4011._replace(source="0.0.0.0", source_port=68, unicast=False))
    assert (found.destination, found.port, found.ifindex) == ("255.255.255.255", 68, 3)


@pytest.mark.parametrize("header", ["giaddr", "ciaddr"])
@pytest.mark.parametrize("address", ["255.255.255.255", "224.0.0.1"])
def test_nothing_is_sent_to_group_addresses(header: str, address: str) -> None:
    assert reason(asks(**{header: dhcp.undotted(address)})) is Reason.BAD_RETURN_ADDRESS  # type: ignore[arg-type]


def test_another_address_may_be_told_than_the_one_that_is_sent_from() -> None:
    facts = AT_67._replace(advertised="192.0.2.10")
    for packet in (asks(), asks(arch=7), asks(extra=IPXE_OPTIONS)):
        found = reply(packet, facts)
        assert (found.source, found.summary.server) == (SERVER, "192.0.2.10")
        check(found.data, packet, "192.0.2.10", found.summary.file)
    named = sent(asks(arch=16, vendor_class=HTTP), facts, settings(loaders={16: Loader("NBPHTTPx64", "snponly.efi")}))
    assert named.file == b"http://192.0.2.10:8067/files/snponly.efi"
    menu = sent(asks(), facts, settings(menu=MENU))
    assert dhcp.suboptions(menu.options[43])[8][:7] == b"\x80\0\1" + socket.inet_aton("192.0.2.10")


# Boot servers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [dhcp.REQUEST, dhcp.INFORM])
@pytest.mark.parametrize("facts", [AT_67, AT_4011])
def test_boot_server_discovery(kind: int, facts: Facts) -> None:
    def ask(item: str) -> Packet:
        return asks(kind, 0, extra={43: bytes.fromhex(item), 54: b"\x0a\0\0\1"})

    found = sent(ask("470480000000ff"), facts)
    assert found.message_type == dhcp.ACK
    assert dhcp.suboptions(found.options[43]) == {6: b"\x08", 71: bytes.fromhex("80000000")}
    assert reason(ask("470480008000ff"), facts) is Reason.BOOT_ITEM_WANTS_CREDENTIALS
    for other in ("470480020000ff", "470400000000ff", "470480000001ff"):
        assert reason(ask(other), facts) is Reason.BOOT_ITEM_NOT_OURS
    assert reason(ask("470380"), facts) is Reason.BAD_PACKET


def test_a_uefi_client_gets_its_boot_item_back_and_no_discovery_control() -> None:
    found = sent(asks(dhcp.REQUEST, 7, extra={43: bytes.fromhex("470480000000ff")}), AT_4011)
    assert found.options[43] == bytes.fromhex("470480000000ff")


def test_a_pad_before_the_end_of_a_boot_item_is_as_real_firmware_writes_it() -> None:
    found = sent(asks(dhcp.REQUEST, xid=0, extra={43: bytes.fromhex("47048000000000ff")}), AT_4011)
    assert dhcp.suboptions(found.options[43])[71] == bytes.fromhex("80000000")


def test_the_entries_of_the_menu_lead_to_their_files() -> None:
    given = settings(menu=MENU)

    def chosen(item: int, layer: int = 0, given: Settings = given) -> Reply | Ignore:
        value = item.to_bytes(2, "big") + layer.to_bytes(2, "big")
        return answer(asks(dhcp.REQUEST, 0, extra={43: b"\x47\4" + value + b"\xff"}), AT_4011, given)

    for item, file in ((0x8000, "undionly.kpxe"), (0x8001, "memtest.0")):
        found = chosen(item)
        assert isinstance(found, Reply)
        packet = decode(found.data)
        assert (found.summary.file, packet.file, packet.options[67]) == (file, file.encode(), file.encode() + b"\0")
        assert dhcp.suboptions(packet.options[43])[71] == item.to_bytes(2, "big") + b"\0\0"
        assert 9 not in dhcp.suboptions(packet.options[43])  # it has chosen: the menu is not shown again
    for item, layer, why in (
        (0x8002, 0, Reason.BOOT_ITEM_NOT_OURS),  # another server's
        (0x8003, 0, Reason.BOOT_ITEM_NOT_OURS),
        (0, 0, Reason.BOOT_ITEM_NOT_OURS),
        (0x8001, 1, Reason.BOOT_ITEM_NOT_OURS),
        (0x8001, 0x8000, Reason.BOOT_ITEM_WANTS_CREDENTIALS),
    ):
        refused = chosen(item, layer)
        assert isinstance(refused, Ignore)
        assert refused.reason is why
    none = chosen(0x8001, given=SETTINGS)
    assert isinstance(none, Ignore)
    assert none.reason is Reason.BOOT_ITEM_NOT_OURS


def test_a_request_for_another_proxy_is_not_ours() -> None:
    other = asks(dhcp.REQUEST, 7, extra={54: bytes((192, 168, 122, 9))})
    heard = AT_4011._replace(unicast=False)
    assert reason(other, heard) is Reason.WRONG_SERVER
    assert isinstance(answer(other, AT_4011), Reply)  # sent to our address, so it is for us
    for ours in (SERVER, "0.0.0.0"):
        assert isinstance(answer(asks(dhcp.REQUEST, 7, extra={54: dhcp.undotted(ours)}), heard), Reply)
    told = heard._replace(advertised="192.168.122.9")
    assert isinstance(answer(other, told), Reply)  # the address that clients are told


@pytest.mark.parametrize(
    ("packet", "facts", "expected"),
    [
        (asks(dhcp.DISCOVER), AT_4011, Reason.NOT_A_BOOT_SERVER_REQUEST),
        (asks(7), AT_67, Reason.MESSAGE_NOT_FOR_PROXY),
        (asks(7), AT_4011, Reason.NOT_A_BOOT_SERVER_REQUEST),
        (asks(200), AT_67, Reason.MESSAGE_NOT_FOR_PROXY),
        (asks(dhcp.REQUEST), AT_67, Reason.ORDINARY_REQUEST_ON_67),
        (asks(dhcp.INFORM), AT_67, Reason.ORDINARY_REQUEST_ON_67),
        (asks(dhcp.REQUEST, 16, vendor_class=b"HTTPClient"), AT_4011, Reason.HTTP_NEEDS_NO_BOOT_SERVER),
        (asks(vendor_class=b"MSFT 5.0"), AT_67, Reason.NOT_PXE),
        (asks(mac="000000000000"), AT_67, Reason.BAD_HARDWARE_ADDRESS),
        (asks(mac="010203040506"), AT_67, Reason.BAD_HARDWARE_ADDRESS),
        (asks(hlen=8), AT_67, Reason.BAD_HARDWARE_ADDRESS),
        (asks(extra={53: b"\1\1"}), AT_67, Reason.NOT_DHCP),
        (asks(extra={93: b"\0"}), AT_67, Reason.NO_ARCH),
        (asks(arch=11), AT_67, Reason.ARCH_NOT_SERVED),
        (asks(arch=6), AT_67, Reason.ARCH_NOT_SERVED),
        (asks(arch=12), AT_67, Reason.ARCH_NOT_SERVED),
        (asks(arch=16), AT_67, Reason.ARCH_NOT_SERVED),
        (asks(arch=19, vendor_class=b"HTTPClient"), AT_67, Reason.ARCH_NOT_SERVED),
        (asks(arch=7, vendor_class=b"HTTPClient"), AT_67, Reason.ARCH_NOT_SERVED),
        (asks(extra={82: b"x" * 255, 57: b"\x02\x40"}), AT_67, Reason.REPLY_TOO_LONG),
    ],
)
def test_what_is_ignored_and_why(packet: Packet, facts: Facts, expected: Reason) -> None:
    assert reason(packet, facts) is expected


def test_the_address_of_a_client_that_hides_it_in_option_61() -> None:
    guid = bytes(range(0x10, 0x20)).hex()
    for extra, expected in (({}, "1a1b1c1d1e1f"), ({61: b"\x01RT\0\x11\x22\x33"}, "525400112233")):
        data = encode(asks(mac=guid, hlen=16, extra=extra))
        assert mac_of(data, dhcp.head_of(data)) == bytes.fromhex(expected)
        assert decode(reply(data).data).chaddr == bytes.fromhex(guid)
    cut = encode(asks(mac=guid, hlen=16))[:240] + b"\x3d\x07\x01"
    assert mac_of(cut, dhcp.head_of(cut)) is None
