from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from pbserv.errors import StartError
from pbserv.log import ServiceLog
from pbserv.tftp.config import TftpConf
from pbserv.tftp.packet import Data, Error, Opcode, OptionAck, decode, encode_error
from pbserv.tftp.service import TftpService
from tests.tftp.client import client, fetch, finish
from tests.tftp.conftest import Room
from tests.tftp.vectors import firmware_requests

noise = random.Random(1).randbytes


async def until(condition, timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1428 * 3, 200_000])
@pytest.mark.parametrize("options", [(), (("blksize", 1428),), (("blksize", 1428), ("windowsize", 16))])
async def test_sizes(room: Room, size: int, options: tuple) -> None:
    data = room.put("f", noise(size))
    assert await fetch(room.port, "f", *options) == data
    await until(lambda: room.service.metrics.outcomes["completed"] == 1)
    assert room.service.metrics.bytes_sent == size
    assert room.service.metrics.retransmissions == 0
    assert room.told == [("127.0.0.1", "f", "completed", size)]


async def test_a_file_that_the_cache_cannot_hold_is_streamed(make_room) -> None:
    room = make_room()
    await room.service.start(room.settings(cache_size_mb=0))
    data = room.put("f", noise(1_000_003))
    wanted = ((), (("blksize", 1428),), (("blksize", 1428), ("windowsize", 32)), (("blksize", 8), ("windowsize", 7)))
    for options in wanted[:3]:
        assert await fetch(room.port, "f", *options) == data
    small = room.put("g", noise(9001))
    assert await fetch(room.port, "g", *wanted[3]) == small
    room.put("e", b"")
    assert await fetch(room.port, "e") == b""
    await room.service.stop()


async def test_a_large_file_is_read_in_a_thread_once_for_all(room: Room) -> None:
    data = room.put("big", noise(5_000_000))
    got = await asyncio.gather(*(fetch(room.port, "big", ("blksize", 1428), ("windowsize", 16)) for _ in range(4)))
    assert all(one == data for one in got)


@pytest.mark.parametrize("options", [(), (("blksize", 8), ("windowsize", 32)), (("blksize", 300), ("windowsize", 32))])
async def test_more_than_65535_blocks(room: Room, options: tuple) -> None:
    block = dict(options).get("blksize", 512)
    data = room.put("f", noise(1 << 20) * (block * 65_600 // (1 << 20) + 1))
    assert await fetch(room.port, "f", *options) == data


async def test_netascii_is_converted(room: Room) -> None:
    room.put("f", b"foo\nbar\rbaz\n" * 200)
    wanted = b"foo\r\nbar\r\0baz\r\n" * 200
    assert await fetch(room.port, "f", ("tsize", 0), ("blksize", 600), mode="NetASCII") == wanted


async def test_names_that_clients_write(room: Room) -> None:
    data = room.put("Boot/BCD", b"bcd")
    for name in (
        "Boot/BCD", "/Boot/BCD", "//Boot//BCD", "\\Boot\\BCD", "/boot\\bcd", "boot/bcd", b"Boot/BCD\xff",
        b"Boot/BCD\r\n", f"{room.folder}/Boot/BCD", "BOOT/BCD",
    ):  # fmt: skip
        assert await fetch(room.port, name) == data, name


async def test_an_exact_name_wins_over_a_similar_one(room: Room) -> None:
    room.put("File", b"1")
    room.put("file", b"2")
    assert await fetch(room.port, "File") == b"1"
    assert await fetch(room.port, "file") == b"2"
    room.put("FILE", b"3")  # seen although the listing of the directory is known
    assert await fetch(room.port, "FILE") == b"3"


async def test_real_file_then_alias_then_virtual(room: Room) -> None:
    room.virtual = {"nvlnbp.sys": b"virtual", "boot/aa.ipxe": b"script"}
    assert await fetch(room.port, "nvlnbp.sys") == b"virtual"
    room.put("undionly.kpxe", b"alias")
    assert await fetch(room.port, "/NVLNBP.SYS") == b"alias"
    room.put("nvlnbp.sys", b"real")
    assert await fetch(room.port, "nvlnbp.sys") == b"real"
    assert await fetch(room.port, "/boot/aa.ipxe", ("tsize", 0), ("blksize", 1432)) == b"script"
    assert room.asked == ["nvlnbp.sys", "boot/aa.ipxe"]


async def test_a_replaced_directory_is_noticed(room: Room) -> None:
    room.put("f", b"1")
    room.folder.rename(room.folder.with_name("old"))
    room.put("f", b"2")
    assert await fetch(room.port, "f") == b"2"


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_error_codes(room: Room) -> None:
    room.put("d/f", b"x")
    os.mkfifo(room.folder / "fifo")
    for name, code in (
        ("none", 1), ("d", 1), ("d/f/x", 1), ("fifo", 1), ("d/", 1), ("../x", 2), ("d/../../x", 2), ("x" * 300, 4),
    ):  # fmt: skip
        found = await fetch(room.port, name)
        assert isinstance(found, Error), name
        assert found.code == code, name
    assert (await fetch(room.port, "d/f", mode="mail")).code == 4
    async with client(room.port) as made:
        made.ask("d/new", opcode=Opcode.WRQ)
        assert await made.receive() == Error(2, "writes are not allowed")
    assert len(room.service.metrics.outcomes) == 0
    assert ("127.0.0.1", "none", "missing", 0) in room.told


async def test_links_do_not_lead_out(room: Room, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "tftp-private").mkdir()
    (tmp_path / "tftp-private" / "x").write_text("secret")
    room.put("inside/f", b"inside")
    (room.folder / "absolute").symlink_to(secret)
    (room.folder / "relative").symlink_to("../secret")
    (room.folder / "above").symlink_to("..")
    (room.folder / "proc").symlink_to("/proc/self/root")
    (room.folder / "good").symlink_to("inside/f")
    (room.folder / "rooted").symlink_to("/inside/f")
    for name in (
        "absolute",
        "relative",
        "above/secret",
        "above/tftp-private/x",
        f"proc{secret}",
        f"{room.folder}-private/x",
    ):
        assert isinstance(await fetch(room.port, name), Error), name
    assert await fetch(room.port, "good") == b"inside"
    assert await fetch(room.port, "rooted") == b"inside"


async def test_optional_configurations_are_level_3(room: Room) -> None:
    await fetch(room.port, "autoexec.ipxe")
    await fetch(room.port, "missing.bin")
    lines = [line for line in room.log.splitlines() if "refused" in line]
    assert " request: " in lines[0]
    assert " warning: " in lines[1]
    assert [one[1] for one in room.told] == ["missing.bin"]


async def test_no_client_writes_a_log_line(room: Room) -> None:
    await fetch(room.port, b"x\n2026 tftp critical: forged\x1b[31m%s%n\xff")
    assert not any(line.startswith("2026 tftp critical") for line in room.log.splitlines())
    assert "\x1b" not in room.log


# -- conversation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", firmware_requests(), ids=lambda vector: f"{vector.client}-{vector.file}")
async def test_every_firmware_request_is_answered(room: Room, vector) -> None:
    data = room.put(vector.file.replace("\\", "/").lstrip("/"), noise(5000))
    async with client(room.port) as made:
        made.send(vector.data)
        answer = await made.receive()
        if not vector.options:
            assert isinstance(answer, Data)
            return
        assert isinstance(answer, OptionAck)
        assert [name.decode() for name, _ in answer.options] == [
            name for name in vector.options if name.lower() in ("blksize", "tsize", "timeout", "windowsize")
        ]
        made.ack(0)
        content, expected = b"", 1
        while len(content) < len(data):
            packet = await made.receive()
            assert isinstance(packet, Data)
            assert packet.block == expected
            content += packet.payload
            made.ack(expected)
            expected += 1
        assert content == data


async def test_every_transfer_has_its_own_port_and_the_address_that_was_asked(make_room) -> None:
    room = make_room()
    room.put("f", b"x" * 2000)
    await room.service.start(room.settings(interfaces=()))
    async with client(room.port, "127.0.0.7") as made:
        made.ask("f")
        await made.receive()
        assert made.server[0] == "127.0.0.7"
        assert made.server[1] != room.port
        made.ack(1)
    await room.service.stop()


async def test_the_size_probe_is_no_failure(room: Room) -> None:
    room.put("f", b"x" * 2000)
    async with client(room.port) as made:
        made.ask("f", ("tsize", 0), ("blksize", 1468), ("windowsize", 4))
        answer = await made.receive()
        assert answer == OptionAck(((b"tsize", b"2000"), (b"blksize", b"1428"), (b"windowsize", b"4")))
        made.send(encode_error(8, "User aborted the transfer"))
        await until(lambda: room.told)
    assert room.told == [("127.0.0.1", "f", "size probe", 2000)]
    assert " request: probed " in room.log
    assert not [line for line in room.log.splitlines() if " warning: " in line and "client=" in line]


async def test_a_reused_port_starts_anew(room: Room) -> None:
    room.put("a", b"a" * 5000)
    b = room.put("b", b"b" * 5000)
    async with client(room.port) as made:
        made.ask("a")
        await made.receive()
        made.ack(1)
        await made.receive()
        made.server = made.listener
        made.ask("b")
        assert await finish(made) == b
    assert room.service.metrics.outcomes["replaced by a new request"] == 1


async def test_a_restarted_client_with_the_same_request_starts_anew(room: Room) -> None:
    data = room.put("a", noise(5000))
    async with client(room.port) as made:
        made.ask("a")
        await made.receive()
        made.ack(1)
        await made.receive()
        old = made.server
        await asyncio.sleep(0.21)  # the time in which it would be a late duplicate
        while not await made.silent(0.001):
            pass
        made.ask("a")
        assert await finish(made) == data
        assert made.server != old


async def test_the_same_request_right_behind_the_last_ack_is_a_new_transfer(room: Room) -> None:
    room.put("a", b"a" * 100)
    async with client(room.port) as made:
        made.ask("a")
        for _ in range(20):
            assert isinstance(await made.receive(0.5), Data)
            made.ack(1)
            made.server = made.listener
            made.ask("a")  # both wait when the server looks, and it may look at the request port first
    assert room.service.metrics.outcomes["completed"] >= 19


async def test_a_repeated_request_is_answered_from_the_same_port(room: Room) -> None:
    data = room.put("a", noise(5000))
    async with client(room.port) as made:
        made.ask("a", ("tsize", 0))
        answer, server = await made.receive(), made.server
        made.server = made.listener
        made.ask("a", ("tsize", 0))  # at once: the answer is still under way
        assert await made.silent(0.21)
        made.ask("a", ("tsize", 0))
        assert (await made.receive(0.5), made.server) == (answer, server)
        made.server = server
        made.ack(0)
        assert len(await finish(made)) == len(data)
    await until(lambda: room.told)
    assert room.service.metrics.outcomes.total() == 1


async def test_retransmission_of_the_oack(room: Room) -> None:
    room.put("a", b"a" * 5000)
    async with client(room.port) as made:
        made.ask("a", ("tsize", 0))
        first = await made.receive()
        begun = asyncio.get_running_loop().time()
        assert await made.receive() == first
        assert 0.9 < asyncio.get_running_loop().time() - begun < 1.5
        made.ack(0)
        assert isinstance(await made.receive(), Data)
        made.send(encode_error(0, "bye"))


async def test_a_closed_port_ends_it_at_once(room: Room) -> None:
    room.put("a", b"a" * 5000)
    async with client(room.port) as made:
        made.ask("a", ("blksize", 1000))
        await made.receive()
        assert room.service.metrics.active == 1
    await until(lambda: room.service.metrics.active == 0)
    assert room.told[0][2] == "client port closed"


async def test_a_vanished_last_ack_is_completed(room: Room) -> None:
    room.put("a", b"a" * 700)
    async with client(room.port) as made:
        made.ask("a")
        await made.receive()
        made.ack(1)
        await made.receive()
    await until(lambda: room.told)
    assert room.told[0][2] == "completed, final ACK missing"
    assert " transaction: sent " in room.log


async def test_any_bytes_leave_it_serving(room: Room) -> None:
    data = room.put("f", noise(3000))
    dice = random.Random(3)
    async with client(room.port) as made:
        for n in range(600):
            size = dice.choice([0, 1, 2, 3, 4, 9, 60, 600, 9000])
            head = b"" if n % 3 else dice.randrange(9).to_bytes(2, "big")
            made.send(head + dice.randbytes(size))
            if n % 50 == 0:
                await asyncio.sleep(0)
        async with client(room.port) as other:
            other.ask("f", ("blksize", 1000))
            await other.receive()
            for _ in range(300):
                other.send(dice.randbytes(dice.choice([0, 1, 3, 4, 40])).replace(b"\0\4", b"").replace(b"\0\5", b""))
            other.ack(0)
            assert await finish(other) == data
    assert await fetch(room.port, "f") == data


async def test_errors_and_strays_on_the_request_port_are_not_answered(room: Room) -> None:
    async with client(room.port) as made:
        for data in (encode_error(1, "x"), b"\0\4\0\1", b"\0\3\0\1abc", b"", b"\0", b"\0\6a\x001\0"):
            made.send(data)
        assert await made.silent(0.1)
        made.send(b"\0\x09")
        assert isinstance(decode(await made.receive_bytes()), Error)


async def test_over_the_limit_there_is_silence(make_room) -> None:
    room = make_room()
    room.put("a", b"a" * 5000)
    await room.service.start(room.settings(max_transfers=2))
    async with client(room.port) as one, client(room.port) as two, client(room.port) as three:
        for made in (one, two):
            made.ask("a")
            await made.receive()
            made.ack(1)  # silent ones would have to make room
            await made.receive()
        three.ask("a")
        assert await three.silent(0.1)
        assert room.service.metrics.ignored["too many transfers"] == 1
        one.send(encode_error(0, "bye"))
        await until(lambda: room.service.metrics.active == 1)
        three.ask("a")
        assert isinstance(await three.receive(), Data)
        for made in (two, three):
            made.send(encode_error(0, "bye"))
        await until(lambda: room.service.metrics.active == 0)
    await room.service.stop()


async def test_silent_clients_make_room(make_room) -> None:
    """Forged requests do not keep real clients out: whoever has waited longest for its first word goes."""
    room = make_room()
    room.put("a", b"a" * 5000)
    await room.service.start(room.settings(max_transfers=3))
    async with client(room.port) as talking, client(room.port) as forged, client(room.port) as later:
        talking.ask("a")
        await talking.receive()
        talking.ack(1)
        await talking.receive()
        for made in (forged, later):
            made.ask("a")
            await made.receive()
        assert await fetch(room.port, "a") == b"a" * 5000
        assert room.service.metrics.outcomes["no answer"] == 1
        talking.ack(2)
        assert isinstance(await talking.receive(), Data)
        later.ack(1)
        assert isinstance(await later.receive(), Data)
    await room.service.stop()


# -- files that change -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [0, 64])
async def test_replaced_by_rename_keeps_the_old_content(make_room, cache: int) -> None:
    room = make_room()
    await room.service.start(room.settings(cache_size_mb=cache))
    data = room.put("f", noise(300_000))

    async def at_block(block: int) -> None:
        if block == 5:
            room.put("g", b"new" * 100_000)
            (room.folder / "g").rename(room.folder / "f")

    async with client(room.port) as made:
        made.ask("f")
        assert await finish(made, at_block) == data
    assert await fetch(room.port, "f") == b"new" * 100_000
    await room.service.stop()


async def test_cut_while_it_is_streamed_ends_with_an_error(make_room) -> None:
    room = make_room()
    await room.service.start(room.settings(cache_size_mb=0))
    room.put("f", noise(300_000))

    async def at_block(block: int) -> None:
        if block == 5:
            os.truncate(room.folder / "f", 100_000)

    async with client(room.port) as made:
        made.ask("f")
        found = await finish(made, at_block)
    assert isinstance(found, Error)
    assert room.told[-1][2] == "file changed"
    await room.service.stop()


# -- life --------------------------------------------------------------------------------------------------------------


async def test_the_directory_must_exist(make_room) -> None:
    room = make_room()
    with pytest.raises(StartError, match=r"TFTPDirectory /nowhere/tftp does not exist; create it or change the key"):
        await room.service.start(room.settings(directory=Path("/nowhere/tftp")))
    assert not room.service.running


async def test_the_address_must_be_here(make_room) -> None:
    room = make_room()
    with pytest.raises(StartError, match=r"no address or interface 192\.0\.2\.1"):
        await room.service.start(room.settings(interfaces=("192.0.2.1",)))
    assert room.service.listeners == ()


async def test_a_second_one_on_the_port_is_refused(room: Room, tmp_path: Path) -> None:
    other = TftpService(ServiceLog("tftp"), room, room, {})
    with pytest.raises(StartError, match="in use"):
        await other.start(room.settings(port=room.port))
    reload = await room.service.prepare(room.settings(interfaces=(), port=room.port))
    with pytest.raises(StartError, match="in use"):
        await other.start(room.settings(port=room.port))
    reload.abort()


async def test_a_reload_keeps_running_transfers(room: Room, tmp_path: Path) -> None:
    data = room.put("f", noise(100_000))
    port = room.port
    new = tmp_path / "new"
    new.mkdir()
    (new / "f").write_bytes(b"new")

    async def at_block(block: int) -> None:
        if block == 5:
            settings: TftpConf = room.settings(directory=new, port=port, interfaces=(), cache_size_mb=1)
            (await room.service.prepare(settings)).commit()
            assert await fetch(port, "f") == b"new"
            assert await fetch(port, "f", host="127.0.0.9") == b"new"

    async with client(port) as made:
        made.ask("f")
        assert await finish(made, at_block) == data
    assert room.service.listeners[0] == f"udp 0.0.0.0:{port}"
    (await room.service.prepare(room.settings(directory=new, port=port))).commit()
    assert await fetch(port, "f") == b"new"


async def test_a_failed_reload_changes_nothing(room: Room) -> None:
    data = room.put("f", b"x")
    before = room.service.listeners
    with pytest.raises(StartError):
        await room.service.prepare(room.settings(directory=Path("/nowhere")))
    with pytest.raises(StartError):
        await room.service.prepare(room.settings(interfaces=("192.0.2.1",)))
    (await room.service.prepare(room.settings(interfaces=("127.0.0.2",), port=0))).abort()
    assert room.service.listeners == before
    assert await fetch(room.port, "f") == data


async def test_stop_tells_clients_and_start_works_again(make_room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pbserv.tftp.service.GRACE_S", 0.05)
    room = make_room()
    data = room.put("f", b"x" * 5000)
    await room.service.start(room.settings())
    async with client(room.port) as made:
        made.ask("f")
        await made.receive()
        await room.service.stop()
        assert await made.receive() == Error(0, "the server is stopping")
    await room.service.stop()
    await room.service.start(room.settings())
    assert await fetch(room.port, "f") == data
    await room.service.stop()
    assert room.log.count("started") == 2
