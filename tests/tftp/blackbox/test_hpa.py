"""The matrix of tftp-hpa's test script (tests/test-tftp.sh): block sizes, windows, families, and its files.

tftp-hpa 5.2, which Debian has, cannot ask for block or window sizes: the matrix is driven by a peer of our own; what
5.2 can do (512, lock-step, octet and netascii) is done with the program itself in test_real_clients.py.
"""

from __future__ import annotations

import random

import pytest

from pbserv.tftp.packet import OptionAck
from tests.tftp.blackbox.conftest import Serve
from tests.tftp.blackbox.wire import get, peer, put
from tests.tftp.conftest import Room

noise = random.Random(5).randbytes

BLOCK_SIZES = (199, 512, 1468, 9001)
WINDOWS = (1, 4, 64, 256)
# CR NUL pairs across the border of a 512-byte packet and of a window of four
BORDER = b"A" * 511 + b"\r" + b"B" * 1534 + b"\rtrailing\r"
TEXTS = {
    "small.txt": b"This is a small test file for TFTP.\n",
    "multiline.txt": b"".join(b"Line %d\n" % number for number in range(1, 6)),
    "netascii-boundary.txt": BORDER,
    "numbers.txt": b"".join(b"%d\n" % number for number in range(1, 101)),
}
FILES = {"medium.bin": noise(10 << 10), "window-boundary.bin": noise(512 * 4)}

matrix = pytest.mark.parametrize(
    ("size", "window", "host"),
    [(size, window, host) for size in BLOCK_SIZES for window in WINDOWS for host in ("127.0.0.1", "::1")],
)


async def start(serve: Serve, host: str) -> Room:
    return await serve(
        interfaces=(host,), max_block_size=65_464, max_window=256,
        allow_writes=True, allow_overwrites=True, free_space_mb=0,
    )  # fmt: skip


def wire(text: bytes) -> bytes:
    return text.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")


@matrix
async def test_downloads(serve: Serve, size: int, window: int, host: str) -> None:
    room = await start(serve, host)
    asked = (("blksize", size), ("windowsize", window))
    for name, data in FILES.items():
        room.put(name, data)
        assert await get(room.port, name, *asked, host=host) == data
    for name, text in TEXTS.items():
        room.put(name, text)
        assert await get(room.port, name, *asked, host=host, mode="netascii") == wire(text)


@matrix
async def test_what_is_agreed_on(serve: Serve, size: int, window: int, host: str) -> None:
    """The loopback's MTU allows all of them: the matrix is not silently a smaller one."""
    room = await start(serve, host)
    room.put("f", b"x")
    async with peer(room.port, host) as us:
        us.read("f", ("blksize", size), ("windowsize", window))
        assert await us.receive() == OptionAck(((b"blksize", b"%d" % size), (b"windowsize", b"%d" % window)))
        us.give_up()


@matrix
async def test_uploads(serve: Serve, size: int, window: int, host: str) -> None:
    room = await start(serve, host)
    asked = (("blksize", size), ("windowsize", window))
    for name, data in FILES.items():
        await put(room.port, name, data, *asked, host=host)
        assert (room.folder / name).read_bytes() == data
    for name, text in TEXTS.items():
        await put(room.port, name, wire(text), *asked, host=host, mode="netascii")
        assert (room.folder / name).read_bytes() == text


@pytest.mark.parametrize("window", [1, 64])
async def test_a_file_of_67890_blocks(serve: Serve, window: int) -> None:
    room = await start(serve, "127.0.0.1")
    data = room.put("large.bin", (noise(1 << 20) * 34)[: 512 * 67_890])
    assert await get(room.port, "large.bin", ("windowsize", window)) == data
    await put(room.port, "back.bin", data, ("windowsize", window))
    assert (room.folder / "back.bin").read_bytes() == data
