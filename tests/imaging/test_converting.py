"""Imported images become native versions: the same file systems, in frames; what cannot be says why and stays."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pbserv.imaging import converting
from pbserv.imaging.converting import convert
from pbserv.imaging.faults import DamagedImage, ImagingFault, WrongState
from pbserv.imaging.manifest import DiskFacts, Fact, Manifest, ManifestItem, print_manifest
from pbserv.imaging.states import VersionState
from pbserv.imaging.store import Store
from pbserv.imaging.unpack import unpacked
from tests.imaging import trees
from tests.imaging.trees import MIB, Part


class Progress:
    def __init__(self) -> None:
        self.total = 0
        self.done = 0

    def add(self, count: int) -> None:
        self.done += count


@asynccontextmanager
async def opened(root: Path) -> AsyncIterator[Store]:
    store = Store(root, free_floor_bytes=0, allow_overwrite=True)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    return trees.disk(tmp_path_factory.mktemp("disk"), "dos", ("ext4",)).parts[0]


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 70_000):
        yield data[at : at + 70_000]


async def put(store: Store, items: dict[str, tuple[str, str, bytes]], name: str = "lab") -> None:
    """An import: name of the item -> kind, compressor, stored bytes."""
    session = store.open_session(name, asis=True, owner="token:admin")
    lines, facts = [], []
    for item, (kind, compressor, data) in items.items():
        await session.part(item, kind, 1, chunks(data), hashlib.sha256(data).hexdigest())
        sent = await session.complete(item, 1, None)
        lines.append(ManifestItem(item, kind, 0, sent.size_bytes, sent.sha256, 0))
        facts += [Fact(item, "compressor", compressor), Fact(item, "serves_as", f"{name}.img")]
    await session.commit(print_manifest(Manifest(DiskFacts(0, 512, "none", "bios"), tuple(lines), tuple(facts))))


async def read(store: Store, item: str, name: str = "lab") -> bytes:
    opened_item = await store.open(name, item)
    try:
        return os.pread(opened_item.fileno(), opened_item.size_bytes, 0)
    finally:
        opened_item.close()


@pytest.mark.parametrize("kind", ["gzip", "lzop", "xz", "lz4", "bzip2", "none", "zstd"])
async def test_a_partclone_stream_becomes_frames(
    tmp_path: Path, part: Part, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converting, "PART_BYTES", 300_001)
    before = trees.packed(trees.saved(part), kind)
    async with opened(tmp_path / "store") as store:
        await put(store, {"part.extfs.x": ("partclone.extfs", kind, before), "note": ("file", "none", b"a note")})
        report = Progress()
        said = await convert(store, "lab", None, "token:admin", report)
        assert said == "image lab version 1 is version 2 now, in frames"
        assert report.done >= report.total == len(before) + 6
        served = store.info("lab")
        assert (served.version, served.facts.creator) == (2, "token:admin")
        item, note = served.manifest.items
        assert (item.name, item.kind) == ("part.extfs.x.zst", "partclone.extfs")
        assert served.manifest.fact(item.name, "compressor") in ("", "zstd")
        assert served.manifest.fact(item.name, "body_sha256")
        assert served.manifest.fact(item.name, "serves_as") == "lab.img"
        assert item.uncompressed_bytes > MIB
        assert await read(store, note.name) == b"a note"
        stored = await read(store, item.name)
        trees.blocks_equal(part, b"".join(unpacked([stored], "zstd")), tmp_path)
        index = await store.index(served, item.name)
        assert index is not None
        index.close()
        with pytest.raises(WrongState, match="frames already"):
            await convert(store, "lab", None, "token:admin", Progress())


async def test_a_raw_disk_that_begins_like_zstd_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts end anywhere in the data: their first bytes mean nothing."""
    monkeypatch.setattr(converting, "PART_BYTES", MIB)
    raw = trees.disk(tmp_path / "disk", "dos", ("ext4",)).path.read_bytes()
    raw = raw[: 3 * MIB] + b"\x28\xb5\x2f\xfd" + raw[3 * MIB + 4 :]
    async with opened(tmp_path / "store") as store:
        await put(store, {"disk.raw.gz": ("raw", "gzip", trees.packed(raw, "gzip"))})
        await convert(store, "lab", 1, "", Progress())
        stored = await read(store, "disk.raw.zst")
        assert b"".join(unpacked([stored], "zstd")) == raw


async def test_what_cannot_be_cut_says_why_and_stays(tmp_path: Path, part: Part) -> None:
    v1 = b"partclone-image" + b"EXTFS".ljust(15, b"\0") + b"0001\0\0" + (4096).to_bytes(4, "little")
    v1 += (16 * MIB).to_bytes(8, "little") + (4096).to_bytes(8, "little") + (10).to_bytes(8, "little") + bytes(9000)
    async with opened(tmp_path) as store:
        for number, (kind, data, why) in enumerate(
            (
                ("partclone.extfs", trees.packed(v1, "gzip"), "format 0001"),
                ("partimage", trees.packed(b"PaRtImAgE-VoLuMe" + bytes(20_000), "gzip"), "partimage"),
                ("raw", trees.packed(b"nothing" * 100, "gzip"), "no image that is known"),
                ("raw", b"\x1f\x8bnonsense", "cannot read it"),
            )
        ):
            await put(store, {"item.gz": (kind, "gzip", data)}, f"lab{number}")
            with pytest.raises(WrongState, match=why):
                await convert(store, f"lab{number}", None, "", Progress())
            assert store.versions(f"lab{number}") == (1,)
        assert store.sessions() == ()


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
async def test_a_stream_that_breaks_off_or_is_damaged_leaves_nothing(tmp_path: Path, part: Part, kind: str) -> None:
    whole = trees.packed(trees.saved(part), kind)
    broken = bytearray(whole)
    broken[-len(whole) // 3] ^= 0x5A
    short = trees.packed(trees.saved(part)[:-5000], kind)
    long = trees.packed(trees.saved(part) + bytes(5_000_000), kind)
    async with opened(tmp_path) as store:
        for number, data in enumerate((whole[: len(whole) // 2], bytes(broken), short, long)):
            await put(store, {"item.x": ("partclone.extfs", kind, data)}, f"lab{number}")
            with pytest.raises(ImagingFault):
                await convert(store, f"lab{number}", None, "", Progress())
            assert store.versions(f"lab{number}") == (1,)
        assert store.sessions() == ()
        assert os.listdir(tmp_path / ".incoming") == []


@pytest.mark.parametrize("kind", ["gzip", "lzop"])
async def test_who_gives_up_leaves_nothing_running(tmp_path: Path, part: Part, kind: str) -> None:
    async with opened(tmp_path) as store:
        data = trees.packed(part.raw.read_bytes() * 8, kind)
        await put(store, {"part.raw.x": ("raw", kind, data)})

        class Stop(Progress):
            def add(self, count: int) -> None:
                super().add(count)
                loop.call_soon_threadsafe(running.cancel)

        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(convert(store, "lab", None, "", Stop()))
        assert running.cancelled()
        assert store.sessions() == ()
        assert store.versions("lab") == (1,)
        assert not [thread for thread in threading.enumerate() if thread.name == "unpack"]


@pytest.mark.parametrize("kind", ["none", "gzip", "lzop"])
async def test_what_rotted_in_the_store_becomes_no_version(tmp_path: Path, kind: str) -> None:
    """Also behind the end of the stream, and where no checksum of the stream itself tells."""
    raw = trees.disk(tmp_path / "disk", "dos", ("ext4",)).path.read_bytes()
    data = trees.packed(raw, kind) + (bytes(5000) if kind == "gzip" else b"")
    root = tmp_path / "store"
    async with opened(root) as store:
        await put(store, {"disk.raw.x": ("raw", kind, data)})
        with (root / "lab/1/disk.raw.x").open("r+b") as file:
            file.seek(-1 if kind == "lzop" else -len(data) // 2 if kind == "none" else -3000, os.SEEK_END)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        with pytest.raises((DamagedImage, WrongState), match="damaged"):
            await convert(store, "lab", None, "", Progress())
        assert (store.versions("lab"), store.sessions()) == ((1,), ())


async def test_what_is_known_to_be_damaged_is_not_converted(tmp_path: Path, part: Part) -> None:
    async with opened(tmp_path) as store:
        await put(store, {"item.gz": ("partclone.extfs", "gzip", trees.packed(trees.saved(part), "gzip"))})
        await store.verified("lab", 1, "frame 7")
        with pytest.raises(DamagedImage, match="frame 7"):
            await convert(store, "lab", 1, "", Progress())
        assert store.versions("lab") == (1,)


async def test_an_older_version_is_converted_and_not_served_by_itself(tmp_path: Path, part: Part) -> None:
    old = {"item.gz": ("partclone.extfs", "gzip", trees.packed(trees.saved(part), "gzip"))}
    async with opened(tmp_path) as store:
        await put(store, old)
        await put(store, {"item.xz": ("partclone.extfs", "xz", trees.packed(trees.saved(part), "xz"))})
        said = await convert(store, "lab", 1, "", Progress())
        assert said == "image lab version 1 is version 3 now, in frames, which is validated and not served by itself"
        assert store.object("lab").version(3).state is VersionState.VALIDATED
        assert store.info("lab").version == 2
        await convert(store, "lab", 2, "", Progress())
        assert store.info("lab").version == 4
        await put(store, old, "off")
        await store.move("off", 1, VersionState.DISABLED, "anna")
        await convert(store, "off", 1, "", Progress())
        assert store.object("off").served is None
