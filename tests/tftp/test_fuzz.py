"""Any bytes on the request port and on a transfer's port leave the service serving.

Hypothesis looks for the bytes; a bounded random run sends twenty thousand datagrams and looks at what is left behind.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pbserv.tftp.packet import Error, Opcode, Request, encode_ack, encode_error, encode_oack, encode_request
from tests.tftp.client import Client, client, fetch, finish
from tests.tftp.conftest import Room

CONTENT = random.Random(7).randbytes(5000)
EXAMPLES = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest_asyncio.fixture(params=[False, True], ids=["ports of their own", "single port"])
async def room(request: pytest.FixtureRequest, make_room: Callable[[], Room]) -> AsyncIterator[Room]:
    """Everything that can be switched on is on."""
    room = make_room()
    room.put("f", CONTENT)
    await room.service.start(
        room.settings(
            single_port=request.param, allow_writes=True, allow_overwrites=True, free_space_mb=0, quota_mb=64,
            max_transfers=500,
        )
    )  # fmt: skip
    yield room
    await room.service.stop()
    assert (room.service.metrics.bugs, room.service.metrics.active) == (0, 0)
    assert list(room.folder.rglob("*.part")) == []


# -- what is sent ------------------------------------------------------------------------------------------------------

names = st.sampled_from([b"f", b"/f", b"..", b"none", b"\\f", b"f\xff", b"", b"a/../../f", b"%s%n", b"x" * 300])
option_names = st.sampled_from([b"blksize", b"BLKSIZE2", b"timeout", b"tsize", b"windowsize", b"utimeout", b"rollover",
                                b"multicast", b"msftwindow", b"x", b""])  # fmt: skip
option_values = st.one_of(
    st.sampled_from([b"0", b"1", b"7", b"8", b"512", b"1428", b"65464", b"65535", b"65536", b"-1", b"", b"1e3", b" 8"]),
    st.integers(0, 10**25).map(lambda number: b"%d" % number),
    st.binary(max_size=12),
)
soup = st.builds(
    lambda opcode, name, mode, pairs, end: (
        bytes([0, opcode]) + name + b"\0" + mode + b"\0" + b"".join(k + b"\0" + v + b"\0" for k, v in pairs) + end
    ),
    st.sampled_from([Opcode.RRQ, Opcode.WRQ]),
    names,
    st.sampled_from([b"octet", b"OCTET", b"netascii", b"mail", b""]),
    st.lists(st.tuples(option_names, option_values), max_size=40),
    st.binary(max_size=8),
)
valid = st.one_of(
    soup,
    st.integers(0, 65535).map(encode_ack),
    st.builds(encode_error, st.integers(0, 65535), st.text(max_size=20)),
    st.builds(lambda number, payload: b"\0\3" + number.to_bytes(2, "big") + payload, st.integers(0, 65535),
              st.binary(max_size=600)),
    st.just(encode_oack(((b"blksize", b"512"),))),
)  # fmt: skip


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A valid packet with a few bytes changed, cut out or put in."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 3)):
            case 0:
                data[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del data[place:]
            case 2:
                data[place:place] = draw(st.binary(max_size=10))
            case 3:
                data[place:place] = data[: draw(st.integers(0, 40))]
    return bytes(data)


anything = st.one_of(st.binary(max_size=700), valid, spoiled())


# -- with Hypothesis ---------------------------------------------------------------------------------------------------


async def still_serves(room: Room) -> None:
    assert await fetch(room.port, "f", ("blksize", 1428), ("windowsize", 4)) == CONTENT
    assert room.service.metrics.bugs == 0


@EXAMPLES
@given(st.lists(anything, min_size=1, max_size=5))
async def test_any_bytes_on_the_request_port(room: Room, datagrams: list[bytes]) -> None:
    async with client(room.port) as made:
        for datagram in datagrams:
            made.raw.sendto(datagram, made.listener)
        await still_serves(room)  # the loopback keeps the order: ours were looked at before
        room.put("f", CONTENT)  # a lucky upload may have replaced it


@EXAMPLES
@given(opening=st.sampled_from(["read", "window", "write"]), datagrams=st.lists(anything, min_size=1, max_size=8))
async def test_any_bytes_on_a_transfer_port(room: Room, opening: str, datagrams: list[bytes]) -> None:
    """From the client itself and from somebody else."""
    options = (("windowsize", 4), ("blksize", 64)) if opening == "window" else ()
    async with client(room.port) as made, client(room.port) as other:
        made.ask("w" if opening == "write" else "f", *options,
                 opcode=Opcode.WRQ if opening == "write" else Opcode.RRQ)  # fmt: skip
        await made.receive()
        other.server = made.server
        for datagram in datagrams:
            made.send(datagram)
            other.send(datagram)
        await still_serves(room)
        made.send(encode_error(0, "enough"))


@EXAMPLES
@given(st.lists(st.binary(max_size=700).filter(lambda data: data[:1] != b"\0"), max_size=10))
async def test_rubbish_from_the_client_does_not_end_its_transfer(room: Room, rubbish: list[bytes]) -> None:
    async with client(room.port) as made:
        made.ask("f")

        async def spoil(_block: int) -> None:
            for datagram in rubbish:
                made.send(datagram)

        assert await _through_answers(made, spoil) == CONTENT


async def _through_answers(made: Client, spoil: Callable[[int], object]) -> bytes | Error:
    """In single-port mode rubbish is a malformed request too, and may be answered with ERROR 4."""
    content, expected = b"", 1
    while True:
        data = await made.receive_bytes()
        if data[:2] == b"\0\5":
            continue
        assert data[:4] == b"\0\3" + expected.to_bytes(2, "big")
        content += data[4:]
        await spoil(expected)  # type: ignore[misc]
        made.ack(expected)
        if len(data) < 516:
            return content
        expected += 1


# -- at random ---------------------------------------------------------------------------------------------------------

DATAGRAMS = 20_000
CLIENTS = 40


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _random_datagram(dice: random.Random) -> bytes:
    kind = dice.randrange(8)
    if kind == 0:
        return dice.randbytes(dice.choice((0, 1, 2, 3, 4, 20, 516, 1432)))
    if kind < 4:
        pairs = tuple(
            (dice.choice((b"blksize", b"windowsize", b"tsize", b"timeout", b"rollover", b"multicast", b"y")),
             dice.choice((b"0", b"8", b"1428", b"64", b"", b"99999999999", dice.randbytes(5))))
            for _ in range(dice.randrange(6))
        )  # fmt: skip
        name = dice.choice((b"f", b"f", b"w%d" % dice.randrange(20), b"../x", dice.randbytes(8) or b"x"))
        mode = dice.choice(("octet", "netascii", "mail"))
        packet = encode_request(Request(dice.choice((Opcode.RRQ, Opcode.WRQ)), name, mode, pairs))
    elif kind < 6:
        packet = encode_ack(dice.choice((0, 1, 2, 3, dice.randrange(65536))))
    elif kind == 6:
        number = dice.choice((1, 2, 3, dice.randrange(65536))).to_bytes(2, "big")
        packet = b"\0\3" + number + dice.randbytes(dice.choice((0, 8, 512)))
    else:
        packet = encode_error(dice.randrange(10), "stop")
    if dice.random() < 0.3 and packet:
        place = dice.randrange(len(packet))
        packet = packet[:place] + dice.randbytes(1) + packet[place + dice.randrange(3) :]
    return packet


async def _storm(room: Room, made: list[Client], seed: int) -> None:
    """Each client talks to the request port and to whichever port answered it last."""
    dice = random.Random(seed)
    for number in range(DATAGRAMS):
        one = dice.choice(made)
        to = one.server if dice.random() < 0.5 else one.listener
        one.raw.sendto(_random_datagram(dice), to)
        if number % 32 == 0:
            await asyncio.sleep(0)
        if number % 256 == 0:
            for each in made:
                try:
                    while True:
                        _, each.server = each.raw.recvfrom(65_536)
                except BlockingIOError:
                    continue


@pytest.mark.timeout(180)
async def test_a_storm_of_random_datagrams(room: Room) -> None:
    await still_serves(room)
    before, files = _resident_bytes(), len(os.listdir("/proc/self/fd"))
    made = [Client(room.port) for _ in range(CLIENTS)]
    async with asyncio.timeout(60):
        await _storm(room, made, 11)
    metrics = room.service.metrics
    assert metrics.active <= 500
    assert metrics.requests > DATAGRAMS // 4  # it was looked at, not lost before
    assert min(metrics.asked["read"], metrics.asked["write"], metrics.outcomes.total()) > 500  # and went deep
    assert _resident_bytes() - before < 64 << 20
    for each in made:
        each.close()
    room.put("f", CONTENT)
    await still_serves(room)
    async with asyncio.timeout(60):  # ports that are closed, or a few unanswered first packets
        while metrics.active:
            await asyncio.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= files + 4
    async with client(room.port) as one:
        one.ask("f")
        assert await finish(one) == CONTENT
