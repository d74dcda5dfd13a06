"""Several stores while they change: a reload that begins, or is aborted; doubles; who may hold how much open."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from pbserv.imaging import draft, uploads
from pbserv.imaging.faults import UploadRunning
from pbserv.imaging.states import VersionState
from tests.imaging.test_sessions import MADE, send
from tests.imaging.test_store import put, read_all
from tests.imaging.test_stores import running, settings_of


async def test_a_hidden_image_is_served_when_the_one_before_it_goes(tmp_path: Path) -> None:
    for name in ("main", "fast"):
        async with running(settings_of(tmp_path, name)) as stores:
            await put(stores, "win", {"a": name.encode()})
    async with running(settings_of(tmp_path, "main", "fast")) as stores:
        assert len(stores.damages) == 1
        await stores.move("win", 1, VersionState.RETIRED, "ann")
        await stores.purge("win")
        assert (stores.object("win").store, await read_all(stores, "win", "a")) == ("fast", b"fast")
        assert stores.damages == ()


async def test_nothing_begins_in_a_store_that_a_reload_takes_away(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path, "main", "fast")) as stores:
        assert (stores.leaving("main"), stores.leaving("fast"), stores.leaving("none")) == ("", "", "")
        reload = await stores.prepare(settings_of(tmp_path, "main"))
        assert "fast is being taken away" in stores.leaving("fast")
        assert stores.leaving("main") == ""
        reload.abort()
        assert stores.leaving("fast") == ""


async def test_an_aborted_reload_leaves_nothing_open(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path, "fast")) as stores:
        session = stores.open_session("win", owner="ann")
        await send(session, "p1", MADE.stream, last=2)
    async with running(settings_of(tmp_path, "main")) as stores:
        await stores.prepare(settings_of(tmp_path, "main"))  # what the first one opens for itself
        before = _open_below(tmp_path / "fast")
        reload = await stores.prepare(settings_of(tmp_path, "main", "fast"))
        assert len(_open_below(tmp_path / "fast")) > len(before) == 0
        reload.abort()
        assert _open_below(tmp_path / "fast") == []
        (await stores.prepare(settings_of(tmp_path, "main", "fast"))).commit()
        assert stores.session(session.number).progress()["p1"].next_part == 3


def _open_below(root: Path) -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [path for path in found if path.startswith(str(root))]


async def test_one_owner_and_one_upload_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "OF_ONE_OWNER", 2)
    monkeypatch.setattr(draft, "AT_ONCE", 2)
    async with running(settings_of(tmp_path, "main")) as stores:
        first = stores.open_session("one", owner="ann")
        stores.open_session("two", owner="ann")
        with pytest.raises(UploadRunning, match="ann has 2 uploads open"):
            stores.open_session("three", owner="ann")
        stores.open_session("three", owner="bob")
        gate = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            await gate.wait()
            yield b"x"

        async with asyncio.TaskGroup() as group:
            for item in ("a", "b"):
                group.create_task(first.receive(item, slow()))
            await asyncio.sleep(0)
            with pytest.raises(UploadRunning, match="2 parts arrive already"):
                await first.receive("c", slow())
            gate.set()
        await first.receive("c", slow())
