"""However an upload ends (given up, refused, a failed commit, a start without room), nothing of it is held or lost."""

import asyncio
import hashlib
import os
import resource
import threading
from pathlib import Path

import pytest

from pbserv.errors import StartError
from pbserv.imaging import draft, reframe
from pbserv.imaging.faults import (
    ChecksumMismatch,
    DraftGone,
    InvalidName,
    InvalidRequest,
    ManifestMismatch,
    StoreFault,
    UnknownImage,
    UploadRunning,
    WrongPart,
)
from pbserv.imaging.frames import intake
from pbserv.imaging.manifest import check_item_name, single_file
from pbserv.imaging.store import Store
from pbserv.imaging.store_rules import StoreRules
from tests.imaging.image_server import files_below, sha256, until
from tests.imaging.test_sessions import CHANGED, KIND, MADE, commit, manifest_of, parts_of, send, told
from tests.imaging.test_store import chunks_of, opened, put

TABLE = b"label: gpt\n"


class Gate:
    """A lock that nobody gets before it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __enter__(self) -> None:
        self.reached.set()
        self.open.wait()

    def __exit__(self, *_: object) -> None:
        pass


def held(root: Path) -> list[str]:
    """Files of uploads and versions that this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
        if path.startswith(f"{root}/") and path != f"{root}/.incoming":
            found.append(path)
    return found


def text_of(item: str) -> str:
    """The manifest of an upload of MADE as this one item."""
    return manifest_of(**{item: (KIND, *told(parts_of(MADE.stream)), len(MADE.stream))})


async def test_an_upload_that_is_given_up_holds_no_files(tmp_path):
    async with opened(tmp_path, allow_overwrite=True) as store:
        first = store.open_session("win")
        await send(first, "p1", MADE.stream)
        await commit(first, "p1", MADE.stream)
        session = store.open_session("win", overwrite=True)
        await send(session, "p1", CHANGED.stream, last=2)  # the frames of the version before are open too
        await send(session, "p2", MADE.stream)
        await session.complete("p2", None, None)
        await session.receive("table", chunks_of(TABLE))
        assert held(tmp_path)
        await session.discard()
        assert held(tmp_path) == []
        assert store.facts().used_bytes == sum(path.stat().st_size for path in (tmp_path / "win/1").iterdir())


async def test_an_upload_that_is_given_up_while_a_part_comes_holds_no_files(tmp_path):
    async with opened(tmp_path) as store:
        session = store.open_session("win")
        await send(session, "p1", MADE.stream, last=1)
        coming = asyncio.Event()

        async def slow():
            yield b"x"
            coming.set()
            await asyncio.Event().wait()

        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(session.part("p1", KIND, 2, slow(), None))
            await coming.wait()
            gone = session.discard()
            sending.cancel()
        await gone
        assert (held(tmp_path), files_below(tmp_path), store.facts().used_bytes) == ([], [], 0)


async def test_a_file_that_is_opened_too_late_is_closed(tmp_path):
    """Who sends a part goes away in the moment in which a thread makes the file for it."""
    async with opened(tmp_path) as store:
        session = store.open_session("win")
        await send(session, "p1", MADE.stream, last=1)
        before = sorted(held(tmp_path))
        gate = session._parts["p1"]._intake._moment = Gate()
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(session.part("p1", KIND, 2, chunks_of(b"x"), None))
            await until(gate.reached.is_set)
            sending.cancel()
        gate.open.set()
        both = threading.Barrier(2)  # when both threads are here, what they did before is done
        await asyncio.gather(*(store._reframer.file(both.wait) for _ in range(2)))
        assert sorted(held(tmp_path)) == before
        await session.discard()
        assert held(tmp_path) == []


async def test_a_commit_whose_caller_went_away_holds_no_files(tmp_path):
    async with opened(tmp_path) as store:
        session = store.open_session("win")
        await send(session, "p1", MADE.stream)
        await session.complete("p1", None, None)
        async with asyncio.TaskGroup() as tasks:
            committing = tasks.create_task(session.commit(text_of("p1")))
            await asyncio.sleep(0)
            committing.cancel()
        await until(lambda: not store.sessions())
        assert store.info("win").version == 1
        assert held(tmp_path) == []


@pytest.mark.parametrize("rules", [StoreRules(floor_bytes=1 << 60), StoreRules(quota_bytes=1, floor_bytes=0)])
async def test_a_start_without_room_keeps_what_was_confirmed(tmp_path, rules):
    async with opened(tmp_path) as store:
        await put(store, "lab")
        session = store.open_session("win", owner="token:anna")
        await send(session, "p1", MADE.stream, last=2)
        await send(session, "p2", MADE.stream)
        await session.complete("p2", None, None)
    before = files_below(tmp_path)
    async with opened(tmp_path, rules=rules) as store:
        (session,) = store.sessions()
        assert {name: (item.next_part, item.complete) for name, item in session.progress().items()} == {
            "p1": (3, False), "p2": (len(parts_of(MADE.stream)) + 1, True)}  # fmt: skip
        assert (store.leftovers, files_below(tmp_path)) == ((), before)
    async with opened(tmp_path) as store:
        (session,) = store.sessions()
        await send(session, "p1", MADE.stream, first=3)


async def test_what_cannot_be_read_at_a_start_is_not_removed(tmp_path):
    """Too many open files, a disk that fails: no reason to forget an upload."""
    async with opened(tmp_path) as store:
        session = store.open_session("win", owner="token:anna")
        await send(session, "p1", MADE.stream, last=2)
    (state,) = tmp_path.glob(".incoming/*/p1.state")
    state.rename(tmp_path / "state")
    state.symlink_to(state.name)  # opening it is an error that does not mean that it is not there
    before = files_below(tmp_path)
    store = Store(tmp_path, free_floor_bytes=0)
    with pytest.raises(StartError, match=r"p1\.state|win\."):
        await store.start()
    assert (files_below(tmp_path), held(tmp_path)) == (before, [])
    (tmp_path / "state").rename(state)
    async with opened(tmp_path) as store:
        assert store.sessions()[0].next_part("p1") == 3


async def test_too_many_open_files_are_no_reason_to_forget_an_upload(tmp_path):
    async with opened(tmp_path) as store:
        session = store.open_session("win", owner="token:anna")
        await session.receive("table", chunks_of(TABLE))
        number = session.number
    async with opened(tmp_path / "other") as store:
        layout = store.layout
        (tmp_path / ".incoming" / f"win.{number}").rename(tmp_path / "other/.incoming" / f"win.{number}")
        free = os.dup(0)
        os.close(free)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                layout.incoming()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        (found,) = layout.incoming()
        assert found.session is not None


async def test_an_upload_given_up_during_a_commit_that_fails_frees_its_name(tmp_path):
    async with opened(tmp_path) as store:
        session = store.open_session("win", owner="job:1")
        await send(session, "p1", MADE.stream)
        await session.complete("p1", None, None)
        next(tmp_path.glob(".incoming/*/p1")).write_bytes(b"short")
        async with asyncio.TaskGroup() as tasks:
            committing = tasks.create_task(_raises(session.commit(text_of("p1")), StoreFault))
            await asyncio.sleep(0)
            session.discard()
        assert committing.result()
        assert store.sessions() == ()
        await put(store, "win")
        assert held(tmp_path) == []


async def test_a_commit_that_fails_while_the_server_stops_is_gone_on_with(tmp_path):
    async with opened(tmp_path) as store:
        session = store.open_session("win", owner="token:anna")
        await session.receive("table", chunks_of(TABLE))
        await send(session, "p1", MADE.stream)
        await session.complete("p1", None, None)
        next(tmp_path.glob(".incoming/*/table")).write_bytes(b"short")
        size, digest = told(parts_of(MADE.stream))
        table = ("sfdisk", len(TABLE), sha256(TABLE), len(TABLE))
        text = manifest_of(p1=(KIND, size, digest, len(MADE.stream)), table=table)
        async with asyncio.TaskGroup() as tasks:
            committing = tasks.create_task(_raises(session.commit(text), StoreFault))
            await asyncio.sleep(0)
            await store.close()
        assert committing.result()
        assert held(tmp_path) == []
    async with opened(tmp_path) as store:
        (session,) = store.sessions()
        assert set(session.progress()) == {"p1"}
        await session.receive("table", chunks_of(TABLE))
        assert (await session.commit(text)).version == 1


async def test_a_part_on_a_dead_connection_does_not_stop_the_commit(tmp_path):
    """It was sent again, so its item is complete; and who asks for the commit again gets the same version."""
    async with opened(tmp_path) as store, asyncio.TaskGroup() as tasks:
        session = store.open_session("win")
        parts, dead = parts_of(MADE.stream), asyncio.Event()

        async def hanging():
            yield parts[0][:100]
            dead.set()
            await asyncio.Event().wait()

        ended = tasks.create_task(_raises(session.part("p1", KIND, 1, hanging(), None), DraftGone))
        await dead.wait()
        await send(session, "p1", MADE.stream, first=1)
        with pytest.raises(UploadRunning, match="item p1 is still arriving"):
            await session.commit(text_of("p1"))
        await session.complete("p1", None, None)
        first, again = await asyncio.gather(session.commit(text_of("p1")), session.commit(text_of("p1")))
        assert (first.version, again) == (1, first)
        assert await ended
        assert [image.version for image in store.list()] == [1]
    assert held(tmp_path) == []


async def test_an_item_that_is_being_replaced_is_not_committed_half(tmp_path):
    """The file has its name already, and what is known of it is still of the one before."""
    async with opened(tmp_path) as store, asyncio.TaskGroup() as tasks:
        session = store.open_session("win")
        await session.receive("table", chunks_of(TABLE))
        reached, gate, close = asyncio.Event(), asyncio.Event(), reframe.ItemUpload.close

        async def slow(upload):
            reached.set()
            await gate.wait()
            await close(upload)

        reframe.ItemUpload.close = slow
        try:
            sending = tasks.create_task(session.receive("table", chunks_of(TABLE[::-1])))
            await reached.wait()
            text = manifest_of(table=("sfdisk", len(TABLE), sha256(TABLE), len(TABLE)))
            with pytest.raises(UploadRunning, match="table is still arriving"):
                await session.commit(text)
        finally:
            reframe.ItemUpload.close = close
            gate.set()
        await sending
        with pytest.raises(ManifestMismatch):
            await session.commit(text)


async def test_only_so_many_items_are_begun_at_once(tmp_path, monkeypatch):
    """Each of them holds files open, and a device has one job."""
    monkeypatch.setattr(draft, "INCOMPLETE", 2)
    async with opened(tmp_path) as store:
        session = store.open_session("win")
        for name in ("p1", "p2"):
            await send(session, name, MADE.stream)
        with pytest.raises(UploadRunning, match="2 items have begun; complete one of them first"):
            await send(session, "p3", MADE.stream)
        await session.complete("p1", None, None)
        await send(session, "p3", MADE.stream)
        assert set(session.progress()) == {"p1", "p2", "p3"}


async def test_a_small_item_that_is_killed_at_its_end_is_completed_then(tmp_path, monkeypatch):
    """Exactly one piece: it has no index when it is complete, and needs it until then."""
    body = os.urandom(1 << 20)
    async with opened(tmp_path) as store:
        session = store.open_session("win", owner="token:anna")
        await session.part("data", "file", 1, chunks_of(body), None)

        def killed(*_: object) -> None:
            raise StoreFault("killed")

        with monkeypatch.context() as patch:
            patch.setattr(intake, "write_state", killed)
            patch.setattr(intake.Intake, "_roll_back", lambda _self: None)
            with pytest.raises(StoreFault, match="killed"):
                await session.complete("data", 1, None)
    async with opened(tmp_path) as store:
        (session,) = store.sessions()
        assert (await session.complete("data", 1, None)).size_bytes == len(body)


async def test_refused_parts_make_no_items(tmp_path, monkeypatch):
    async with opened(tmp_path) as store:
        session = store.open_session("win")
        part = parts_of(MADE.stream)[0]
        with pytest.raises(WrongPart) as wrong:
            await session.part("p1", KIND, 5, chunks_of(part), None)
        assert wrong.value.next_part == 1
        with pytest.raises(ChecksumMismatch):
            await session.part("p1", KIND, 1, chunks_of(part), "0" * 64)
        assert (session.progress(), store.facts().used_bytes) == ({}, 0)
        assert [Path(path).parent for path in held(tmp_path)] == [tmp_path / ".incoming"]  # the directory alone
        monkeypatch.setattr(draft, "MAX_ITEMS", 2)
        await session.part("p1", KIND, 1, chunks_of(part), None)
        await session.receive("table", chunks_of(TABLE))
        with pytest.raises(InvalidRequest, match="no more than 2 items"):
            await session.part("p2", KIND, 1, chunks_of(part), None)
        with pytest.raises(InvalidRequest, match="no more than 2 items"):
            await session.receive("p2", chunks_of(part))
        await session.receive("table", chunks_of(TABLE))
        await send(session, "p1", MADE.stream, first=2)
        assert set(session.progress()) == {"p1", "table"}


async def test_a_first_part_that_fails_leaves_the_one_that_comes_at_once(tmp_path):
    """A second sender of the first part is not hurt by the failure of the first sender."""
    async with opened(tmp_path) as store:
        session = store.open_session("win")
        parts = parts_of(MADE.stream)
        async with asyncio.TaskGroup() as tasks:
            bad = tasks.create_task(_raises(session.part("p1", KIND, 1, chunks_of(parts[0]), "0" * 64),
                                            ChecksumMismatch))  # fmt: skip
            good = tasks.create_task(session.part("p1", KIND, 1, chunks_of(parts[0]), sha256(parts[0])))
        assert bad.result()
        assert good.result().next_part == 2
        await send(session, "p1", MADE.stream, first=2)
        assert (await commit(session, "p1", MADE.stream)).version == 1


@pytest.mark.parametrize("name", ["session", "session.new", "x.state.new"])
async def test_the_upload_s_own_files_are_no_items(tmp_path, name):
    async with opened(tmp_path) as store:
        session = store.open_session("win", owner="job:17")
        await session.receive("table", chunks_of(TABLE))
        (own,) = tmp_path.glob(".incoming/*/session")
        before = own.read_bytes()
        with pytest.raises(InvalidName):
            await session.receive(name, chunks_of(b"{}"))
        with pytest.raises(InvalidName):
            await session.part(name, "file", 1, chunks_of(b"{}"), sha256(b"{}"))
        assert own.read_bytes() == before
    if name.startswith("session"):
        with pytest.raises(InvalidName):
            check_item_name(name)


@pytest.mark.parametrize("trash", [".deleted.lab.1.0123456789abcdef", ".deleted.lab.0123456789abcdef"])
@pytest.mark.parametrize("versions", [1, 2])
async def test_a_dropped_image_that_was_being_purged_does_not_come_back(tmp_path, trash, versions):
    """Killed between the rename that makes it invisible and the removal of its other name in the root."""
    async with opened(tmp_path) as store:
        for number in range(versions):
            data = bytes(1000 + number)
            manifest = single_file("lab.raw", len(data), hashlib.sha256(data).hexdigest())
            (tmp_path / "lab.img").unlink(missing_ok=True)
            (tmp_path / "lab.img").write_bytes(data)
            (tmp_path / "lab.img.sum").write_text("x")
            await store.take_file(tmp_path / "lab.img", "lab", manifest)
    gone = tmp_path / "lab" / str(versions) if ".1." in trash and versions > 1 else tmp_path / "lab"
    gone.rename(tmp_path / ".incoming" / trash)
    async with opened(tmp_path) as store:
        assert not list(tmp_path.glob("lab.img*"))
        assert os.listdir(tmp_path / ".incoming") == []
        if gone.name == "lab":
            with pytest.raises(UnknownImage):
                store.info("lab")


async def _raises(work, fault) -> bool:
    with pytest.raises(fault):
        await work
    return True
