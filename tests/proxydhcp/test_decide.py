"""The rules: every recorded packet, every destination, every verdict; replies as scapy and dpkt read them."""

from __future__ import annotations

import dataclasses
import socket

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from pbserv.errors import WireError
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.decide import Query, decide, screen
from pbserv.proxydhcp.facts import Facts
from pbserv.proxydhcp.outcome import ClientKind, Ignore, Listener, Reason, Reply
from pbserv.proxydhcp.packet import Packet, decode
from pbserv.types import Decision, Verdict
from tests.proxydhcp.samples import (
    AT_67,
    AT_4011,
    FIRMWARE,
    IPXE_OPTIONS,
    RECORDED,
    SERVER,
    SETTINGS,
    asks,
    facts_for,
    recorded,
)

BOOT = Decision(Verdict.BOOT, "restore")


def answer(
    packet: Packet,
    facts: Facts = AT_67,
    verdict: Verdict = Verdict.BOOT,
    ipxe: str = "boot.ipxe",
    chained: bool = False,
) -> Reply | Ignore:
    query = screen(packet, facts)
    if isinstance(query, Ignore):
        return query
    settings = dataclasses.replace(SETTINGS, ipxe=ipxe)
    return decide(query, facts, settings, Decision(verdict, "because"), chained)


def reply(*args: object, **kwargs: object) -> Reply:
    found = answer(*args, **kwargs)  # type: ignore[arg-type]
    assert isinstance(found, Reply), found
    return found


def reason(*args: object, **kwargs: object) -> Reason:
    found = answer(*args, **kwargs)  # type: ignore[arg-type]
    assert isinstance(found, Ignore), found
    return found.reason


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


def check(data: bytes, asked: Packet, server: str, names_file: str) -> None:
    """What every reply must be, by three decoders."""
    ours, scapy, other = decode(data), BOOTP(data), dpkt.dhcp.DHCP(data)
    said: dict[str, object] = dict(entry[:2] for entry in scapy[DHCP].options if isinstance(entry, tuple))
    options = dict(other.opts)
    assert ours.options == options
    assert (scapy.op, scapy.xid, scapy.yiaddr, scapy.siaddr) == (2, asked.xid, "0.0.0.0", server)
    assert (ours.chaddr, ours.htype, ours.hlen, ours.giaddr) == (asked.chaddr, asked.htype, asked.hlen, asked.giaddr)
    assert said["server_id"] == server
    assert options[54] == socket.inet_aton(server)
    assert asked.options[60].startswith(options[60])
    assert options.get(97) == asked.options.get(97)
    assert ours.sname == server.encode()
    assert ours.file == names_file.encode()
    assert 300 <= len(data) <= asked.limit
    assert 52 not in options
    if names_file:
        assert options[67] == names_file.encode() + b"\0"
        assert data.rstrip(b"\0").endswith(bytes((67, len(options[67]))) + options[67] + b"\xff")


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_packets_are_answered_as_they_should(name: str) -> None:
    packet, facts = decode(recorded(name)), facts_for(name)
    found = answer(packet, facts)
    expected = OUTCOMES.get(name, Reason.NOT_REQUEST)  # the rest are servers' replies
    if isinstance(expected, Reason):
        assert isinstance(found, Ignore)
        assert found.reason is expected
        return
    assert isinstance(found, Reply)
    message, strategy, file, target = expected
    assert (found.summary.message, found.summary.strategy, found.summary.file) == (message, strategy, file)
    assert (found.destination, found.port) == target
    assert (found.source, found.ifindex) == (SERVER, 3)
    check(found.data, packet, SERVER, file)
    assert decode(found.data).message_type == (dhcp.ACK if message == "ACK" else dhcp.OFFER)
    assert found.summary.acknowledged == (message == "ACK")


@pytest.mark.parametrize("entry", FIRMWARE, ids=lambda entry: f"{entry['client']}-{entry['kind']}-{entry['hex'][8:16]}")
def test_packets_of_real_firmware(entry: dict[str, str]) -> None:
    packet = decode(bytes.fromhex(entry["hex"]))
    boot_server = int(entry["dst_port"]) == 4011
    source = dhcp.dotted(packet.ciaddr)
    facts = Facts(
        Listener.BOOT_SERVER if boot_server else Listener.DHCP, source, int(entry["src_port"]), "10.77.0.3", 2,
        boot_server, ((0x0A4D0000, 0xFFFFFF00),),
    )  # fmt: skip
    found = answer(packet, facts)
    if entry["kind"] == "REQUEST":
        assert isinstance(found, Ignore)
        assert found.reason is Reason.ORDINARY_REQUEST_ON_67
    elif isinstance(found, Ignore):
        assert found.reason is Reason.BOOT_ITEM_NOT_OURS
        assert packet.options[43] == bytes.fromhex("470480020000ff")
    else:
        check(found.data, packet, "10.77.0.3", found.summary.file)
        assert (found.destination, found.port) == ((source, int(entry["src_port"])) if boot_server else WIDE)


def test_broadcasts_carry_the_flag_whatever_the_client_said() -> None:
    found = reply(asks(extra=IPXE_OPTIONS, flags=0))
    assert (found.destination, found.port, found.ifindex) == ("255.255.255.255", 68, 3)
    assert decode(found.data).flags == 0x8000


def test_a_relay_gets_the_reply_on_port_67_with_its_option_82() -> None:
    near, far = bytes((192, 168, 122, 1)), bytes((10, 9, 8, 1))
    for relay, interface in ((near, 3), (far, 0)):
        packet = asks(arch=7, giaddr=relay, extra={82: b"\x01\x04port\x02\x02id"})
        found = reply(packet, dataclasses.replace(AT_67, source=dhcp.dotted(relay), source_port=67, unicast=True))
        assert (found.destination, found.port, found.ifindex) == (dhcp.dotted(relay), 67, interface)
        sent = decode(found.data)
        assert sent.options[82] == b"\x01\x04port\x02\x02id"
        assert sent.giaddr == relay
        assert sent.flags == 0x8000


def test_a_client_with_an_address_gets_the_reply_there() -> None:
    ciaddr = bytes((192, 168, 122, 63))
    found = reply(asks(ciaddr=ciaddr), dataclasses.replace(AT_67, source="192.168.122.63", source_port=4011))
    assert (found.destination, found.port) == ("192.168.122.63", 4011)
    found = reply(asks(ciaddr=ciaddr))
    assert (found.destination, found.port) == ("192.168.122.63", 68)


def test_the_source_port_is_believed_only_of_the_clients_own_address() -> None:
    request = asks(dhcp.REQUEST, 7, ciaddr=bytes((192, 168, 122, 63)))
    for source, port, expected in (
        ("192.168.122.63", 4011, ("192.168.122.63", 4011)),
        ("192.168.122.63", 68, ("192.168.122.63", 68)),
        ("192.168.122.99", 53, ("192.168.122.63", 68)),
    ):
        found = reply(request, dataclasses.replace(AT_4011, source=source, source_port=port))
        assert (found.destination, found.port) == expected
        assert decode(found.data).ciaddr == request.ciaddr
    found = reply(asks(dhcp.REQUEST, 7), dataclasses.replace(AT_4011, source="192.168.122.99", source_port=1234))
    assert (found.destination, found.port) == ("192.168.122.99", 1234)
    found = reply(asks(dhcp.INFORM, 7), dataclasses.replace(AT_4011, source="0.0.0.0", source_port=68, unicast=False))
    assert (found.destination, found.port, found.ifindex) == ("255.255.255.255", 68, 3)


@pytest.mark.parametrize("header", ["giaddr", "ciaddr"])
@pytest.mark.parametrize("address", ["255.255.255.255", "224.0.0.1"])
def test_nothing_is_sent_to_group_addresses(header: str, address: str) -> None:
    assert reason(asks(**{header: dhcp.undotted(address)})) is Reason.BAD_RETURN_ADDRESS  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [dhcp.REQUEST, dhcp.INFORM])
@pytest.mark.parametrize("facts", [AT_67, AT_4011])
def test_boot_server_discovery(kind: int, facts: Facts) -> None:
    def ask(item: str) -> Packet:
        return asks(kind, 0, extra={43: bytes.fromhex(item), 54: b"\x0a\0\0\1"})

    sent = decode(reply(ask("470480000000ff"), facts).data)
    assert sent.message_type == dhcp.ACK
    assert dhcp.suboptions(sent.options[43]) == {6: b"\x08", 71: bytes.fromhex("80000000")}
    assert reason(ask("470480008000ff"), facts) is Reason.BOOT_ITEM_WANTS_CREDENTIALS
    for other in ("470480020000ff", "470400000000ff", "470480000001ff"):
        assert reason(ask(other), facts) is Reason.BOOT_ITEM_NOT_OURS
    with pytest.raises(WireError):
        answer(ask("470380"), facts)


def test_a_uefi_client_gets_its_boot_item_back_and_no_discovery_control() -> None:
    sent = decode(reply(asks(dhcp.REQUEST, 7, extra={43: bytes.fromhex("470480000000ff")}), AT_4011).data)
    assert sent.options[43] == bytes.fromhex("470480000000ff")


def test_a_request_for_another_proxy_is_not_ours() -> None:
    other = asks(dhcp.REQUEST, 7, extra={54: bytes((192, 168, 122, 9))})
    heard = dataclasses.replace(AT_4011, unicast=False)
    assert reason(other, heard) is Reason.WRONG_SERVER
    assert isinstance(answer(other, AT_4011), Reply)  # sent to our address, so it is for us
    assert isinstance(answer(asks(dhcp.REQUEST, 7, extra={54: dhcp.undotted(SERVER)}), heard), Reply)


@pytest.mark.parametrize(
    ("packet", "facts", "expected"),
    [
        (asks(dhcp.DISCOVER), AT_4011, Reason.NOT_A_BOOT_SERVER_REQUEST),
        (asks(7), AT_67, Reason.MESSAGE_NOT_FOR_PROXY),
        (asks(7), AT_4011, Reason.NOT_A_BOOT_SERVER_REQUEST),
        (asks(200), AT_67, Reason.MESSAGE_NOT_FOR_PROXY),
        (asks(dhcp.REQUEST), AT_67, Reason.ORDINARY_REQUEST_ON_67),
        (asks(dhcp.REQUEST, 16, vendor_class=b"HTTPClient"), AT_4011, Reason.HTTP_NEEDS_NO_BOOT_SERVER),
        (asks(vendor_class=b"MSFT 5.0"), AT_67, Reason.NOT_PXE),
        (asks(mac="000000000000"), AT_67, Reason.BAD_HARDWARE_ADDRESS),
        (asks(extra={53: b"\1\1"}), AT_67, Reason.NOT_DHCP),
        (asks(arch=11), AT_67, Reason.ARCH_NOT_SERVED),
        (asks(arch=6), AT_67, Reason.ARCH_NOT_SERVED),
        (asks(arch=12), AT_67, Reason.ARCH_NOT_SERVED),
        (asks(arch=16), AT_67, Reason.ARCH_NOT_SERVED),
        (asks(arch=19, vendor_class=b"HTTPClient"), AT_67, Reason.ARCH_NOT_SERVED),
        (asks(extra={82: b"x" * 200 + b"y" * 100}), AT_67, Reason.REPLY_TOO_LONG),
    ],
)
def test_what_is_ignored_and_why(packet: Packet, facts: Facts, expected: Reason) -> None:
    assert reason(packet, facts) is expected


def test_an_architecture_without_loader_names_the_key_to_set() -> None:
    found = answer(asks(arch=11))
    assert isinstance(found, Ignore)
    assert found.detail == "no boot file for UEFI ARM64"
    assert found.remedy == "set NBPARM64 in proxydhcp.conf"


def test_verdicts() -> None:
    assert reason(asks(), verdict=Verdict.SILENT) is Reason.POLICY_SILENT
    for verdict in (Verdict.LOCAL, Verdict.MENU, Verdict.BOOT, Verdict.LOADER):
        assert reply(asks(), verdict=verdict).summary.file == "undionly.kpxe"
        assert reply(asks(arch=9), verdict=verdict).summary.file == "ipxe.efi"
    pi = decode(recorded("rpi3-rom-discover"))
    assert reason(pi, verdict=Verdict.LOCAL) is Reason.NO_LOCAL_BOOT_ANSWER


def test_the_strategies_are_phrased_as_each_client_wants_them() -> None:
    bios = decode(reply(asks()).data)
    assert bios.options[43] == bytes.fromhex("060108ff")
    assert bios.options[66] == SERVER.encode() + b"\0"
    uefi = decode(reply(asks(arch=7)).data)
    assert 43 not in uefi.options
    ipxe = decode(reply(asks(extra=IPXE_OPTIONS)).data)
    assert ipxe.options[175] == b"\x01\x01\x01"
    assert 43 not in ipxe.options
    http = decode(reply(asks(arch=16, vendor_class=b"HTTPClient:Arch:00016")).data)
    assert http.options[60] == b"HTTPClient"
    assert {43, 66}.isdisjoint(http.options)
    pi = decode(reply(decode(recorded("rpi3-rom-discover"))).data)
    menu = bytes.fromhex("0601030a04005058450917000014")
    assert pi.options[43] == menu + b"Raspberry Pi Boot   \xff"
    assert len(pi.options[43]) == 0x23


def test_ipxe_gets_its_script_or_else_the_loader_and_then_the_script() -> None:
    rom = asks(extra=IPXE_OPTIONS)
    assert reply(rom).summary.file == "boot.ipxe"
    assert not reply(rom).summary.loader
    assert reply(rom, ipxe="http://10.0.0.1/x.ipxe").summary.file == "http://10.0.0.1/x.ipxe"
    assert reply(asks(arch=11, extra=IPXE_OPTIONS)).summary.file == "boot.ipxe"  # whatever its architecture
    for wanted in ({"ipxe": ""}, {"verdict": Verdict.LOADER}):
        first = reply(rom, **wanted)
        assert (first.summary.file, first.summary.loader) == ("undionly.kpxe", True)
        assert first.summary.kind is ClientKind.IPXE
        again = reply(rom, chained=True, **wanted)
        assert (again.summary.file, again.summary.loader) == ("boot.ipxe", False)
    assert reason(asks(arch=11, extra=IPXE_OPTIONS), ipxe="") is Reason.ARCH_NOT_SERVED


def test_a_url_too_long_for_the_header_stands_in_option_67_only() -> None:
    url = "http://10.0.0.1/" + "x" * 180
    sent = decode(reply(asks(extra=IPXE_OPTIONS), ipxe=url).data)
    assert sent.file == b""
    assert sent.options[67] == url.encode() + b"\0"
    assert reason(asks(extra=IPXE_OPTIONS), ipxe="http://10.0.0.1/" + "x" * 250) is Reason.REPLY_TOO_LONG


def test_an_option_97_of_a_wrong_length_is_not_echoed() -> None:
    assert 97 not in decode(reply(asks(extra={97: b"\0" * 16})).data).options


def test_the_policy_is_asked_about_the_device() -> None:
    query = screen(decode(recorded("ovmf-x64-4011-request-try1-bz387")), AT_4011)
    assert isinstance(query, Query)
    sighting = query.sighting
    assert str(sighting.mac) == "52:54:00:83:ec:bc"
    assert (sighting.arch, sighting.via, sighting.address) == (7, "dhcp", "192.168.122.63")
    assert sighting.uuid == "c181f717-48e8-4c82-8367-e47f4c972d88"


@given(st.binary(max_size=60), st.sampled_from([AT_67, AT_4011]), st.sampled_from(list(Verdict)), st.booleans())
def test_any_options_of_a_client_lead_to_an_outcome(tail: bytes, facts: Facts, verdict: Verdict, chained: bool) -> None:
    data = recorded("ovmf-x64-discover-bz387")[:-1] + tail
    try:
        found = answer(decode(data), facts, verdict, chained=chained)
    except WireError:
        return
    if isinstance(found, Reply):
        decode(found.data)
        assert found.port > 0
