"""Which files of a directory are handed on, and when: renamed ones at once, others when nobody writes any more."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pbserv.errors import PbservError
from pbserv.imaging.watch import Dropped, Watcher, being_written, facts_of, image_name

PATIENCE_S = 60


class Found:
    """What was handed on, in order; ``refuse`` says so with a reason."""

    fault: type[Exception] = PbservError

    def __init__(self) -> None:
        self.all: list[Dropped] = []
        self.refuse: dict[str, str] = {}
        self.warnings: list[str] = []
        self._changed = asyncio.Event()

    async def __call__(self, dropped: Dropped) -> None:
        self.all.append(dropped)
        self._changed.set()
        if dropped.name in self.refuse:
            raise self.fault(self.refuse[dropped.name])

    def warning(self, event: str, **fields: object) -> None:
        self.warnings.append(f"{event}: {fields.get('reason')}")

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    @property
    def names(self) -> list[str]:
        return [dropped.name for dropped in self.all]


@asynccontextmanager
async def watching(
    folder: Path, found: Found, *, still_s: float = 0.3, rescan_s: float = 600.0, retry_s: float = 600.0
) -> AsyncIterator[Watcher]:
    """A watcher at work; its first look has been had when the body begins."""
    watcher = Watcher(found, found, still_s=still_s, rescan_s=rescan_s, retry_s=retry_s)
    watcher.watch({"main": folder})
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watcher.run())
        while not watcher._watches:
            await asyncio.sleep(0)
        rename(folder / "first.img")
        await found.until(lambda: "first" in found.names)
        found.all.clear()
        try:
            yield watcher
        finally:
            running.cancel()


def rename(path: Path, content: bytes = b"image") -> Path:
    """Copied under another name and renamed when it was complete, as the rule is."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    return new.rename(path)


@pytest.mark.parametrize(
    ("file", "name"),
    [("lab.img", "lab"), ("win_10-a.dsk", "win_10-a"), ("old.pgz", "old"), ("lab.img.diff", None),
     ("lab.img.sum", None), ("lab.img.lock", None), (".lab.img", None), ("a b.img", None), ("lab.IMG", None),
     ("v1.2.img", None), (".img", None), ("lab", None), ("a" * 64 + ".img", "a" * 64), ("a" * 65 + ".img", None),
     ("lab.img\n", None)],
)  # fmt: skip
def test_names(file: str, name: str | None) -> None:
    assert image_name(file) == name


async def test_a_renamed_file_is_handed_on_at_once(tmp_path: Path) -> None:
    found = Found()
    async with watching(tmp_path, found, still_s=3600) as _:
        path = rename(tmp_path / "lab.img")
        await found.until(lambda: found.names == ["lab"])
        assert found.all == [Dropped("main", path, "lab", renamed=True)]
        rename(path, b"the next version")
        await found.until(lambda: found.names == ["lab", "lab"])


async def test_a_file_copied_to_its_name_is_waited_for(tmp_path: Path) -> None:
    found = Found()
    async with watching(tmp_path, found) as _:
        with (tmp_path / "lab.img").open("wb") as file:
            for _number in range(5):
                file.write(bytes(1000))
                file.flush()
                await asyncio.sleep(0.2)
                assert found.names == []
        await found.until(lambda: found.names == ["lab"])
        assert found.all[0].renamed is False


async def test_a_file_that_somebody_holds_open_is_not_complete(tmp_path: Path) -> None:
    """It stands still for long, as a copy over a network does that hangs."""
    found = Found()
    path = tmp_path / "lab.img"
    program = "import sys; f = open(sys.argv[1], 'ab'); print('open', flush=True); sys.stdin.read(); f.write(b'end')"
    writer = subprocess.Popen(
        ["python3", "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout
        assert writer.stdin
        assert writer.stdout.readline() == "open\n"
        assert being_written(path)
        async with watching(tmp_path, found) as _:
            await asyncio.sleep(1.5)
            assert found.names == []
            writer.stdin.close()
            await found.until(lambda: found.names == ["lab"])
            assert path.read_bytes() == b"end"
    assert not being_written(path)
    assert not being_written(tmp_path / "missing")


async def test_hard_links_are_files_too_and_other_things_are_not(tmp_path: Path) -> None:
    found = Found()
    (tmp_path / "source").write_bytes(b"x")
    async with watching(tmp_path, found) as _:
        (tmp_path / "folder.img").mkdir()
        os.mkfifo(tmp_path / "pipe.img")
        (tmp_path / "link.img").symlink_to("/etc/passwd")
        os.link(tmp_path / "source", tmp_path / "linked.img")
        rename(tmp_path / "last.img")
        await found.until(lambda: {"linked", "last"} <= set(found.names))
        assert set(found.names) == {"linked", "last"}


async def test_what_was_there_before_is_found_at_the_start(tmp_path: Path) -> None:
    found = Found()
    for name in ("old.img", "new.img"):
        (tmp_path / name).write_bytes(b"x")
    async with watching(tmp_path, found, still_s=1.0):
        await found.until(lambda: {"old", "new"} <= {*found.names})


async def test_a_deleted_file_is_forgotten_and_handed_on_when_it_comes_back(tmp_path: Path) -> None:
    found = Found()
    async with watching(tmp_path, found, still_s=3600) as _:
        path = rename(tmp_path / "lab.img")
        await found.until(lambda: found.names == ["lab"])
        path.rename(tmp_path / "aside")
        (tmp_path / "aside").rename(path)
        await found.until(lambda: found.names == ["lab", "lab"])


async def test_what_inotify_lost_is_found_by_looking_again(tmp_path: Path) -> None:
    found = Found()
    async with watching(tmp_path, found, rescan_s=1.0) as watcher:
        assert watcher._inotify is not None
        for number in list(watcher._watches):
            watcher._inotify.rm_watch(number)  # as if its queue had run over
        rename(tmp_path / "lab.img")
        await found.until(lambda: "lab" in found.names)


async def test_a_queue_that_runs_over_makes_it_look_again(tmp_path: Path) -> None:
    found = Found()
    async with watching(tmp_path, found) as watcher:
        path = tmp_path / "lab.img"
        path.write_bytes(b"x")
        watcher._candidates.clear()
        watcher._heard(-1, 0x4000, "")  # IN_Q_OVERFLOW
        watcher._wake.set()
        await found.until(lambda: "lab" in found.names)


@pytest.mark.parametrize("fault", [PbservError, OSError])
async def test_a_file_that_is_refused_is_tried_again_and_told_of_once(tmp_path: Path, fault: type[Exception]) -> None:
    """Also where the disk refuses it: a full one ends nobody's watching."""
    found = Found()
    found.fault = fault
    found.refuse["lab"] = "lab.img.lock exists"
    async with watching(tmp_path, found, retry_s=0.2) as _:
        rename(tmp_path / "lab.img")
        await found.until(lambda: len(found.names) >= 3)
        rename(tmp_path / "other.img")
        await found.until(lambda: "other" in found.names)
        found.refuse.clear()
        count = len(found.names)
        await found.until(lambda: len(found.names) > count)
    assert found.warnings == ["file not taken: lab.img.lock exists"]


async def test_directories_come_and_go(tmp_path: Path) -> None:
    found = Found()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    async with watching(tmp_path / "one", found) as watcher:
        watcher.watch({"two": tmp_path / "two", "missing": tmp_path / "nowhere"})
        rename(tmp_path / "one" / "not.img")
        rename(tmp_path / "two" / "lab.img")
        await found.until(lambda: "lab" in found.names)
        assert [(one.store, one.name) for one in found.all] == [("two", "lab")]
    assert found.warnings == ["new files are noticed late: inotify: No such file or directory"]


async def test_a_slow_taker_loses_nothing(tmp_path: Path) -> None:
    found = Found()
    go_on = asyncio.Event()

    async def slow(dropped: Dropped) -> None:
        await go_on.wait()
        await found(dropped)

    await _burst(tmp_path, found, slow, go_on)


async def _burst(folder: Path, found: Found, taker: Callable[[Dropped], Awaitable[None]], go_on: asyncio.Event) -> None:
    watcher = Watcher(taker, found, still_s=3600)
    watcher.watch({"main": folder})
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watcher.run())
        while not watcher._watches:
            await asyncio.sleep(0)
        for number in range(50):
            rename(folder / f"lab{number}.img")
            if number == 25:
                await asyncio.sleep(0.1)
        go_on.set()
        await found.until(lambda: len(set(found.names)) == 50)
        running.cancel()


def test_facts_are_those_of_plain_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    facts = facts_of(tmp_path / "a")
    assert facts
    assert facts[2] == 3
    assert facts_of(tmp_path) is None
