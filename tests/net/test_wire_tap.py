"""The tap on a real pair of cards: what it hears, what it leaves alone, what it says when it cannot."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from pbserv.errors import StartError
from pbserv.net.wire_tap import WireTap
from pbserv.probe.frame import BROADCAST_MAC, Framed, build, ip_packet, parse
from tests.proxydhcp.wires import Wires, wires

STRANGER = b"\x02\0\0\0\0\x07"
PORTS = (68, 4011)


@pytest.fixture
def room() -> Iterator[Wires]:
    with wires(1) as made:
        yield made


def datagram(port: int = 68, data: bytes = b"hello", to: bytes = BROADCAST_MAC) -> Framed:
    return Framed(data, STRANGER, to, "10.1.0.1", "255.255.255.255", 67, port)


def heard(tap: WireTap, count: int) -> list[Framed]:
    """The next ``count`` datagrams."""
    found: list[Framed] = []
    until = time.monotonic() + 10
    while len(found) < count and time.monotonic() < until:
        found += [framed for one in tap.hear(until) if (framed := parse(one.frame)) is not None]
    assert len(found) == count
    return found


@pytest.mark.root
def test_it_hears_its_ports_whoever_is_meant(room: Wires) -> None:
    with room.clients():
        tap = WireTap.open("c0", PORTS)
    with room.server():
        other = WireTap.open("s0", ())
    for framed in (
        datagram(67), datagram(68), datagram(4012), datagram(4011, to=b"\x02\0\0\0\0\x55"), datagram(68, b"end"),
    ):  # fmt: skip
        other.send_frame(build(framed))
    assert heard(tap, 3) == [datagram(68), datagram(4011, to=b"\x02\0\0\0\0\x55"), datagram(68, b"end")]
    tap.close()
    other.close()


@pytest.mark.root
def test_fragments_tags_and_other_protocols_are_left_alone(room: Wires) -> None:
    with room.clients():
        tap = WireTap.open("c0", PORTS)
    with room.server():
        other = WireTap.open("s0", ())
    good = build(datagram())
    for frame in (
        good[:12] + b"\x81\0\0\5" + good[12:],  # VLAN 5
        good[:20] + b"\x20\0" + good[22:],  # more fragments follow
        good[:20] + b"\0\5" + good[22:],  # a later fragment
        good[:23] + b"\6" + good[24:],  # TCP
        good[:12] + b"\x86\xdd" + good[14:],
        build(datagram(data=b"end")),
    ):
        other.send_frame(frame)
    assert heard(tap, 1) == [datagram(data=b"end")]
    other.send_frame(good[:12] + b"\x81\0\0\5" + good[12:])
    until = time.monotonic() + 0.3
    assert tap.hear(until) == []
    assert time.monotonic() >= until, "what does not count does not end the waiting"
    tap.close()
    other.close()


@pytest.mark.root
def test_it_hears_what_this_host_sends_and_what_it_says_to_itself(room: Wires) -> None:
    with room.clients():
        tap = WireTap.open("c0", PORTS)
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        own.bind(("10.1.0.50", 67))
    own.sendto(b"broadcast", ("10.1.0.255", 68))
    own.sendto(b"self", ("10.1.0.50", 4011))
    assert sorted(one.data for one in heard(tap, 2)) == [b"broadcast", b"self"]
    assert tap.hear(time.monotonic() + 0.05) == [], "each is heard once"
    own.close()
    tap.close()


@pytest.mark.root
def test_a_packet_to_this_host_comes_as_if_from_the_interface(room: Wires) -> None:
    with room.clients():
        tap = WireTap.open("c0", PORTS)
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.setsockopt(socket.IPPROTO_IP, 8, 1)
        listener.bind(("0.0.0.0", 67))
    listener.settimeout(10)
    framed = Framed(b"ask", STRANGER, BROADCAST_MAC, "10.1.0.50", "10.1.0.50", 68, 67)
    assert tap.send_packet(ip_packet(framed), "10.1.0.50", tap.ifindex)
    data, control, _flags, peer = listener.recvmsg(100, 100)
    assert (data, peer) == (b"ask", ("10.1.0.50", 68))
    assert int.from_bytes(control[0][2][:4], "little") == tap.ifindex
    assert not tap.send_packet(b"short", "10.1.0.50")
    listener.close()
    tap.close()


@pytest.mark.root
def test_nothing_is_unreachable_meanwhile(room: Wires) -> None:
    with room.clients():
        tap = WireTap.open("c0", PORTS)
        asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        asker.connect(("10.1.0.50", 4011))
        with tap.holding("10.1.0.50", 4011), tap.holding("10.1.0.50", 4011):
            asker.send(b"1")
            asker.send(b"2")
            assert [one.data for one in heard(tap, 2)] == [b"1", b"2"]
    asker.close()
    tap.close()


@pytest.mark.root
def test_what_it_says_when_it_cannot(room: Wires) -> None:
    for name, words in (
        ("eth7", ("no such interface", "c0")),
        ("lo", ("loopback",)),
        ("c0", ("down", "ip link set c0 up")),
    ):
        with room.clients():
            subprocess.run(["ip", "link", "set", "c0", "down"], check=True)
            with pytest.raises(StartError) as caught:
                WireTap.open(name, PORTS)
        for word in words:
            assert word in str(caught.value)
    with room.server(), pytest.raises(StartError, match="no link"):
        WireTap.open("s0", PORTS)
