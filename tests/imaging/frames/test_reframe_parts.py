"""Parts of an upload: their order, two at once, and senders and servers that go away in the middle."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

import pytest

from pbserv.imaging.faults import (
    DraftGone,
    ShortBody,
    StoreClosed,
    UploadRunning,
    UploadStalled,
    WrongPart,
)
from pbserv.imaging.reframe import ItemUpload, StoredItem
from tests.imaging.frames.place import MADE, PART, chunks_of, parts_of, placed, send, unzstd, zstd


async def test_parts_are_idempotent_and_in_order(tmp_path: Path) -> None:
    parts = [zstd(part) for part in parts_of(MADE.stream)]
    async with placed(tmp_path / "folder") as place:
        upload = place.item("p1", "partclone.ext4")
        with pytest.raises(WrongPart, match="part 2 came, part 1 is next") as wrong:
            await upload.part(2, chunks_of(parts[1]))
        assert wrong.value.next_part == 1
        first = await upload.part(1, chunks_of(parts[0]))
        assert await upload.part(1, chunks_of(parts[0])) == first
        with pytest.raises(WrongPart, match="other bytes"):
            await upload.part(1, chunks_of(parts[1]))
        await upload.part(2, chunks_of(parts[1]))
        assert (await upload.part(1, chunks_of(parts[0]))).next_part == 3
        with pytest.raises(WrongPart):
            await upload.part(4, chunks_of(parts[3]))
        with pytest.raises(WrongPart):
            await upload.part(0, chunks_of(parts[3]))
        with pytest.raises(ShortBody, match="2 parts arrived, 3 were sent"):
            await upload.complete(3)
        with pytest.raises(ShortBody):
            await upload.complete(2)  # the stream is not at its end
        for number in range(3, len(parts) + 1):
            await upload.part(number, chunks_of(parts[number - 1]))
        with pytest.raises(ShortBody, match="uncompressed bytes arrived"):
            await upload.complete(len(parts), len(MADE.stream) + 1)
        place.check(await upload.complete(len(parts), len(MADE.stream)))


async def test_two_parts_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """The client has two slots: the second may even be complete before the first."""
    parts = [zstd(part) for part in parts_of(MADE.stream)]
    gate = asyncio.Event()

    async def held() -> AsyncIterator[bytes]:
        yield parts[0][:100]
        await gate.wait()
        yield parts[0][100:]

    async with placed(tmp_path / "folder") as place:
        upload = place.item("p1", "partclone.ext4")
        sent = asyncio.Event()

        async def second() -> AsyncIterator[bytes]:
            yield parts[1]
            sent.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(upload.part(1, held()))
            await asyncio.sleep(0)
            task = group.create_task(upload.part(2, second()))
            await sent.wait()
            assert not task.done()
            gate.set()
        assert upload.next_part == 3
        for number in range(3, len(parts) + 1):
            await upload.part(number, chunks_of(parts[number - 1]))
        place.check(await upload.complete(len(parts)))


async def test_a_sender_on_a_dead_connection_holds_nobody_up(tmp_path: Path) -> None:
    """Its part was sent again on another one: the parts behind it do not wait, and there is no trace of it."""
    parts = [zstd(part) for part in parts_of(MADE.stream)]
    dead = asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield parts[0][:100]
        dead.set()
        await asyncio.Event().wait()

    async def hang(upload: ItemUpload) -> None:
        with pytest.raises(DraftGone):
            await upload.part(1, hanging())

    async with placed(tmp_path / "folder") as place, asyncio.TaskGroup() as group:
        upload = place.item("p1", "partclone.ext4")
        group.create_task(hang(upload))
        await dead.wait()
        for number, part in enumerate(parts, start=1):
            await upload.part(number, chunks_of(part))
        assert set(upload._coming) == {1}
        place.check(await upload.complete(len(parts)))
        upload.stop()
    assert not upload._coming


@pytest.mark.parametrize("what", ["whole", "part", "turn"])
async def test_who_waits_for_a_place_is_woken_when_the_upload_is_stopped(tmp_path: Path, what: str) -> None:
    """All places are taken by others, who may never end."""
    parts = [zstd(part) for part in parts_of(MADE.stream)]
    silent = asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        silent.set()
        await asyncio.Event().wait()
        yield b""

    async def hang(work: Coroutine[None, None, object]) -> None:
        with pytest.raises(DraftGone, match="discarded"):
            await work

    async with placed(tmp_path / "folder") as place, asyncio.TaskGroup() as group:
        upload = place.item("p1", "partclone.ext4")
        places = {"whole": place.reframer.wholes, "part": place.reframer.receiving}.get(what)
        if places is None:
            group.create_task(hang(upload.part(1, hanging())))
            await silent.wait()
        else:
            while not places.locked():
                await places.acquire()
        body = chunks_of(bytes(PART) if what == "whole" else parts[1])
        number = 2 if what == "turn" else 1
        waiting = group.create_task(hang(upload.whole(body) if what == "whole" else upload.part(number, body)))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not waiting.done()
        upload.stop()


async def test_who_finds_no_place_is_told_so(tmp_path: Path) -> None:
    async with placed(tmp_path / "folder", idle_timeout_s=0.05) as place:
        while not place.reframer.wholes.locked():
            await place.reframer.wholes.acquire()
        upload = place.item("p1", "raw")
        with pytest.raises(UploadRunning, match="try again later, or send it in parts"):
            await upload.whole(chunks_of(bytes(PART)))
        await upload.abandon()


async def test_the_end_of_an_item_is_worked_on_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client asks again while all of a large item is still read: nobody keeps a second thread with that."""
    async with placed(tmp_path / "folder", workers=2) as place:
        upload = place.item("p1", "partclone.ext4")
        parts = [zstd(part) for part in parts_of(MADE.stream)]
        for number, part in enumerate(parts, start=1):
            await upload.part(number, chunks_of(part))
        running, gate, calls, real = threading.Event(), threading.Event(), [], upload._intake.complete

        def slow(*told: int | None) -> StoredItem:
            calls.append(told)
            running.set()
            gate.wait(60)
            return real(*told)

        monkeypatch.setattr(upload._intake, "complete", slow)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(upload.complete(len(parts))) for _ in range(5)]
            while not running.is_set():
                await asyncio.sleep(0.01)
            gate.set()
        assert all(task.result() == asked[0].result() for task in asked)
        assert calls == [(len(parts), None)]
        assert (await upload.complete(len(parts))) == asked[0].result()


async def test_the_next_part_fails_with_the_one_before(tmp_path: Path) -> None:
    parts = [zstd(part) for part in parts_of(MADE.stream)]
    gate = asyncio.Event()

    async def broken() -> AsyncIterator[bytes]:
        yield parts[0][:100]
        await gate.wait()
        raise ConnectionResetError

    async with placed(tmp_path / "folder") as place:
        upload = place.item("p1", "partclone.ext4")

        async def first() -> None:
            with pytest.raises(ConnectionResetError):
                await upload.part(1, broken())

        async def second() -> None:
            with pytest.raises(WrongPart, match="part 1 is next"):
                await upload.part(2, chunks_of(parts[1]))

        async with asyncio.TaskGroup() as group:
            group.create_task(first())
            await asyncio.sleep(0)
            group.create_task(second())
            await asyncio.sleep(0)
            gate.set()
        assert upload.next_part == 1
        assert place.account.sum == 0


async def test_abandon_leaves_nothing_and_wakes_who_waits(tmp_path: Path) -> None:
    parts = [zstd(part) for part in parts_of(MADE.stream)]
    started = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield parts[1][:1000]
        started.set()
        await asyncio.Event().wait()

    async with placed(tmp_path / "folder") as place:
        for how in ("part", "whole"):
            upload = place.item("p1", "partclone.ext4")
            started.clear()

            async def wait(upload: ItemUpload = upload, how: str = how) -> None:
                with pytest.raises(DraftGone, match="discarded"):
                    await (upload.part(2, stuck()) if how == "part" else upload.whole(stuck()))

            async with asyncio.TaskGroup() as group:
                if how == "part":
                    await upload.part(1, chunks_of(parts[0]))
                group.create_task(wait())
                await started.wait()
                await upload.abandon()
            assert (place.files(), place.account.sum) == (set(), 0)
            await upload.abandon()
            with pytest.raises(DraftGone):
                await upload.complete()
            with pytest.raises(DraftGone):
                await upload.part(1, chunks_of(parts[0]))


async def test_a_sender_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with placed(tmp_path / "folder", idle_timeout_s=0.05) as place:
        upload = place.item("p1", "raw")
        with pytest.raises(UploadStalled, match="no more than 1 bytes arrived"):
            await upload.part(1, silent())
        with pytest.raises(UploadStalled):
            await upload.whole(silent())
        await upload.abandon()
        assert (place.files(), place.account.sum) == (set(), 0)


async def test_a_sender_that_trickles_is_given_up(tmp_path: Path) -> None:
    async def trickling(size: int) -> AsyncIterator[bytes]:
        while True:
            yield bytes(size)
            await asyncio.sleep(0.01)

    async with placed(tmp_path / "folder", idle_timeout_s=0.2) as place:
        upload = place.item("p1", "raw")
        with pytest.raises(UploadStalled, match="bytes arrived in"):
            await upload.part(1, trickling(1))
        with pytest.raises(UploadStalled, match=r"the part took longer than|bytes arrived in"):  # on a busy machine
            await upload.part(1, trickling(70_000))
        with pytest.raises(UploadStalled, match="bytes arrived in"):
            await upload.whole(trickling(1))
        await upload.abandon()
        assert (place.files(), place.account.sum) == (set(), 0)


async def test_a_caller_that_goes_away_after_the_last_byte_has_sent_its_part(tmp_path: Path) -> None:
    parts = [zstd(part) for part in parts_of(MADE.stream)]
    async with placed(tmp_path / "folder", workers=1) as place:
        upload = place.item("p1", "partclone.ext4")
        running, gate = threading.Event(), threading.Event()

        def hold() -> None:
            running.set()
            gate.wait(60)

        busy = place.reframer.work(hold)
        ended = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield parts[0]
            ended.set()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(upload.part(1, body()))
            await ended.wait()
            while not place.reframer._workers._work_queue.qsize():
                await asyncio.sleep(0.01)
            task.cancel()
            gate.set()
        await busy
        assert task.cancelled()
        await upload.part(1, chunks_of(parts[0]))  # the same again, as a client that heard nothing sends it
        await upload.part(2, chunks_of(parts[1]))
        assert upload.next_part == 3


async def test_a_stopping_server_keeps_what_is_complete(tmp_path: Path) -> None:
    async with placed(tmp_path / "folder") as place:
        upload = place.item("p1", "partclone.ext4")
        await upload.part(1, chunks_of(zstd(MADE.stream[:PART])))
        await place.reframer.close()
        with pytest.raises(StoreClosed):
            await upload.part(2, chunks_of(zstd(MADE.stream[PART : 2 * PART])))
        await upload.close()
        assert upload.next_part == 2
    async with placed(tmp_path / "folder") as place:
        place.check(await send(place.resumed("p1"), MADE.stream))
        assert unzstd(place.bytes("p1")) == MADE.plain
