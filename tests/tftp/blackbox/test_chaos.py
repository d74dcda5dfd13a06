"""Bad networks and bad manners: real clients behind a lossy proxy, ACK storms, ERRORs at every state, moved ports."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from pbserv.tftp.packet import Ack, Data, OptionAck, decode, encode_error
from tests.tftp.blackbox.conftest import Serve
from tests.tftp.blackbox.programs import ATFTP, ATFTP_WINDOW, BUSYBOX, CURL, HPA, Program
from tests.tftp.blackbox.proxy import proxy, rough
from tests.tftp.blackbox.wire import Peer, blocks, get, peer, until
from tests.tftp.client import finish
from tests.tftp.conftest import Room

noise = random.Random(6).randbytes
rough_seeds = pytest.mark.parametrize("seed", [1, 3, 4])
programs = pytest.mark.parametrize("program", [HPA, ATFTP, ATFTP_WINDOW, BUSYBOX, CURL], ids=str)


# -- real clients on a bad network -------------------------------------------------------------------------------------


@programs
@rough_seeds
async def test_reads_over_a_bad_network(serve: Serve, tmp_path: Path, program: Program, seed: int) -> None:
    # curl asks for a timeout of six seconds, and a client's timeout counts: it would get it at each loss
    room = await serve(refused_options=("timeout",))
    data = room.put("f", noise(60_000))
    target = tmp_path / "out"
    async with proxy(room.port, rough(seed)) as network:
        done = await program.get(network.port, "f", target)
        assert done.code == 0, done.said
        assert target.read_bytes() == data
        size, window = (1428, 1) if program.options else (512, 1)
        window = 8 if program is ATFTP_WINDOW else window
        # every loss and every late or doubled packet costs one flight at the most
        assert network.counts["down data"] <= len(data) // size + 1 + window * (network.counts["lost"] * 2 + 10)


@pytest.mark.parametrize("program", [HPA, ATFTP, BUSYBOX, CURL], ids=str)
@rough_seeds
async def test_writes_over_a_bad_network(writable: Room, tmp_path: Path, program: Program, seed: int) -> None:
    source = tmp_path / "in"
    # a lost block waits for the client's own timer, five seconds with tftp-hpa and six with curl: not many, then
    source.write_bytes(noise(12_000 if program is HPA else 30_000))
    # atftp 0.8 goes back in the file on each late ACK, then forgets where the end was, and fails for good
    network_like = rough(seed, doubled=0, late=0) if program is ATFTP else rough(seed)
    async with proxy(writable.port, network_like) as network:
        done = await program.put(network.port, source, "f")
    assert done.code == 0, done.said
    assert (writable.folder / "f").read_bytes() == source.read_bytes()


async def test_only_the_first_flight_is_lost(serve: Serve) -> None:
    """A lost OACK, then a lost block 1: the server's own timer brings both."""
    room = await serve()
    data = room.put("f", noise(3000))
    lost = {0, 2}
    async with proxy(room.port, lambda way, number, _: () if way == "down" and number in lost else (0.0,)) as network:
        assert await get(network.port, "f", ("blksize", 1000)) == data
        await until(lambda: room.service.metrics.outcomes["completed"])
    assert room.service.metrics.retransmissions == 2


# -- ACK storms --------------------------------------------------------------------------------------------------------


async def received(us: Peer, quiet_s: float = 0.02) -> list[Data]:
    """All DATA until it is quiet."""
    found = []
    while True:
        try:
            packet = decode(await us.receive_bytes(quiet_s))
        except TimeoutError:
            return found
        assert isinstance(packet, Data)
        found.append(packet)


async def test_an_ack_storm_in_lock_step_doubles_nothing(serve: Serve) -> None:
    """RFC 1123 4.2.3.1: twenty copies of each ACK, and each block comes once."""
    room = await serve()
    data = room.put("f", noise(512 * 40))
    async with peer(room.port) as us:
        us.read("f")
        for block in blocks(data):
            assert await us.receive() == block
            for _ in range(20):
                us.ack(block.block)
        assert await us.silent(0.05)
    await until(lambda: room.service.metrics.outcomes["completed"])
    assert room.service.metrics.blocks_sent == 41
    assert room.service.metrics.retransmissions == 0


async def test_an_ack_storm_in_a_window_costs_one_flight_per_guard_time(serve: Serve) -> None:
    """EDK2 says once for each unexpected block what it misses. The storm lasts: traffic must not follow it."""
    room = await serve()
    data = room.put("f", noise(512 * 64))
    async with peer(room.port) as us:
        us.read("f", ("windowsize", 16))
        assert isinstance(await us.receive(), OptionAck)
        us.ack(0)
        assert await received(us) == blocks(data)[:16]
        begun = time.monotonic()
        while time.monotonic() - begun < 0.5:  # guard times from 5 ms on, each twice the one before
            us.ack(0)
            await asyncio.sleep(0.0005)
        again = await received(us)
        assert len(again) <= 16 * 9
        assert set(again) == set(blocks(data)[:16])
        us.ack(16)
        while (packet := await us.receive()) in blocks(data)[:16]:  # one more flight may have been due
            pass
        assert packet == blocks(data)[16]
        us.give_up()
    await until(lambda: room.service.metrics.active == 0)
    assert room.service.metrics.outcomes["closed by client"] == 1


async def test_acks_of_every_block_of_a_window_do_not_multiply_it(serve: Serve) -> None:
    """A client that acknowledges each block although a window was agreed on (trace in troglobit/uftpd#44)."""
    room = await serve()
    data = room.put("f", noise(512 * 200))
    async with peer(room.port) as us:
        us.read("f", ("windowsize", 8))
        assert isinstance(await us.receive(), OptionAck)
        us.ack(0)
        got: dict[int, bytes] = {}
        packets = 0
        while len(got) < 201:
            packet = await us.receive()
            assert isinstance(packet, Data)
            packets += 1
            if packet.block == len(got) + 1:
                got[packet.block] = packet.payload
            us.ack(len(got))
        assert b"".join(got.values()) == data
    assert packets <= 2 * 201 + 16


async def test_acks_from_the_future_and_the_past_are_ignored(serve: Serve) -> None:
    room = await serve()
    data = room.put("f", noise(512 * 3))
    async with peer(room.port) as us:
        us.read("f")
        for block in blocks(data):
            assert await us.receive() == block
            for wrong in (block.block + 1, block.block + 2, 65535, 40_000, block.block - 1):
                us.ack(wrong)
            assert await us.silent(0.02)
            us.ack(block.block)
    await until(lambda: room.service.metrics.outcomes["completed"])
    assert room.service.metrics.stale_acks >= len(blocks(data))
    assert room.service.metrics.retransmissions == 0


# -- ERROR at every state ----------------------------------------------------------------------------------------------

READ_STATES = ("first block", "OACK", "middle", "last block")
OUTCOMES = {"first block": "closed by client", "OACK": "size probe", "middle": "closed by client"}


async def walk(us: Peer, state: str) -> None:
    """To where the ERROR is sent: after the first answer, in the middle of the file, before the last ACK."""
    us.read("f", *((("tsize", 0),) if state != "first block" else ()))
    await us.receive()
    for block in {"middle": [0, 1], "last block": [0, 1, 2, 3]}.get(state, []):
        us.ack(block)
        await us.receive()


@pytest.mark.parametrize("state", READ_STATES)
@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535])
async def test_an_error_ends_a_read_and_is_never_answered(serve: Serve, state: str, code: int) -> None:
    room = await serve()
    room.put("f", noise(512 * 3 + 1))
    async with peer(room.port) as us:
        await walk(us, state)
        us.send(encode_error(code, "stop"))
        await until(lambda: room.service.metrics.active == 0)
        us.ack(1)  # some clients acknowledge their own ERROR (pin/tftp#99)
        assert await us.silent(0.02) or us.last.startswith(b"\0\5\0\5")
    metrics = room.service.metrics
    assert metrics.outcomes.total() == 1
    if code == 0 or (code == 8 and state == "OACK"):
        assert metrics.outcomes[OUTCOMES.get(state, "closed by client")] == 1
    else:
        assert metrics.outcomes["client error"] == 1


@pytest.mark.parametrize("code", [0, 3, 4, 8])
@pytest.mark.parametrize("sent", [0, 1, 2])
async def test_an_error_ends_a_write_and_leaves_nothing(writable: Room, code: int, sent: int) -> None:
    async with peer(writable.port) as us:
        us.write("f", ("blksize", 512))
        assert isinstance(await us.receive(), OptionAck)
        for block in range(1, sent + 1):
            us.data(block, bytes(512))
            await us.expect(Ack(block))
        us.send(encode_error(code, "stop"))
        await until(lambda: writable.service.metrics.active == 0)
        assert await us.silent(0.02)
    assert list(writable.folder.iterdir()) == []


async def test_an_error_to_the_request_port_is_never_answered(serve: Serve) -> None:
    room = await serve()
    async with peer(room.port) as us:
        for code in range(9):
            us.request(encode_error(code, "hello"))
        assert await us.silent(0.05)
    assert room.service.metrics.ignored["Error on the request port"] == 9


# -- ports that move ---------------------------------------------------------------------------------------------------


async def test_somebody_else_cannot_disturb_a_transfer(serve: Serve) -> None:
    """RFC 1350 section 4: ERROR 5 to the stray alone, at most; an ERROR from it ends nothing."""
    room = await serve()
    data = room.put("f", noise(512 * 30))
    async with peer(room.port) as us, peer(room.port) as other:
        us.read("f")
        await us.expect(blocks(data)[0])
        other.server = us.server
        for packet in (b"\0\4\0\1", encode_error(0, "stop"), b"", b"\xff", b"\0\3\0\1x"):
            other.send(packet)
        us.ack(1)
        await us.expect(blocks(data)[1])
        us.ack(2)
        rest = await finish_from(us, 3)
        assert rest == data[1024:]
        answers = []
        while not await other.silent(0.02):
            answers.append(1)
        assert len(answers) <= 3  # never to the ERROR


async def finish_from(us: Peer, block: int) -> bytes:
    content = b""
    while True:
        packet = await us.receive()
        assert isinstance(packet, Data)
        assert packet.block == block
        content += packet.payload
        us.ack(block)
        if len(packet.payload) < 512:
            return content
        block += 1


async def test_a_nat_that_moves_the_client_costs_one_transfer(serve: Serve) -> None:
    """The binding changes in mid-file: the new port is a stray, the client begins again, nothing hangs on."""
    room = await serve()
    data = room.put("f", noise(512 * 10))
    async with peer(room.port) as before, peer(room.port) as after:
        before.read("f")
        await before.expect(blocks(data)[0])
        after.server = before.server
        after.ack(1)
        after.read("f")
        assert await finish(after, None) == data or room.service.metrics.strays
    assert await get(room.port, "f") == data


async def test_two_clients_behind_one_address_do_not_meet(serve: Serve) -> None:
    room = await serve()
    contents = [room.put(f"f{number}", noise(20_000)) for number in range(40)]
    got = await asyncio.gather(*(get(room.port, f"f{number}", ("windowsize", 4)) for number in range(40)))
    assert got == contents


async def test_a_port_that_is_used_again_begins_anew(serve: Serve) -> None:
    """U-Boot has 3072 ports and comes back to them: another file from the same port ends the old transfer."""
    room = await serve()
    room.put("old", noise(5000))
    data = room.put("new", noise(5000))
    async with peer(room.port) as us:
        us.read("old")
        await us.receive()
        us.read("new")
        assert await finish(us) == data
    await until(lambda: room.service.metrics.active == 0)
    assert room.service.metrics.outcomes["replaced by a new request"] == 1


# -- extremes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 16])
async def test_block_numbers_roll_over_with_the_smallest_blocks(serve: Serve, window: int) -> None:
    """8 bytes a block: 65,600 blocks are half a megabyte."""
    room = await serve()
    data = room.put("f", noise(8 * 65_600 + 3))
    assert await get(room.port, "f", ("blksize", 8), ("windowsize", window)) == data


@pytest.mark.timeout(240)
async def test_more_than_four_gigabytes(serve: Serve) -> None:
    """A sparse file: tsize needs more than 32 bits, block numbers roll over, offsets pass 4 GiB."""
    size = (4 << 30) + 12_345
    room = await serve(max_block_size=65_464, max_window=64)
    with (room.folder / "f").open("wb") as file:
        file.truncate(size)
        file.seek(size - 5)
        file.write(b"END.\n")
    async with peer(room.port) as us:
        us.read("f", ("blksize", 65_464), ("windowsize", 32), ("tsize", 0))
        await us.expect_options(("blksize", 65_464), ("windowsize", 32), ("tsize", size))
        us.ack(0)
        expected, got, tail = 1, 0, b""
        while not tail:
            packet = await us.receive_bytes()
            if int.from_bytes(packet[2:4], "big") != expected & 0xFFFF:
                us.ack(expected - 1)
                continue
            got += len(packet) - 4
            last = len(packet) - 4 < 65_464
            if last or expected % 32 == 0:
                us.ack(expected)
            expected += 1
            tail = packet[-5:] if last else b""
    assert (got, tail) == (size, b"END.\n")
