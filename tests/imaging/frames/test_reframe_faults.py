"""Uploads that are damaged, too long, or no streams at all: a clear error each, and nothing is left of them."""

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pbserv.imaging.faults import (
    BadStream,
    ChecksumMismatch,
    DamagedImage,
    ImagingFault,
    InvalidName,
    ShortBody,
    StoreFault,
    StoreFull,
    WrongPart,
)
from pbserv.imaging.frames import intake
from pbserv.imaging.frames.head import parse_header
from tests.imaging.frames.place import MADE, PART, chunks_of, parts_of, placed, send, sha256, unzstd, zstd
from tests.imaging.making import partclone


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


@pytest.mark.parametrize("kind", ["raw", "partclone.ext4", "file"])
@pytest.mark.parametrize("step", ["write_part", "write_state"])
async def test_a_part_whose_checkpoint_is_not_written_is_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, step: str
) -> None:
    """The disk is full at the last moment: the bytes of the part lie in the item already, and come a second time."""
    stream = MADE.stream if kind.startswith("partclone") else os.urandom(3 * PART + 5)
    real, fail = getattr(intake, step), False

    def failing(*args: object) -> None:
        if fail:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args)

    monkeypatch.setattr(intake, step, failing)
    async with placed(tmp_path / "folder") as place:
        upload = place.item("p1", kind)
        bodies = [zstd(part) if kind != "file" else part for part in parts_of(stream)]
        for number, body in enumerate(bodies, start=1):
            before, fail = place.account.sum, True
            with pytest.raises(StoreFull):
                await upload.part(number, chunks_of(body))
            fail = False
            assert (upload.next_part, place.account.sum) == (number, before)
            await upload.part(number, chunks_of(body))
        item = await upload.complete(len(bodies))
        whole = place.bytes("p1")
        assert (whole if kind == "file" else unzstd(whole)) == (MADE.plain if "partclone" in kind else stream)
        place.check(item)


async def test_a_checkpoint_that_is_there_and_failed_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was renamed, and the directory could not be synced; killed then, the upload goes on all the same."""
    real, fail = intake.write_state, False

    def failing(*args: Any) -> None:
        nonlocal fail
        real(*args)
        if fail:
            fail = False
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(intake, "write_state", failing)
    bodies = [zstd(part) for part in parts_of(MADE.stream)]
    async with placed(tmp_path / "folder") as place:
        upload = place.item("p1", "partclone.ext4")
        await upload.part(1, chunks_of(bodies[0]))
        fail = True
        with pytest.raises(StoreFault):
            await upload.part(2, chunks_of(bodies[1]))
        await upload.close()
        again = place.resumed("p1")
        assert again.next_part == 2
        place.check(await send(again, MADE.stream))


async def test_streams_of_huge_blocks_are_kept_as_they_come(tmp_path: Path) -> None:
    """A block is gathered in memory. Those that an older server cut remain what they are."""
    made = partclone({0, 2}, 4, block_bytes=2 << 20)
    async with placed(tmp_path / "folder") as place:
        upload = place.item("p1", "partclone.exfat")
        body = zstd(made.stream)
        await upload.part(1, chunks_of(body))
        item = await upload.complete(1)
        assert (item.stream, place.bytes("p1")) == ("pieces", body)
        assert "are larger than 1048576" in item.facts["kept"]
    assert parse_header(made.stream).block_bytes == 2 << 20


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


def test_faults_are_answers() -> None:
    for fault in (BadStream, WrongPart):
        assert issubclass(fault, ImagingFault)
        assert 400 <= fault.status < 500
