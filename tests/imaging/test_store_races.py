"""What changes while a purge, an upload or a registration waits; and a purge on a full disk."""

import asyncio
import errno
import os
import threading
from collections.abc import Awaitable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from pbserv.imaging import layout as layout_module
from pbserv.imaging.about import About, AboutChange
from pbserv.imaging.faults import ImageExists, ImagingFault, InUse, StoreFault, UnknownImage, UploadRunning, WrongState
from pbserv.imaging.states import VersionState
from tests.imaging.image_server import files_below
from tests.imaging.test_store import chunks_of, manifest_of, opened, put
from tests.imaging.test_store_states import put_many, states
from tests.imaging.test_stores import running, settings_of

VALIDATED, ENABLED, DISABLED, RETIRED = VersionState


@pytest.fixture
async def store(tmp_path):
    async with opened(tmp_path / "images", allow_overwrite=True) as store:
        yield store


@contextmanager
def all_writers_busy(store):
    """Nothing that needs a writer goes on before the end of the block."""
    free = threading.Event()
    for _ in range(store._writers._max_workers):
        store._writers.submit(free.wait, 20)
    try:
        yield
    finally:
        free.set()


async def fault_of(work: Awaitable[object]) -> ImagingFault | None:
    """How it ended, for a task of a group."""
    try:
        await work
    except ImagingFault as fault:
        return fault
    return None


@pytest.fixture
def full(monkeypatch):
    """Call it with how many times ``about`` cannot be written from now on."""

    def fill(times: int) -> None:
        left = iter(range(times))
        replace = replace_durably

        def refused(*arguments) -> None:
            if next(left, None) is not None:
                raise OSError(errno.ENOSPC, "No space left on device")
            replace(*arguments)

        monkeypatch.setattr(layout_module, "replace_durably", refused)

    replace_durably = layout_module.replace_durably
    return fill


@pytest.mark.parametrize("version", [1, 3])
async def test_a_purge_on_a_full_disk_frees_it_and_no_number_is_given_twice(tmp_path, full, version):
    async with opened(tmp_path, allow_overwrite=True) as store:
        await put_many(store, "win", 3)
        await store.move("win", version, RETIRED, "anna")
        used = store.facts().used_bytes
        full(100)
        await store.purge("win", version)
        left = [number for number in (1, 2, 3) if number != version]
        assert (list(states(store, "win")), os.listdir(tmp_path / ".incoming")) == (left, [])
        assert used > store.facts().used_bytes == sum(path.stat().st_size for path in tmp_path.glob("win/*/*"))
        assert store.layout.at_work == set()
        full(0)
    async with opened(tmp_path, allow_overwrite=True) as store:
        assert (list(states(store, "win")), store.damages) == (left, ())
        assert (await put(store, "win", {"a": b"x"})).version == 4


async def test_what_is_said_is_written_when_the_purge_has_made_room(store, full):
    await put_many(store, "win", 2)
    await store.move("win", 1, RETIRED, "anna")
    full(1)
    await store.purge("win", 1)
    assert '"1"' not in (store.root / "win/about").read_text()


async def test_a_purge_that_cannot_remove_the_bytes_says_so_and_the_version_is_gone(store, monkeypatch):
    await put_many(store, "win", 2)
    await store.move("win", 1, RETIRED, "anna")
    removed = layout_module.remove_entry

    def broken(*_arguments) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(layout_module, "remove_entry", broken)
    with pytest.raises(StoreFault, match="Input/output error"):
        await store.purge("win", 1)
    assert store.versions("win") == (2,)
    monkeypatch.setattr(layout_module, "remove_entry", removed)
    left = await asyncio.to_thread(store.layout.remove_leftovers, store.layout.at_work)
    assert len(left) == 1, "a check removes it"


async def test_a_version_is_gone_while_its_bytes_are_still_being_removed(store, monkeypatch):
    await put_many(store, "win", 2)
    await store.move("win", 2, RETIRED, "anna")
    removing, held = threading.Event(), threading.Event()
    remove = store.layout.remove_incoming

    def slow(name: str) -> None:
        removing.set()
        held.wait(20)
        remove(name)

    monkeypatch.setattr(store.layout, "remove_incoming", slow)
    async with asyncio.TaskGroup() as group:
        group.create_task(store.purge("win", 2))
        try:
            await asyncio.to_thread(removing.wait, 20)
            assert (store.info("win").version, store.versions("win")) == (1, (1,))
        finally:
            held.set()


async def test_a_version_that_was_restored_meanwhile_is_not_purged(store):
    await put_many(store, "win", 2)
    await store.move("win", 1, RETIRED, "anna")
    async with asyncio.TaskGroup() as group:
        with all_writers_busy(store):
            group.create_task(store.move("win", 1, DISABLED, "ben"))
            purging = group.create_task(fault_of(store.purge("win", 1)))
            await asyncio.sleep(0.05)
    with pytest.raises(WrongState, match="version 1 is disabled; retire it first"):
        raise purging.result() or AssertionError
    assert states(store, "win") == {1: DISABLED, 2: ENABLED}
    assert files_below(store.root / "win/1") == ["a", "facts", "manifest"]
    await store.move("win", 1, RETIRED, "anna")
    await store.purge("win", 1)
    with pytest.raises(UnknownImage):
        await store.move("win", 1, DISABLED, "ben")


@pytest.mark.parametrize("whole", [False, True])
async def test_who_needs_it_is_asked_again_when_the_purge_begins(store, whole):
    await put_many(store, "win", 2)
    await store.move("win", 1, RETIRED, "anna")
    needing: list[str] = []

    async def users(_image: str, _version: int | None) -> list[str]:
        return needing

    store.users = users
    async with asyncio.TaskGroup() as group:
        with all_writers_busy(store):
            purging = group.create_task(fault_of(store.delete("win") if whole else store.purge("win", 1)))
            await asyncio.sleep(0.05)
            needing.append("job 17 of 52:54:00:12:34:56")
    with pytest.raises(InUse, match="is in use: job 17"):
        raise purging.result() or AssertionError
    assert list(states(store, "win")) == [1, 2]


async def test_the_hourly_purge_passes_over_what_was_restored_meanwhile(tmp_path):
    async with running(settings_of(tmp_path, "main")) as stores:
        for name in ("lab", "win"):
            await put(stores, name)
            await stores.move(name, 1, RETIRED, "anna")

        async def users(image: str, _version: int | None) -> list[str]:
            if image == "lab":
                await stores.move("lab", 1, DISABLED, "ben")
            return []

        stores.users = users
        assert await stores.sweep(datetime.now(UTC) + timedelta(days=1)) == ("image win version 1",)
        assert stores.object("lab").version(1).state is DISABLED


async def test_the_last_version_is_not_purged_while_the_next_one_is_being_uploaded(store):
    await put_many(store, "win", 1)
    await store.change("win", AboutChange(title="Room 12"))
    await store.move("win", 1, RETIRED, "anna")
    draft = store.begin("win")
    await draft.receive("a", chunks_of(b"x"))
    with pytest.raises(UploadRunning, match="version 1 is its last one, and a new one is being uploaded"):
        await store.purge("win", 1)
    assert list(states(store, "win")) == [1]
    assert (await draft.commit(manifest_of({"a": b"x"}))).version == 2
    await store.purge("win", 1)
    assert (store.object("win").about.title, list(states(store, "win"))) == ("Room 12", [2])


async def test_of_two_last_versions_one_stays_while_the_next_one_is_being_uploaded(store):
    await put_many(store, "win", 2)
    for version in (1, 2):
        await store.move("win", version, RETIRED, "anna")
    draft = store.begin("win")
    await draft.receive("a", chunks_of(b"x"))
    ended = await asyncio.gather(store.purge("win", 1), store.purge("win", 2), return_exceptions=True)
    assert sorted(type(end) for end in ended if end is not None) == [UploadRunning]
    assert (await draft.commit(manifest_of({"a": b"x"}))).version == 3


async def test_nothing_begins_under_a_name_before_all_its_purges_have_ended(store, monkeypatch):
    await put_many(store, "win", 2)
    for version in (1, 2):
        await store.move("win", version, RETIRED, "anna")
    held = threading.Event()
    remove = store.layout.remove_incoming

    def slow(name: str) -> None:
        if name.startswith(".deleted.win.2."):
            held.wait(20)
        remove(name)

    monkeypatch.setattr(store.layout, "remove_incoming", slow)
    async with asyncio.TaskGroup() as group:
        group.create_task(store.purge("win", 2))
        await asyncio.sleep(0)
        try:
            await store.purge("win", 1)
            with pytest.raises(UploadRunning, match="is being deleted"):
                store.begin("win")
        finally:
            held.set()


async def test_a_name_that_is_being_uploaded_is_taken_in_all_stores(tmp_path):
    async with running(settings_of(tmp_path, "main", "fast")) as stores:
        draft = stores.begin("win", store="fast")
        says = "image win is being uploaded in store fast; it cannot be in store main too: wait"
        for begin in (stores.begin, stores.open_session):
            for wanted in ("", "main"):
                with pytest.raises(UploadRunning, match=says):
                    begin("win", store=wanted)
        with pytest.raises(UploadRunning, match="by somebody else"):
            stores.begin("win", store="fast")
        with pytest.raises(UploadRunning, match=says):
            await stores.register("win", About(), "main")
        with pytest.raises(UploadRunning, match=says):
            await stores.take_file("main", tmp_path / "main/win.img", "win", None)
        await draft.discard()
        assert (await put(stores, "win", {"a": b"x"}, store="main")).version == 1


async def test_a_name_that_is_being_registered_is_taken_in_all_stores(tmp_path):
    async with running(settings_of(tmp_path, "main", "fast")) as stores:
        async with asyncio.TaskGroup() as group:
            with all_writers_busy(stores.store("fast")):
                group.create_task(stores.register("win", About(), "fast"))
                await asyncio.sleep(0.05)
                with pytest.raises(UploadRunning, match="win is being registered in store fast"):
                    stores.begin("win", store="main")
                with pytest.raises(UploadRunning):
                    await stores.register("win", About(), "main")
        with pytest.raises(ImageExists):
            stores.begin("win", store="main")
