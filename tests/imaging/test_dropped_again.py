"""A file that is dropped a second time is the version that it was before, and what a kill left half-made goes."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path

import pytest

from pbserv.imaging import adopt as adopting
from pbserv.imaging import linking, sum_files
from pbserv.imaging.about import About
from pbserv.imaging.adopt import Adopter
from pbserv.imaging.faults import Changed
from pbserv.imaging.states import VersionState
from pbserv.imaging.stores import Stores
from pbserv.imaging.sum_files import half_made, stale
from pbserv.imaging.tasks import Report
from pbserv.imaging.watch import Dropped, Watcher, facts_of
from tests.imaging.test_adopt import Told, adopt, drop, opened, stored, sums_of
from tests.imaging.test_sessions import MADE

IMAGE = gzip.compress(MADE.stream, mtime=0)


async def watched(stores: Stores, root: Path, told: Told) -> None:
    """What a start of the server does with the files that are there, until all of them were handed on."""
    seen: list[Path] = []
    adopter = Adopter(stores, told, lambda: 100_000)

    async def found(dropped: Dropped) -> None:
        await adopter(dropped)
        seen.append(dropped.path)

    watcher = Watcher(found, told, still_s=0)
    watcher.watch({"main": root})
    (root / "mark.img").unlink(missing_ok=True)
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(60):
        running = tasks.create_task(watcher.run())
        while not watcher._watches:
            await asyncio.sleep(0)
        drop(root, IMAGE, "mark.img")  # the last one
        while root / "mark.img" not in seen:
            await asyncio.sleep(0.01)
        running.cancel()


async def test_the_same_bytes_again_go_with_the_version(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        told = Told()
        await adopt(store, drop(tmp_path, IMAGE), told)
        used = store.stores()[0].used_bytes
        path = drop(tmp_path, IMAGE)
        await adopt(store, path, told)
        assert store.versions("lab") == (1,)
        assert os.path.samefile(path, stored(tmp_path, store))
        assert ((tmp_path / "lab.img.sum").read_text().strip(), stale(path)) == (sums_of(path)[0], False)
        assert store.stores()[0].used_bytes == used
        await adopt(store, path, told)  # as inotify hands it on
        assert (store.versions("lab"), told.lines) == ((1,), ["image appeared"])
        await store.move("lab", 1, VersionState.RETIRED, "anna")
        await store.purge("lab", 1)
        assert not list(tmp_path.glob("*lab*"))
    async with opened(tmp_path) as store:
        await watched(store, tmp_path, told)
        assert [image.name for image in store.all()] == ["mark"]


async def test_it_can_be_read_by_whom_it_could_be_before(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        first = drop(tmp_path, IMAGE)
        first.chmod(0o600)
        await adopt(store, first)
        again = drop(tmp_path, IMAGE)
        again.chmod(0o644)
        await adopt(store, again)
        assert os.path.samefile(again, stored(tmp_path, store))
        assert again.stat().st_mode & 0o777 == 0o644


async def test_good_bytes_do_not_give_way_to_damaged_ones(tmp_path: Path) -> None:
    """The version was damaged on the disk, and nobody had found that out yet."""
    async with opened(tmp_path) as store:
        await adopt(store, drop(tmp_path, IMAGE))
        first = stored(tmp_path, store)
        with first.open("r+b") as file:
            file.seek(1000)
            file.write(b"rotten")
        told = Told()
        path = drop(tmp_path, IMAGE)
        await adopt(store, path, told)
        assert path.read_bytes() == IMAGE
        assert os.path.samefile(path, tmp_path / "lab/2" / first.name)
        assert (store.info("lab").version, store.versions("lab")) == (2, (1, 2))
        assert "not those that the manifest names" in store.object("lab").version(1).damage
        assert [line.partition(":")[0] for line in told.lines] == ["version damaged", "image appeared"]


async def test_bytes_that_are_dropped_to_have_them_back(tmp_path: Path) -> None:
    """Their version was retired, and goes soon: they are the next one."""
    async with opened(tmp_path) as store:
        await adopt(store, drop(tmp_path, IMAGE))
        await store.move("lab", 1, VersionState.RETIRED, "anna")
        path = drop(tmp_path, IMAGE)
        await adopt(store, path)
        assert (store.info("lab").version, store.versions("lab")) == (2, (1, 2))
        await store.purge("lab", 1)
        assert path.read_bytes() == IMAGE
        assert store.versions("lab") == (2,)


async def test_a_version_whose_bytes_are_gone_keeps_no_good_copy_out(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await adopt(store, drop(tmp_path, IMAGE))
        stored(tmp_path, store).unlink()
        await adopt(store, drop(tmp_path, IMAGE))
        assert (store.info("lab").version, store.versions("lab")) == (2, (1, 2))
        assert "No such file" in store.object("lab").version(1).damage


async def test_a_version_that_is_purged_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file came after it, so it stays, and is an image of its own the next time."""
    async with opened(tmp_path) as store:
        await adopt(store, drop(tmp_path, IMAGE))
        loop = asyncio.get_running_loop()

        async def purged() -> None:
            await store.move("lab", 1, VersionState.RETIRED, "anna")
            await store.purge("lab", 1)

        def late(file: Path, item: Path, facts: tuple[int, int, int, int]) -> None:
            asyncio.run_coroutine_threadsafe(purged(), loop).result(60)
            linking.exchange(file, item, facts)

        monkeypatch.setattr(adopting, "exchange", late)
        path = drop(tmp_path, IMAGE)
        with pytest.raises(Changed, match="looked at again"):
            await adopt(store, path)
        assert path.read_bytes() == IMAGE
        assert half_made_in(tmp_path) == []
        await adopt(store, path)
        assert store.versions("lab") == (1,)


async def test_a_file_that_comes_in_its_place_stays(tmp_path: Path) -> None:
    item, path = tmp_path / "item", tmp_path / "lab.img"
    item.write_bytes(b"one")
    path.write_bytes(b"one")
    facts = facts_of(path)
    assert facts
    drop(tmp_path, b"two")
    linking.exchange(path, item, facts)
    assert path.read_bytes() == b"two"
    path.unlink()
    with pytest.raises(FileNotFoundError):
        linking.exchange(path, item, facts)
    assert os.listdir(tmp_path) == ["item"]


async def test_a_link_that_is_refused_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    async with opened(tmp_path) as store:
        await adopt(store, drop(tmp_path, IMAGE))
        monkeypatch.setattr(adopting, "exchange", refused)
        told = Told()
        await adopt(store, drop(tmp_path, IMAGE), told)
        assert [line.partition(":")[0] for line in told.lines] == [
            "file has the bytes of a version and is not its second name"
        ]
        assert store.versions("lab") == (1,)


async def test_a_file_under_the_name_of_a_registered_image_is_its_first_version(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.register("lab", About(title="the room on the left", partition=3))
        await adopt(store, drop(tmp_path, IMAGE))
        image = store.object("lab")
        assert (store.versions("lab"), image.served and image.served.version) == ((1,), 1)
        assert (image.about.title, image.about.partition) == ("the room on the left", 3)
    async with opened(tmp_path) as store:
        assert store.object("lab").about == image.about


INNOCENT = (
    ".lab.img.sum.0123abcd.old",  # other endings
    ".lab.img.sum.0123abcd",
    ".lab.img.sum.0123ABCD.new",  # we write small letters
    ".lab.img.sum.0123abc.new",  # seven
    ".lab.img.lock.0123abcd.new",
    ".lab.txt.sum.0123abcd.new",  # no image
    ".a.b.img.sum.0123abcd.new",
    "lab.img.sum.0123abcd.new",  # not hidden
    ".sum.0123abcd.new",
)


async def test_what_a_kill_left_half_made_goes_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await adopt(store, drop(tmp_path, IMAGE))
        item = stored(tmp_path, store)
    ours = [".lab.img.0123abcd.new", ".lab.img.full.sum.89abcdef.new", ".lab.img.sum.0123abcd.new"]
    for name in (*ours[1:], *INNOCENT):
        (tmp_path / name).write_bytes(b"0" * 32 + b"\n")
    os.link(item, tmp_path / ours[0])
    (tmp_path / ".lab.img.ffffffff.new").write_bytes(IMAGE)  # these bytes are nowhere else
    (tmp_path / ".lab.img.sum.fffffff0.new").write_bytes(IMAGE)  # and no checksum is so long
    (tmp_path / ".lab.img.sum.fffffff1.new").mkdir()
    (tmp_path / ".lab.img.sum.fffffff2.new").symlink_to("lab.img.sum")
    before = set(os.listdir(tmp_path))
    assert half_made_in(tmp_path) == ours
    async with opened(tmp_path) as store:
        assert before - set(os.listdir(tmp_path)) == set(ours)
        assert stored(tmp_path, store).read_bytes() == IMAGE
        (tmp_path / ours[1]).write_bytes(b"")  # killed before the first byte
        lines: list[str] = []
        await store.check("main", Report(), lines.append)
        assert lines == [f"{ours[1]}: nobody works on it"]
        with sum_files.beside(tmp_path / "lab.img.sum") as new:  # somebody does
            new.write_bytes(b"0" * 32)
            await store.check("main", Report(), lines.append)
            assert new.exists()
        assert not new.exists()


def half_made_in(folder: Path) -> list[str]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return half_made(descriptor)
    finally:
        os.close(descriptor)
