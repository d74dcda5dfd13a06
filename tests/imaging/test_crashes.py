"""After a kill at any moment: nothing that was confirmed is lost, no half image is visible, uploads go on."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
import zstandard

from pbserv.imaging.states import VersionState
from tests.imaging.crashing import OWNER, PARTS, TABLE, manifest_text
from tests.imaging.test_sessions import CHANGED, KIND, MADE, commit, send
from tests.imaging.test_store import chunks_of, opened, read_all


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> list[tuple[Path, list[str]]]:
    """The store of every child that was killed, and what it had been told."""
    folder = tmp_path_factory.mktemp("killed")
    template = tmp_path_factory.mktemp("template") / "store"
    asyncio.run(_first(template))
    asyncio.run(_children(template, folder))
    roots = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: int(path.name))
    return [(root, (folder / f"{root.name}.heard").read_text().splitlines()) for root in roots]


async def _first(root: Path) -> None:
    async with opened(root) as store:
        session = store.open_session("win")
        await send(session, "p1", MADE.stream)
        await commit(session, "p1", MADE.stream)


async def _children(template: Path, folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.imaging.crashing", str(template), str(folder)
    )
    assert await process.wait() == 0


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
