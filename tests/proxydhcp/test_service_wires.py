"""The service on wires, for root: which way answers leave, storms, and beside a DHCP server on this host."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dpkt
import pytest

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.proxydhcp.packet import Packet, decode, encode
from pbserv.proxydhcp.settings import ProxyDhcpSettings
from tests.proxydhcp.samples import FIRMWARE, HTTP, IPXE_OPTIONS, asks
from tests.proxydhcp.serving import (
    WAIT_S,
    Caller,
    running,
)
from tests.proxydhcp.wires import Card, Wires, wires


def real(**changes: Any) -> ProxyDhcpSettings:
    return ProxyDhcpSettings(ProxyDhcpConf(**changes), 8067)


def sent(frame: dpkt.ethernet.Ethernet) -> tuple[str, int, str, int, Packet]:
    """(source, port, destination, port, packet) of a received frame."""
    ip = frame.data
    return socket.inet_ntoa(ip.src), ip.data.sport, socket.inet_ntoa(ip.dst), ip.data.dport, decode(bytes(ip.data.data))


async def offered(card: Card, packet: Packet) -> tuple[str, int, str, int, Packet]:
    card.broadcast(encode(packet))
    return sent(await asyncio.to_thread(card.frame))


@pytest.mark.root
async def test_an_offer_leaves_by_the_wire_on_which_the_question_came(tmp_path: Path) -> None:
    with wires(2) as room, contextlib.closing(room.card(0)) as first, contextlib.closing(room.card(1)) as second:
        async with running(real(), tmp_path, room=room) as it:
            assert it.service.listeners == ("udp 0.0.0.0:67", "udp 0.0.0.0:4011")
            for xid, (number, card) in enumerate(((2, second), (1, first), (2, second))):
                # What is heard first on a wire is the answer to its own question: nothing of the other's strayed here.
                *way, packet = await offered(card, asks(arch=7, xid=xid))
                assert way == [f"10.{number}.0.1", 67, "255.255.255.255", 68]
                assert (packet.xid, packet.message_type, packet.yiaddr) == (xid, dhcp.OFFER, dhcp.ZERO)
                assert packet.options[54] == packet.siaddr == bytes((10, number, 0, 1))
            assert it.service.counters == {"offer": 3}


@pytest.mark.root
async def test_each_wire_is_told_its_own_address_or_the_one_that_is_to_be_advertised(tmp_path: Path) -> None:
    with wires(2) as room, contextlib.closing(room.card(0)) as first, contextlib.closing(room.card(1)) as second:
        async with running(real(advertised_addresses=("s1=192.0.2.10",)), tmp_path, room=room):
            for number, card, told in ((1, first, "10.1.0.1"), (2, second, "192.0.2.10")):
                source, _, _, _, packet = await offered(card, asks(arch=16, vendor_class=HTTP, xid=number))
                assert source == f"10.{number}.0.1"
                assert packet.options[54] == packet.siaddr == dhcp.undotted(told)
                assert packet.file == f"http://{told}:8067/files/snponly.efi".encode()


@pytest.mark.root
async def test_the_second_leg_and_a_relay(tmp_path: Path) -> None:
    with wires(2) as room:
        with room.clients():
            edk2, ipxe, relay = Caller("10.2.0.50", 4011), Caller("10.2.0.50", 68), Caller("10.2.0.50", 67)
        try:
            async with running(real(), tmp_path, room=room):
                own = dhcp.undotted("10.2.0.50")
                for xid, caller in enumerate((edk2, ipxe)):
                    answer, peer = await caller.ask(asks(dhcp.REQUEST, 7, ciaddr=own, xid=xid), 4011, "10.2.0.1")
                    assert peer == ("10.2.0.1", 4011)
                    assert (answer.message_type, answer.ciaddr, answer.file) == (dhcp.ACK, own, b"snponly.efi")
                answer, peer = await relay.ask(asks(giaddr=own, extra={82: b"\x01\x03abc"}), 67, "10.2.0.1")
                assert peer == ("10.2.0.1", 67)
                assert (answer.options[82], answer.giaddr) == (b"\x01\x03abc", own)
        finally:
            for caller in (edk2, ipxe, relay):
                caller.raw.close()


@pytest.mark.root
async def test_local_interface_restricts_and_a_nameless_wire_is_not_answered(tmp_path: Path) -> None:
    with wires(2) as room, contextlib.closing(room.card(0)) as first, contextlib.closing(room.card(1)) as second:
        async with running(real(local_interface="10.1.0.1"), tmp_path, room=room) as it:
            second.broadcast(encode(asks()))
            assert (await offered(first, asks()))[0] == "10.1.0.1"
            assert it.service.counters == {"other_interface": 1, "offer": 1}
        room.run_server("ip", "address", "flush", "dev", "s1")
        async with running(real(), tmp_path, room=room) as it:
            second.broadcast(encode(asks()))
            assert (await offered(first, asks()))[0] == "10.1.0.1"
            assert it.service.counters == {"no_local_address": 1, "offer": 1}


@pytest.mark.root
async def test_an_ipxe_rom_gets_the_loader_and_the_loader_its_script(tmp_path: Path) -> None:
    discovers = [bytes.fromhex(entry["hex"]) for entry in FIRMWARE if entry["client"] == "undionly"]
    rom, loader = (decode(data) for data in discovers if decode(data).message_type == dhcp.DISCOVER)
    with wires(1) as room, contextlib.closing(room.card(0)) as card:
        async with running(real(nbp_ipxe=""), tmp_path, room=room):
            packets = [dataclasses.replace(one, secs=one.secs + more) for one in (rom, loader) for more in (0, 4)]
            answers = [(await offered(card, packet))[4] for packet in packets]
            assert [answer.file for answer in answers] == [b"undionly.kpxe"] * 2 + [b"boot.ipxe"] * 2
        async with running(real(), tmp_path, room=room):
            assert (await offered(card, rom))[4].file == b"boot.ipxe"


@pytest.mark.root
@pytest.mark.parametrize("log_level", [2, 3])
async def test_a_thousand_machines_that_are_switched_on_at_once_are_all_answered(
    tmp_path: Path, log_level: int
) -> None:
    room_of_machines = {}
    for number in range(1000):
        mac, uuid = f"5254{number:08x}", b"\0" + number.to_bytes(16, "big")
        room_of_machines[number] = asks(arch=7 * (number % 2), mac=mac, xid=number, extra={97: uuid})
    with wires(1) as room, contextlib.closing(room.card(0)) as card:
        async with running(real(), tmp_path, level=log_level, room=room) as it:
            for packet in room_of_machines.values():
                card.broadcast(encode(packet))
            answers = [sent(await asyncio.to_thread(card.frame))[4] for _ in range(1000)]
            assert {answer.xid for answer in answers} == set(room_of_machines)
            for answer in answers:
                asked = room_of_machines[answer.xid]
                assert (answer.chaddr, answer.options[97]) == (asked.chaddr, asked.options[97])
                assert answer.file == (b"snponly.efi" if answer.xid % 2 else b"undionly.kpxe")
            assert it.service.counters == {"offer": 1000}
            assert len({mac for mac, _step in it.book.steps}) == len(it.book.steps) == 1000


@pytest.mark.root
async def test_one_machine_that_asks_a_thousand_times_is_heard_fifty_times_a_second(tmp_path: Path) -> None:
    with wires(1) as room, contextlib.closing(room.card(0)) as card:
        async with running(real(), tmp_path, level=2, room=room) as it:
            rom = asks(extra=IPXE_OPTIONS)
            for number in range(1000):
                card.broadcast(encode(dataclasses.replace(rom, xid=number)))
            card.broadcast(encode(asks(mac="525400000002", xid=5000)))
            while sent(await asyncio.to_thread(card.frame))[4].xid != 5000:
                pass
            assert it.service.counters["offer"] in (51, 101)
            assert it.service.counters["offer"] + it.service.counters["too_many"] == 1001


# Beside a DHCP server on this host -----------------------------------------------------------------------------------


@contextlib.contextmanager
def dnsmasq(room: Wires, directory: Path, *more: str) -> Iterator[None]:
    """A DHCP server in the server's namespace that holds port 67 and knows nothing of booting."""
    with room.server():
        process = subprocess.Popen(
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-hosts", "--no-resolv",
             "--interface=s0", "--dhcp-authoritative", "--no-ping", "--user=root", "--log-facility=-",
             "--dhcp-range=10.1.0.100,10.1.0.200,255.255.255.0,1h", f"--dhcp-leasefile={directory / 'leases'}",
             f"--pid-file={directory / 'pid'}", *more],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        end = time.monotonic() + WAIT_S
        with room.server():
            while not _is_taken(67):
                assert process.poll() is None, "dnsmasq ended"
                assert time.monotonic() < end, "dnsmasq does not listen"
        yield
    finally:
        process.terminate()
        process.wait(WAIT_S)


def _is_taken(port: int) -> bool:
    """Whether somebody in this thread's namespace listens; asked without touching the port."""
    lines = Path("/proc/thread-self/net/udp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") for line in lines)


async def two_offers(card: Card, packet: Packet) -> tuple[tuple[str, int, str, int, Packet], ...]:
    """The DHCP server's and ours, in this order."""
    card.broadcast(encode(packet))
    found = [sent(await asyncio.to_thread(card.frame)) for _ in range(2)]
    return tuple(sorted(found, key=lambda one: one[4].yiaddr == dhcp.ZERO))


@pytest.mark.root
@pytest.mark.parametrize("flag", ["0", "auto"])
async def test_beside_a_dhcp_server_that_holds_port_67_the_offer_comes_from_port_67(tmp_path: Path, flag: str) -> None:
    with wires(1) as room, dnsmasq(room, tmp_path), contextlib.closing(room.card(0)) as card:
        async with running(real(local_dhcp_flag=flag), tmp_path, room=room) as it:
            assert it.service.listeners == ("udp 0.0.0.0:67", "udp 0.0.0.0:4011")
            assert any("another program has port 67: its packets are read beside it" in line for line in it.lines)
            for number in range(3):
                theirs, ours = await two_offers(card, asks(arch=7, mac=f"5254000000{number:02x}", xid=number))
                assert theirs[4].yiaddr != dhcp.ZERO
                assert theirs[4].options.get(60) is None
                assert ours[:4] == ("10.1.0.1", 67, "255.255.255.255", 68)
                assert (ours[4].xid, ours[4].options[60], ours[4].file) == (number, b"PXEClient", b"snponly.efi")
            assert it.service.counters == {"offer": 3}


@pytest.mark.root
async def test_beside_a_dhcp_server_the_boot_server_port_and_a_relay_are_served_too(tmp_path: Path) -> None:
    with wires(1) as room, dnsmasq(room, tmp_path):
        with room.clients():
            client, relay = Caller("10.1.0.50", 4011), Caller("10.1.0.50", 67)
        try:
            async with running(real(), tmp_path, room=room):
                own = dhcp.undotted("10.1.0.50")
                answer, peer = await client.ask(asks(dhcp.REQUEST, 7, ciaddr=own), 4011, "10.1.0.1")
                assert (answer.message_type, peer) == (dhcp.ACK, ("10.1.0.1", 4011))
                relay.send(encode(asks(arch=7, giaddr=own, extra={82: b"\1\3abc"})), 67, "10.1.0.1")
                while True:
                    answer, peer = await relay.hear()
                    assert peer == ("10.1.0.1", 67)
                    if answer.yiaddr == dhcp.ZERO:
                        break
                assert (answer.giaddr, answer.options[82]) == (own, b"\1\3abc")
        finally:
            client.raw.close()
            relay.raw.close()


@pytest.mark.root
async def test_local_dhcp_flag_1_leaves_port_67_to_the_dhcp_server(tmp_path: Path) -> None:
    with wires(1) as room, dnsmasq(room, tmp_path), contextlib.closing(room.card(0)) as card:
        async with running(real(local_dhcp_flag="1"), tmp_path, room=room) as it:
            assert it.service.listeners == ("udp 0.0.0.0:4011",)
            *_, offer = await offered(card, asks(arch=7, mac="525400000001"))
            assert offer.yiaddr != dhcp.ZERO
            with room.server():
                change = await it.service.prepare(real())
            change.commit()  # the flag is taken back: the tap opens
            assert it.service.listeners == ("udp 0.0.0.0:67", "udp 0.0.0.0:4011")
            _theirs, ours = await two_offers(card, asks(arch=7, mac="525400000002", xid=2))
            assert ours[1] == 67
            assert it.service.counters == {"offer": 1}


@pytest.mark.root
async def test_a_storm_beside_a_dhcp_server_is_answered_too(tmp_path: Path) -> None:
    with wires(1) as room, dnsmasq(room, tmp_path), contextlib.closing(room.card(0)) as card:
        async with running(real(), tmp_path, level=2, room=room) as it:
            for number in range(300):
                card.broadcast(encode(asks(arch=7, mac=f"5254{number:08x}", xid=number)))
            heard: set[int] = set()
            while len(heard) < 300:
                answer = sent(await asyncio.to_thread(card.frame))[4]
                if answer.yiaddr == dhcp.ZERO:
                    heard.add(answer.xid)
            assert it.service.counters == {"offer": 300}
