"""After a kill at any moment: nothing that was confirmed is lost, no half image is visible, uploads go on."""

import asyncio
import hashlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import zstandard

from pbserv.imaging.about import About
from pbserv.imaging.adopt import remove_own_locks
from pbserv.imaging.faults import UnknownImage
from pbserv.imaging.states import VersionState
from pbserv.imaging.stores import Stores
from pbserv.imaging.sum_files import read_sums, stale
from pbserv.imaging.tasks import Report
from tests.imaging.crashing import FIRST, OWNER, PARTS, SECOND, TABLE, manifest_text, stores_of, take
from tests.imaging.test_sessions import CHANGED, KIND, MADE, commit, send
from tests.imaging.test_store import chunks_of, opened, read_all

Killed = list[tuple[Path, list[str]]]
"""The store of every child that was killed, and what it had been told."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Killed:
    return _killed("uploads", tmp_path_factory, _first)


@pytest.fixture(scope="module")
def killed_with_drops(tmp_path_factory) -> Killed:
    return _killed("drops", tmp_path_factory, _registered)


def _killed(scenario: str, folders: pytest.TempPathFactory, prepare: Callable[[Path], Awaitable[None]]) -> Killed:
    folder = folders.mktemp("killed")
    template = folders.mktemp("template") / "store"
    asyncio.run(_play(scenario, prepare, template, folder))
    roots = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: int(path.name))
    return [(root, (folder / f"{root.name}.heard").read_text().splitlines()) for root in roots]


async def _play(scenario: str, prepare: Callable[[Path], Awaitable[None]], template: Path, folder: Path) -> None:
    await prepare(template)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.imaging.crashing", scenario, str(template), str(folder)
    )
    assert await process.wait() == 0


async def _first(root: Path) -> None:
    async with opened(root) as store:
        session = store.open_session("win")
        await send(session, "p1", MADE.stream)
        await commit(session, "p1", MADE.stream)


async def _registered(root: Path) -> None:
    async with opened(root) as store:
        await store.register("lab", About(title="room"))


async def plain(store, version: int) -> bytes:
    stored = await read_all(store, "win", "p1", version)
    return zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True).read()


async def test_the_store_is_whole_after_every_kill(killed):
    assert len(killed) > 30
    told_of_all: set[str] = set()
    for root, heard in killed:
        told_of_all |= set(heard)
        async with opened(root, allow_overwrite=True, jobs=[17]) as store:
            try:
                await _check(store, root, heard)
            except Exception as error:
                raise AssertionError(f"killed before step {root.name}, after {heard[-1:]}") from error
        async with opened(root, jobs=[17]) as store:
            assert (store.damages, store.leftovers) == ((), ())
    assert {"table", "part 1", "complete", "committed", "titled", "retired", "purged", "gone"} <= told_of_all


async def _check(store, root: Path, heard: list[str]) -> None:
    assert store.damages == ()
    versions = store.versions("win")
    assert ("committed" not in heard) or 2 in versions
    assert (1 in versions) if "retired" not in heard else (1 not in versions) if "purged" in heard else True
    for version in versions:
        assert await plain(store, version) == (MADE, CHANGED)[version - 1].plain
    image = store.object("win")
    if 2 in versions:
        assert store.sessions() == ()
        assert (image.served.version, image.served.facts.job) == (2, 17)
        assert store.untold[0].version == 2
    else:
        assert image.served.version == 1
    if "titled" in heard:
        assert image.about.title == "second"
    if "retired" in heard and 1 in versions:
        assert image.version(1).state is VersionState.RETIRED
    assert ("lab" in store.names) or "registered" not in heard or "purged" in heard
    _check_files(store, root)
    if 2 not in versions:
        await _go_on(store, heard)


def _check_files(store, root: Path) -> None:
    sessions = {f"{session.image}.{session.number}" for session in store.sessions()}
    assert set(os.listdir(root / ".incoming")) == sessions
    known = {"win", "lab", ".incoming", ".store"}
    assert set(os.listdir(root)) <= known
    inside = {name for path in (root / "win").iterdir() for name in ([path.name] if path.is_file() else [])}
    assert inside <= {"about"}
    if not sessions:
        files = [path for path in (root / "win").glob("*/*")]
        assert store.facts().used_bytes == sum(path.stat().st_size for path in files)


async def _go_on(store, heard: list[str]) -> None:
    """The device sends what it was not told of, and commits."""
    confirmed = sum(line.startswith("part ") for line in heard)
    session = next(iter(store.sessions()), None)
    if session is None:
        assert heard == []
        session = store.open_session("win", overwrite=True, owner=OWNER)
    progress = session.progress()
    assert "table" in progress or "table" not in heard
    assert session.next_part("p1") in (confirmed + 1, confirmed + 2)
    if "table" not in progress:
        await session.receive("table", chunks_of(TABLE))
    for number in range(confirmed + 1, len(PARTS) + 1):  # one of them may have arrived
        await session.part("p1", KIND, number, chunks_of(PARTS[number - 1]), None)
    await session.complete("p1", len(PARTS), len(CHANGED.stream))
    image = await session.commit(manifest_text())
    assert image.version == 2
    assert await plain(store, 2) == CHANGED.plain
    assert await read_all(store, "win", "table") == TABLE


async def test_dropped_files_are_whole_after_every_kill(killed_with_drops: Killed) -> None:
    assert len(killed_with_drops) > 60
    told_of_all: set[str] = set()
    for root, heard in killed_with_drops:
        told_of_all |= set(heard)
        try:
            await _started_again(root, heard)
        except Exception as error:
            raise AssertionError(f"killed before step {root.name}, after {heard[-1:]}") from error
    assert {"first", "second", "again", "converted", "retired", "purged"} <= told_of_all


async def _started_again(root: Path, heard: list[str]) -> None:
    stores = stores_of(root)
    await stores.start()
    try:
        _check_drops(stores, root, heard)
        remove_own_locks(root)
        if (root / "lab.img").exists():  # after a start every file is handed on
            await take(stores, root / "lab.img")
            _check_taken(stores, root)
        lines: list[str] = []
        assert "0 leftovers removed, none damaged" in await stores.check("main", Report(), lines.append)
        assert lines == []
    finally:
        await stores.close()
    async with opened(root) as store:
        assert (store.damages, store.leftovers) == ((), ())
        if "lab" in store.names:
            await store.delete("lab")
        assert not list(root.glob("*lab*"))


def _check_drops(stores: Stores, root: Path, heard: list[str]) -> None:
    """What the start made of it: nothing that was confirmed is lost, nothing half-made is left."""
    (facts,) = stores.stores()
    assert facts.damages == ()
    assert os.listdir(root / ".incoming") == []
    beside = {"lab.img", "lab.img.sum", "lab.img.full.sum", "lab.img.lock"}
    assert set(os.listdir(root)) <= {".incoming", ".store", "lab", "copy", *beside}
    try:
        image = stores.object("lab")
    except UnknownImage:
        assert "purged" in heard
        assert not any((root / name).exists() for name in beside)
        return
    versions = stores.versions("lab")
    assert image.about.title == "room"
    assert facts.used_bytes == sum(path.stat().st_size for path in root.glob("lab/*/*"))
    assert ("first" not in heard) or 1 in versions
    assert ("second" not in heard) or 2 in versions or "retired" in heard
    assert ("converted" not in heard) or 3 in versions
    for number in versions:
        item = _item(stores, root, number)
        assert hashlib.sha256(item.read_bytes()).hexdigest() == stores.info("lab", number).manifest.items[0].sha256
        assert number == 3 or item.read_bytes() == (FIRST, SECOND)[number - 1]
    if "again" in heard and 2 in versions:
        assert os.path.samefile(root / "lab.img", _item(stores, root, 2))
        assert ("retired" not in heard) or image.version(2).state is VersionState.RETIRED
    if "again" in heard and 2 not in versions:
        assert not any((root / name).exists() for name in beside)


def _check_taken(stores: Stores, root: Path) -> None:
    """The file is a version, its bytes are no version twice, and its checksums are its own."""
    path = root / "lab.img"
    files = [_item(stores, root, number) for number in stores.versions("lab")]
    assert [os.path.samefile(path, file) for file in files].count(True) == 1
    assert len({file.read_bytes() for file in files}) == len(files)
    content = path.read_bytes()
    made = tuple(hashlib.md5(part, usedforsecurity=False).hexdigest() for part in (content[-(1 << 20) :], content))
    assert (read_sums(path), stale(path)) == (made, False)
    assert not (root / "lab.img.lock").exists()


def _item(stores: Stores, root: Path, number: int) -> Path:
    return root / "lab" / str(number) / stores.info("lab", number).manifest.items[0].name
