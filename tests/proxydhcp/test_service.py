"""The service on real sockets: on loopback for everybody, on two wires for root."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dpkt
import pytest

from pbserv.errors import StartError
from pbserv.log import ServiceLog
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.proxydhcp.packet import Packet, decode, encode
from pbserv.proxydhcp.service import ProxyDhcpService
from pbserv.types import Decision, Sighting, Verdict
from tests.proxydhcp.samples import FIRMWARE, IPXE_OPTIONS, asks, recorded
from tests.proxydhcp.wires import Card, Wires, wires

WAIT_S = 10.0
LOOPBACK = bytes((127, 0, 0, 1))
ASK = asks(dhcp.REQUEST, 7, ciaddr=LOOPBACK)


class Rules:
    """A policy of two lists: who is to be left alone, and who trips it."""

    def __init__(self) -> None:
        self.silent: set[str] = set()
        self.trips: set[str] = set()
        self.seen: list[Sighting] = []

    def decide(self, sighting: Sighting) -> Decision:
        self.seen.append(sighting)
        if str(sighting.mac) in self.trips:
            raise RuntimeError("tripped")
        if str(sighting.mac) in self.silent:
            return Decision(Verdict.SILENT, "pending: pbserv device accept 52:54:00:aa:bb:cc")
        return Decision(Verdict.BOOT, "restore win11")


def conf(**changes: Any) -> ProxyDhcpConf:
    return ProxyDhcpConf(**{"proxydhcp_port": 0, "boot_server_port": 0} | changes)


class Running:
    """A started service and what belongs to it."""

    def __init__(self, service: ProxyDhcpService, policy: Rules, log_file: Path) -> None:
        self.service = service
        self.policy = policy
        self._log_file = log_file

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(int(listener.rsplit(":", 1)[1]) for listener in self.service.listeners)

    @property
    def lines(self) -> list[str]:
        return self._log_file.read_text().splitlines() if self._log_file.exists() else []


@contextlib.asynccontextmanager
async def running(
    settings: ProxyDhcpConf, directory: Path, level: int = 3, room: Wires | None = None
) -> AsyncIterator[Running]:
    log, policy, log_file = ServiceLog("proxydhcp"), Rules(), directory / "proxydhcp.log"
    log.configure(level, log_file, 1, quiet=True)
    service = ProxyDhcpService(log, policy)
    with room.server() if room else contextlib.nullcontext():
        await service.start(settings)
    try:
        yield Running(service, policy, log_file)
    finally:
        await service.stop()
        log.close()


class Caller:
    """A client with an address, on one UDP socket."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.raw.bind((address, port))

    async def ask(self, packet: Packet, port: int, server: str = "127.0.0.1") -> tuple[Packet, tuple[str, int]]:
        self.send(encode(packet), port, server)
        return await self.hear()

    def send(self, data: bytes, port: int, server: str = "127.0.0.1") -> None:
        self.raw.sendto(data, (server, port))

    async def hear(self) -> tuple[Packet, tuple[str, int]]:
        loop = asyncio.get_running_loop()
        data, peer = await asyncio.wait_for(loop.sock_recvfrom(self.raw, 2048), WAIT_S)
        return decode(data), peer


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    made = Caller()
    yield made
    made.raw.close()


async def test_a_boot_server_request_is_acknowledged_from_the_port_it_was_sent_to(
    tmp_path: Path, caller: Caller
) -> None:
    async with running(conf(), tmp_path, level=2) as it:
        assert it.service.running
        answer, peer = await caller.ask(ASK, it.ports[1])
        assert peer == ("127.0.0.1", it.ports[1])
        assert (answer.message_type, answer.file, answer.siaddr) == (dhcp.ACK, b"snponly.efi", LOOPBACK)
        assert it.service.counters == {"ack": 1}
        assert [sighting.via for sighting in it.policy.seen] == ["dhcp"]
        assert "started" in it.lines[0]
        for word in ("52:54:00:aa:bb:cc", "snponly.efi", "restore win11", "seconds="):
            assert word in it.lines[1]
    assert not it.service.running
    assert it.service.listeners == ()
    assert "stopped" in it.lines[-1]
    await it.service.stop()


async def test_offers_are_below_the_default_level_and_ignored_packets_too(tmp_path: Path, caller: Caller) -> None:
    for level, lines in ((2, 2), (3, 4), (4, 7)):
        directory = tmp_path / str(level)
        directory.mkdir()
        async with running(conf(), directory, level=level) as it:
            caller.send(recorded("plain-host-relayed-request"), it.ports[0])
            await caller.ask(asks(arch=7, ciaddr=LOOPBACK), it.ports[0])
            await caller.ask(ASK, it.ports[1])
            assert it.service.counters == {"not_pxe": 1, "offer": 1, "ack": 1}
            assert len(it.lines) == lines, it.lines


async def test_silence_is_silence_and_says_why(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(), tmp_path) as it:
        it.policy.silent.add("52:54:00:aa:bb:cc")
        caller.send(encode(ASK), it.ports[1])
        answer, _ = await caller.ask(asks(dhcp.REQUEST, 7, ciaddr=LOOPBACK, mac="525400000002", xid=2), it.ports[1])
        assert answer.xid == 2
        assert it.service.counters == {"policy_silent": 1, "ack": 1}
        assert any("pbserv device accept" in line for line in it.lines)


async def test_an_architecture_without_loader_is_a_warning_once_per_device(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(), tmp_path, level=1) as it:
        for _ in range(3):
            caller.send(encode(asks(dhcp.REQUEST, 11, ciaddr=LOOPBACK)), it.ports[1])
        await caller.ask(ASK, it.ports[1])
        assert it.service.counters["arch_not_served"] == 3
        assert len([line for line in it.lines if "set NBPARM64 in proxydhcp.conf" in line]) == 1


async def test_random_bytes_and_faults_leave_it_serving(tmp_path: Path, caller: Caller) -> None:
    dice = random.Random(4011)
    good = encode(ASK)
    async with running(conf(), tmp_path, level=4) as it:
        it.policy.trips.add("52:54:00:00:00:66")
        for turn in range(400):
            data = bytearray(good)
            for _ in range(dice.randrange(1, 12)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            port = it.ports[turn % 2]
            caller.send(dice.randbytes(dice.randrange(600)), port)
            caller.send(bytes(data[: dice.randrange(len(data) + 1)]), port)
            if turn % 20 == 19:  # drain, so that no buffer overflows
                await settled(caller, it, turn)
        caller.send(encode(asks(dhcp.REQUEST, 7, ciaddr=LOOPBACK, mac="525400000066")), it.ports[1])
        await settled(caller, it, 1000)
        assert it.service.counters["fault"] == 1
        assert it.service.counters["bad_packet"] > 300
        assert any("tripped" in line for line in it.lines)


async def settled(caller: Caller, it: Running, number: int) -> None:
    """Both ports have answered a question that was asked after all that went before."""
    for port in it.ports:
        xid = 0xABCD0000 + number
        caller.send(encode(asks(dhcp.REQUEST, 7, ciaddr=LOOPBACK, xid=xid, extra={43: b"\x47\4\x80\0\0\0\xff"})), port)
        while (await caller.hear())[0].xid != xid:
            pass


async def test_a_reload_swaps_settings_and_only_the_ports_that_changed(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(), tmp_path) as it:
        before = it.ports
        change = await it.service.prepare(conf(nbp_x64="shim.efi"))
        assert (await caller.ask(ASK, before[1]))[0].file == b"snponly.efi"
        change.commit()
        assert it.ports == before
        assert (await caller.ask(ASK, before[1]))[0].file == b"shim.efi"
        free = free_port()
        change = await it.service.prepare(conf(boot_server_port=free))
        change.commit()
        assert it.ports == (before[0], free)
        assert (await caller.ask(ASK, free))[1] == ("127.0.0.1", free)


async def test_a_reload_that_cannot_be_served_changes_nothing(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(), tmp_path) as it:
        before, taken = it.ports, caller.raw.getsockname()[1]
        for bad in (conf(proxydhcp_port=free_port(), boot_server_port=taken), conf(local_interface="192.0.2.1")):
            with pytest.raises(StartError):
                await it.service.prepare(bad)
        free = free_port()
        (await it.service.prepare(conf(nbp_x64="shim.efi", proxydhcp_port=free))).abort()
        Caller(port=free).raw.close()  # the port was given back
        assert it.ports == before
        assert (await caller.ask(ASK, before[1]))[0].file == b"snponly.efi"


async def test_it_does_not_start_and_says_what_to_do(tmp_path: Path, caller: Caller) -> None:
    taken = caller.raw.getsockname()[1]
    for settings, words in (
        (conf(proxydhcp_port=taken), f"0.0.0.0:{taken} is in use.*ProxyDHCPPort.*DHCP server"),
        (conf(boot_server_port=taken), f"0.0.0.0:{taken} is in use.*BootServerPort"),
        (conf(proxydhcp_port=taken, boot_server_port=taken), "they must differ"),
        (conf(local_interface="192.0.2.1"), "LocalInterface: this host has no address 192.0.2.1"),
    ):
        service = ProxyDhcpService(ServiceLog("proxydhcp"), Rules())
        with pytest.raises(StartError, match=words):
            await service.start(settings)
        assert not service.running


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.bind(("127.0.0.1", 0))
        port: int = raw.getsockname()[1]
        return port


# On wires ----------------------------------------------------------------------------------------------------------

REAL = ProxyDhcpConf()


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
        async with running(REAL, tmp_path, room=room) as it:
            assert it.service.listeners == ("udp 0.0.0.0:67", "udp 0.0.0.0:4011")
            for number, card in ((2, second), (1, first), (2, second)):
                # What is heard first on a wire is the answer to its own question: nothing of the other's strayed here.
                *way, packet = await offered(card, asks(arch=7, xid=number))
                assert way == [f"10.{number}.0.1", 67, "255.255.255.255", 68]
                assert (packet.xid, packet.message_type, packet.yiaddr) == (number, dhcp.OFFER, dhcp.ZERO)
                assert packet.options[54] == packet.siaddr == bytes((10, number, 0, 1))
            assert it.service.counters == {"offer": 3}


@pytest.mark.root
async def test_the_second_leg_and_a_relay(tmp_path: Path) -> None:
    with wires(2) as room:
        with room.clients():
            edk2, ipxe, relay = Caller("10.2.0.50", 4011), Caller("10.2.0.50", 68), Caller("10.2.0.50", 67)
        try:
            async with running(REAL, tmp_path, room=room):
                own = dhcp.undotted("10.2.0.50")
                for caller in (edk2, ipxe):
                    answer, peer = await caller.ask(asks(dhcp.REQUEST, 7, ciaddr=own), 4011, "10.2.0.1")
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
        settings = ProxyDhcpConf(local_interface="10.1.0.1")
        async with running(settings, tmp_path, room=room) as it:
            second.broadcast(encode(asks()))
            assert (await offered(first, asks()))[0] == "10.1.0.1"
            assert it.service.counters == {"other_interface": 1, "offer": 1}
        room.run_server("ip", "address", "flush", "dev", "s1")
        async with running(REAL, tmp_path, room=room) as it:
            second.broadcast(encode(asks()))
            assert (await offered(first, asks()))[0] == "10.1.0.1"
            assert it.service.counters == {"no_local_address": 1, "offer": 1}


@pytest.mark.root
async def test_an_ipxe_rom_gets_the_loader_and_the_loader_its_script(tmp_path: Path) -> None:
    discovers = [bytes.fromhex(entry["hex"]) for entry in FIRMWARE if entry["client"] == "undionly"]
    rom, loader = (decode(data) for data in discovers if decode(data).message_type == dhcp.DISCOVER)
    with wires(1) as room, contextlib.closing(room.card(0)) as card:
        async with running(ProxyDhcpConf(nbp_ipxe=""), tmp_path, room=room):
            answers = [(await offered(card, packet))[4] for packet in (rom, rom, loader, loader)]
            assert [answer.file for answer in answers] == [b"undionly.kpxe"] * 2 + [b"boot.ipxe"] * 2
        async with running(REAL, tmp_path, room=room):
            assert (await offered(card, rom))[4].file == b"boot.ipxe"


@pytest.mark.root
async def test_a_storm_is_answered_to_the_last(tmp_path: Path) -> None:
    with wires(1) as room, contextlib.closing(room.card(0)) as card:
        async with running(REAL, tmp_path, level=2, room=room) as it:
            rom = asks(extra=IPXE_OPTIONS)
            for number in range(300):
                card.broadcast(encode(dataclasses.replace(rom, xid=number)))
            heard = {sent(await asyncio.to_thread(card.frame))[4].xid for _ in range(300)}
            assert heard == set(range(300))
            assert it.service.counters == {"offer": 300}
