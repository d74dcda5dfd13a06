"""Uploads become frames: parts and whole bodies, resumed wherever they stopped, however many at once."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pbserv.imaging.faults import (
    BadStream,
    ChecksumMismatch,
    DamagedImage,
    DraftGone,
    ImagingFault,
    InvalidName,
    ShortBody,
    StoreClosed,
    StoreFull,
    UploadStalled,
    WrongPart,
)
from pbserv.imaging.frames.reader import OpenIndex
from pbserv.imaging.frames.writer import Reuse
from pbserv.imaging.reframe import ItemUpload, working_files
from tests.imaging.frames.place import MADE, PART, chunks_of, parts_of, placed, send, sha256, unzstd, zstd
from tests.imaging.making import Made, foreign_header, partclone


async def test_a_partclone_stream_in_parts(tmp_path: Path) -> None:
    async with placed(tmp_path / "folder") as place:
        upload = place.item("p1.ext4.zst", "partclone.ext4")
        item = await send(upload, MADE.stream)
        assert unzstd(place.bytes("p1.ext4.zst")) == MADE.plain
        place.check(item)
        assert item.stream == "partclone"
        assert item.plain_bytes == len(MADE.plain)
        assert item.received.plain_bytes == len(MADE.stream)
        bodies = [zstd(part) for part in parts_of(MADE.stream)]
        assert item.received.size_bytes == upload.received_bytes == sum(map(len, bodies))
        assert item.received.sha256 == sha256("".join(map(sha256, bodies)).encode())
        body = b"".join(MADE.contents)
        assert item.facts == {
            "tool": "partclone-0.3.23", "fs": "EXTFS", "compressor": "zstd", "device_bytes": str(4096 * 4096),
            "used_bytes": str(len(body)), "head_bytes": str(len(MADE.head)), "body_sha256": sha256(body),
            "extent_bytes": "65536", "index_sha256": item.facts["index_sha256"],
        }  # fmt: skip
        assert place.files() - {"p1.ext4.zst", "p1.ext4.zst.pbx"} <= set(working_files("p1.ext4.zst"))
        assert await upload.complete(len(bodies), len(MADE.stream)) == item == upload.stored
        assert place.resumed("p1.ext4.zst").stored == item
        await upload.abandon()
        assert "p1.ext4.zst" in place.files()


@pytest.mark.parametrize("size", [150, 1000, 4096, 100_003])
@pytest.mark.parametrize("per", [None, 16])
async def test_resumed_at_every_part_the_file_is_the_same(tmp_path: Path, size: int, per: int | None) -> None:
    """Whatever the parts, and although every part meets another process: the same bytes as in one go."""
    made = partclone({*range(3, 20), 25, 90}, 8 * 900, block_bytes=512, per_checksum=per)
    stream = made.stream
    async with placed(tmp_path / "folder", extent_bytes=4096) as place:
        whole = await send(place.item("whole", "partclone.xfs"), stream)
        upload = place.item("parts", "partclone.xfs")
        parts = parts_of(stream, size)
        for number, part in enumerate(parts, start=1):
            assert upload.next_part == number
            await upload.part(number, chunks_of(zstd(part)))
            await upload.close()
            with (tmp_path / "folder" / "parts").open("ab") as file:
                file.write(b"half a part that the crash left")
            with (tmp_path / "folder" / "parts.pbx").open("ab") as file:
                file.write(b"and of its index")
            upload = place.resumed("parts")
        item = await upload.complete(len(parts), len(stream))
        assert place.bytes("parts") == place.bytes("whole")
        assert place.bytes("parts.pbx") == place.bytes("whole.pbx")
        assert (item.sha256, item.facts) == (whole.sha256, whole.facts)
        place.check(item)


@pytest.mark.parametrize("kind", ["raw", "file"])
async def test_other_streams_are_resumed_too(tmp_path: Path, kind: str) -> None:
    data = os.urandom(3_000_000) + bytes(1_000_000)
    async with placed(tmp_path / "folder") as place:
        upload = place.item("item", kind)
        parts = parts_of(data, 700_001)
        for number, part in enumerate(parts, start=1):
            await upload.part(number, chunks_of(part), compressed=False)
            await upload.close()
            upload = place.resumed("item")
            assert upload.kind == kind
        item = await upload.complete(len(parts), len(data))
        stored = place.bytes("item")
        assert (unzstd(stored) if kind == "raw" else stored) == data
        assert item.stream == {"raw": "raw", "file": "pieces"}[kind]
        place.check(item)
        if kind == "raw":
            assert item.facts["body_sha256"] == sha256(data)


async def test_small_files_are_kept_as_they_are_without_an_index(tmp_path: Path) -> None:
    async with placed(tmp_path / "folder") as place:
        upload = place.item("table", "sfdisk")
        await upload.whole(chunks_of(b"label: gpt\n"))
        item = await upload.complete()
        assert (place.bytes("table"), item.size_bytes, item.facts) == (b"label: gpt\n", 11, {})
        upload = place.item("empty", "")
        await upload.whole(chunks_of(b""))
        assert (await upload.complete()).size_bytes == 0
        assert place.files() == {"table", "empty"}


@pytest.mark.parametrize("kind", ["", "partclone.ext4"])
@pytest.mark.parametrize("compress", [zstd, bytes])
async def test_one_body_is_cut_as_parts_are(tmp_path: Path, kind: str, compress: Callable[[bytes], bytes]) -> None:
    async with placed(tmp_path / "folder") as place:
        body = compress(MADE.stream)
        upload = place.item("p1.ext4.zst", kind)
        await upload.whole(chunks_of(body, 1000))
        item = await upload.complete(None, None)
        assert unzstd(place.bytes("p1.ext4.zst")) == MADE.plain
        assert (item.received.size_bytes, item.received.sha256) == (len(body), sha256(body))
        assert item.received.plain_bytes == len(MADE.stream)
        place.check(item)
        assert place.files() == {"p1.ext4.zst", "p1.ext4.zst.pbx"}
        assert place.account.sum == sum(len(place.bytes(name)) for name in place.files())


async def test_a_raw_body_is_told_by_its_name(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    async with placed(tmp_path / "folder") as place:
        upload = place.item("p3.raw.zst", "")
        await upload.whole(chunks_of(zstd(data)))
        item = await upload.complete()
        assert item.stream == "raw"
        assert unzstd(place.bytes("p3.raw.zst")) == data
        place.check(item)


@pytest.mark.parametrize("name", ["p1.ext4", "p3.raw.zst"])
async def test_what_is_not_ours_to_cut_is_kept_as_it_is(tmp_path: Path, name: str) -> None:
    """Foreign headers, other formats, bytes that only begin like zstd: not a byte is changed."""
    noise = os.urandom(2_500_000)
    foreign = foreign_header(mode=0x30, size=8) + noise
    bodies = [
        noise,
        zstd(noise),
        b"\x28\xb5\x2f\xfd" + noise,
        foreign,
        zstd(foreign),
        b"partclone",
        b"\x28\xb5\x2f\xfd",
    ]
    async with placed(tmp_path / "folder") as place:
        for body in bodies if name == "p1.ext4" else [noise]:
            upload = place.item(name, "")
            await upload.whole(chunks_of(body))
            item = await upload.complete()
            assert place.bytes(name) == body
            assert item.stream == "pieces"
            if len(body) > 1 << 20:
                place.check(item)
        upload = place.item("asis", "partclone.ext4", asis=True)
        await upload.whole(chunks_of(zstd(MADE.stream)))
        await upload.complete()
        assert place.bytes("asis") == zstd(MADE.stream)


async def test_a_foreign_header_in_parts_says_why_it_is_kept(tmp_path: Path) -> None:
    stream = foreign_header(mode=0x30, size=8) + os.urandom(2 << 20)
    async with placed(tmp_path / "folder") as place:
        item = await send(place.item("p1.ext4.zst", "partclone.ext4"), stream, 1 << 20)
        assert unzstd(place.bytes("p1.ext4.zst")) == stream
        assert "xxh64" in item.facts["kept"]
        place.check(item)


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


def damaged(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


async def test_a_part_that_fails_leaves_the_item_as_it_was(tmp_path: Path) -> None:
    """Wrong digest, broken zstd, a wrong checksum of partclone in the middle, a full store: then the right part."""
    parts = parts_of(MADE.stream)
    bodies = [zstd(part) for part in parts]
    async with placed(tmp_path / "folder") as place:
        upload = place.item("p1", "partclone.ext4")
        for number, (part, body) in enumerate(zip(parts, bodies, strict=True), start=1):
            before = place.account.sum
            with pytest.raises(ChecksumMismatch, match=f"part {number}: the SHA-256"):
                await upload.part(number, chunks_of(body), sha256(b"other"))
            with pytest.raises((BadStream, ChecksumMismatch)):
                await upload.part(number, chunks_of(damaged(body, len(body) // 2)))
            with pytest.raises(BadStream, match="inside a zstd frame"):
                await upload.part(number, chunks_of(body[:-3]))
            place.account.limit = before + len(body) + 1000  # enough for the body, not for its frames
            with pytest.raises(StoreFull):
                await upload.part(number, chunks_of(body))
            place.account.limit = 1 << 60
            if 2 < number < len(parts):
                with pytest.raises(ChecksumMismatch, match="partclone's checksum over used blocks"):
                    await upload.part(number, chunks_of(zstd(damaged(part, len(part) // 3)) + zstd(b"")))
            assert upload.next_part == number
            assert place.account.sum == before
            await upload.part(number, chunks_of(body), sha256(body))
        item = await upload.complete(len(parts), len(MADE.stream))
        assert unzstd(place.bytes("p1")) == MADE.plain
        place.check(item)
        assert place.account.sum == item.size_bytes + len(place.bytes("p1.pbx"))


async def test_more_than_the_stream_is_refused(tmp_path: Path) -> None:
    async with placed(tmp_path / "folder") as place:
        upload = place.item("p1", "partclone.ext4")
        with pytest.raises(BadStream, match="after the last of"):
            await upload.part(1, chunks_of(zstd(MADE.stream + b"x")))
        await upload.part(1, chunks_of(zstd(MADE.stream)))
        with pytest.raises(BadStream, match="after the last of"):
            await upload.part(2, chunks_of(zstd(b"x")))
        place.check(await upload.complete(1))


@pytest.mark.parametrize("compressed", [None, True, False])
@given(data=st.binary(max_size=2000))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_clear_error(tmp_path: Path, compressed: bool | None, data: bytes) -> None:
    async def upload_it() -> None:
        async with placed(tmp_path / "folder") as place:
            upload = place.item("p1", "partclone.ext4")
            with pytest.raises((BadStream, ShortBody)):
                await upload.part(1, chunks_of(data), compressed=compressed)
            await upload.abandon()
            upload = place.item("p1", "partclone.ext4")
            with pytest.raises((BadStream, ShortBody)):  # noqa: PT012  (a short one is found at the end)
                await upload.whole(chunks_of(data), compressed)
                await upload.complete()
            await upload.abandon()
            assert (place.files(), place.account.sum) == (set(), 0)

    asyncio.run(upload_it())


@given(at=st.integers(0, 10**9), change=st.integers(1, 255))
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_anywhere_in_a_stream_is_a_clear_error(tmp_path: Path, at: int, change: int) -> None:
    """Header, bitmap, blocks and checksums: nothing that was damaged on the way is ever complete."""
    stream = bytearray(partclone({*range(9), 300, 301}, 9000, block_bytes=512, per_checksum=4).stream)
    at %= len(stream)
    stream[at] ^= change

    async def upload_it() -> None:
        async with placed(tmp_path / "folder") as place:
            upload = place.item("p1", "partclone.ext4")
            with pytest.raises((BadStream, ShortBody, ChecksumMismatch)):
                await send(upload, bytes(stream), 700)
            await upload.abandon()
            assert (place.files(), place.account.sum) == (set(), 0)

    if not 30 <= at < 34:  # the format's number: 0001 is another format, and kept as it is
        asyncio.run(upload_it())


async def test_a_device_of_a_terabyte_with_little_on_it(tmp_path: Path) -> None:
    """The bitmap of 32 MiB passes through; its empty areas cost nothing."""
    used = (0, 1, 1 << 20, (1 << 28) - 1)
    made = partclone(used, 1 << 28, per_checksum=256)
    async with placed(tmp_path / "folder") as place:
        item = await send(place.item("p1", "partclone.ext4"), made.stream, 8 << 20)
        place.check(item)
        assert [frame.address for frame in _frames(tmp_path / "folder" / "p1.pbx")][-3:] == [
            0, 1 << 32, (1 << 40) - 65536
        ]  # fmt: skip
        assert item.size_bytes < 100_000


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
        with pytest.raises(UploadStalled, match="nothing arrived for"):
            await upload.part(1, silent())
        with pytest.raises(UploadStalled):
            await upload.whole(silent())
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


async def test_a_second_body_replaces_the_first_when_it_is_complete(tmp_path: Path) -> None:
    async with placed(tmp_path / "folder") as place:
        first = place.item("p1", "partclone.ext4")
        await first.whole(chunks_of(zstd(MADE.stream)))
        await first.complete()
        failed = place.item("p1", "partclone.ext4")
        await failed.whole(chunks_of(zstd(MADE.stream[:-5])))
        with pytest.raises(ShortBody, match="the capture did not finish"):
            await failed.complete()
        with pytest.raises(DraftGone):
            await failed.complete()
        await failed.abandon()
        assert unzstd(place.bytes("p1")) == MADE.plain
        second = place.item("p1", "")
        await second.whole(chunks_of(b"something else"))
        await second.complete()
        assert place.bytes("p1") == b"something else"
        assert place.files() == {"p1"}


async def test_frames_of_the_older_version_are_reused(tmp_path: Path) -> None:
    async with placed(tmp_path / "old") as old, placed(tmp_path / "new") as new:
        await send(old.item("p1", "partclone.ext4"), MADE.stream)
        changed = partclone({*MADE.used, 1000}, 4096, per_checksum=64, seeds={10: 3})
        fd = os.open(tmp_path / "old" / "p1", os.O_RDONLY)
        pbx = os.open(tmp_path / "old" / "p1.pbx", os.O_RDONLY)
        opened = OpenIndex(pbx)
        closed: list[bool] = []
        new.reframer.level = 19  # what is compressed anew is different, what is reused is not
        upload = new.item("p1", "partclone.ext4", reuse=Reuse(opened.index, fd, lambda: closed.append(True)))
        new.check(await send(upload, changed.stream))
        assert closed == [True]
        assert unzstd(new.bytes("p1")) == changed.plain
        there = set(opened.index.frames())
        fresh = [frame for frame in _frames(tmp_path / "new" / "p1.pbx") if not _same(frame, there)]
        assert len(fresh) == 4  # header, bitmap, the extent of block 10, the new extent
        os.close(fd)
        os.close(pbx)


def _frames(path: Path) -> list:
    fd = os.open(path, os.O_RDONLY)
    frames = list(OpenIndex(fd).index.frames())
    os.close(fd)
    return frames


def _same(frame, there: set) -> bool:
    return any((frame.address, frame.identity, frame.digest) == (x.address, x.identity, x.digest) for x in there)


def test_checkpoints_that_do_not_check(tmp_path: Path) -> None:
    async def tell() -> None:
        async with placed(tmp_path / "folder") as place:
            with pytest.raises(FileNotFoundError):
                place.resumed("p1")
            upload = place.item("p1", "partclone.ext4")
            await upload.part(1, chunks_of(zstd(MADE.stream[:PART])))
            await upload.close()
            state = place.path / "p1.state"
            good = state.read_bytes()
            for bad in (b"", b"{}", b"[1]", b"\xff", good.replace(b'"frames": ', b'"frames": "')):
                state.write_bytes(bad)
                with pytest.raises(DamagedImage, match="checkpoint cannot be read"):
                    place.resumed("p1")
            state.write_bytes(good)
            (place.path / "p1").write_bytes(b"short")
            upload = place.resumed("p1")
            with pytest.raises(DamagedImage, match="shorter than its checkpoint"):
                await upload.part(2, chunks_of(zstd(MADE.stream[PART : 2 * PART])))
            await upload.abandon()
            assert place.files() == set()

    asyncio.run(tell())


@given(st.binary(max_size=300))
def test_any_bytes_as_a_checkpoint_are_damage(data: bytes) -> None:
    from pbserv.imaging.frames.checkpoint import decode

    with pytest.raises(DamagedImage):
        decode(data, "p1")


async def test_names_of_the_files_beside_an_item_are_refused(tmp_path: Path) -> None:
    async with placed(tmp_path / "folder") as place:
        for name in ("p1.pbx", "p1.state", "p1.head", "p1.parts"):
            with pytest.raises(InvalidName, match="store's own"):
                place.item(name, "raw")


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


def test_faults_are_answers() -> None:
    for fault in (BadStream, WrongPart):
        assert issubclass(fault, ImagingFault)
        assert 400 <= fault.status < 500


def test_made_streams_are_made(tmp_path: Path) -> None:
    assert isinstance(MADE, Made)
