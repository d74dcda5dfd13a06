"""Uploads become frames: parts and whole bodies, resumed at every part, with frames of the version before."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pbserv.imaging.faults import (
    DraftGone,
    ShortBody,
)
from pbserv.imaging.frames.reader import OpenIndex
from pbserv.imaging.frames.writer import Reuse
from pbserv.imaging.reframe import working_files
from tests.imaging.frames.place import MADE, chunks_of, parts_of, placed, send, sha256, unzstd, zstd
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


def test_made_streams_are_made(tmp_path: Path) -> None:
    assert isinstance(MADE, Made)
