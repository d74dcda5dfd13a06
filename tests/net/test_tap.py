"""The packet socket beside a DHCP server: what it hears, what it must not hear, and from which port it answers."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.errors import StartError, WireError
from pbserv.net.dhcp_port import BatchPort
from pbserv.net.interfaces import InterfaceAddress
from pbserv.net.tap import MAX_DATA_BYTES, PacketTap, Places, UdpPacket, unwrap, wrap
from pbserv.net.udp import Datagram
from tests.daemon.programs import report_of
from tests.proxydhcp.wires import Card, Wires, wires

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "pxe-dhcp.json").read_text())
DISCOVER = next(bytes.fromhex(entry["hex"]) for entry in VECTORS if entry["name"] == "asrock-bios-intel-discover")
CLIENT = b"\x52\x54\0\0\0\1"
BROADCAST = b"\xff" * 6
VLAN = 5
MARKER = b"the last packet"

octets = st.binary(max_size=300)
addresses = st.integers(1, 0xDFFFFFFF).map(lambda number: socket.inet_ntoa(number.to_bytes(4, "big")))


def ip_packet(data: bytes, *, source: str = "0.0.0.0", to: str = "255.255.255.255", sport: int = 68,
              dport: int = 67, **fields: int) -> dpkt.ip.IP:  # fmt: skip
    """A whole IP packet by another implementation; ``fields`` change its header before the checksum is made."""
    udp = dpkt.udp.UDP(sport=sport, dport=dport, data=data, ulen=8 + len(data))
    made = dpkt.ip.IP(src=socket.inet_aton(source), dst=socket.inet_aton(to), p=17, ttl=20, data=udp)
    made.len = len(made)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


# unwrap and wrap


def test_a_packet_of_a_client() -> None:
    packet = bytes(ip_packet(DISCOVER))
    expected = UdpPacket("0.0.0.0", 68, "255.255.255.255", DISCOVER)
    assert unwrap(packet, 67) == expected
    assert unwrap(packet + bytes(9), 67) == expected, "Ethernet pads short frames"
    assert unwrap(bytes(ip_packet(DISCOVER, df=1)), 67) == expected


def test_header_options_are_stepped_over() -> None:
    packet = ip_packet(b"abc")
    packet.opts = b"\x94\x04\0\0"  # RFC 2113, router alert
    packet.hl, packet.len = 6, packet.len + 4
    packet.sum = 0
    assert unwrap(bytes(packet), 67).data == b"abc"


def test_a_wrong_udp_checksum_is_not_held_against_anybody() -> None:
    packet = bytearray(bytes(ip_packet(DISCOVER)))
    packet[26:28] = b"\xde\xad"
    assert unwrap(bytes(packet), 67).data == DISCOVER


def _changed(at: int, value: bytes, *, mend: bool = True) -> bytes:
    """A good packet with other bytes at ``at``, and with the right header checksum for them."""
    packet = bytearray(bytes(ip_packet(DISCOVER)))
    packet[at : at + len(value)] = value
    if mend:
        packet[10:12] = bytes(2)
        packet[10:12] = struct.pack("!H", dpkt.in_cksum(bytes(packet[:20])))
    return bytes(packet)


@pytest.mark.parametrize(
    ("packet", "field"),
    [
        (b"", "IP header"),
        (_changed(0, b"")[:19], "IP header"),
        (_changed(0, b"\x65"), "IP header"),
        (_changed(0, b"\x44"), "IP header"),
        (_changed(0, b"")[:-1], "IP total length"),
        (_changed(2, struct.pack("!H", 27)), "IP total length"),
        (_changed(6, b"\x20\x00"), "IP fragment"),
        (_changed(6, b"\x00\x01"), "IP fragment"),
        (_changed(9, b"\x06"), "IP protocol"),
        (_changed(8, b"\x13", mend=False), "IP checksum"),
        (_changed(12, b"\xff\xff\xff\xff"), "IP source"),
        (_changed(12, b"\xe0\x00\x00\x01"), "IP source"),
        (_changed(22, struct.pack("!H", 4011)), "UDP port"),
        (_changed(24, struct.pack("!H", 7)), "UDP length"),
        (_changed(24, struct.pack("!H", len(DISCOVER) + 9)), "UDP length"),
    ],
)
def test_what_is_no_datagram_for_the_port(packet: bytes, field: str) -> None:
    with pytest.raises(WireError) as caught:
        unwrap(packet, 67)
    assert caught.value.field == field


@given(octets)
def test_any_bytes_are_a_datagram_or_a_wire_error(packet: bytes) -> None:
    with contextlib.suppress(WireError):
        unwrap(packet, 67)


@given(octets, st.integers(0, 327), octets)
def test_any_change_of_a_good_packet(data: bytes, at: int, change: bytes) -> None:
    packet = bytes(ip_packet(data))
    with contextlib.suppress(WireError):
        found = unwrap(packet[:at] + change + packet[at + len(change) :], 67)
        assert len(found.data) <= len(packet) + len(change)


@given(octets, addresses, addresses, st.integers(0, 65535), st.integers(0, 65535))
def test_what_is_wrapped_is_right_by_another_implementation(
    data: bytes, source: str, to: str, sport: int, dport: int
) -> None:
    packet = wrap(data, source, sport, to, dport)
    seen = dpkt.ip.IP(packet)
    assert (socket.inet_ntoa(seen.src), socket.inet_ntoa(seen.dst), seen.ttl) == (source, to, 64)
    assert (seen.data.sport, seen.data.dport, seen.data.data) == (sport, dport, data)
    pseudo = seen.src + seen.dst + struct.pack("!BBH", 0, 17, len(seen.data))
    assert seen.data.sum != 0
    assert dpkt.in_cksum(pseudo + packet[20:]) == 0
    head = packet[:10] + struct.pack("!H", dpkt.in_cksum(packet[:20])) + packet[12:]  # as the kernel completes it
    assert unwrap(head, dport) == UdpPacket(source, sport, to, data)


def test_without_a_source_there_is_no_udp_checksum() -> None:
    assert dpkt.ip.IP(wrap(b"abc", None, 67, "10.1.0.50", 68)).data.sum == 0


# which packets are for us

ETH0, ETH1, TUNNEL, BARE = 2, 3, 4, 9
PLACES = Places.of(
    (
        InterfaceAddress(1, "lo", "127.0.0.1", 8),
        InterfaceAddress(ETH0, "eth0", "10.1.0.1", 24, "10.1.0.255"),
        InterfaceAddress(ETH0, "eth0", "10.9.0.1", 24),  # no broadcast address was set
        InterfaceAddress(ETH1, "eth1", "10.2.0.1", 25, "10.2.0.127"),
        InterfaceAddress(TUNNEL, "tun0", "10.3.0.1", 32),
    )
)


@pytest.mark.parametrize(
    ("ifindex", "source", "destination", "local"),
    [
        (ETH0, "0.0.0.0", "255.255.255.255", "10.1.0.1"),
        (ETH1, "0.0.0.0", "255.255.255.255", "10.2.0.1"),
        (BARE, "0.0.0.0", "255.255.255.255", "0.0.0.0"),
        (ETH0, "10.1.0.7", "10.1.0.255", "10.1.0.1"),
        (ETH0, "10.9.0.7", "10.9.0.255", "10.1.0.1"),
        (ETH1, "10.2.0.7", "10.2.0.127", "10.2.0.1"),
        (ETH1, "10.2.0.7", "10.1.0.255", None),
        (TUNNEL, "10.8.0.1", "10.3.0.1", "10.3.0.1"),
        (ETH1, "10.8.0.1", "10.9.0.1", "10.9.0.1"),  # any address of ours, whichever way it came
        (ETH0, "10.8.0.1", "10.8.0.2", None),  # routed through us
        (ETH0, "10.8.0.1", "224.0.0.1", None),
        (ETH0, "10.2.0.1", "255.255.255.255", None),  # our own, echoed by the other wire
        (ETH0, "127.0.0.1", "10.1.0.1", None),
        (1, "10.1.0.1", "10.1.0.1", "10.1.0.1"),  # a relay on this host
    ],
)
def test_which_packets_are_for_us(ifindex: int, source: str, destination: str, local: str | None) -> None:
    assert PLACES.local(ifindex, source, destination) == local


# on wires


@contextlib.contextmanager
def tapped(room: Wires, port: int = 67) -> Iterator[PacketTap]:
    with room.server():
        tap = PacketTap.open(port)
    try:
        yield tap
    finally:
        tap.close()


def heard(tap: PacketTap, count: int = 1) -> list[Datagram]:
    """The next ``count`` datagrams; fewer when ten seconds are over."""
    found: list[Datagram] = []
    end = time.monotonic() + 10
    while len(found) < count and select.select([tap.fileno()], [], [], max(0.0, end - time.monotonic()))[0]:
        found += tap.receive()
    return found


def heard_until_marker(tap: PacketTap, card: Card) -> list[Datagram]:
    """What came before a packet that is sent now; packets of one wire arrive in order."""
    card.broadcast(MARKER)
    found = heard(tap)
    while found and found[-1].data != MARKER:
        found += heard(tap)
    assert found, "not even the marker was heard"
    return found[:-1]


def transmit(card: Card, packet: bytes, *, to: bytes = BROADCAST, tag: bytes = b"") -> None:
    card.raw.send(to + CLIENT + tag + b"\x08\x00" + packet)


@contextlib.contextmanager
def dnsmasq(room: Wires, directory: Path) -> Iterator[None]:
    """A DHCP server on the first wire that holds port 67."""
    with room.server():
        server = subprocess.Popen(
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-hosts", "--no-resolv",
             "--interface=s0", "--dhcp-authoritative", "--no-ping", "--user=root", "--log-facility=-", "--pid-file",
             "--dhcp-range=10.1.0.100,10.1.0.200,255.255.255.0,1h", f"--dhcp-leasefile={directory / 'leases'}"],
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
    with server:
        assert server.stderr is not None
        try:
            said = []
            for line in server.stderr:
                said.append(line)
                if "IP range" in line:
                    break
            else:
                pytest.fail(f"dnsmasq ended: {said}")
            yield
        finally:
            server.terminate()


@pytest.mark.root
def test_beside_a_dhcp_server_that_holds_the_port(tmp_path: Path) -> None:
    with wires(1) as room, dnsmasq(room, tmp_path), tapped(room) as tap:
        with room.server(), pytest.raises(StartError, match="in use"):
            BatchPort.bind("0.0.0.0", 67)
        card = room.card(0)
        try:
            card.broadcast(DISCOVER)
            (arrived,) = heard(tap)
            assert arrived[:5] == (DISCOVER, "0.0.0.0", 68, "10.1.0.1", "255.255.255.255")
            sent = tap.send(b"ours", "255.255.255.255", 68, source=arrived.local, ifindex=arrived.ifindex)
            assert sent
            frames = [card.frame(), card.frame()]
            by_data = {frame.data.data.data: frame for frame in frames}
            ours = by_data.pop(b"ours")
            (offer,) = by_data
            assert dpkt.dhcp.DHCP(offer).op == 2, "the DHCP server answered as well"
            assert ours.dst == BROADCAST
            assert (socket.inet_ntoa(ours.data.src), ours.data.data.sport) == ("10.1.0.1", 67)
            assert socket.inet_ntoa(ours.data.dst) == "255.255.255.255"
            assert dpkt.in_cksum(bytes(ours.data)[:20]) == 0
        finally:
            card.close()
    assert tap.malformed == tap.foreign == 0


@pytest.mark.root
def test_a_relay_is_heard_and_answered() -> None:
    with wires(2) as room, tapped(room) as tap:
        with room.clients():
            relay = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            relay.bind(("10.2.0.50", 67))
            relay.settimeout(10)
        with relay:
            relay.sendto(DISCOVER, ("10.2.0.1", 67))
            (arrived,) = heard(tap)
            assert arrived[:5] == (DISCOVER, "10.2.0.50", 67, "10.2.0.1", "10.2.0.1")
            for source in ("10.2.0.1", None, "0.0.0.0"):
                assert tap.send(b"for the relay", "10.2.0.50", 67, source=source)
                assert relay.recvfrom(100) == (b"for the relay", ("10.2.0.1", 67))


@pytest.mark.root
def test_the_answer_leaves_by_the_wire_that_is_named() -> None:
    with wires(2) as room, tapped(room) as tap:
        cards = [room.card(number) for number in range(2)]
        try:
            for number, card in enumerate(cards):
                card.broadcast(DISCOVER)
                (arrived,) = heard(tap)
                assert arrived.local == f"10.{number + 1}.0.1"
                answer = f"wire {number}".encode()
                assert tap.send(answer, "255.255.255.255", 68, source=arrived.local, ifindex=arrived.ifindex)
                assert card.frame().data.data.data == answer
        finally:
            for card in cards:
                card.close()


@pytest.mark.root
def test_what_this_host_sends_is_not_heard() -> None:
    with wires(2) as room, tapped(room) as tap:
        with room.server():
            own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            first = socket.if_nametoindex("s0")
        card = room.card(0)
        try:
            assert tap.send(DISCOVER, "255.255.255.255", 67, source="10.1.0.1", ifindex=first)
            assert tap.send(DISCOVER, "10.1.0.255", 67, source="10.1.0.1")
            own.sendto(DISCOVER, ("10.1.0.255", 67))
            # A loop in the cabling brings a broadcast back by the other wire.
            transmit(card, bytes(ip_packet(DISCOVER, source="10.2.0.1")))
            assert heard_until_marker(tap, card) == []
            assert tap.foreign == 1
        finally:
            own.close()
            card.close()


@pytest.mark.root
def test_what_is_for_others_is_not_heard() -> None:
    with wires(1) as room, tapped(room) as tap:
        card = room.card(0)
        with room.server(), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as asked:
            asked.bind(("s0", 0))
            mac = asked.getsockname()[4]
        try:
            transmit(card, bytes(ip_packet(DISCOVER, to="10.1.0.1")), to=b"\x02\0\0\0\0\x77")  # another's MAC
            transmit(card, bytes(ip_packet(DISCOVER)), to=b"\x01\0\x5e\0\0\1")
            transmit(card, bytes(ip_packet(DISCOVER, source="10.1.0.9", to="10.8.0.9")), to=mac)  # routed through us
            transmit(card, bytes(ip_packet(DISCOVER, dport=68)))
            transmit(card, bytes(ip_packet(DISCOVER, dport=4011)))
            assert heard_until_marker(tap, card) == []
            assert (tap.foreign, tap.malformed) == (1, 0)
            transmit(card, bytes(ip_packet(DISCOVER, source="10.1.0.9", to="10.1.0.1")), to=mac)
            assert [one.data for one in heard_until_marker(tap, card)] == [DISCOVER]
        finally:
            card.close()


@pytest.mark.root
def test_broken_packets_are_counted_or_never_reach_us() -> None:
    whole = bytes(ip_packet(DISCOVER))
    noise = bytes((37 * n * n + 11 * n) & 255 for n in range(400))
    with wires(1) as room, tapped(room) as tap:
        card = room.card(0)
        try:
            for packet in (_changed(6, b"\x20\x00"), _changed(6, b"\x00\x10")):  # fragments: the filter's
                transmit(card, packet)
            for size in range(20):  # too short to be anything
                transmit(card, whole[:size])
            for start in range(0, 300, 7):
                transmit(card, noise[start : start + 100])
            assert heard_until_marker(tap, card) == []
            assert tap.malformed == 0
            transmit(card, whole[:-1])
            transmit(card, _changed(8, b"\x13", mend=False))
            transmit(card, _changed(24, b"\xff\xff"))
            assert heard_until_marker(tap, card) == []
            assert tap.malformed == 3
        finally:
            card.close()


@pytest.mark.root
def test_a_bridge_is_heard_once_and_not_its_ports() -> None:
    with wires(1) as room:
        for words in (
            ("link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0"),
            ("address", "flush", "dev", "s0"),
            ("link", "set", "s0", "master", "br0"),
            ("address", "add", "10.1.0.1/24", "brd", "+", "dev", "br0"),
            ("link", "set", "br0", "up"),
        ):
            room.run_server("ip", *words)
        with tapped(room) as tap:
            with room.server():
                bridge = socket.if_nametoindex("br0")
            card = room.card(0)
            try:
                card.broadcast(DISCOVER)
                found = heard_until_marker(tap, card)
                assert [(one.data, one.local, one.ifindex) for one in found] == [(DISCOVER, "10.1.0.1", bridge)]
                assert tap.send(b"by the bridge", "255.255.255.255", 68, source="10.1.0.1", ifindex=bridge)
                assert card.frame().data.data.data == b"by the bridge"
            finally:
                card.close()


@pytest.mark.root
def test_a_tagged_frame_belongs_to_the_vlan_and_never_to_its_parent() -> None:
    with wires(1) as room, tapped(room) as tap:
        with contextlib.suppress(RuntimeError):  # a kernel without 802.1Q still must not give it to the parent
            room.run_server("ip", "link", "add", "link", "s0", "name", "s0.5", "type", "vlan", "id", str(VLAN))
            room.run_server("ip", "address", "add", "10.5.0.1/24", "brd", "+", "dev", "s0.5")
            room.run_server("ip", "link", "set", "s0.5", "up")
        with room.server():
            places = {name: number for number, name in socket.if_nameindex()}
        card = room.card(0)
        try:
            transmit(card, bytes(ip_packet(DISCOVER)), tag=struct.pack("!HH", 0x8100, VLAN))
            transmit(card, bytes(ip_packet(DISCOVER)), tag=struct.pack("!HH", 0x8100, VLAN + 1))
            found = heard_until_marker(tap, card)
            expected = [("10.5.0.1", places["s0.5"])] if "s0.5" in places else []
            assert [(one.local, one.ifindex) for one in found] == expected
            transmit(card, bytes(ip_packet(DISCOVER)), tag=struct.pack("!HH", 0x8100, 7 << 13))  # priority, no VLAN
            found = heard_until_marker(tap, card)
            assert [(one.local, one.ifindex) for one in found] == [("10.1.0.1", places["s0"])]
        finally:
            card.close()


@pytest.mark.root
def test_a_storm_waits_and_is_read_in_batches() -> None:
    with wires(1) as room, tapped(room) as tap:
        card = room.card(0)
        try:
            for number in range(2000):
                card.broadcast(number.to_bytes(2, "big") + DISCOVER)
            assert select.select([tap.fileno()], [], [], 10)[0]
            few, batch = tap.receive(10), tap.receive(1000)
            assert (len(few), len(batch)) == (10, 64)
            rest = heard(tap, 2000 - 74)
            numbers = [int.from_bytes(one.data[:2], "big") for one in (*few, *batch, *rest)]
            assert numbers == list(range(2000))
            assert tap.receive() == []
        finally:
            card.close()


@pytest.mark.root
def test_addresses_are_learned_while_it_runs_and_sends_that_cannot_be_are_refused() -> None:
    with wires(1) as room, tapped(room) as tap:
        assert tap.name == ("0.0.0.0", 67)
        with room.server():
            first = socket.if_nametoindex("s0")
        send = tap.send
        assert not send(b"x", "255.255.255.255", 68, source="10.1.0.99", ifindex=first), "not our address"
        assert not send(b"x", "255.255.255.255", 68, source="10.1.0.1", ifindex=1 << 20)
        assert not send(b"x", "nonsense", 68, source="10.1.0.1", ifindex=first)
        assert not send(b"x", "198.51.100.1", 68, source="10.1.0.1"), "no route"
        assert not send(bytes(1473), "255.255.255.255", 68, source="10.1.0.1", ifindex=first), "no fragments"
        assert not send(bytes(MAX_DATA_BYTES + 1), "10.1.0.50", 68, source="10.1.0.1")
        assert send(bytes(1472), "255.255.255.255", 68, source="10.1.0.1", ifindex=first)
        room.run_server("ip", "address", "add", "10.1.0.99/24", "brd", "+", "dev", "s0")
        end = time.monotonic() + 10
        while not send(b"x", "255.255.255.255", 68, source="10.1.0.99", ifindex=first):
            assert time.monotonic() < end, "the new address was not learned"


RIGHTS = """
import json, os, sys
from pbserv.daemon.privileges import drop_privileges
from pbserv.errors import StartError
from pbserv.net.tap import PacketTap

def attempt():
    try:
        PacketTap.open().close()
        return "opened"
    except StartError as fault:
        return str(fault)

if sys.argv[1] == "service":
    drop_privileges("nobody")
else:
    os.setresuid(65534, 65534, 65534)
print(json.dumps(dict(result=attempt())))
"""


@pytest.mark.root
@pytest.mark.parametrize(("who", "said"), [("service", "opened"), ("nobody", "CAP_NET_RAW")])
def test_it_needs_one_right_that_the_service_keeps(who: str, said: str) -> None:
    with wires(0) as room, room.server():
        assert said in str(report_of(RIGHTS, who)["result"])
