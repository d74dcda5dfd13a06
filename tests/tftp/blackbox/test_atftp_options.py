"""The option list of atftp's test script (test/test.sh), packet by packet and with the real atftp.

The difference: atftpd answers an unusable value with ERROR 8. RFC 2347 to 2349 and 7440 let a server leave the option
out, and boot ROMs get on better with that; so here an unusable value is left out and the file comes all the same.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from pbserv.tftp.packet import Ack, Data
from tests.tftp.blackbox.conftest import Serve
from tests.tftp.blackbox.programs import ATFTP, Program, program, run
from tests.tftp.blackbox.wire import get, peer, put
from tests.tftp.conftest import Room

noise = random.Random(4).randbytes
LARGEST = 65_464

# What is asked -> what is answered; "" leaves it out. The file has 2048 bytes.
OPTIONS = [
    ("blksize", "7", ""),
    ("blksize", "8", "8"),
    ("blksize", "512", "512"),
    ("blksize", "65464", "65464"),
    ("blksize", "65465", ""),
    ("blksize", "0", ""),
    ("blksize", "-8", ""),
    ("blksize", "1k", ""),
    ("blksize", "99999999999999999999", ""),
    ("timeout", "0", ""),
    ("timeout", "1", "1"),
    ("timeout", "255", "255"),
    ("timeout", "256", ""),
    ("tsize", "0", "2048"),
    ("tsize", "4711", "2048"),
    ("tsize", "", ""),
    ("windowsize", "0", ""),
    ("windowsize", "1", "1"),
    ("windowsize", "4", "4"),
    ("windowsize", "65535", "64"),
    ("windowsize", "65536", ""),
    ("unheard-of", "1", ""),
]


@pytest.mark.parametrize(("name", "asked", "answered"), OPTIONS)
async def test_what_is_agreed_on_for_a_read(serve: Serve, name: str, asked: str, answered: str) -> None:
    room = await serve(max_block_size=LARGEST, max_window=64)
    data = room.put("f", noise(2048))
    async with peer(room.port) as us:
        us.read("f", (name, asked))
        if answered:
            await us.expect_options((name, answered))
        else:
            await us.expect(Data(1, data[:512]))
        us.give_up()
    assert await get(room.port, "f", (name, asked)) == data


@pytest.mark.parametrize(("name", "asked", "answered"), [row for row in OPTIONS if row[0] != "tsize"])
async def test_what_is_agreed_on_for_a_write(serve: Serve, name: str, asked: str, answered: str) -> None:
    room = await serve(max_block_size=LARGEST, max_window=64, allow_writes=True, allow_overwrites=True, free_space_mb=0)
    async with peer(room.port) as us:
        us.write("f", (name, asked))
        if answered:
            await us.expect_options((name, answered))
        else:
            await us.expect(Ack(0))
        us.give_up()
    data = noise(2048)
    await put(room.port, "f", data, (name, asked))
    assert (room.folder / "f").read_bytes() == data


async def test_the_size_of_a_write_is_echoed(writable: Room) -> None:
    async with peer(writable.port) as us:
        us.write("f", ("tsize", 2048))
        await us.expect_options(("tsize", 2048))
        us.give_up()


async def test_order_and_spelling_are_the_clients(serve: Serve) -> None:
    room = await serve()
    room.put("f", noise(2048))
    async with peer(room.port) as us:
        us.read("f", ("TSize", 0), ("windowSIZE", 2), ("nonsense", 1), ("BLKSIZE", 600), ("blksize", 700))
        await us.expect_options(("TSize", 2048), ("windowSIZE", 2), ("BLKSIZE", 600))
        us.give_up()


async def test_the_answer_is_never_larger_than_the_question(serve: Serve) -> None:
    """blksize is bounded by TransferBlockSize, window by TFTPMaxWindow, and both by what was asked."""
    room = await serve(max_window=8)
    room.put("f", noise(2048))
    async with peer(room.port) as us:
        us.read("f", ("blksize", 4000), ("windowsize", 100))
        await us.expect_options(("blksize", 1428), ("windowsize", 8))
        us.give_up()


# -- with the real program ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 256, 1428, 1533, 16000, 40000, 65464])
async def test_block_sizes_both_ways(serve: Serve, tmp_path: Path, size: int) -> None:
    """The counts of DATA packets are atftp's own check (128 KiB)."""
    room = await serve(max_block_size=LARGEST, allow_writes=True, allow_overwrites=True, free_space_mb=0)
    length = 51_111 if size < 512 else 128 << 10
    data = room.put("f", noise(length))
    client = Program("atftp", (("blksize", size),))
    target = tmp_path / "out"
    done = await client.get(room.port, "f", target)
    assert done.code == 0, done.said
    assert target.read_bytes() == data
    assert room.service.metrics.blocks_sent == length // size + 1
    done = await client.put(room.port, target, "back")
    assert done.code == 0, done.said
    assert (room.folder / "back").read_bytes() == data


@pytest.mark.parametrize("window", [1, 4, 8, 32, 64])
async def test_a_window_is_acknowledged_once(serve: Serve, tmp_path: Path, window: int) -> None:
    room = await serve(max_window=64)
    data = room.put("f", noise(128 << 10))
    target = tmp_path / "out"
    asked = ["--option", "blksize 1024", "--option", f"windowsize {window}"]
    done = await run([program("atftp"), *asked, "--trace", "-g", "-r", "f", "-l", str(target), "127.0.0.1",
                      str(room.port)])  # fmt: skip
    assert done.code == 0, done.said
    assert target.read_bytes() == data
    blocks = (128 << 10) // 1024 + 1
    acks = done.said.count("sent ACK")
    assert acks == 1 + -(-blocks // window), done.said[:500]


async def test_tsize_as_atftp_shows_it(serve: Serve, tmp_path: Path) -> None:
    room = await serve()
    room.put("f", noise(2048))
    done = await run([program("atftp"), "--option", "tsize 0", "--trace", "-g", "-r", "f", "-l", str(tmp_path / "out"),
                      "127.0.0.1", str(room.port)])  # fmt: skip
    assert "tsize: 2048" in done.said, done.said


@pytest.mark.parametrize("option", ["blksize 7", "blksize 65465", "timeout 0", "timeout 256", "windowsize 0"])
async def test_atftp_gets_its_file_whatever_it_asks_for(serve: Serve, tmp_path: Path, option: str) -> None:
    room = await serve()
    data = room.put("f", noise(2048))
    target = tmp_path / "out"
    done = await run([program("atftp"), "--option", option, "-g", "-r", "f", "-l", str(target), "127.0.0.1",
                      str(room.port)])  # fmt: skip
    assert done.code == 0, done.said
    assert target.read_bytes() == data


@pytest.mark.timeout(240)
async def test_many_at_once(serve: Serve, tmp_path: Path) -> None:
    """atftp's load test has 200 clients; 100 processes are enough for two cores."""
    room = await serve()
    data = room.put("f", noise(1 << 20))
    places = [tmp_path / str(number) for number in range(100)]
    all_done = await asyncio.gather(*(ATFTP.get(room.port, "f", place) for place in places))
    assert [done.said for done in all_done if done.code] == []
    assert all(place.read_bytes() == data for place in places)
    assert room.service.metrics.outcomes["completed"] == 100


async def test_an_option_without_a_value_is_no_option(serve: Serve) -> None:
    room = await serve()
    data = room.put("f", noise(600))
    for tail in (b"blksize\0", b"blksize", b"tsize\0\0", b"\0\0\0\0\0"):
        async with peer(room.port) as us:
            us.request(b"\0\1f\0octet\0" + tail)
            packet = await us.receive()
            assert packet == Data(1, data[:512]), tail
            us.give_up()
