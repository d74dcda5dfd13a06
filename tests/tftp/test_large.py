"""A file beyond 4 GiB: every block, every number, no packet twice. RFC 1350 has 16 bits for block numbers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tftp.conftest import Room
from tests.tftp.test_service import until

SIZE = (5 << 30) + 7
WINDOW = 64
BLOCK_SIZES = (512, 1428)
CLIENT_TIMEOUT_S = 120
REPOSITORY = Path(__file__).parents[2]


def marks() -> dict[int, bytes]:
    """At the edges: of blocks and flights, of 16-bit numbers, of 32-bit offsets, of signed ones, of the file."""
    places = {0, (1 << 31) - 3, (1 << 32) - 2, (1 << 32) + 4095, 4_999_999_999, SIZE - 7}
    for block_size in BLOCK_SIZES:
        lap = 65536 * block_size
        places |= {block_size - 3, WINDOW * block_size - 1, lap - block_size - 2, lap - 2, 2 * lap - 5, lap // 2 - 1}
    return {place: b"MARK%d." % n for n, place in enumerate(sorted(places), 10)}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory if there is such a place: holes cost nothing there, and a read cannot wait for a disk."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place, prefix="pbserv-large-") as made:
        path = Path(made, "large")
        with path.open("wb") as file:
            file.truncate(SIZE)
            for at, mark in marks().items():
                file.seek(at)
                file.write(mark)
        assert path.stat().st_size == SIZE
        assert path.stat().st_blocks < 1 << 12, "this file system has no holes"
        yield path.parent


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
async def test_five_gigabytes(make_room: Callable[[], Room], folder: Path, block_size: int) -> None:
    room = make_room()
    await room.service.start(room.settings(max_window=WINDOW, directory=folder))
    wanted = {"port": room.port, "name": "large", "size": SIZE, "block_size": block_size, "window": WINDOW}
    seen = await gro_client(wanted | {"marks": {at: mark.hex() for at, mark in marks().items()}})
    last = SIZE // block_size + 1
    assert seen["blocks"] == last
    assert seen["rollovers"] == last // 65536 > 50
    await until(lambda: room.service.metrics.outcomes["completed"] == 1)
    metrics = room.service.metrics
    assert (metrics.blocks_sent, metrics.bytes_sent) == (last, SIZE)
    assert (metrics.retransmissions, metrics.stale_acks, metrics.strays) == (0, 0, 0)
    assert seen["calls"] < last / 16, "flights come in pieces: is UDP_SEGMENT off?"
    await room.service.stop()


async def gro_client(wanted: dict[str, object]) -> dict[str, int]:
    """A process of its own, so that it does not take turns with the service."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.tftp.gro_client", json.dumps(wanted), cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ,
    )  # fmt: skip
    try:
        async with asyncio.timeout(CLIENT_TIMEOUT_S):
            out, faults = await client.communicate()
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    assert client.returncode == 0, faults.decode()
    seen: dict[str, int] = json.loads(out)
    return seen
