"""Files dropped into a store's directory become images by themselves, and damaged, locked or changed ones do not."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pbserv.conf.places import StorePlace
from pbserv.errors import PbservError
from pbserv.imaging import linking
from pbserv.imaging.adopt import Adopter, remove_own_locks
from pbserv.imaging.faults import ChecksumMismatch, DamagedImage, ImageExists, StoreFull, UnknownImage
from pbserv.imaging.inspection import InspectionError
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.manifest import Manifest, print_manifest
from pbserv.imaging.scrub import ScrubOrder
from pbserv.imaging.store_rules import StoreRules
from pbserv.imaging.stores import Stores, StoresSettings
from pbserv.imaging.sum_files import Locked
from pbserv.imaging.tasks import Report
from pbserv.imaging.watch import Dropped, Facts, Watcher
from tests.imaging import trees
from tests.imaging.trees import MIB, Part


class Told:
    """A log that is looked at."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def transaction(self, event: str, /, **fields: object) -> None:
        self.lines.append(event)

    def warning(self, event: str, /, **fields: object) -> None:
        self.lines.append(f"{event}: {fields}")


@asynccontextmanager
async def opened(root: Path, quota: int = 0, made: type[Stores] = Stores) -> AsyncIterator[Stores]:
    stores = made(StoresSettings((StorePlace("main", root, quota=quota, floor=0),)))
    await stores.start()
    try:
        yield stores
    finally:
        await stores.close()


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    return trees.disk(tmp_path_factory.mktemp("disk"), "dos", ("ext4",)).parts[0]


@pytest.fixture(scope="module")
def image(part: Part) -> bytes:
    return trees.packed(trees.saved(part), "lzop")


async def adopt(store: Stores, path: Path, told: Told | None = None, *, renamed: bool = True) -> None:
    await Adopter(store, told or Told(), lambda: 100_000)(Dropped("main", path, path.name.split(".")[0], renamed))


def drop(root: Path, content: bytes, name: str = "lab.img") -> Path:
    (root / "copy").write_bytes(content)
    return (root / "copy").rename(root / name)


def sums_of(path: Path) -> tuple[str, str]:
    script = 'tail -c1M "$1" | md5sum -b | cut -f1 -d" "; md5sum -b "$1" | cut -f1 -d" "'
    tail, full = subprocess.run(["bash", "-c", script, "-", str(path)], capture_output=True, text=True).stdout.split()
    return tail, full


def stored(root: Path, store: Stores, name: str = "lab") -> Path:
    served = store.info(name)
    return root / name / str(served.version) / served.manifest.items[0].name


async def test_a_dropped_file_is_an_image(tmp_path: Path, image: bytes, part: Part) -> None:
    async with opened(tmp_path) as store:
        told = Told()
        path = drop(tmp_path, image)
        await adopt(store, path, told)
        served = store.info("lab")
        (item,) = served.manifest.items
        assert (item.name, item.kind, item.partition) == ("part.extfs.lzo", "partclone.extfs", 0)
        assert served.manifest.fact(item.name, "compressor") == "lzop"
        assert (served.facts.creator, served.version) == ("drop", 1)
        assert store.object("lab").state == "enabled"
        assert os.path.samefile(path, stored(tmp_path, store))
        assert (
            (tmp_path / "lab.img.sum").read_text().strip(),
            (tmp_path / "lab.img.full.sum").read_text().strip(),
        ) == (sums_of(path))
        assert told.lines == ["image appeared"]
        assert store.stores()[0].used_bytes >= len(image)
        await adopt(store, path, told)  # after a start everything is handed on again
        assert store.versions("lab") == (1,)
        assert not (tmp_path / "lab.img.lock").exists()
    async with opened(tmp_path) as store:
        assert store.info("lab") == served
        await adopt(store, path)
        assert store.versions("lab") == (1,)


@pytest.mark.parametrize("kind", ["none", "gzip", "lzop", "bzip2", "xz", "lz4", "zstd"])
async def test_its_uncompressed_size_is_known_and_it_is_whole(tmp_path: Path, part: Part, kind: str) -> None:
    """Partclone's stream has a length that its header does not tell in words; what was cut off is no image."""
    saved = trees.saved(part)
    whole = trees.packed(saved, kind)
    async with opened(tmp_path) as store:
        cut = drop(tmp_path, whole[: len(whole) // 2], "cut.img")
        with pytest.raises(InspectionError, match=r"cut\.img"):
            await adopt(store, cut)
        shorter = drop(tmp_path, trees.packed(saved[:-4096], kind), "shorter.img")  # a whole stream of half an image
        with pytest.raises(InspectionError, match=r"shorter\.img: it is cut off"):
            await adopt(store, shorter)
        assert store.all() == ()
        await adopt(store, drop(tmp_path, whole))
        (item,) = store.info("lab").manifest.items
        assert (item.uncompressed_bytes, item.stored_bytes) == (len(saved), len(whole))


async def test_a_damaged_file_is_not_read_again_until_it_changes(tmp_path: Path, part: Part) -> None:
    whole = trees.packed(trees.saved(part), "gzip")
    async with opened(tmp_path) as store:
        reads = 0

        def rate() -> int:
            nonlocal reads
            reads += 1
            return 100_000

        adopter = Adopter(store, Told(), rate)
        path = drop(tmp_path, whole[:-100])
        said = set()
        for _ in range(3):
            with pytest.raises(InspectionError, match="ends too early") as fault:
                await adopter(Dropped("main", path, "lab"))
            said.add(str(fault.value))
        assert (len(said), reads) == (1, 1)
        await adopter(Dropped("main", drop(tmp_path, whole), "lab"))
        assert store.versions("lab") == (1,)


async def test_the_size_of_a_compressed_disk_is_known(tmp_path: Path) -> None:
    disk = trees.disk(tmp_path / "disk", "dos", ("ext4",)).path.read_bytes() + bytes(MIB)
    (tmp_path / "store").mkdir()
    async with opened(tmp_path / "store") as store:
        await adopt(store, drop(tmp_path / "store", trees.packed(disk, "gzip")))
        manifest = store.info("lab").manifest
        assert manifest.disk.size_bytes == manifest.items[0].uncompressed_bytes == len(disk)


async def test_a_file_renamed_over_it_is_the_next_version(tmp_path: Path, image: bytes, part: Part) -> None:
    async with opened(tmp_path) as store:
        await adopt(store, drop(tmp_path, image))
        first = stored(tmp_path, store)
        path = drop(tmp_path, trees.packed(trees.saved(part), "gzip"))
        await adopt(store, path)
        assert store.info("lab").version == 2
        assert store.info("lab").manifest.items[0].name == "part.extfs.gz"
        assert first.read_bytes() == image
        assert (tmp_path / "lab.img.sum").read_text().strip() == sums_of(path)[0]
        await adopt(store, drop(tmp_path, path.read_bytes()))  # the same bytes again are no version
        assert store.versions("lab") == (1, 2)


async def test_checksums_that_are_missing_are_made_again(tmp_path: Path, image: bytes) -> None:
    async with opened(tmp_path) as store:
        path = drop(tmp_path, image)
        await adopt(store, path)
        (tmp_path / "lab.img.sum").unlink()
        await adopt(store, path)
        assert (tmp_path / "lab.img.sum").read_text().strip() == sums_of(path)[0]
        assert store.versions("lab") == (1,)


async def test_a_file_written_to_in_place_is_damage(tmp_path: Path, image: bytes) -> None:
    async with opened(tmp_path) as store:
        path = drop(tmp_path, image)
        await adopt(store, path)
        later = path.stat().st_mtime_ns + 10**9
        with path.open("r+b") as file:
            file.seek(len(image) - 100)
            file.write(b"damage")
        os.utime(path, ns=(later, later))
        with pytest.raises(DamagedImage, match="written to in place"):
            await adopt(store, path, renamed=False)
        with pytest.raises(UnknownImage, match="written to in place"):
            store.info("lab")
        await adopt(store, drop(tmp_path, image))  # dropped again, as the sentence says
        assert store.info("lab").version == 2


async def test_who_else_holds_the_lock_is_waited_for(tmp_path: Path, image: bytes) -> None:
    async with opened(tmp_path) as store:
        path = drop(tmp_path, image)
        (tmp_path / "lab.img.lock").touch()
        with pytest.raises((Locked, InspectionError), match=r"lab\.img\.lock"):
            await adopt(store, path)
        assert store.versions("lab") == ()
        assert remove_own_locks(tmp_path) == []
        (tmp_path / "lab.img.lock").write_bytes(b"pbserv\n")
        (tmp_path / "other.lock").write_bytes(b"pbserv\n")
        assert remove_own_locks(tmp_path) == ["lab.img.lock"]
        await adopt(store, path)
        assert store.versions("lab") == (1,)


async def test_what_is_no_image_stays_invisible(tmp_path: Path, image: bytes) -> None:
    async with opened(tmp_path) as store:
        for content, why in (
            (b"nothing that is known" * 100, "no image that is known"),
            (b"", "empty"),
            (image[:200], "copy it again"),
            (b"QFI\xfb\0\0\0\3" + bytes(12) + b"\0\0\0\x10" + bytes(8) + bytes(200), "pbserv image import takes it"),
        ):
            path = drop(tmp_path, content)
            with pytest.raises(PbservError, match=why):
                await adopt(store, path)
            assert store.all() == ()
            assert sorted(entry.name for entry in tmp_path.iterdir()) == [".incoming", ".store", "lab.img"]


async def test_checksums_that_came_along_must_be_its_own(tmp_path: Path, image: bytes) -> None:
    async with opened(tmp_path) as store:
        path = drop(tmp_path, image)
        for ending in (".sum", ".full.sum"):
            (tmp_path / f"lab.img{ending}").write_text("0" * 32 + "\n")
        with pytest.raises(DamagedImage, match="of other bytes"):
            await adopt(store, path)
        assert store.all() == ()
        os.utime(path)  # newer than they are: they are of the file before
        await adopt(store, path)
        assert (tmp_path / "lab.img.sum").read_text().strip() == sums_of(path)[0]


async def test_a_full_quota_and_a_refused_link(tmp_path: Path, image: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path, quota=1000) as store:
        with pytest.raises(StoreFull, match="quota"):
            await adopt(store, drop(tmp_path, image))
        assert os.listdir(tmp_path / ".incoming") == []
        store.store("main").rules = StoreRules(floor_bytes=0)

        link = os.link

        def refused(source: Path, *arguments: str, **options: int) -> None:
            if source == tmp_path / "lab.img":
                raise PermissionError(errno.EPERM, "Operation not permitted")
            link(source, *arguments, **options)

        monkeypatch.setattr(linking.os, "link", refused)
        path = drop(tmp_path, image)
        os.utime(path, ns=(10**18, 10**18))
        await adopt(store, path)
        assert stored(tmp_path, store).read_bytes() == image
        assert os.path.samefile(path, stored(tmp_path, store))  # the copy has taken its place
        assert path.stat().st_mtime_ns == 10**18
        used = store.stores()[0].used_bytes
        assert len(image) <= used < 2 * len(image)
        await adopt(store, path)
        (tmp_path / "lab.img.sum").unlink()
        await adopt(store, path)
        assert store.versions("lab") == (1,)
        await store.delete("lab")
        assert not list(tmp_path.glob("*lab*"))


async def test_a_dropped_file_has_an_index_of_its_pieces(tmp_path: Path, part: Part) -> None:
    content = part.raw.read_bytes()
    async with opened(tmp_path) as store:
        await adopt(store, drop(tmp_path, content))
        path = stored(tmp_path, store)
        index = path.with_name(path.name + ".pbx").read_bytes()
        assert store.info("lab").manifest.fact(path.name, "index_sha256") == hashlib.sha256(index).hexdigest()
        used = store.stores()[0].used_bytes
        draft = store.begin("same")
        await draft.receive(path.name, _chunks(content))
        manifest = store.info("lab").manifest
        await draft.commit(print_manifest(manifest))
        uploaded = (tmp_path / "same/1" / (path.name + ".pbx")).read_bytes()
        assert index == uploaded, "as of an upload"
        with path.open("r+b") as file:
            file.seek(2 * MIB + 1)
            file.write(b"wrong")
        lines: list[str] = []
        await store.scrub(ScrubOrder(image="lab", rate_mb=0, repair=False), Report(), lines.append)
        assert lines == [
            f"image lab version 1 item {path.name}: piece 2 at byte {2 * MIB}: its stored bytes are not those that the "
            "index names"
        ]
    async with opened(tmp_path) as store:
        assert store.stores()[0].used_bytes >= used


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.mark.parametrize("size", [10, 0])
async def test_a_file_that_is_exchanged_while_it_is_taken(tmp_path: Path, image: bytes, size: int) -> None:
    """Also for one of the same length, as all images of one raw disk are."""

    class Late(Stores):
        async def take_file(
            self, store: str, file: Path, name: str, manifest: Manifest, index: bytes = b"", facts: Facts | None = None
        ) -> StoredImage:
            drop(tmp_path, bytes(size or len(image)))
            return await super().take_file(store, file, name, manifest, index, facts)

    async with opened(tmp_path, made=Late) as store:
        with pytest.raises(ChecksumMismatch, match="replaced while it was taken"):
            await adopt(store, drop(tmp_path, image))
        assert store.all() == ()
        assert os.listdir(tmp_path / ".incoming") == []
        assert store.stores()[0].used_bytes == 0


async def test_a_name_that_another_store_has(tmp_path: Path, image: bytes) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    places = tuple(StorePlace(name, tmp_path / name, floor=0) for name in ("one", "two"))
    stores = Stores(StoresSettings(places))
    await stores.start()
    try:
        for name in ("one", "two"):
            path = drop(tmp_path / name, image)
            dropped = Dropped(name, path, "lab")
            if name == "one":
                await Adopter(stores, Told(), lambda: 100)(dropped)
        with pytest.raises(ImageExists, match="in another store"):
            await Adopter(stores, Told(), lambda: 100)(dropped)
        assert stores.object("lab").store == "one"
        assert not (tmp_path / "two/lab.img.lock").exists()
    finally:
        await stores.close()


async def test_a_file_is_not_read_on_when_the_server_stops(tmp_path: Path) -> None:
    """It would take an hour at this rate."""
    part = trees.disk(tmp_path / "disk", "dos", ("ext4",)).parts[0].raw.read_bytes()
    async with opened(tmp_path / "store") as store:
        path = drop(tmp_path / "store", part * 8)
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(60):
            running = tasks.create_task(Adopter(store, Told(), lambda: 1)(Dropped("main", path, "lab")))
            while not (tmp_path / "store/lab.img.lock").exists():
                await asyncio.sleep(0.01)
            running.cancel()
        assert not (tmp_path / "store/lab.img.lock").exists()
    await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), 30)


async def test_a_file_that_is_no_image_is_told_of_once(tmp_path: Path) -> None:
    """It is tried again and again; what was copied straight to its name is told of when it is taken."""
    async with opened(tmp_path) as store:
        told, tries = Told(), 0
        adopter = Adopter(store, told, lambda: 100_000)

        async def found(dropped: Dropped) -> None:
            nonlocal tries
            tries += 1
            await adopter(dropped)

        watcher = Watcher(found, told, still_s=0.01, retry_s=0.01)
        (tmp_path / "notes.img").write_bytes(b"no image at all" * 100)
        watcher.watch({"main": tmp_path})
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(60):
            running = tasks.create_task(watcher.run())
            while tries < 5:
                await asyncio.sleep(0.01)
            running.cancel()
        assert len(told.lines) == 1
        assert told.lines[0].startswith("file not taken")


def _straight(line: str) -> bool:
    return line.startswith("copied straight to its name")


async def test_from_the_rename_to_the_served_image(tmp_path: Path, image: bytes) -> None:
    """Watcher, adopter and store together; a raw file copied straight to its name comes later, with a warning."""
    async with opened(tmp_path) as store:
        told = Told()
        watcher = Watcher(Adopter(store, told, lambda: 100_000), told, still_s=0.2)
        watcher.watch({"main": tmp_path})
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(60):
            running = tasks.create_task(watcher.run())
            while not watcher._watches:
                await asyncio.sleep(0)
            drop(tmp_path, image)
            (tmp_path / "straight.img").write_bytes(bytes(MIB))
            (tmp_path / "straight.img").write_bytes(image)
            while told.lines.count("image appeared") < 2 or not any(map(_straight, told.lines)):
                await asyncio.sleep(0.02)
            while list(tmp_path.glob("*.lock")):
                await asyncio.sleep(0.02)
            running.cancel()
        assert {one.name: one.served is not None for one in store.all()} == {"lab": True, "straight": True}
        assert sum(map(_straight, told.lines)) == 1
        await store.delete("lab")
        assert sorted(entry.name for entry in tmp_path.iterdir() if "lab" in entry.name) == []
