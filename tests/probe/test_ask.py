"""``ask`` as the doctor calls it: what leaves, what does not, and what counts as an answer."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pbserv.errors import StartError, UsageError
from pbserv.net.wire_tap import WireTap
from pbserv.probe.ask import Answers, Probe, ask, usable_interfaces
from pbserv.probe.frame import BROADCAST_MAC, Framed, build, parse
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models import Sent
from pbserv.proxydhcp.packet import Packet, decode, encode
from pbserv.types import MacAddress
from tests.proxydhcp.wires import Wires, wires

pytestmark = pytest.mark.root
OURS = b"\x02\0\0\0\0\x99"
OPTIONS = {53: b"\2", 54: bytes((10, 1, 0, 1)), 60: b"PXEClient"}

Answer = Callable[[Packet], list[Packet]]


@pytest.fixture
def room() -> Iterator[Wires]:
    with wires(1) as made:
        yield made


def reply(asked: Packet, **changes: object) -> Packet:
    return dataclasses.replace(asked, op=2, options=OPTIONS, **changes)  # type: ignore[arg-type]


class Lan(threading.Thread):
    """Hears what the client says and answers it, frame by frame, until :meth:`end`."""

    def __init__(self, room: Wires, answer: Answer) -> None:
        super().__init__()
        with room.server():
            self._tap = WireTap.open("s0", (67, 4011))
        self._answer = answer
        self._over = threading.Event()
        self.heard: list[Framed] = []
        self.start()

    def run(self) -> None:
        while not self._over.is_set():
            for one in self._tap.hear(time.monotonic() + 0.05):
                framed = parse(one.frame)
                if framed is None or one.own:
                    continue
                self.heard.append(framed)
                for packet in self._answer(decode(framed.data)):
                    self._tap.send_frame(build(Framed(
                        encode(packet), OURS, BROADCAST_MAC, "10.1.0.1", "255.255.255.255", 67, 68
                    )))  # fmt: skip

    def end(self) -> list[Framed]:
        self._over.set()
        self.join(10)
        self._tap.close()
        return self.heard


def asked(room: Wires, answer: Answer, kind: str = "uefi", **words: object) -> tuple[Answers, list[Framed]]:
    lan = Lan(room, answer)
    try:
        with room.clients():
            found = ask("c0", kind, wait_s=0.5, **words)  # type: ignore[arg-type]
    finally:
        heard = lan.end()
    return found, heard


def test_one_discover_leaves_as_firmware_sends_it(room: Wires) -> None:
    mac = MacAddress.parse("02:00:00:00:00:01")
    found, heard = asked(room, lambda packet: [], mac=mac)
    assert (found.interface, found.kind, found.mac, found.address, found.offers) == ("c0", "uefi", mac, "10.1.0.50", ())
    (framed,) = heard
    assert framed == Framed(found.question, mac.octets, BROADCAST_MAC, "0.0.0.0", "255.255.255.255", 68, 67)
    assert decode(framed.data).message_type == dhcp.DISCOVER


def test_only_answers_to_the_question_count(room: Wires) -> None:
    def answer(packet: Packet) -> list[Packet]:
        return [
            reply(packet, xid=packet.xid ^ 1),
            reply(packet, chaddr=b"\x02\0\0\0\0\x42".ljust(16, b"\0")),
            dataclasses.replace(reply(packet), op=1),
            reply(packet, file=b"right"),
            reply(packet, file=b"right"),  # the same once more: a copy of the same broadcast
            reply(packet, file=b"other"),
        ]

    found, _ = asked(room, answer)
    assert [offer.packet.file for offer in found.offers] == [b"right", b"other"]
    (offer, _) = found.offers
    assert (offer.source, offer.source_mac, offer.source_port, offer.port) == ("10.1.0.1", MacAddress(OURS), 67, 68)
    assert (offer.is_proxy, offer.is_dhcp, offer.own) == (True, False, False)
    assert 0 <= offer.seconds < 0.5


def test_broken_bytes_are_no_answer(room: Wires) -> None:
    with room.server():
        noise = WireTap.open("s0", ())
    frames = [
        build(Framed(data, OURS, BROADCAST_MAC, "10.1.0.1", "255.255.255.255", 67, 68))
        for data in (b"", b"\2", bytes(240), b"\2" * 300, b"\xff" * 1400)
    ]
    with room.clients(), contextlib.closing(Probe.open("c0")) as probe:
        for frame in (*frames, *(frame[:40] for frame in frames)):
            noise.send_frame(frame)
        assert probe.ask(["bios", "uefi"], wait_s=0.3)[0].offers == ()
        assert len(probe.recorded) > len(frames)
    noise.close()


def test_services_of_this_host_get_a_copy(room: Wires) -> None:
    with room.clients():
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own.bind(("0.0.0.0", 67))
        own.settimeout(10)
        found = ask("c0", "bios", wait_s=0.1)
    data, (source, port) = own.recvfrom(2048)
    assert (data, source, port) == (found.question, "10.1.0.50", 68)
    own.close()


def test_a_boot_server_is_asked_twice_and_no_more(room: Wires) -> None:
    question = encode(Packet(1, 9, b"\x02\0\0\0\0\1".ljust(16, b"\0"), options={53: b"\3"}))
    lan = Lan(room, lambda packet: [])
    try:
        with room.clients(), contextlib.closing(Probe.open("c0")) as probe:
            sent = Sent(question, "10.9.9.9", 4011, "10.1.0.1", 4011)
            assert probe.ask_server(sent, 1.2) == []
            assert probe.ask_server(dataclasses.replace(sent, destination="192.0.2.1"), 1.2) == [], "no route"
    finally:
        heard = lan.end()
    assert len(heard) == 2
    for framed in heard:
        assert (framed.source, framed.source_port, framed.destination) == ("10.1.0.50", 4011, "10.1.0.1")
        assert decode(framed.data).ciaddr == bytes((10, 1, 0, 50))


def test_the_traffic_of_others_does_not_end_the_wait_for_a_boot_server(room: Wires) -> None:
    question = encode(Packet(1, 9, b"\x02\0\0\0\0\1".ljust(16, b"\0"), options={53: b"\3"}))
    lan = Lan(room, lambda packet: [reply(packet, xid=packet.xid ^ 1)])
    try:
        with room.clients(), contextlib.closing(Probe.open("c0")) as probe:
            begins = time.monotonic()
            assert probe.ask_server(Sent(question, "10.9.9.9", 68, "10.1.0.1", 4011), 0.7) == []
            assert time.monotonic() - begins >= 0.7
            assert len(probe.recorded) >= 2, "the question and somebody else's answer"
    finally:
        lan.end()


def test_without_an_address_it_asks_and_hears_all_the_same(room: Wires) -> None:
    with room.clients():
        subprocess.run(["ip", "address", "flush", "dev", "c0"], check=True)
        with pytest.raises(StartError, match="no interface is up"):
            usable_interfaces()
    found, _ = asked(room, lambda packet: [reply(packet)])
    assert (found.address, len(found.offers)) == ("", 1)


def test_faults(room: Wires) -> None:
    with room.clients():
        assert usable_interfaces() == ["c0"]
        with pytest.raises(UsageError, match="no firmware is called"):
            ask("c0", "amiga")
        with pytest.raises(StartError, match="no such interface"):
            ask("c9", "bios")
