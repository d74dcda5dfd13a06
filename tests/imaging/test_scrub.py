"""Scrub and repair: what is damaged is named and not served; what another item has is put back."""

import asyncio
import errno
import os
import shutil
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import zstandard

from pbserv.imaging.faults import DamagedImage, InUse, StoreClosed, StoreFull, UnknownImage, UnknownTask
from pbserv.imaging.frames import reader
from pbserv.imaging.frames.index import Record, decode_header, encode_header
from pbserv.imaging.frames.reader import FrameDamage
from pbserv.imaging.repair import Repairer
from pbserv.imaging.scrub import Pace, ScrubOrder, ordered, scrub
from pbserv.imaging.states import VersionState
from pbserv.imaging.tasks import Cancelled, Report, Tasks, TaskState
from tests.imaging.image_server import until
from tests.imaging.test_sessions import CHANGED, MADE, commit, manifest_of, send
from tests.imaging.test_store import chunks_of, opened, put, read_all

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


async def test_an_index_of_another_version_is_damage_and_nothing_is_repaired_by_it(store, tmp_path):
    first = await native(store, "win")
    second = await native(store, "win", CHANGED)
    before = (tmp_path / "win/2/p1").read_bytes()
    shutil.copyfile(tmp_path / "win/1/p1.pbx", tmp_path / "win/2/p1.pbx")
    for ask in (store.index, store.index_header):
        with pytest.raises(DamagedImage, match=r"image win version 2 item p1: index: it is of \d+ bytes with SHA-256"):
            await ask(second, "p1")
    result, [line] = await run(store)
    assert result == "2 versions verified, 1 damaged and not served"
    assert line.startswith("image win version 2 item p1: index: it is of ")
    assert (tmp_path / "win/2/p1").read_bytes() == before
    assert store.info("win") == first
    with pytest.raises(DamagedImage, match="index: it is of"):
        Repairer([store], store, second, "p1").repair([FrameDamage(0, 0, "header", 0, "damaged")])


async def test_an_index_that_agrees_with_itself_is_the_one_that_was_committed(store, tmp_path):
    image = await native(store, "win")
    index = tmp_path / "win/1/p1.pbx"
    data = index.read_bytes()
    index.write_bytes(encode_header(replace(decode_header(data), device_bytes=4096)) + data[160:])
    (await store.index(image, "p1")).close()
    result, [line] = await run(store)
    assert "1 damaged" in result
    assert line.startswith("image win version 1 item p1: index: its SHA-256 is ")
    with pytest.raises(DamagedImage, match="index: its SHA-256"):
        Repairer([store], store, image, "p1").repair([FrameDamage(0, 0, "header", 0, "damaged")])
    index.write_bytes(data)
    assert "none damaged" in (await run(store))[0]


async def test_an_index_of_another_file_is_made_anew(store, tmp_path):
    await put(store, "old", {"a": os.urandom(3 * MIB)})
    await put(store, "other", {"a": os.urandom(3 * MIB)})
    made = (tmp_path / "old/1/a.pbx").read_bytes()
    shutil.copyfile(tmp_path / "other/1/a.pbx", tmp_path / "old/1/a.pbx")
    assert (await run(store))[0] == "2 versions verified, none damaged"
    assert (tmp_path / "old/1/a.pbx").read_bytes() == made


async def test_what_a_scrub_made_for_a_lost_index_is_no_damage_later(store, tmp_path):
    data = os.urandom(3 * MIB)
    session = store.open_session("win")
    await session.part("disk", "raw", 1, chunks_of(zstandard.compress(data)), None)
    arrived = await session.complete("disk", 1, len(data))
    await session.commit(manifest_of(disk=("raw", arrived.size_bytes, arrived.sha256, len(data))))
    index = tmp_path / "win/1/disk.pbx"
    before = index.read_bytes()
    index.unlink()
    for _ in range(2):
        assert (await run(store))[0] == "1 version verified, none damaged"
    assert index.read_bytes() != before, "it is of pieces now"


async def test_a_version_whose_result_cannot_be_written_down_does_not_end_the_scrub(store, monkeypatch):
    for name in ("one", "three", "two"):
        await put(store, name, {"a": b"abc"})
    change = store.layout.change_about

    def full(name, *rest, **options):
        if name == "one":
            raise StoreFull("image one: writing about: No space left on device; make room or delete images")
        return change(name, *rest, **options)

    monkeypatch.setattr(store.layout, "change_about", full)
    result, lines = await run(store)
    assert result == "2 versions verified, none damaged; 1 version could not be verified: see the log"
    assert lines == [
        "image one version 1: what was found could not be written down: image one: writing about: No space left on "
        "device; make room or delete images"
    ]
    verified = {image.name: bool(image.version(1).about.verified) for image in store.all()}
    assert verified == {"one": False, "three": True, "two": True}


async def test_a_full_temporary_directory_does_not_end_a_deep_scrub(store, monkeypatch, tmp_path):
    first = await native(store, "win")
    await native(store, "win", CHANGED)
    await put(store, "other", {"a": b"abc"})
    made = reader.tempfile.TemporaryFile
    left = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]

    def full(*args, **options):
        if left:
            raise left.pop()
        return made(*args, **options)

    monkeypatch.setattr(reader.tempfile, "TemporaryFile", full)
    report = Report()
    lines: list[str] = []
    order = ScrubOrder(rate_mb=0, deep=True)
    result = await scrub([store], order, report, lines.append)
    assert result == "2 versions verified, none damaged; 1 version could not be verified: see the log"
    assert lines == ["image win version 1 item p1: it was not verified to its end: No space left on device"]
    assert report.done == report.total
    assert [version.about.verified is None for version in store.object("win").versions] == [True, False]
    assert store.info("win", 1) == first
    assert (await run(store, order))[0] == "3 versions verified, none damaged"


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
