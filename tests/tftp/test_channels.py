"""Transfers that share sockets: who gets which datagram, and what a shared socket must not mix up."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import random
import socket

import pytest

from pbserv.net.mmsg import Outbox
from pbserv.tftp.packet import Data, Error, OptionAck, Request, encode_ack, encode_error, encode_request
from tests.tftp.client import Client, client, fetch, finish
from tests.tftp.conftest import Room
from tests.tftp.test_service import until

noise = random.Random(2).randbytes


@pytest.mark.parametrize("single_port", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("options", [(), (("blksize", 1428),), (("blksize", 1024), ("windowsize", 16))])
async def test_many_clients_at_once(make_room, single_port: bool, host: str, options: tuple) -> None:
    room = make_room()
    await room.service.start(room.settings(interfaces=(host,), single_port=single_port))
    files = {f"f{n}": room.put(f"f{n}", noise(20_000 + 1000 * n)) for n in range(40)}
    got = await asyncio.gather(*(fetch(room.port, name, *options, host=host) for name in files))
    assert got == list(files.values())
    await until(lambda: room.service.metrics.outcomes["completed"] == 40)
    assert room.service.metrics.retransmissions == 0
    await room.service.stop()


async def test_every_address_of_the_host_in_both_families(make_room) -> None:
    room = make_room()
    await room.service.start(room.settings(interfaces=()))
    data = room.put("f", noise(5000))
    for host in ("127.0.0.1", "127.0.0.77", "::1"):
        async with client(room.port, host) as made:
            made.ask("f")
            assert await finish(made) == data
            assert made.server[0] == host
            assert made.server[1] != room.port
    await room.service.stop()


async def test_an_interface_by_name_and_several_addresses(make_room) -> None:
    room = make_room()
    await room.service.start(room.settings(interfaces=("lo", "127.0.0.2")))
    names = {name.rpartition(":")[0] for name in room.service.listeners}
    assert names == {"udp 127.0.0.1", "udp [::1]", "udp 127.0.0.2"}
    room.put("f", b"x")
    assert await fetch(room.port, "f", host="::1") == b"x"
    await room.service.stop()


async def test_one_port_for_everything(make_room) -> None:
    room = make_room()
    await room.service.start(room.settings(interfaces=(), single_port=True))
    data = room.put("f", noise(5000))
    for host in ("127.0.0.1", "127.0.0.9", "::1"):
        async with client(room.port, host) as made:
            made.ask("f", ("blksize", 1000))
            assert isinstance(await made.receive(), OptionAck)
            assert made.server[:2] == (host, room.port)
            made.ask("f", ("blksize", 1000))  # a duplicate, on the port of the transfer
            assert await made.silent(0.1)
            made.ack(0)
            assert await made.receive() == Data(1, data[:1000])
            made.ask("f")  # another request from the same port: the old transfer is over
            assert await finish(made) == data
    await until(lambda: room.service.metrics.active == 0)
    assert room.service.metrics.outcomes == {"completed": 3, "replaced by a new request": 3}
    await room.service.stop()


async def test_ports_of_a_range(make_room) -> None:
    room = make_room()
    await room.service.start(room.settings(port_range=(46_000, 46_001)))
    room.put("f", noise(3000))
    seen = set()
    for _ in range(6):
        async with client(room.port) as made:
            made.ask("f")
            await finish(made)
            seen.add(made.server[1])
    assert seen <= {46_000, 46_001}
    made = Client(room.port)  # one client, one port, again and again
    for _ in range(5):
        made.ask("f")
        await finish(made)
        assert made.server[1] in (46_000, 46_001)
    made.close()
    await room.service.stop()


async def test_a_client_that_comes_again_from_its_port_gets_another_port(room: Room) -> None:
    room.put("f", noise(3000))
    made = Client(room.port)
    ports = []
    for _ in range(5):
        made.ask("f")
        await finish(made)
        ports.append(made.server[1])
    assert all(one != other for one, other in itertools.pairwise(ports))
    made.close()


async def test_clients_prove_themselves_on_a_port_of_their_own(room: Room) -> None:
    """A port that others know could be used to acknowledge blocks in the name of a victim."""
    switchboard = room.service._room._switchboard
    switchboard.trusts = lambda address: address != "127.0.0.1"
    data = room.put("f", noise(3000))
    async with client(room.port, "127.0.0.1") as one, client(room.port) as two, client(room.port) as three:
        for made in (one, two):
            made.ask("f")
            assert await made.receive() == Data(1, data[:512])
        assert one.server != two.server
        async with client(room.port) as other:  # knows the port of another's transfer, which is worth nothing
            other.server = two.server
            other.ask("f")
            await other.receive()
            assert other.server != two.server
            other.server = two.server
            other.ack(1)
            assert await other.receive() == Error(5, "no transfer between these ports")
        one.ack(1)
        assert await finish_from(one, 2, data) == data
        await until(lambda: room.service.metrics.outcomes["completed"] == 1)
        for _ in range(4):  # proven: from now on it shares ports with others
            assert await fetch(room.port, "f") == data
        three.ask("f")
        await three.receive()
        assert three.server[1] in {channel.name[1] for channel in switchboard._channels["127.0.0.1"]}


async def test_an_ack_before_the_content_is_nobodys(room: Room) -> None:
    """A file that is read in a thread: whoever acknowledges what was not sent has guessed the port."""
    data = room.put("f", noise(3_000_000))
    async with client(room.port) as first, client(room.port) as made:
        first.ask("f")
        await first.receive()
        made.ask("f", ("blksize", 1400))
        made.server = first.server
        for _ in range(5):
            made.ack(0)
        assert isinstance(await made.receive(), OptionAck)
        made.ack(0)
        assert await made.receive() == Data(1, data[:1400])


async def test_a_forged_port_gets_few_first_packets(room: Room) -> None:
    room.put("f", noise(600))
    room.put("g", noise(600))
    room.service._room._table.trusts = lambda _address: False
    async with client(room.port) as made:
        for n in range(500):
            made.ask("fg"[n % 2])
        answers = 0
        while not await made.silent(0.3):
            answers += 1
        assert answers < 40
    assert room.service.metrics.ignored["another request before an answer"] > 100


async def test_clients_outside_of_the_allowed_networks_hear_nothing(make_room) -> None:
    room = make_room()
    await room.service.start(room.settings(allowed_networks=("10.0.0.0/8", "::/0")))
    room.put("f", b"x")
    async with client(room.port) as made:
        made.ask("f")
        assert await made.silent(0.2)
    assert room.service.metrics.ignored == {"not in TFTPAllowedNetworks": 1}
    (await room.service.prepare(room.settings(allowed_networks=("127.0.0.0/8",), port=room.port))).commit()
    assert await fetch(room.port, "f") == b"x"
    await room.service.stop()


async def test_a_stranger_gets_an_error_and_disturbs_nobody(room: Room) -> None:
    """RFC 1350 section 4."""
    data = room.put("f", noise(3000))
    async with client(room.port) as made, client(room.port) as stranger:
        made.ask("f")
        assert await made.receive() == Data(1, data[:512])
        stranger.server = made.server
        stranger.ack(1)
        assert await stranger.receive() == Error(5, "no transfer between these ports")
        stranger.send(encode_error(0, "stop"))  # an ERROR is never answered with an ERROR
        assert await stranger.silent(0.1)
        made.ack(1)
        assert await made.receive() == Data(2, data[512:1024])
        made.ack(2)
        assert await finish_from(made, 3, data) == data
        made.ack(6)  # the last ACK again: late, not strange
        assert await made.silent(0.1)
    assert room.service.metrics.strays == 2


async def finish_from(made: Client, block: int, data: bytes) -> bytes:
    got = data[: (block - 1) * 512]
    while True:
        packet = await made.receive()
        assert isinstance(packet, Data)
        got += packet.payload
        made.ack(packet.block)
        if len(packet.payload) < 512:
            return got


async def test_errors_to_strangers_are_few(room: Room) -> None:
    room.put("f", noise(3000))
    async with client(room.port) as made, client(room.port) as stranger:
        made.ask("f")
        await made.receive()
        stranger.server = made.server
        for _ in range(500):
            stranger.ack(1)
        answers = 0
        while not await stranger.silent(0.2):
            answers += 1
        assert 0 < answers < 60


async def test_a_closed_port_ends_its_own_transfer_only(room: Room) -> None:
    data = room.put("f", noise(5000))
    async with client(room.port) as made:
        made.ask("f")
        await made.receive()
        gone = Client(room.port)
        gone.ask("f", ("blksize", 1000))
        await gone.receive()
        port = gone.raw.getsockname()
        gone.send(encode_ack(0))
        gone.close()  # the block that answers meets a closed port
        await until(lambda: room.service.metrics.outcomes["client port closed"] == 1)
        assert port[0] == "127.0.0.1"
        made.ack(1)
        assert await finish_from(made, 2, data) == data


async def test_short_and_long_acks(room: Room) -> None:
    """Three bytes are no ACK, even behind one that was four; padding behind an ACK is harmless."""
    data = room.put("f", noise(2000))
    async with client(room.port) as made:
        made.ask("f")
        await made.receive()
        made.send(b"\0\4\0")
        assert await made.silent(0.05)
        made.send(encode_ack(1) + bytes(40))
        assert await made.receive() == Data(2, data[512:1024])
        made.send(b"\0\4\0")
        assert await made.silent(0.05)


async def test_what_is_queued_outlives_its_transfer(make_room) -> None:
    """An ACK and an ERROR in one batch: the block that the ACK asked for is still whole when it leaves."""
    room = make_room()
    await room.service.start(room.settings(cache_size_mb=1))
    first = room.put("f", noise(700_000))
    room.put("g", noise(700_000))
    for _ in range(20):
        async with client(room.port) as made, client(room.port) as other:
            made.ask("f", ("blksize", 1428))
            await made.receive()
            made.ack(0)
            made.send(encode_error(0, "enough"))
            other.ask("g", ("blksize", 1428))  # needs the room that f takes in the cache
            assert await made.receive() == Data(1, first[:1428])
            assert isinstance(await other.receive(), OptionAck)
            other.send(encode_error(0, "enough"))
    await room.service.stop()


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL])
async def test_a_card_without_the_offload(room: Room, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Network cards without checksum offload refuse UDP_SEGMENT with EIO, at any time."""
    send, tries = Outbox.send, []

    def refusing(box: Outbox, fd: int, first: int) -> tuple[int, int]:
        if box.is_flight(first):
            tries.append(first)
            return 0, code
        return send(box, fd, first)

    monkeypatch.setattr(Outbox, "send", refusing)
    data = room.put("f", noise(300_000))
    assert await fetch(room.port, "f", ("blksize", 1428), ("windowsize", 16)) == data
    assert len(tries) == 2  # asked again once, in case the error was about another datagram; then given up
    assert room.service.metrics.retransmissions == 0


async def test_no_room_in_the_kernel(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    send, full = Outbox.send, iter([True, False, True, True] + [False] * 10_000)

    def crowded(box: Outbox, fd: int, first: int) -> tuple[int, int]:
        return (0, errno.EAGAIN) if next(full) else send(box, fd, first)

    monkeypatch.setattr(Outbox, "send", crowded)
    data = room.put("f", noise(30_000))
    assert await fetch(room.port, "f", ("blksize", 1428), ("windowsize", 4)) == data


@pytest.mark.parametrize("answered", [False, True])
async def test_a_request_to_a_broadcast_address(make_room, answered: bool) -> None:
    """RFC 1123 4.2.3.5 ignores it; Sun boxes send such (tftp-hpa CHANGES 0.43)."""
    room = make_room()
    room.put("f", b"x" * 10)
    await room.service.start(room.settings(interfaces=(), answer_broadcasts=answered))
    made = Client(room.port, "127.255.255.255")
    made.raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    made.ask("f")
    if answered:
        assert await made.receive() == Data(1, b"x" * 10)
        assert made.server[0] == "127.0.0.1"
    else:
        assert await made.silent(0.2)
        assert room.service.metrics.ignored == {"sent to a broadcast address": 1}
    made.close()
    await room.service.stop()


async def test_1000_transfers_take_few_descriptors(make_room) -> None:
    room = make_room()
    await room.service.start(room.settings(max_transfers=1200))
    room.put("f", noise(100_000))
    before = descriptors()
    request = encode_request(Request(1, b"f", "octet", ((b"blksize", b"1428"),)))
    raws = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(1000)]
    for n, raw in enumerate(raws):
        raw.sendto(request, ("127.0.0.1", room.port))
        if n % 50 == 0:
            await asyncio.sleep(0)
    await until(lambda: room.service.metrics.active == 1000)
    assert descriptors() - before - 1000 < 40
    for raw in raws:
        raw.close()
    await room.service.stop()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
