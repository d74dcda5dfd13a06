"""The service on real sockets: on loopback for everybody, on wires for root."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import dpkt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.errors import StartError
from pbserv.log import ServiceLog
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.proxydhcp.packet import Packet, decode, encode
from pbserv.proxydhcp.service import ProxyDhcpService
from pbserv.proxydhcp.settings import ProxyDhcpSettings
from pbserv.types import Decision, Sighting, Verdict
from tests.proxydhcp.samples import FIRMWARE, HTTP, IPXE_OPTIONS, RECORDED, Book, asks, recorded
from tests.proxydhcp.wires import Card, Wires, wires

WAIT_S = 10.0
LOOPBACK = bytes((127, 0, 0, 1))
MAC = "52:54:00:aa:bb:cc"
ASK = asks(dhcp.REQUEST, 7, ciaddr=LOOPBACK)
DISCOVER = asks(arch=7, ciaddr=LOOPBACK)


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


def conf(directory: Path | None = None, **changes: Any) -> ProxyDhcpSettings:
    """A configuration with free ports; ``directory`` is that of the configuration."""
    return ProxyDhcpSettings(ProxyDhcpConf(**{"proxydhcp_port": 0, "boot_server_port": 0} | changes), 8067, directory)


class Running:
    """A started service and what belongs to it."""

    def __init__(self, service: ProxyDhcpService, policy: Rules, book: Book, log_file: Path) -> None:
        self.service = service
        self.policy = policy
        self.book = book
        self._log_file = log_file

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(int(listener.rsplit(":", 1)[1]) for listener in self.service.listeners)

    @property
    def lines(self) -> list[str]:
        return self._log_file.read_text().splitlines() if self._log_file.exists() else []

    async def reload(self, given: ProxyDhcpSettings) -> None:
        (await self.service.prepare(given)).commit()


@contextlib.asynccontextmanager
async def running(
    given: ProxyDhcpSettings, directory: Path, level: int = 3, room: Wires | None = None
) -> AsyncIterator[Running]:
    log, policy, book, log_file = ServiceLog("proxydhcp"), Rules(), Book(), directory / "proxydhcp.log"
    log.configure(level, log_file, 1, quiet=True)
    service = ProxyDhcpService(log, policy, book)
    with room.server() if room else contextlib.nullcontext():
        await service.start(given)
    try:
        yield Running(service, policy, book, log_file)
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
        ((mac, step),) = it.book.steps
        assert (mac, step.verdict, step.reason, step.heard_on) == (MAC, "ack", "restore win11", 4011)
        assert step.data == encode(ASK)
        assert "started" in it.lines[0]
        for word in (MAC, "snponly.efi", "restore win11"):
            assert word in it.lines[1]
    assert not it.service.running
    assert it.service.listeners == ()
    assert "stopped" in it.lines[-1]
    await it.service.stop()


async def test_offers_are_below_the_default_level_and_ignored_packets_too(tmp_path: Path, caller: Caller) -> None:
    for level, lines in ((2, 2), (3, 4), (4, 9)):
        directory = tmp_path / str(level)
        directory.mkdir()
        async with running(conf(), directory, level=level) as it:
            caller.send(recorded("plain-host-relayed-request"), it.ports[0])
            await caller.ask(DISCOVER, it.ports[0])
            await caller.ask(ASK, it.ports[1])
            assert it.service.counters == {"not_pxe": 1, "offer": 1, "ack": 1}
            assert it.book.words == ["offer", "ack"]
            assert len(it.lines) == lines, it.lines


async def test_silence_is_silence_and_says_why(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(), tmp_path) as it:
        it.policy.silent.add(MAC)
        caller.send(encode(ASK), it.ports[1])
        answer, _ = await caller.ask(asks(dhcp.REQUEST, 7, ciaddr=LOOPBACK, mac="525400000002", xid=2), it.ports[1])
        assert answer.xid == 2
        assert it.service.counters == {"policy_silent": 1, "ack": 1}
        assert it.book.words == ["policy_silent", "ack"]
        assert any("pbserv device accept" in line for line in it.lines)


async def test_an_architecture_without_loader_is_a_warning_once_per_device(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(), tmp_path, level=1) as it:
        for xid in range(3):
            caller.send(encode(asks(dhcp.REQUEST, 11, ciaddr=LOOPBACK, xid=xid)), it.ports[1])
        await caller.ask(asks(dhcp.REQUEST, 7, ciaddr=LOOPBACK, xid=9), it.ports[1])
        assert it.service.counters["arch_not_served"] == 3
        assert len([line for line in it.lines if "set NBPARM64 in proxydhcp.conf" in line]) == 1


# Bytes of all kinds --------------------------------------------------------------------------------------------------


async def test_random_bytes_and_faults_leave_it_serving(tmp_path: Path, caller: Caller) -> None:
    dice = random.Random(4011)
    good = encode(ASK)
    async with running(conf(requests_per_device=0), tmp_path, level=4) as it:
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


CAPTURES = [bytes.fromhex(entry["hex"]) for entry in (*RECORDED.values(), *FIRMWARE)]


@st.composite
def mutilated(draw: st.DrawFn) -> bytes:
    """A capture whose answer can reach us, with some of its bytes changed and its end cut or stretched."""
    data = bytearray(draw(st.sampled_from(CAPTURES)))
    data[0], data[12:16], data[24:28] = 1, LOOPBACK, bytes(4)
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(28, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data) + draw(st.binary(max_size=9))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(mutilated(), st.binary(max_size=1500), st.binary(min_size=4090, max_size=4200)), max_size=30))
def test_any_bytes_on_both_ports_leave_it_serving(packets: list[bytes]) -> None:
    async def serve() -> None:
        log, caller = ServiceLog("proxydhcp"), Caller()
        service = ProxyDhcpService(log, Rules(), Book())
        await service.start(conf(requests_per_device=0))
        it = Running(service, Rules(), Book(), Path("/nowhere"))
        try:
            for data in packets:
                for port in it.ports:
                    caller.send(data, port)
            await settled(caller, it, 1)
            assert "fault" not in service.counters
            assert sum(service.counters.values()) == 2 * len(packets) + 2
        finally:
            await service.stop()
            caller.raw.close()

    asyncio.run(serve())


# Settings and their reload -------------------------------------------------------------------------------------------


async def test_a_reload_swaps_settings_and_only_the_ports_that_changed(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(), tmp_path) as it:
        before = it.ports
        change = await it.service.prepare(conf(nbp_x64="shim.efi"))
        assert (await caller.ask(ASK, before[1]))[0].file == b"snponly.efi"
        change.commit()
        assert it.ports == before
        assert (await caller.ask(dataclasses.replace(ASK, xid=2), before[1]))[0].file == b"shim.efi"
        free = free_port()
        await it.reload(conf(boot_server_port=free))
        assert it.ports == (before[0], free)
        assert (await caller.ask(dataclasses.replace(ASK, xid=3), free))[1] == ("127.0.0.1", free)
        Caller(port=before[1]).raw.close()  # the old one was given back


async def test_a_reload_that_cannot_be_served_changes_nothing(tmp_path: Path, caller: Caller) -> None:
    (tmp_path / "bad.toml").write_text('[[rule]]\nstrategy = "fast"\nsource = "x"')
    async with running(conf(), tmp_path) as it:
        before, taken = it.ports, caller.raw.getsockname()[1]
        for bad, said in (
            (conf(proxydhcp_port=free_port(), boot_server_port=taken), "BootServerPort"),
            (conf(local_interface="192.0.2.1"), "LocalInterface"),
            (conf(strategy_table=tmp_path / "bad.toml", boot_server_port=free_port()), "there is no strategy 'fast'"),
            (conf(strategy_table=tmp_path / "none.toml"), "No such file"),
        ):
            descriptors = len(os.listdir("/proc/self/fd"))
            with pytest.raises(StartError, match=said):
                await it.service.prepare(bad)
            assert len(os.listdir("/proc/self/fd")) == descriptors
        free = free_port()
        (await it.service.prepare(conf(nbp_x64="shim.efi", proxydhcp_port=free))).abort()
        Caller(port=free).raw.close()  # the port was given back
        assert it.ports == before
        assert (await caller.ask(ASK, before[1]))[0].file == b"snponly.efi"


async def test_a_table_beside_the_configuration_counts_with_the_next_reload(tmp_path: Path, caller: Caller) -> None:
    table = tmp_path / "strategies.toml"
    async with running(conf(tmp_path), tmp_path) as it:
        port = it.ports[0]
        assert 43 not in (await caller.ask(DISCOVER, port))[0].options
        table.write_text('[[rule]]\nmac = "52:54:00:aa"\nstrategy = "direct"\nsource = "x"\n')
        await it.reload(conf(tmp_path))
        assert (await caller.ask(dataclasses.replace(DISCOVER, xid=2), port))[0].options[43] == b"\6\1\x08\xff"
        other = asks(arch=7, ciaddr=LOOPBACK, mac="525400000001")
        assert 43 not in (await caller.ask(other, port))[0].options
        table.unlink()
        await it.reload(conf(tmp_path))
        assert 43 not in (await caller.ask(dataclasses.replace(DISCOVER, xid=3), port))[0].options


async def test_local_dhcp_flag_1_serves_the_boot_server_port_alone(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(local_dhcp_flag="1"), tmp_path) as it:
        (port,) = it.ports
        assert (await caller.ask(ASK, port))[0].message_type == dhcp.ACK
        await it.reload(conf(local_dhcp_flag="0"))
        dhcp_port, same = it.ports
        assert same == port
        assert (await caller.ask(DISCOVER, dhcp_port))[0].message_type == dhcp.OFFER
        await it.reload(conf(local_dhcp_flag="auto"))
        assert it.ports == (dhcp_port, port)
        await it.reload(conf(local_dhcp_flag="1"))
        assert it.ports == (port,)
        Caller(port=dhcp_port).raw.close()  # given back


async def test_it_does_not_start_and_says_what_to_do(tmp_path: Path, caller: Caller) -> None:
    taken = caller.raw.getsockname()[1]
    (tmp_path / "strategies.toml").write_text("x = 1")
    for wanted, words in (
        (conf(boot_server_port=taken), f"0.0.0.0:{taken} is in use.*BootServerPort"),
        (conf(proxydhcp_port=taken, boot_server_port=taken), "they must differ"),
        (conf(local_interface="192.0.2.1"), "LocalInterface: this host has no address 192.0.2.1"),
        (conf(tmp_path), r"StrategyTable: .*strategies\.toml: 'x' is not known"),
    ):
        service = ProxyDhcpService(ServiceLog("proxydhcp"), Rules(), Book())
        with pytest.raises(StartError, match=words):
            await service.start(wanted)
        assert not service.running


async def test_it_can_be_started_again(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(), tmp_path) as it:
        await it.service.start(conf())  # it runs: nothing happens
        await it.service.stop()
        await it.service.start(conf())
        assert (await caller.ask(ASK, it.ports[1]))[0].message_type == dhcp.ACK


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.bind(("127.0.0.1", 0))
        port: int = raw.getsockname()[1]
        return port


# Limits and delays ---------------------------------------------------------------------------------------------------


async def test_an_offer_is_held_back_and_an_ack_is_not(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(reply_delay_ms=300), tmp_path) as it:
        begun = time.monotonic()
        caller.send(encode(DISCOVER), it.ports[0])
        caller.send(encode(dataclasses.replace(ASK, xid=2)), it.ports[1])
        assert (await caller.hear())[0].message_type == dhcp.ACK
        assert (await caller.hear())[0].message_type == dhcp.OFFER
        assert time.monotonic() - begun >= 0.3


async def test_what_is_held_back_when_it_stops_or_its_port_is_given_up_is_dropped(
    tmp_path: Path, caller: Caller
) -> None:
    async with running(conf(reply_delay_ms=200), tmp_path) as it:
        caller.send(encode(DISCOVER), it.ports[0])
        await settled(caller, it, 1)
        assert it.service.counters["offer"] == 1
        free = free_port()
        await it.reload(conf(proxydhcp_port=free))  # the port of the offer that waits is closed
        await until(lambda: it.service.counters["send_failed"] == 1)
        await it.reload(conf(proxydhcp_port=free, reply_delay_ms=200))
        caller.send(encode(dataclasses.replace(DISCOVER, xid=2)), it.ports[0])
        await settled(caller, it, 2)
        assert it.service.counters["offer"] == 2
    assert it.service.counters["send_failed"] == 1
    with pytest.raises(BlockingIOError):
        caller.raw.recv(100)


async def until(holds: Any) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0)


async def test_limits_and_repetitions(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(requests_per_device=5, minimum_secs=4), tmp_path, level=1) as it:
        for _ in range(3):
            caller.send(encode(dataclasses.replace(DISCOVER, secs=4)), it.ports[0])
        caller.send(encode(asks(arch=7, mac="525400000003", ciaddr=LOOPBACK)), it.ports[0])
        for xid in range(20):
            caller.send(encode(asks(arch=7, mac="525400000002", secs=9, xid=xid, ciaddr=LOOPBACK)), it.ports[0])
        last = asks(arch=7, mac="525400000004", xid=99, secs=9, ciaddr=LOOPBACK)
        caller.send(encode(last), it.ports[0])
        while (await caller.hear())[0].xid != 99:
            pass
        counters = it.service.counters
        assert (counters["repeated"], counters["standby"]) == (2, 1)
        assert counters["offer"] + counters["too_many"] == 22
        assert counters["too_many"] in range(10, 16)  # a second may have ended meanwhile
        assert len([line for line in it.lines if "RequestsPerDevice = 5" in line]) == 1


async def test_requests_per_interface(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(requests_per_interface=10), tmp_path) as it:
        for number in range(40):
            caller.send(encode(asks(arch=7, mac=f"5254000000{number:02x}", xid=number, ciaddr=LOOPBACK)), it.ports[0])
        await until(lambda: sum(it.service.counters.values()) == 40)
        assert it.service.counters["offer"] in (10, 20)


# What others tell ----------------------------------------------------------------------------------------------------


async def test_strategies_that_were_found_to_work_count_from_the_start(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(), tmp_path) as it:
        it.service.remember({MAC: "direct"})
        assert (await caller.ask(DISCOVER, it.ports[0]))[0].options[43] == b"\6\1\x08\xff"


async def test_a_loader_that_is_fetched_again_and_again_is_a_loop_until_it_leads_somewhere(
    tmp_path: Path, caller: Caller
) -> None:
    async with running(conf(), tmp_path, level=1) as it:
        it.service.fetched(MAC, "snponly.efi", complete=True)  # nobody we know yet

        async def strategy(xid: int) -> bytes | None:
            return (await caller.ask(dataclasses.replace(DISCOVER, xid=xid), it.ports[0]))[0].options.get(43)

        assert await strategy(1) is None
        for _ in range(4):
            it.service.fetched(MAC, "/snponly.efi", complete=True)
        it.service.fetched(MAC, "snponly.efi", complete=False)  # EDK2 asks for the size first
        assert await strategy(2) is None
        it.service.fetched(MAC, "snponly.efi", complete=True)
        looping = await strategy(3)
        assert looping is not None
        assert set(dhcp.suboptions(looping)) == {6, 9, 10}
        assert it.service.counters["loops"] == 1
        (event,) = [event for event in it.book.events if event[0] == "loop"]
        assert event[1] == MAC
        assert "snponly.efi was fetched 5 times" in event[2]
        it.service.progressed(MAC)
        assert await strategy(4) is None
        for _ in range(5):
            it.service.fetched(MAC, "snponly.efi", complete=True)
        assert await strategy(5) is not None
        it.service.fetched(MAC, "boot.ipxe", complete=True)  # the loader did something
        assert await strategy(6) is None


async def test_who_fetches_anything_got_further_than_the_offer(tmp_path: Path, caller: Caller) -> None:
    async with running(conf(), tmp_path) as it:
        for turn in range(5):
            for secs in (0, 4):
                await caller.ask(dataclasses.replace(DISCOVER, xid=turn, secs=secs), it.ports[0])
            if turn % 2:
                it.service.progressed(MAC)
            else:
                it.service.fetched(MAC, "snponly.efi", complete=False)
        assert it.book.events == []
        for turn in range(5, 8):
            for secs in (0, 4):
                await caller.ask(dataclasses.replace(DISCOVER, xid=turn, secs=secs), it.ports[0])
        assert [event[0] for event in it.book.events] == ["next strategy"]
        it.service.fetched(MAC, "snponly.efi", complete=True)
        assert ("strategy_learned", MAC, "direct") in it.book.events


async def test_what_is_told_of_strangers_or_before_the_start_is_nothing() -> None:
    service = ProxyDhcpService(ServiceLog("proxydhcp"), Rules(), Book())
    service.fetched(MAC, "snponly.efi", complete=True)
    service.progressed(MAC)
    assert service.counters == {}


# On wires ------------------------------------------------------------------------------------------------------------


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
