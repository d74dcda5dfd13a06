"""The functional list of FreeBSD's tftpd (libexec/tftpd/tests/functional.c), case by case, over IPv4 and IPv6.

Where we mean something else than FreeBSD does, the case says why.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import pytest
import pytest_asyncio

from pbserv.tftp.packet import Ack
from tests.tftp.blackbox.conftest import Serve
from tests.tftp.blackbox.wire import Peer, blocks, get, peer, until
from tests.tftp.conftest import Room

MEDIUM = b"".join(number.to_bytes(4, "little") for number in range(192))
RFC7440 = b"".join(number.to_bytes(4, "little") for number in range(13 * 128 - 1))

pytestmark = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])


@pytest_asyncio.fixture
async def room(serve: Serve, host: str) -> Room:
    return await serve(interfaces=(host,), allow_writes=True, allow_overwrites=True, free_space_mb=0)


@pytest.fixture
def meet(room: Room, host: str) -> Callable[[], object]:
    return lambda: peer(room.port, host)


# -- reads -------------------------------------------------------------------------------------------------------------


async def test_abspath(room: Room, meet) -> None:
    room.put("abspath.txt", b"")
    async with meet() as us:
        us.read(f"{room.folder}/abspath.txt")
        await us.expect(*blocks(b""))
        us.ack(1)


async def test_dotdot(room: Room, meet) -> None:
    room.put("subdir/f", b"")
    (room.folder.parent / "disallowed.txt").write_bytes(b"secret")
    for name in ("../disallowed.txt", "subdir/../../disallowed.txt"):
        async with meet() as us:
            us.read(name)
            await us.expect_error(2)
    async with meet() as us:
        us.read("/etc/passwd")  # our paths begin below TFTPDirectory, and there is none there: FreeBSD's says 2
        await us.expect_error(1)


async def test_rrq_dropped_ack(room: Room, meet) -> None:
    room.put("small.txt", b"small\0")
    async with meet() as us:
        us.read("small.txt")
        await us.expect(*blocks(b"small\0"))
        await us.expect(*blocks(b"small\0"))
        us.ack(1)


async def test_rrq_dropped_data(room: Room, meet) -> None:
    room.put("medium.txt", MEDIUM)
    async with meet() as us:
        us.read("medium.txt")
        first, second = blocks(MEDIUM)
        await us.expect(first)
        us.ack(1)
        await us.expect(second)  # "lost"
        us.ack(1)
        await us.expect(second)
        us.ack(2)


async def test_rrq_duped_ack(room: Room, meet) -> None:
    """FreeBSD sends block 2 twice; RFC 1123 4.2.3.1 forbids that: it is the sorcerer's apprentice."""
    room.put("medium.txt", MEDIUM)
    async with meet() as us:
        us.read("medium.txt")
        first, second = blocks(MEDIUM)
        await us.expect(first)
        us.ack(1)
        us.ack(1)
        await us.expect(second)
        assert await us.silent(0.1)
        us.ack(2)
    await until(lambda: room.service.metrics.outcomes["completed"])
    assert room.service.metrics.retransmissions == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
async def test_rrq_eaccess(room: Room, meet) -> None:
    room.put("empty.txt", b"")
    (room.folder / "empty.txt").chmod(0)
    async with meet() as us:
        us.read("empty.txt")
        await us.expect_error(2)


@pytest.mark.parametrize("content", [b"", b"small\0", MEDIUM])
async def test_rrq(room: Room, meet, content: bytes) -> None:
    room.put("f", content)
    async with meet() as us:
        us.read("f")
        for block in blocks(content):
            await us.expect(block)
            us.ack(block.block)


async def test_rrq_medium_window(room: Room, meet) -> None:
    room.put("medium.txt", MEDIUM)
    async with meet() as us:
        us.read("medium.txt", ("windowsize", 2))
        await us.expect_options(("windowsize", 2))
        us.ack(0)
        await us.expect(*blocks(MEDIUM))
        us.ack(2)


async def test_rrq_netascii(room: Room, meet) -> None:
    room.put("unix.txt", b"foo\nbar\rbaz\n\0")
    async with meet() as us:
        us.read("unix.txt", mode="netascii")
        await us.expect(*blocks(b"foo\r\nbar\r\0baz\r\n\0"))
        us.ack(1)


async def test_rrq_nonexistent(meet) -> None:
    async with meet() as us:
        us.read("nonexistent.txt")
        await us.expect_error(1)


async def test_rrq_path_max(room: Room, meet) -> None:
    async with meet() as us:
        us.read("AReallyBigFileName" + "X" * os.pathconf(room.folder, "PC_PATH_MAX") + ".txt")
        await us.expect_error(4)


async def test_rrq_window_rfc7440(room: Room, meet) -> None:
    """The example of RFC 7440: blocks 6 to 8 are lost, later the last ACK."""
    room.put("rfc7440.txt", RFC7440)
    numbered = [None, *blocks(RFC7440)]
    async with meet() as us:
        us.read("rfc7440.txt", ("windowsize", 4))
        await us.expect_options(("windowsize", 4))
        us.ack(0)
        for acknowledged, window in ((4, (1, 5)), (5, (5, 9)), (9, (6, 10))):
            await us.expect(*numbered[slice(*window)])
            us.ack(acknowledged)
        await us.expect(*numbered[10:14])
        await us.expect(*numbered[10:14])  # after a timeout
        us.ack(13)
    await until(lambda: room.service.metrics.outcomes["completed"])


# -- what is no request ------------------------------------------------------------------------------------------------


async def test_unknown_modes(meet) -> None:
    for mode in ("ascii", "binary", "en_US.UTF-8", "mail"):
        async with meet() as us:
            us.read("foo.txt", mode=mode)
            await us.expect_error(4)


async def test_unknown_opcode(meet) -> None:
    async with meet() as us:
        us.request(b"\0\7foo.txt\0octet\0")
        await us.expect_error(4)


async def test_short_packets(room: Room, meet, host: str) -> None:
    """FreeBSD's process exits; ours goes on. One byte is not even an opcode: no answer."""
    async with meet() as us:
        us.request(b"\1")
        assert await us.silent(0.05)
        for packet in (b"\1\2", b"\1\2\3"):
            us.request(packet)
            await us.expect_error(4)
    room.put("f", MEDIUM)
    assert await get(room.port, "f", host=host) == MEDIUM


# -- writes ------------------------------------------------------------------------------------------------------------


async def upload(us: Peer, content: bytes) -> None:
    """Lock-step, without options."""
    await us.expect(Ack(0))
    for block in blocks(content):
        us.data(block.block, block.payload)
        await us.expect(Ack(block.block))


@pytest.mark.parametrize("content", [b"", b"small\0", MEDIUM])
async def test_wrq_to_a_new_file(room: Room, meet, content: bytes) -> None:
    """w_flag, wrq_small, wrq_medium. FreeBSD answers 1 to a new name (wrq_nonexistent) unless it is told -w."""
    async with meet() as us:
        us.write("f")
        await upload(us, content)
    assert (room.folder / "f").read_bytes() == content
    async with meet() as us:
        us.write("no-such-directory/f")
        await us.expect_error(1)


async def test_wrq_dropped_ack(room: Room, meet) -> None:
    async with meet() as us:
        us.write("f")
        await us.expect(Ack(0))
        first, second = blocks(MEDIUM)
        us.data(1, first.payload)
        await us.expect(Ack(1))  # "lost"
        await us.expect(Ack(1))  # after a timeout
        us.data(2, second.payload)
        await us.expect(Ack(2))
    assert (room.folder / "f").read_bytes() == MEDIUM


async def test_wrq_dropped_data(room: Room, meet) -> None:
    async with meet() as us:
        us.write("f")
        await us.expect(Ack(0), Ack(0))
        us.data(1, b"small\0")
        await us.expect(Ack(1))
    assert (room.folder / "f").read_bytes() == b"small\0"


async def test_wrq_duped_data(room: Room, meet) -> None:
    """FreeBSD acknowledges both at once; we repeat an ACK, too, but not faster than a guard time."""
    async with meet() as us:
        us.write("f")
        await us.expect(Ack(0))
        first, second = blocks(MEDIUM)
        us.data(1, first.payload)
        us.data(1, first.payload)
        await us.expect(Ack(1), Ack(1))
        us.data(2, second.payload)
        await us.expect(Ack(2))
    assert (room.folder / "f").read_bytes() == MEDIUM


async def test_wrq_medium_window(room: Room, meet) -> None:
    async with meet() as us:
        us.write("f", ("windowsize", 2))
        await us.expect_options(("windowsize", 2))
        for block in blocks(MEDIUM):
            us.data(block.block, block.payload)
        await us.expect(Ack(2))
    assert (room.folder / "f").read_bytes() == MEDIUM


async def test_wrq_netascii(room: Room, meet) -> None:
    async with meet() as us:
        us.write("unix.txt", mode="netascii")
        await upload(us, b"foo\r\nbar\r\0baz\r\n\0")
    assert (room.folder / "unix.txt").read_bytes() == b"foo\nbar\rbaz\n\0"


async def test_wrq_truncate(room: Room, meet) -> None:
    room.put("small.txt", b"small\0")
    async with meet() as us:
        us.write("small.txt")
        await upload(us, b"")
    assert (room.folder / "small.txt").read_bytes() == b""


async def test_wrq_over_what_is_no_file(room: Room, meet) -> None:
    """Instead of wrq_eaccess: the modes of files mean nothing here, TFTPAllowOverwrites does."""
    room.put("d/f", b"x")
    async with meet() as us:
        us.write("d")
        assert (await us.receive()).code in (1, 2, 6)
    assert stat.S_ISDIR((room.folder / "d").stat().st_mode)


async def test_wrq_window_rfc7440(room: Room, meet) -> None:
    """Blocks 6 to 8 are lost, then block 11."""
    numbered = [None, *blocks(RFC7440)]
    async with meet() as us:

        def send(*numbers: int) -> None:
            for number in numbers:
                us.data(number, numbered[number].payload)

        us.write("rfc7440.txt", ("windowsize", 4))
        await us.expect_options(("windowsize", 4))
        send(1, 2, 3, 4)
        await us.expect(Ack(4))
        send(5)
        await us.expect(Ack(5))  # after a timeout
        send(6, 7, 8, 9)
        await us.expect(Ack(9))
        send(10, 12)
        await us.expect(Ack(10))
        send(11, 12, 13)
        await us.expect(Ack(13))
    assert (room.folder / "rfc7440.txt").read_bytes() == RFC7440
