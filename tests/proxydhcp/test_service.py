"""The service on loopback: answers, any bytes, reloads, limits, delays, loops."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.errors import StartError
from pbserv.log import ServiceLog
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.packet import encode
from pbserv.proxydhcp.service import ProxyDhcpService
from tests.proxydhcp.samples import FIRMWARE, RECORDED, Book, asks, recorded
from tests.proxydhcp.serving import (
    ASK,
    DISCOVER,
    LOOPBACK,
    MAC,
    WAIT_S,
    Caller,
    Rules,
    Running,
    conf,
    free_port,
    running,
)


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

        for xid in range(1, 6):
            assert await strategy(xid) is None
            it.service.fetched(MAC, "snponly.efi", complete=False)  # EDK2 asks for the size first
            it.service.fetched(MAC, "/snponly.efi", complete=True)
            it.service.fetched(MAC, "/snponly.efi", complete=True)  # somebody else could do that
        looping = await strategy(6)
        assert looping is not None
        assert set(dhcp.suboptions(looping)) == {6, 9, 10}
        assert it.service.counters["loops"] == 1
        (event,) = [event for event in it.book.events if event[0] == "loop"]
        assert event[1] == MAC
        assert "snponly.efi was fetched 5 times" in event[2]
        it.service.progressed(MAC)
        for xid in range(11, 16):
            assert await strategy(xid) is None
            it.service.fetched(MAC, "snponly.efi", complete=True)
        assert await strategy(16) is not None
        it.service.fetched(MAC, "boot.ipxe", complete=True)  # the loader did something
        assert await strategy(17) is None


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
