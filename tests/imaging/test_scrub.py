"""Scrub and repair: what is damaged is named and not served; what another item has is put back."""

import asyncio
import os
from contextlib import asynccontextmanager

import pytest

from pbserv.imaging.faults import InUse, StoreClosed, UnknownImage, UnknownTask
from pbserv.imaging.frames.index import Record
from pbserv.imaging.scrub import Pace, ScrubOrder, ordered, scrub
from pbserv.imaging.states import VersionState
from pbserv.imaging.tasks import Cancelled, Report, Tasks, TaskState
from tests.imaging.image_server import until
from tests.imaging.test_sessions import CHANGED, MADE, commit, send
from tests.imaging.test_store import opened, put, read_all

FAST = ScrubOrder(rate_mb=0)
MIB = 1 << 20


@pytest.fixture
async def store(tmp_path):
    async with opened(tmp_path, allow_overwrite=True) as store:
        yield store


async def native(store, name: str, made=MADE):
    session = store.open_session(name, overwrite=bool(store.versions(name)))
    await send(session, "p1", made.stream)
    return await commit(session, "p1", made.stream)


async def record_at(store, image, address: int) -> tuple[int, Record]:
    opened_index = await store.index(image, "p1")
    records = list(enumerate(opened_index.index.frames()))
    opened_index.close()
    head = 2
    return next((number, record) for number, record in records if number >= head and record.address == address)


def damage(path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0xFF]))


async def run(store, order: ScrubOrder = FAST) -> tuple[str, list[str]]:
    lines: list[str] = []
    return await scrub([store], order, Report(), lines.append), lines


@pytest.mark.parametrize("deep", [False, True])
async def test_a_clean_store(store, deep):
    await native(store, "win")
    await put(store, "old")
    report = Report()
    order = ScrubOrder(rate_mb=0, deep=deep)
    assert await scrub([store], order, report, print) == "2 versions verified, none damaged"
    assert report.done == report.total == sum(image.manifest.stored_bytes for image in store.list())
    assert all(version.about.verified for image in store.all() for version in image.versions)


async def test_damage_is_named_by_image_item_byte_and_device_address_and_not_served(store, tmp_path):
    first = await native(store, "win")
    second = await native(store, "win", CHANGED)
    number, record = await record_at(store, second, 0x120000)  # block 300 is in it, which differs
    damage(tmp_path / "win/2/p1", record.offset + 9)
    result, lines = await run(store)
    assert result == "2 versions verified, 1 damaged and not served"
    assert lines == [
        f"image win version 2 item p1: frame {number} at byte {record.offset}, device address 0x120000: "
        "its stored bytes are not those that the index names"
    ]
    assert store.info("win") == first
    assert store.object("win").version(2).damage == lines[0]
    damage(tmp_path / "win/2/p1", record.offset + 9)
    assert (await run(store, ScrubOrder(image="win", version=2, rate_mb=0)))[0] == "1 version verified, none damaged"
    assert store.info("win") == second


async def test_what_was_found_damaged_is_not_served_after_a_restart_either(tmp_path):
    async with opened(tmp_path, allow_overwrite=True) as store:
        await put(store, "win", {"file": b"one"})
        await put(store, "win", {"file": b"two"})
        (tmp_path / "win/2/file").write_bytes(b"tw?")
        assert (await run(store))[0] == "2 versions verified, 1 damaged and not served"
        damaged = store.object("win").version(2).damage
    async with opened(tmp_path, allow_overwrite=True) as store:
        assert (store.info("win").version, store.object("win").version(2).damage) == (1, damaged)
        (tmp_path / "win/2/file").write_bytes(b"two")
        assert "none damaged" in (await run(store))[0]
    async with opened(tmp_path, allow_overwrite=True) as store:
        assert (store.info("win").version, store.object("win").version(2).damage) == (2, "")


async def test_a_frame_that_another_version_has_is_put_back(store, tmp_path):
    await native(store, "win")
    second = await native(store, "other", CHANGED)
    before = (tmp_path / "other/1/p1").read_bytes()
    number, record = await record_at(store, second, 0)
    damage(tmp_path / "other/1/p1", record.offset + 9)
    assert (await run(store, ScrubOrder(rate_mb=0, repair=False)))[0] == "2 versions verified, 1 damaged and not served"
    result, lines = await run(store)
    assert result == "2 versions verified, none damaged, 1 frame repaired"
    assert lines == [
        f"image other version 1 item p1: frame {number} at byte {record.offset}, device address 0x0: its stored bytes "
        "are not those that the index names (repaired from image win version 1 item p1)"
    ]
    assert (tmp_path / "other/1/p1").read_bytes() == before
    assert store.info("other") == second


async def test_a_file_that_was_cut_short_is_put_back(store, tmp_path):
    await native(store, "win")
    image = await native(store, "other")
    before = (tmp_path / "other/1/p1").read_bytes()
    os.truncate(tmp_path / "other/1/p1", len(before) // 2)
    result, _ = await run(store)
    assert "none damaged" in result
    assert (tmp_path / "other/1/p1").read_bytes() == before
    assert await read_all(store, "other", "p1") == before
    assert store.info("other") == image


async def test_items_without_an_index(store, tmp_path):
    await put(store, "old", {"a": b"abc", "b": b"defg"})
    damage(tmp_path / "old/1/a", 0)
    (tmp_path / "old/1/b").write_bytes(b"de")
    _, lines = await run(store)
    assert [line.partition(" item ")[2][:30] for line in lines] == [
        "a: piece 0 at byte 0: its SHA-", "b: piece 0 at byte 0: it has 2",
    ]  # fmt: skip
    with pytest.raises(UnknownImage, match="damaged"):
        store.info("old")
    (tmp_path / "old/1/b").unlink()
    _, lines = await run(store)
    assert "No such file" in lines[1]


async def test_a_small_item_is_put_back_whole(store, tmp_path):
    await put(store, "old", {"a": b"abc", "b": b"defg"})
    await put(store, "other", {"x": b"defg"})
    (tmp_path / "old/1/b").write_bytes(b"dexg and more")
    result, lines = await run(store)
    assert result == "2 versions verified, none damaged, 1 frame repaired"
    assert lines[0].endswith("(repaired from image other version 1 item x)")
    assert (tmp_path / "old/1/b").read_bytes() == b"defg"


async def test_an_item_that_never_got_an_index_gets_one(store, tmp_path):
    """As an older server left it: then its damage is named by piece, and put back by piece."""
    big = os.urandom(3 * MIB + 5)
    for name in ("old", "other"):
        await put(store, name, {"a": big})
    index = tmp_path / "old/1/a.pbx"
    made = index.read_bytes()
    index.unlink()
    used = store.layout.size_of("old", 1)
    store.layout.usage.count(-len(made))
    assert (await run(store, ScrubOrder(image="old", rate_mb=0)))[0] == "1 version verified, none damaged"
    assert index.read_bytes() == made
    assert store.layout.size_of("old", 1) == used + len(made)
    assert store.facts().used_bytes == 2 * store.layout.size_of("old", 1)
    damage(tmp_path / "old/1/a", 2 * MIB + 7)
    result, lines = await run(store)
    assert result == "2 versions verified, none damaged, 1 frame repaired"
    assert lines == [
        f"image old version 1 item a: piece 2 at byte {2 * MIB}: its stored bytes are not those that the index names "
        "(repaired from image other version 1 item a)"
    ]
    assert (tmp_path / "old/1/a").read_bytes() == big


async def test_a_damaged_index_of_pieces_is_made_anew(store, tmp_path):
    await put(store, "old", {"a": os.urandom(3 * MIB)})
    index = tmp_path / "old/1/a.pbx"
    made = index.read_bytes()
    damage(index, 200)
    assert (await run(store))[0] == "1 version verified, none damaged"
    assert index.read_bytes() == made


async def test_a_damaged_index_is_damage(store, tmp_path):
    await native(store, "win")
    damage(tmp_path / "win/1/p1.pbx", 200)
    _, lines = await run(store)
    assert len(lines) == 1
    assert "image win version 1 item p1: index" in lines[0]


async def test_what_is_asked_for_is_verified_the_longest_unverified_first(store):
    for name in ("one", "two", "three"):
        await put(store, name, {"a": b"abc"})
    await run(store, ScrubOrder(image="one", rate_mb=0))
    seen: list[str] = []
    verified = store.verified

    async def watched(name: str, version: int, damage: str) -> None:
        seen.append(name)
        await verified(name, version, damage)

    store.verified = watched
    assert (await run(store))[0].startswith("3 versions")
    assert seen[-1] == "one"
    assert (await run(store, ScrubOrder(store="attic")))[0].startswith("0 versions")
    with pytest.raises(UnknownImage):
        await run(store, ScrubOrder(image="nothing"))


async def test_an_image_that_is_verified_is_not_purged(store):
    await put(store, "win", {"a": b"abc"})
    await store.move("win", 1, VersionState.RETIRED, "anna")
    report = Report()
    report.add = lambda _done: report.wait(60)
    async with asyncio.TaskGroup() as group:
        scrubbing = group.create_task(_cancelled(store, report))
        await until(lambda: bool(store.locks.holds))
        with pytest.raises(InUse, match="is being verified"):
            await store.purge("win", 1)
        report.cancel()
        await scrubbing
    assert store.locks.holds == ()
    await store.purge("win", 1)


async def _cancelled(store, report: Report) -> None:
    with pytest.raises(Cancelled):
        await scrub([store], FAST, report, print)


def test_the_pace_keeps_its_rate():
    now, waited = 100.0, []
    report = Report()

    def wait(seconds: float) -> None:
        nonlocal now
        waited.append(round(seconds, 3))
        now += seconds

    report.wait = wait
    pace = Pace(1000, report, lambda: now)
    for size in (500, 500, 250):
        pace(size)
    now += 10
    pace(100)
    assert waited == [0.5, 0.5]
    report.cancel()
    with pytest.raises(Cancelled):
        pace(1)


class _Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def transaction(self, event: str, /, **fields: object) -> None:
        self.lines.append((event, fields))

    warning = critical = transaction


@asynccontextmanager
async def owned(tasks: Tasks):
    async with asyncio.TaskGroup() as group:
        owner = group.create_task(tasks.own())
        await asyncio.sleep(0)
        yield
        owner.cancel()


async def test_tasks(store):
    await native(store, "win")
    log = _Log()
    tasks = Tasks(log)
    with pytest.raises(StoreClosed):
        tasks.run("scrub", "x", lambda _report: _said("done"))
    with pytest.raises(UnknownTask):
        tasks.one(1)
    backend = _Backend(store)
    async with owned(tasks):
        started = ordered(tasks, backend, FAST, log.critical)
        ended = await tasks.wait(started.number)
        assert (started.state, ended.state, ended.result) == (
            TaskState.RUNNING, TaskState.DONE, "1 version verified, none damaged")  # fmt: skip
        assert (ended.kind, ended.what, ended.done) == ("scrub", "all stores", ended.total)
        failed = await tasks.wait(ordered(tasks, backend, ScrubOrder(image="nothing"), log.critical).number)
        assert (failed.state, failed.result) == (TaskState.FAILED, "image nothing has no version to verify")
        broken = await tasks.wait(tasks.run("convert", "x", _broken).number)
        assert broken.result == "ZeroDivisionError: integer division or modulo by zero"
        endless = tasks.run("convert", "y", _endless)
        assert tasks.cancel(endless.number).state is TaskState.RUNNING
        assert (await tasks.wait(endless.number)).state is TaskState.CANCELLED
        assert [task.number for task in tasks.all()] == [4, 3, 2, 1]
        for _ in range(120):
            await tasks.wait(tasks.run("convert", "z", lambda _report: _said("done")).number)
        assert len(tasks.all()) <= 102
        last = tasks.run("convert", "y", _endless)
        await asyncio.sleep(0)
    assert tasks.one(last.number).result == "the server stopped"
    assert [fields["result"] for _, fields in log.lines[:4]] == ["ok", "failed", "failed", "cancelled"]


class _Backend:
    def __init__(self, store) -> None:
        self._store = store

    async def scrub(self, order, report, tell) -> str:
        return await scrub([self._store], order, report, tell)


async def _said(text: str) -> str:
    return text


async def _broken(_report: Report) -> str:
    return str(1 // 0)


async def _endless(report: Report) -> str:
    while True:
        report.add(1)
        await asyncio.sleep(0)
