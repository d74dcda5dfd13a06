"""A check by hand: leftovers go, what is at work stays, what is not whole is not served, the registry is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from pbserv.imaging import reconcile
from pbserv.imaging.faults import UnknownStore
from pbserv.imaging.reconcile import Tell
from pbserv.imaging.store import Store
from pbserv.imaging.stores import Stores
from pbserv.imaging.tasks import Report
from tests.imaging.image_server import ADMIN, Running, serving
from tests.imaging.test_sessions import MADE, commit, send
from tests.imaging.test_store import opened, put
from tests.imaging.test_stores import settings_of
from tests.imaging.test_task_routes import ended as over
from tests.imaging.working import working


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    made = Stores(settings_of(tmp_path, "a"))
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def store(stores: Stores) -> Store:
    return stores.store("a")


async def run(stores: Stores) -> tuple[str, list[str]]:
    lines: list[str] = []
    return await stores.check("a", Report(), lines.append), lines


async def test_a_store_in_order(stores: Stores, store: Store) -> None:
    await put(store, "win")
    assert await run(stores) == ("1 version looked at, 0 leftovers removed, none damaged", [])
    with pytest.raises(UnknownStore):
        await stores.check("b", Report(), print)


async def test_a_folder_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a/groupx").mkdir(parents=True)
    (tmp_path / "a/groupx/lab.img").write_bytes(b"an image")
    made = Stores(settings_of(tmp_path, "a"))
    await made.start()
    try:
        said, lines = await run(made)
    finally:
        await made.close()
    assert said.endswith("none damaged, 1 that the server does not know")
    assert lines == [f"{tmp_path}/a/groupx: a folder that is no image"]


async def test_leftovers_go_and_what_is_at_work_stays(stores: Stores, store: Store) -> None:
    await put(store, "win")
    incoming = store.root / ".incoming"
    for name in ("win.0123", ".deleted.old.77"):
        (incoming / name).mkdir()
        (incoming / name / "item").write_bytes(b"x")
    (incoming / "file").write_bytes(b"x")
    (store.root / "win/1/.part.77").write_bytes(b"x")
    session = store.open_session("new")
    await send(session, "p1", MADE.stream)
    result, lines = await run(stores)
    assert result == "1 version looked at, 4 leftovers removed, none damaged"
    assert sorted(line.partition(":")[0] for line in lines) == [".deleted.old.77", "file", "win.0123", "win/1/.part.77"]
    assert os.listdir(incoming) == [f"new.{session.number}"]
    assert not (store.root / "win/1/.part.77").exists()
    assert session.progress()["p1"].next_part > 1, "somebody may go on with it"
    await session.discard()
    assert (await run(stores))[1] == []


async def test_uploads_that_nobody_goes_on_with(stores: Stores, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    running = store.open_session("one", owner="job:1")
    over = store.open_session("two", owner="job:2")
    old = store.open_session("three", owner="somebody")
    store.jobs = _jobs
    _, lines = await run(stores)
    assert lines == [f"upload {over.number} of image two: job 2 does not run any more"]
    assert {draft.image for draft in stores.sessions()} == {"one", "three"}
    monkeypatch.setattr(reconcile, "SESSION_AGE", timedelta())
    _, lines = await run(stores)
    assert lines == [f"upload {old.number} of image three: nobody went on with it for two days"]
    assert stores.sessions() == (running,)


async def test_the_age_of_an_upload_counts_from_what_came_last(tmp_path: Path) -> None:
    """Also after a restart: the files tell."""
    begun = datetime(2026, 1, 2, tzinfo=UTC)
    async with opened(tmp_path / "a") as store:
        session = store.open_session("win", owner="token:anna")
        session._facts = replace(session._facts, created=begun)
        session.created = session.touched = begun
        await send(session, "p1", MADE.stream, last=1)
        assert session.touched > begun
        folder = store.root / ".incoming" / f"win.{session.number}"
    arrived = datetime.fromtimestamp((folder / "p1.state").stat().st_mtime, UTC)
    async with opened(tmp_path / "a") as store:
        [again] = store.sessions()
        assert (again.created, again.touched, again.next_part("p1")) == (begun, arrived, 2)
    for name in os.listdir(folder):
        os.utime(folder / name, (begun.timestamp(), begun.timestamp()))
    async with opened(tmp_path / "a") as store:
        assert (store.sessions(), [gone.name for gone in store.leftovers]) == ((), [folder.name])


async def test_an_upload_that_nobody_goes_on_with_is_given_up_while_the_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tmp_path) as site:
        stores = site.imaging._store._backend
        assert isinstance(stores, Stores)
        left = stores.open_session("left", owner="referred:0123456789abcdef")
        job = stores.open_session("captured", owner="job:7")
        keeper = site.imaging._keeper
        keeper._checked = float("-inf")
        await keeper.turn()
        assert stores.sessions() == (job, left), "somebody may go on with it"
        monkeypatch.setattr(reconcile, "SESSION_AGE", timedelta())
        await keeper.turn()
        assert stores.sessions() == (job, left), "it looks once in an hour"
        keeper._checked = float("-inf")
        await keeper.turn()
        assert stores.sessions() == (job,)
        stores.open_session("left", owner="token:anna")


async def _jobs() -> dict[int, int | None]:
    return {1: None}


async def test_a_version_that_is_not_whole_is_not_served(stores: Stores, store: Store) -> None:
    store.allow_overwrite = True
    for _ in range(3):
        await put(store, "win", {"a": b"abc"}, overwrite=True)
    (store.root / "win/3/a").write_bytes(b"ab")
    shutil.rmtree(store.root / "win/2")
    shutil.copytree(store.root / "win/1", store.root / "win/7")
    result, lines = await run(stores)
    assert result == (
        "3 versions looked at, 0 leftovers removed, 2 damaged and not served, 1 that the server does not know"
    )
    assert [line.partition(": ")[0] for line in lines] == ["image win version 2", "image win version 3", "win/7"]
    assert stores.info("win").version == 1
    assert "not a file of 3 bytes" in stores.object("win").version(3).damage
    assert (await run(stores))[1] == lines[2:], "said once"


async def test_the_registry_learns_what_jobs_made(stores: Stores, store: Store) -> None:
    told: list[Tell] = []

    async def inform(one: Tell) -> None:
        told.append(one)

    session = store.open_session("win", owner="job:1")
    await send(session, "p1", MADE.stream)
    await commit(session, "p1", MADE.stream)
    store.jobs, stores.inform = _jobs, inform
    await run(stores)
    assert told == [Tell(1, "win", 1)]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path / "images") as server:
        yield server


async def test_it_is_a_task(server: Running, tmp_path: Path) -> None:
    (tmp_path / "images/.incoming/x.1").mkdir()
    async with httpx.AsyncClient(headers=ADMIN, base_url=server.api, timeout=60) as client:
        begun = await client.post("/stores/main/check")
        assert (begun.status_code, begun.json()["kind"], begun.json()["what"]) == (202, "check", "store main")
        ended = await over(client, begun)
        assert ended["result"] == "0 versions looked at, 1 leftover removed, none damaged"
        assert (await client.post("/stores/other/check")).status_code == 404
    async with httpx.AsyncClient(base_url=server.api, timeout=60) as client:
        assert (await client.post("/stores/main/check")).status_code == 401
