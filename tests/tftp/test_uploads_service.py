"""Uploads into the running service: real programs, and a raw client for what they do not do."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from pbserv.tftp.packet import Ack, Error, ErrorCode, Opcode, OptionAck, encode_error
from pbserv.tftp.service import TftpService
from pbserv.tftp.uploads import UPLOADS_PER_ADDRESS
from tests.tftp.blackbox.programs import program, run
from tests.tftp.client import Client, client, fetch
from tests.tftp.conftest import ALIASES, Room

noise = random.Random(4).randbytes
SIZES = [0, 1, 511, 512, 513, 1428, 1428 * 20, 100_001]
MANY_BLOCKS = 65_600 * 8 + 3


@dataclass
class Desk:
    """The service, and who is told of uploads."""

    room: Room
    came: list[tuple[str, str, Path, int, bytes]] = field(default_factory=list)

    def uploaded(self, peer: str, name: str, path: Path, size: int) -> None:
        self.came.append((peer, name, path, size, path.read_bytes()))

    @property
    def port(self) -> int:
        return self.room.port

    @property
    def folder(self) -> Path:
        return self.room.folder

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def outcomes(self, kind: str = "received") -> dict[str, int]:
        ended = self.room.service.metrics.ended
        return {outcome: count for (direction, outcome), count in ended.items() if direction == kind}


async def stop(desk: Desk) -> None:
    await desk.room.service.stop()


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.003)


@pytest.fixture
def make_desk(make_room) -> Callable[[], Desk]:
    def make() -> Desk:
        room = make_room()
        desk = Desk(room)
        room.service = TftpService(room.service._log, room, room, ALIASES, [desk])
        return desk

    return make


@pytest_asyncio.fixture
async def desk(make_desk: Callable[[], Desk]) -> AsyncIterator[Desk]:
    desk = make_desk()
    settings = desk.room.settings(
        interfaces=("127.0.0.1", "::1"), allow_writes=True, allow_overwrites=True, max_block_size=65464
    )
    await desk.room.service.start(settings)
    yield desk
    await stop(desk)
    assert desk.room.service.metrics.bugs == 0
    await until(lambda: not [name for name in desk.names if name.endswith(".part")])


async def send(made: Client, data: bytes, first: object, block_size: int, window: int, start: int = 1) -> None:
    """All blocks after the first answer, in windows."""
    blocks = [data[at : at + block_size] for at in range(0, len(data) + 1, block_size)]
    base = start - 1
    while base < len(blocks):
        flight = blocks[base : base + window]
        for place, payload in enumerate(flight):
            made.send(b"\0\3" + ((base + place + 1) & 0xFFFF).to_bytes(2, "big") + payload)
        base += len(flight)
        answer = await made.receive()
        assert answer == Ack(base & 0xFFFF), answer


async def upload(
    port: int, name: str, data: bytes, *options: tuple[str, object], mode: str = "octet", host: str = "127.0.0.1"
) -> Error | None:
    async with client(port, host) as made:
        made.ask(name, *options, mode=mode, opcode=Opcode.WRQ)
        first = await made.receive()
        if isinstance(first, Error):
            return first
        agreed = dict(first.options) if isinstance(first, OptionAck) else {}
        block_size, window = int(agreed.get(b"blksize", 512)), int(agreed.get(b"windowsize", 1))
        await send(made, data, first, block_size, window)
    return None


# -- programs ----------------------------------------------------------------------------------------------------------


def hpa(host: str, port: int, file: Path, name: str) -> list[str]:
    return [program("tftp"), "-m", "binary", host, str(port), "-c", "put", str(file), name]


def atftp(host: str, port: int, file: Path, name: str) -> list[str]:
    options = ["--option", "blksize 1428", "--option", "tsize 0", "--option", "timeout 2"]
    return [program("atftp"), *options, "-p", "-l", str(file), "-r", name, host, str(port)]


def atftp_plain(host: str, port: int, file: Path, name: str) -> list[str]:
    return [program("atftp"), "-p", "-l", str(file), "-r", name, host, str(port)]


def atftp_window(host: str, port: int, file: Path, name: str) -> list[str]:
    options = ["--option", "blksize 1428", "--option", "windowsize 8"]
    return [program("atftp"), *options, "-p", "-l", str(file), "-r", name, host, str(port)]


def busybox(host: str, port: int, file: Path, name: str) -> list[str]:
    return [program("busybox"), "tftp", "-p", "-b", "1428", "-l", str(file), "-r", name, host, str(port)]


def busybox_512(host: str, port: int, file: Path, name: str) -> list[str]:
    return [program("busybox"), "tftp", "-p", "-l", str(file), "-r", name, host, str(port)]


def curl(host: str, port: int, file: Path, name: str) -> list[str]:
    shown = f"[{host}]" if ":" in host else host
    return [program("curl"), "-sS", "-g", "--tftp-blksize", "1428", "-T", str(file), f"tftp://{shown}:{port}/{name}"]


def curl_plain(host: str, port: int, file: Path, name: str) -> list[str]:
    shown = f"[{host}]" if ":" in host else host
    return [program("curl"), "-sS", "-g", "--tftp-no-options", "-T", str(file), f"tftp://{shown}:{port}/{name}"]


PROGRAMS = [hpa, atftp, atftp_plain, atftp_window, busybox, busybox_512, curl, curl_plain]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("make", PROGRAMS)
async def test_sizes(desk: Desk, tmp_path: Path, make, host: str) -> None:
    for size in SIZES:
        data = noise(size)
        file = tmp_path / f"{size}"
        file.write_bytes(data)
        code, said = await run(make(host, desk.port, file, f"f{size}"))
        assert code == 0, (size, said)
        assert (desk.folder / f"f{size}").read_bytes() == data, size
        assert desk.came[-1] == (host, f"f{size}", desk.folder / f"f{size}", size, data)
    assert desk.outcomes() == {"completed": len(SIZES)}
    assert desk.room.service.metrics.retransmissions == 0


@pytest.mark.parametrize("make", [hpa, busybox_512, curl_plain])
async def test_more_than_65535_blocks_of_512(desk: Desk, tmp_path: Path, make) -> None:
    data = noise(1 << 20) * 33
    file = tmp_path / "big"
    file.write_bytes(data)
    code, said = await run(make("127.0.0.1", desk.port, file, "f"), 100)
    assert code == 0, said
    assert (desk.folder / "f").read_bytes() == data


@pytest.mark.parametrize("window", [1, 32])
async def test_more_than_65535_small_blocks(desk: Desk, tmp_path: Path, window: int) -> None:
    data = noise(MANY_BLOCKS)
    assert await upload(desk.port, "f", data, ("blksize", 8), ("windowsize", window)) is None
    assert (desk.folder / "f").read_bytes() == data


async def test_numbers_that_go_on_with_1(desk: Desk) -> None:
    """tftp-hpa's option; the raw client counts by itself."""
    data = noise(65_540 * 8)
    async with client(desk.port) as made:
        made.ask("f", ("blksize", 8), ("windowsize", 32), ("rollover", 1), opcode=Opcode.WRQ)
        agreed = await made.receive()
        assert agreed == OptionAck(((b"blksize", b"8"), (b"windowsize", b"32"), (b"rollover", b"1")))
        blocks = [data[at : at + 8] for at in range(0, len(data) + 1, 8)]
        wire = [number if number < 65536 else 1 + (number - 65536) % 65535 for number in range(1, len(blocks) + 1)]
        for start in range(0, len(blocks), 32):
            for number, payload in zip(wire[start : start + 32], blocks[start : start + 32], strict=True):
                made.send(b"\0\3" + number.to_bytes(2, "big") + payload)
            assert await made.receive() == Ack(wire[min(start + 32, len(wire)) - 1])
    assert (desk.folder / "f").read_bytes() == data


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("options", [(), (("blksize", 65464),), (("blksize", 1428), ("windowsize", 16))])
async def test_options_of_a_raw_client(desk: Desk, host: str, options: tuple) -> None:
    for size in [*SIZES, 65464, 300_000]:
        data = noise(size)
        assert await upload(desk.port, f"f{size}", data, *options, ("tsize", size), host=host) is None
        assert (desk.folder / f"f{size}").read_bytes() == data
    assert desk.room.service.metrics.retransmissions == 0


async def test_netascii_of_hpa(desk: Desk, tmp_path: Path) -> None:
    text = b"one\r\ntwo\rthree\n" * 3000 + b"\r" * 600 + b"\n" * 600
    file = tmp_path / "text"
    file.write_bytes(text)
    code, said = await run(
        [program("tftp"), "-m", "netascii", "127.0.0.1", str(desk.port), "-c", "put", str(file), "f"]
    )
    assert code == 0, said
    assert (desk.folder / "f").read_bytes() == text


@pytest.mark.parametrize("window", [1, 4])
async def test_netascii_across_blocks_and_windows(desk: Desk, window: int) -> None:
    wire = b"1234567\r\nb\r\0" * 500 + b"\r"
    text = b"1234567\nb\r" * 500 + b"\r"
    options = (("blksize", 8), ("windowsize", window))
    assert await upload(desk.port, "f", wire, *options, ("tsize", len(wire)), mode="netascii") is None
    assert (desk.folder / "f").read_bytes() == text
    assert await upload(desk.port, "f", wire, *options, ("tsize", len(text)), mode="NETASCII") is None


async def test_a_pipe_whose_size_curl_does_not_know(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "in"
    file.write_bytes(noise(5000))
    url = f"tftp://127.0.0.1:{desk.port}/f"
    code, said = await run(["sh", "-c", f"cat {file} | {program('curl')} -sS -T - {url}"])
    assert code == 0, said
    assert (desk.folder / "f").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("make", [curl_plain, busybox_512, atftp_plain, hpa])
async def test_a_client_that_is_killed_leaves_nothing(desk: Desk, tmp_path: Path, make) -> None:
    file = tmp_path / "big"
    with file.open("wb") as out:
        out.truncate(2 << 30)
    made = await asyncio.create_subprocess_exec(
        *make("127.0.0.1", desk.port, file, "f"), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await until(lambda: any((desk.folder / name).stat().st_size > 100_000 for name in desk.names))
    finally:
        made.send_signal(signal.SIGKILL)
        await made.wait()
    await until(lambda: desk.names == [])
    await until(lambda: desk.outcomes() == {"client port closed": 1})
    assert desk.came == []


# -- what is refused ---------------------------------------------------------------------------------------------------


async def test_nothing_may_be_written_unless_it_is_said(make_desk) -> None:
    desk = make_desk()
    await desk.room.service.start(desk.room.settings(allow_overwrites=True))
    desk.room.put("old", b"old")
    for name in ("f", "old", "none/f"):
        assert await upload(desk.port, name, b"x") == Error(ErrorCode.ACCESS, "writes are not allowed")
    await stop(desk)
    assert desk.names == ["old"]


async def test_overwriting_is_a_flag_of_its_own(make_desk) -> None:
    desk = make_desk()
    await desk.room.service.start(desk.room.settings(allow_writes=True))
    desk.room.put("old", b"old")
    for name in ("old", "OLD", "/old", "\\old"):
        assert await upload(desk.port, name, b"x") == Error(ErrorCode.EXISTS, "file exists already")
    assert await upload(desk.port, "new", b"new") is None
    await stop(desk)
    assert desk.names == ["new", "old"]
    assert (desk.folder / "old").read_bytes() == b"old"


async def test_names(desk: Desk, tmp_path: Path) -> None:
    (desk.folder / "d").mkdir()
    (tmp_path / "secret").mkdir()
    (desk.folder / "out").symlink_to(tmp_path / "secret")
    assert await upload(desk.port, "d\\f", b"1") is None
    assert (desk.folder / "d" / "f").read_bytes() == b"1"
    assert desk.came[-1][1:4] == ("d/f", desk.folder / "d" / "f", 1)
    for name, code in (
        ("none/f", ErrorCode.NOT_FOUND),
        ("../f", ErrorCode.ACCESS),
        ("d/../../f", ErrorCode.ACCESS),
        ("d", ErrorCode.ACCESS),
        (".f.0123456789abcdef.part", ErrorCode.ACCESS),
        ("n" * 300, ErrorCode.ILLEGAL),
    ):
        answer = await upload(desk.port, name, b"x")
        assert isinstance(answer, Error), name
        assert answer.code == code, (name, answer)
    answer = await upload(desk.port, "out/f", b"x")
    assert isinstance(answer, Error)
    assert list((tmp_path / "secret").iterdir()) == []
    assert not [name for name in desk.names if name.endswith(".part")]


async def test_sizes_that_do_not_fit_are_refused_at_once(make_desk) -> None:
    desk = make_desk()
    settings = desk.room.settings(allow_writes=True, max_upload_mb=1, quota_mb=2, quota_files=3)
    await desk.room.service.start(settings)
    await until(lambda: desk.room.service._room._uploads._ledger._counted is not None)
    answer = await upload(desk.port, "f", b"", ("tsize", (1 << 20) + 1))
    assert answer == Error(ErrorCode.DISK_FULL, "larger than TFTPMaxUploadSize")
    answer = await upload(desk.port, "f", b"", ("tsize", 1 << 62))
    assert isinstance(answer, Error)
    for name in "ab":
        assert await upload(desk.port, name, bytes(1 << 20), ("blksize", 1428)) is None
    answer = await upload(desk.port, "c", b"x", ("tsize", 1))
    assert answer == Error(ErrorCode.DISK_FULL, "quota exceeded: TFTPQuota is used up")
    assert desk.names == ["a", "b"]
    async with client(desk.port) as made:
        made.ask("c", opcode=Opcode.WRQ)
        assert await made.receive() == Ack(0)
        made.send(b"\0\3\0\1x")
        assert await made.receive() == Error(ErrorCode.DISK_FULL, "quota exceeded: TFTPQuota is used up")
    assert desk.names == ["a", "b"]
    assert await upload(desk.port, "c", b"") is None
    answer = await upload(desk.port, "d", b"")
    assert answer == Error(ErrorCode.DISK_FULL, "quota exceeded: TFTPQuotaFiles is used up")
    await stop(desk)
    assert desk.names == ["a", "b", "c"]


@pytest.mark.parametrize("came", [99, 101])
async def test_what_comes_must_be_what_was_announced(desk: Desk, came: int) -> None:
    async with client(desk.port) as made:
        made.ask("f", ("tsize", 100), opcode=Opcode.WRQ)
        assert await made.receive() == OptionAck(((b"tsize", b"100"),))
        made.send(b"\0\3\0\1" + bytes(came))
        answer = await made.receive()
        assert isinstance(answer, Error)
        assert answer.code == ErrorCode.UNDEFINED
        assert "tsize" in answer.text
    assert desk.names == []
    assert desk.came == []


async def test_so_many_uploads_of_one_address(desk: Desk) -> None:
    made = [Client(desk.port) for _ in range(UPLOADS_PER_ADDRESS + 1)]
    for n, one in enumerate(made[:-1]):
        one.ask(f"f{n}", opcode=Opcode.WRQ)
        assert await one.receive() == Ack(0)
    made[-1].ask("more", opcode=Opcode.WRQ)
    assert await made[-1].silent(0.1)
    made[0].send(encode_error(0, "enough"))
    await until(lambda: len(desk.names) == UPLOADS_PER_ADDRESS - 1)
    made[-1].ask("more", opcode=Opcode.WRQ)
    assert await made[-1].receive() == Ack(0)
    for one in made:
        one.send(encode_error(0, "enough"))
        one.close()
    await until(lambda: desk.names == [])


# -- one packet at a time ----------------------------------------------------------------------------------------------


async def test_a_repeated_request_gets_the_same_answer_and_no_second_file(desk: Desk) -> None:
    """Cisco IOS sends its write request twice (mpetazzoni/ptftpd#8)."""
    async with client(desk.port) as made:
        made.ask("f", ("blksize", 600), opcode=Opcode.WRQ)
        first = await made.receive()
        server = made.server
        assert first == OptionAck(((b"blksize", b"600"),))
        made.ask("f", ("blksize", 600), opcode=Opcode.WRQ)
        assert await made.silent(0.1)
        assert len(desk.names) == 1
        await asyncio.sleep(0.15)  # the floor of the timeout
        made.ask("f", ("blksize", 600), opcode=Opcode.WRQ)
        assert await made.receive() == first  # OpenNMS PR#8483: the OACK, not ACK 0
        assert made.server == server
        await send(made, b"content", first, 600, 1)
    assert (desk.folder / "f").read_bytes() == b"content"


async def test_a_client_that_begins_again_from_its_port(desk: Desk) -> None:
    async with client(desk.port) as made:
        made.ask("f", opcode=Opcode.WRQ)
        assert await made.receive() == Ack(0)
        made.send(b"\0\3\0\1" + bytes(512))
        assert await made.receive() == Ack(1)
        made.ask("g", opcode=Opcode.WRQ)
        assert await made.receive() == Ack(0)
        assert len(desk.names) == 1
        await send(made, b"other", None, 512, 1)
    assert desk.names == ["g"]
    assert desk.outcomes() == {"replaced by a new request": 1, "completed": 1}


async def test_the_last_block_is_acknowledged_again(desk: Desk) -> None:
    async with client(desk.port) as made:
        made.ask("f", opcode=Opcode.WRQ)
        await made.receive()
        await send(made, b"all", None, 512, 1)
        assert (desk.folder / "f").read_bytes() == b"all"
        await asyncio.sleep(0.15)  # what comes sooner was doubled by the network
        made.send(b"\0\3\0\1all")
        assert await made.receive() == Ack(1)
    assert len(desk.came) == 1
    assert desk.outcomes() == {"completed": 1}  # told before it dallies
    assert "received" in desk.room.log


async def test_the_file_is_there_before_the_last_ack_and_can_be_read(desk: Desk) -> None:
    data = noise(3000)
    assert await upload(desk.port, "f", data) is None
    assert await fetch(desk.port, "f") == data
    new = noise(2000)
    assert await upload(desk.port, "f", new) is None
    assert await fetch(desk.port, "f") == new


async def test_a_block_that_is_too_large(desk: Desk) -> None:
    async with client(desk.port) as made:
        made.ask("f", opcode=Opcode.WRQ)
        await made.receive()
        made.send(b"\0\3\0\1" + bytes(513))
        answer = await made.receive()
        assert isinstance(answer, Error)
        assert answer.code == ErrorCode.ILLEGAL
    assert desk.names == []


async def test_a_stopping_service_leaves_no_part_of_a_file(make_desk) -> None:
    desk = make_desk()
    await desk.room.service.start(desk.room.settings(allow_writes=True))
    async with client(desk.port) as made:
        made.ask("f", opcode=Opcode.WRQ)
        await made.receive()
        made.send(b"\0\3\0\1" + bytes(512))
        assert await made.receive() == Ack(1)
        await desk.room.service.stop()
        answer = await made.receive()
        while answer == Ack(1):  # there was time for another block
            answer = await made.receive()
        assert answer == Error(0, "the server is stopping")
    assert desk.names == []


async def test_leftovers_of_an_earlier_process_go(make_desk) -> None:
    desk = make_desk()
    desk.room.put(".f.0123456789abcdef.part", b"x")
    await desk.room.service.start(desk.room.settings())
    await until(lambda: desk.names == [])
    await stop(desk)


async def test_many_at_once(desk: Desk) -> None:
    files = {f"f{n}": noise(40_000 + n) for n in range(UPLOADS_PER_ADDRESS)}
    async with asyncio.TaskGroup() as tasks:
        for name, data in files.items():
            tasks.create_task(upload(desk.port, name, data, ("blksize", 1428), ("windowsize", 8)))
    assert {name: (desk.folder / name).read_bytes() for name in desk.names} == files


async def test_a_subscriber_that_fails_does_not_harm_the_client(make_desk) -> None:
    desk = make_desk()

    class Broken:
        def uploaded(self, peer: str, name: str, path: Path, size: int) -> None:
            raise RuntimeError("no")

    desk.room.service = TftpService(desk.room.service._log, desk.room, desk.room, ALIASES, [Broken(), desk])
    await desk.room.service.start(desk.room.settings(allow_writes=True))
    assert await upload(desk.port, "f", b"x") is None
    await stop(desk)
    assert len(desk.came) == 1
    assert desk.room.service.metrics.bugs == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_over_the_one_port(make_desk, tmp_path: Path, host: str) -> None:
    desk = make_desk()
    await desk.room.service.start(desk.room.settings(interfaces=(host,), allow_writes=True, single_port=True))
    data = noise(100_000)
    file = tmp_path / "in"
    file.write_bytes(data)
    for n, make in enumerate((atftp_window, curl, busybox_512)):
        code, said = await run(make(host, desk.port, file, f"f{n}"))
        assert code == 0, said
        assert (desk.folder / f"f{n}").read_bytes() == data
    await stop(desk)


async def test_a_reload_counts_for_new_uploads(desk: Desk) -> None:
    service = desk.room.service
    async with client(desk.port) as made:
        made.ask("f", opcode=Opcode.WRQ)
        first = await made.receive()
        reload = await service.prepare(desk.room.settings(interfaces=("127.0.0.1", "::1"), allow_writes=False))
        reload.commit()
        assert await upload(desk.port, "g", b"x") == Error(ErrorCode.ACCESS, "writes are not allowed")
        await send(made, b"content", first, 512, 1)
    assert desk.names == ["f"]


async def test_a_write_request_needs_a_known_mode(desk: Desk) -> None:
    answer = await upload(desk.port, "f", b"x", mode="mail")
    assert isinstance(answer, Error)
    assert answer.code == ErrorCode.ILLEGAL


async def test_a_number_space_that_is_too_small_is_no_agreement(desk: Desk) -> None:
    """With numbers that go from 65535 to 65535 a repeated block could not be told from a new one."""
    answer = await upload(desk.port, "f", b"x", ("rollover", 65535))
    assert answer is None  # it was left out
    assert desk.names == ["f"]
