"""Which requests are served by multicast, and how a group lives and ends, against the service on the loopback."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from pbserv.tftp.multicast_desk import MOST_PER_ADDRESS, GroupPlan
from pbserv.tftp.packet import Data, Error, OptionAck, Packet, decode, encode_error
from tests.tftp.client import Client, client, fetch
from tests.tftp.conftest import Room


class Ear:
    """The socket that a member listens with."""

    def __init__(self, group: str, port: int) -> None:
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.raw.setblocking(False)
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.raw.bind((group, port))
        member = socket.inet_aton(group) + socket.inet_aton("127.0.0.1")
        self.raw.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        self.source: tuple[str, int] = ("", 0)

    async def block(self, timeout_s: float = 5.0) -> Data:
        async with asyncio.timeout(timeout_s):
            data, self.source = await asyncio.get_running_loop().sock_recvfrom(self.raw, 65536)
        packet = decode(data)
        assert isinstance(packet, Data)
        return packet


@asynccontextmanager
async def member(room: Room, name: str, *options: tuple[str, object]) -> AsyncIterator[tuple[Client, Ear, int]]:
    """A client that asked, its ear, and the mc field of its OACK."""
    async with client(room.port) as made:
        made.ask(name, *options, ("multicast", ""))
        group, port, mc = (await oack(made))["multicast"].split(",")
        ear = Ear(group, int(port))
        try:
            yield made, ear, int(mc)
        finally:
            ear.raw.close()


async def oack(made: Client) -> dict[str, str]:
    packet = await made.receive()
    assert isinstance(packet, OptionAck), packet
    return {name.decode(): value.decode() for name, value in packet.options}


async def answer(room: Room, name: str, *options: tuple[str, object], mode: str = "octet") -> Packet:
    async with client(room.port) as made:
        made.ask(name, *options, mode=mode)
        packet = await made.receive()
        made.send(encode_error(0, "done"))
        return packet


async def test_a_file_goes_to_the_group_from_the_port_of_the_oack(room: Room):
    data = room.put("image", os.urandom(1200))
    async with member(room, "image") as (master, ear, mc):
        assert mc == 1
        assert ear.raw.getsockname()[1] == 1758
        got = b""
        for number in range(3):
            master.ack(number)
            block = await ear.block()
            assert block.block == number + 1
            assert ear.source == master.server
            got += block.payload
        master.ack(3)
        assert got == data
        assert await master.silent(0.3)
    assert room.told == [("127.0.0.1", "image", "completed", 1200)]


async def test_the_option_stands_where_the_client_wrote_it(room: Room):
    room.put("image", b"x" * 2000)
    packet = await answer(room, "image", ("TSIZE", 0), ("Multicast", ""), ("windowsize", 8), ("blkSize", 700))
    assert isinstance(packet, OptionAck)
    assert [name for name, _ in packet.options] == [b"TSIZE", b"Multicast", b"blkSize"]
    assert dict(packet.options)[b"TSIZE"] == b"2000"


async def test_the_second_client_listens_and_is_called_when_the_first_is_done(room: Room):
    data = room.put("image", os.urandom(600))
    async with member(room, "image") as (first, ear, mc), member(room, "image") as (second, other, mc2):
        assert (mc, mc2) == (1, 0)
        assert second.server == first.server
        first.ack(0)
        assert (await ear.block()).payload + b"" == (await other.block()).payload == data[:512]
        first.ack(1)
        assert (await ear.block()).payload == (await other.block()).payload == data[512:]
        first.ack(2)
        assert (await oack(second))["multicast"].endswith(",1758,1")
        second.ack(2)
        assert await second.silent(0.3)
    assert [outcome for _, _, outcome, _ in room.told] == ["completed", "completed"]


async def test_other_block_sizes_and_other_files_are_other_groups(room: Room):
    room.put("image", b"1" * 5000)
    room.put("other", b"2" * 5000)
    async with (
        member(room, "image") as (_a, ear, mc),
        member(room, "image", ("blksize", 700)) as (_b, ear2, mc2),
        member(room, "other") as (_c, ear3, mc3),
    ):
        assert mc == mc2 == mc3 == 1
        assert len({one.raw.getsockname()[0] for one in (ear, ear2, ear3)}) == 3


async def test_a_repeated_request_is_answered_again_and_starts_nothing(room: Room):
    room.put("image", b"x" * 5000)
    async with member(room, "image") as (made, _ear, _mc):
        await asyncio.sleep(0.25)
        port = made.server
        made.server = made.listener
        made.ask("image", ("multicast", ""))
        assert (await oack(made))["multicast"].endswith(",1")
        assert made.server == port
    assert room.log.count("request client") == 1


async def test_a_port_that_asks_for_something_else_leaves_the_group(room: Room):
    room.put("image", b"x" * 5000)
    data = room.put("small", b"small")
    async with member(room, "image") as (made, _ear, _mc):
        made.ask("small")
        packet = await made.receive()
        assert isinstance(packet, Data)
        assert packet.payload == data
        made.ack(1)
        await made.silent(0.2)
    assert [outcome for _, _, outcome, _ in room.told] == ["replaced by a new request", "completed"]


async def test_a_restarted_client_begins_anew(room: Room):
    room.put("image", b"x" * 5000)
    async with member(room, "image") as (made, ear, _mc):
        made.ack(0)
        await ear.block()
        await asyncio.sleep(0.25)
        made.ask("image", ("multicast", ""))
        # It was alone, so its group is gone, and so is the address: late blocks must not reach the new group.
        group, port, mc = (await oack(made))["multicast"].split(",")
        assert group != ear.raw.getsockname()[0]
        assert mc == "1"
        again = Ear(group, int(port))
        made.ack(0)
        assert (await again.block()).block == 1
        again.raw.close()
    assert room.told[0][2] == "replaced by a new request"


async def test_what_cannot_be_multicast_is_served_without_the_option(room: Room):
    room.put("image", b"x" * 5000)
    (room.folder / "large").touch()
    os.truncate(room.folder / "large", 512 * 65_535)
    room.virtual["made"] = b"made on demand"
    wanted = ("multicast", "")
    for packet in (
        await answer(room, "image", wanted, mode="netascii"),
        await answer(room, "made", wanted),
        await answer(room, "large", wanted),
        await answer(room, "image", ("multicast", "239.1.1.1,5,1")),
    ):
        assert isinstance(packet, Data)
    packet = await answer(room, "large", wanted, ("tsize", 0))
    assert isinstance(packet, OptionAck)
    assert [name for name, _ in packet.options] == [b"tsize"]
    os.truncate(room.folder / "large", 512 * 65_535 - 1)
    packet = await answer(room, "large", wanted)
    assert isinstance(packet, OptionAck)


@pytest.mark.parametrize(
    "changes", [{"multicast": False}, {"single_port": True}, {"refused_options": ("multicast",)}], ids=str
)
async def test_settings_can_rule_it_out(make_room: Callable[[], Room], changes):
    room = make_room()
    data = room.put("image", b"x" * 700)
    await room.service.start(room.settings(**changes))
    try:
        assert await fetch(room.port, "image", ("multicast", "")) == data
    finally:
        await room.service.stop()


async def test_group_addresses_must_be_multicast_addresses(make_room: Callable[[], Room]):
    room = make_room()
    for address in ("10.0.0.1", "239.255.255.1", "fe80::1"):
        with pytest.raises(ValueError, match=r"is not an IPv4 multicast address with 255 more behind it"):
            room.settings(multicast_address=address)
    assert GroupPlan.of(room.settings(multicast_address="224.0.1.1", multicast=False)) is None
    assert GroupPlan.of(room.settings(multicast_address="239.255.255.0")) is not None


async def test_groups_take_their_ports_from_the_range(make_room: Callable[[], Room]):
    room = make_room()
    room.put("image", b"x" * 700)
    await room.service.start(room.settings(port_range=(45_100, 45_119), multicast_port=3999))
    try:
        async with member(room, "image") as (made, ear, _mc):
            assert 45_100 <= made.server[1] <= 45_119
            assert ear.raw.getsockname()[1] == 3999
    finally:
        await room.service.stop()


async def test_one_address_gets_a_few_places_and_then_unicast(room: Room):
    room.put("image", b"x" * 700)
    clients = [Client(room.port) for _ in range(MOST_PER_ADDRESS + 1)]
    try:
        kinds = []
        for one in clients:
            one.ask("image", ("multicast", ""))
            kinds.append(type(await one.receive()))
        assert kinds == [OptionAck] * MOST_PER_ADDRESS + [Data]
    finally:
        for one in clients:
            one.send(encode_error(0, "done"))
            one.close()
    while len(room.told) < len(clients):
        await asyncio.sleep(0.01)
    async with member(room, "image") as (_made, _ear, mc):
        assert mc == 1


async def test_a_file_that_is_rewritten_meanwhile_ends_the_group(make_room: Callable[[], Room]):
    room = make_room()
    room.put("image", b"x" * 200_000)
    await room.service.start(room.settings(cache_size_mb=0))
    try:
        async with member(room, "image") as (first, ear, _), member(room, "image") as (second, _ear, _mc):
            first.ack(0)
            await ear.block()
            room.put("image", b"y" * 100_000)
            for number in range(1, 390):
                first.ack(number)
                try:
                    assert set((await ear.block(0.5)).payload) == {ord("x")}
                except TimeoutError:
                    break
                if not await first.silent(0):
                    break
            assert isinstance(await second.receive(), Error)
    finally:
        await room.service.stop()
    assert {outcome for _, _, outcome, _ in room.told} == {"file changed"}


async def test_rubbish_on_the_groups_port_disturbs_nobody(room: Room):
    data = room.put("image", os.urandom(700))
    async with member(room, "image") as (made, ear, _mc), client(room.port) as stranger:
        stranger.server = made.server
        for _ in range(50):
            stranger.send(os.urandom(40))
            made.send(b"\0\7" + os.urandom(20))
        stranger.ack(0)
        stranger.send(encode_error(0, "forged"))
        made.ack(0)
        got = (await ear.block()).payload
        made.ack(1)
        assert got + (await ear.block()).payload == data
        made.ack(2)
        assert await stranger.silent(0.2)
    assert room.told[0][2] == "completed"


async def test_members_are_told_when_the_service_stops(make_room: Callable[[], Room]):
    room = make_room()
    room.put("image", b"x" * 5000)
    await room.service.start(room.settings())
    async with member(room, "image") as (made, _ear, _mc):
        await room.service.stop()
        packet = await made.receive()
        assert isinstance(packet, Error)
        assert packet.text == "the server is stopping"
    assert [outcome for _, _, outcome, _ in room.told] == ["service stopped"]
