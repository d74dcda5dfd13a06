"""One port for everything: TFTPInterface changes while transfers run, and old and new listeners share the port."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from pbserv.tftp.packet import Data, OptionAck, encode_error
from tests.tftp.client import Client, client, fetch, finish
from tests.tftp.conftest import Room
from tests.tftp.test_channels import descriptors
from tests.tftp.test_service import until

Places = tuple[str, ...]
noise = random.Random(6).randbytes
BOTH_WAYS = pytest.mark.parametrize(
    ("before", "after"), [(("127.0.0.1",), ()), ((), ("127.0.0.1",))], ids=["to all addresses", "to one address"]
)


@pytest_asyncio.fixture
async def start(make_room: Callable[[], Room]) -> AsyncIterator[Callable[[Places], Room]]:
    """Starts the room on these addresses; at the end no transfer is left and nothing went wrong."""
    room = make_room()

    async def begin(places: Places) -> Room:
        await room.service.start(room.settings(interfaces=places, single_port=True, max_window=64))
        return room

    yield begin
    try:
        await until(lambda: room.service.metrics.active == 0)
    finally:
        await room.service.stop()
    assert room.service.metrics.bugs == 0


async def reload(room: Room, places: Places) -> None:
    settings = room.settings(interfaces=places, port=room.port, single_port=True, max_window=64)
    (await room.service.prepare(settings)).commit()


async def begun(made: Client, name: str, data: bytes) -> None:
    """The first block has come, and is not acknowledged yet."""
    made.ask(name, ("blksize", 1000))
    assert isinstance(await made.receive(), OptionAck)
    made.ack(0)
    assert await made.receive() == Data(1, data[:1000])


async def go_on(made: Client, data: bytes, first: int, last: int) -> None:
    """Acknowledge the block before ``first`` and take those up to ``last``, which stays unacknowledged."""
    for block in range(first, last + 1):
        made.ack(block - 1)
        expected = Data(block, data[(block - 1) * 1000 : block * 1000])
        got = await made.receive()
        while isinstance(got, Data) and got.block < block:  # sent again while nobody listened
            got = await made.receive()
        assert got == expected


@BOTH_WAYS
async def test_a_reload_and_back_while_a_transfer_runs(start, before: Places, after: Places) -> None:
    room = await start(before)
    data, other = room.put("f", noise(40_500)), room.put("g", noise(30_000))
    port = room.port
    async with client(port) as made:
        await begun(made, "f", data)
        for turn, places in enumerate((after, before, after, before)):
            await reload(room, places)
            assert room.port == port
            for options in ((), (("blksize", 1428), ("windowsize", 16))):
                assert await fetch(port, "g", *options) == other  # new clients, at once
            await go_on(made, data, 10 * turn + 2, 10 * turn + 11)
            assert made.server == ("127.0.0.1", port)
        made.ack(41)
        await until(lambda: room.service.metrics.outcomes["completed"] == 9)
    metrics = room.service.metrics
    assert (metrics.retransmissions, metrics.strays, metrics.stale_acks) == (0, 0, 0)


@BOTH_WAYS
async def test_a_transfer_in_flights_while_its_port_changes_hands(start, before: Places, after: Places) -> None:
    """Nobody waits for anybody: reloads come as the windows fly."""
    room = await start(before)
    data = room.put("f", noise(3_000_000))

    async def turns() -> None:
        for places in (after, before) * 5:
            await reload(room, places)
            await asyncio.sleep(0)

    got = await asyncio.gather(
        *(fetch(room.port, "f", ("blksize", 1400), ("windowsize", window)) for window in (1, 16, 64)), turns()
    )
    assert all(one == data for one in got[:3])
    await until(lambda: room.service.metrics.outcomes["completed"] == 3)
    assert room.service.metrics.strays == 0


@pytest.mark.parametrize("host", ["127.0.0.9", "::1"])
async def test_an_address_that_is_given_up_still_finishes_its_transfers(start, host: str) -> None:
    room = await start(())
    data = room.put("f", noise(40_500))
    port = room.port
    async with client(port, host) as made, client(port, host) as late:
        await begun(made, "f", data)
        await reload(room, ("127.0.0.1",))
        late.ask("f")
        assert await late.silent(0.1)  # this address is not served any more
        assert await fetch(port, "f") == data
        await go_on(made, data, 2, 20)
        await reload(room, ())
        assert await fetch(port, "f", host=host) == data
        await go_on(made, data, 21, 41)
        made.ack(41)
        await until(lambda: room.service.metrics.outcomes["completed"] == 3)
    assert room.service.metrics.retransmissions == 0


@BOTH_WAYS
async def test_the_same_client_asks_for_something_else_after_a_reload(start, before: Places, after: Places) -> None:
    room = await start(before)
    data, other = room.put("f", noise(40_500)), room.put("g", noise(5_000))
    async with client(room.port) as made:
        await begun(made, "f", data)
        await reload(room, after)
        made.ask("g")
        assert await finish(made) == other
        await until(lambda: room.service.metrics.active == 0)
    assert room.service.metrics.outcomes == {"completed": 1, "replaced by a new request": 1}


@BOTH_WAYS
async def test_a_client_that_breaks_off_after_a_reload_is_heard(start, before: Places, after: Places) -> None:
    room = await start(before)
    data = room.put("f", noise(40_500))
    async with client(room.port) as made:
        await begun(made, "f", data)
        await reload(room, after)
        made.send(encode_error(0, "enough"))
        await until(lambda: room.service.metrics.outcomes["closed by client"] == 1)


@BOTH_WAYS
async def test_old_listeners_close_when_their_last_transfer_ends(start, before: Places, after: Places) -> None:
    room = await start(before)
    data = room.put("f", noise(40_500))
    await reload(room, before)
    few = descriptors()
    made = Client(room.port)
    await begun(made, "f", data)
    for places in (after, before) * 3:
        await reload(room, places)
    await go_on(made, data, 2, 41)
    made.ack(41)
    await until(lambda: room.service.metrics.active == 0)
    made.close()
    await until(lambda: descriptors() == few)


@pytest.mark.parametrize("single_port", [True, False])
async def test_a_reload_to_larger_blocks_cuts_no_upload(make_room: Callable[[], Room], single_port: bool) -> None:
    """A block that does not fit the place where it is read would look like the last one."""
    room = make_room()
    places = {"interfaces": ("127.0.0.1",), "single_port": single_port, "allow_writes": True}
    await room.service.start(room.settings(**places))
    (await room.service.prepare(room.settings(**places, port=room.port, max_block_size=16_000))).commit()
    data = noise(100_000)
    async with client(room.port) as made:
        made.ask("up", ("blksize", 16_000), opcode=2)
        assert await made.receive() == OptionAck(((b"blksize", b"16000"),))
        for block in range(1, 8):
            made.send(b"\0\3" + block.to_bytes(2, "big") + data[(block - 1) * 16_000 : block * 16_000])
            await made.receive()
    assert (room.folder / "up").read_bytes() == data
    await room.service.stop()
