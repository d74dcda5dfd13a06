"""Uploads at once without memory, and killed at any moment."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from pbserv.imaging.reframe import StoredItem
from tests.imaging.frames.place import MADE, Place, chunks_of, parts_of, placed, unzstd, zstd
from tests.imaging.making import partclone


async def test_many_uploads_at_once_stay_small(tmp_path: Path) -> None:
    """40 uploads of 11 MiB each, in parts that arrive in small chunks, need no more memory than a few."""
    made = partclone(range(2700), 4096)
    async with placed(tmp_path / "folder") as place:
        parts = [zstd(part) for part in parts_of(made.stream, 4 << 20)]

        async def one(number: int) -> None:
            upload = place.item(f"p{number}", "partclone.ext4")
            for at, part in enumerate(parts, start=1):
                await upload.part(at, chunks_of(part, 10_000))
            item = await upload.complete(len(parts), len(made.stream))
            assert item.plain_bytes == len(made.plain)

        await one(0)
        before = _peak_kib()
        async with asyncio.TaskGroup() as group:
            for number in range(1, 41):
                group.create_task(one(number))
        assert _peak_kib() - before < 64 * 1024
        place.check(StoredItem_of(place, "p40"))


async def test_many_whole_bodies_at_once_stay_small(tmp_path: Path) -> None:
    """Who has no turn waits with the first bytes alone."""
    made = partclone(range(1500), 4096)
    body = zstd(os.urandom(1 << 20)) + zstd(made.stream)
    async with placed(tmp_path / "folder") as place:

        async def one(number: int) -> None:
            upload = place.item(f"p{number}", "")
            await upload.whole(chunks_of(body))
            await upload.complete()

        await one(0)
        before = _peak_kib()
        async with asyncio.TaskGroup() as group:
            for number in range(1, 101):
                group.create_task(one(number))
        assert _peak_kib() - before < 96 * 1024


def StoredItem_of(place: Place, name: str) -> StoredItem:
    item = place.resumed(name).stored
    assert item is not None
    return item


def _peak_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


CHILD = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.imaging.frames.place import MADE, chunks_of, parts_of, placed, zstd

async def main():
    async with placed(Path({folder!r})) as place:
        if "p1.state" in place.files():
            upload = place.resumed("p1")
        else:
            upload = place.item("p1", "partclone.ext4")
        parts = parts_of(MADE.stream, 300_000)
        while upload.next_part <= len(parts):
            print(upload.next_part, flush=True)
            await upload.part(upload.next_part, chunks_of(zstd(parts[upload.next_part - 1])))
        await upload.complete(len(parts), len(MADE.stream))
        print("done", flush=True)

asyncio.run(main())
"""


def _lines(child: subprocess.Popen[str]) -> Iterator[str]:
    assert child.stdout is not None
    for line in child.stdout:
        yield line.strip()


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    """A process that is killed again and again finishes the upload in the end, and the file is right."""
    code = CHILD.format(root=str(Path(__file__).parents[3]), folder=str(tmp_path / "folder"))
    reached, kills = 0, 0
    for attempt in range(60):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
            first = 0
            for line in _lines(child):
                if line == "done":
                    break
                assert int(line) >= reached  # nothing that was acknowledged is lost
                reached = int(line)
                first = first or reached
                if reached > first + attempt % 3:
                    threading.Event().wait(0.003 * (attempt % 5))
                    child.send_signal(signal.SIGKILL)
                    kills += 1
                    break
            else:
                line = ""
        if line == "done":
            break
    assert line == "done"
    assert kills > 3

    async def look() -> None:
        async with placed(tmp_path / "folder") as place:
            item = place.resumed("p1").stored
            assert item is not None
            place.check(item)
            assert unzstd(place.bytes("p1")) == MADE.plain

    asyncio.run(look())
