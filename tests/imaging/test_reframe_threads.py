"""An upload becomes frames while it arrives, in threads beside the event loop, which serves everybody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any  # Any: the arguments of what is watched

import pytest
import zstandard

from pbserv.imaging.frames import writer
from pbserv.imaging.frames.pipeline import Pipeline
from pbserv.imaging.frames.spool import Spool
from pbserv.imaging.frames.uncompress import Uncompressor
from pbserv.imaging.frames.writer import FrameWriter
from tests.imaging.image_server import sha256
from tests.imaging.test_sessions import KIND, MADE, commit, parts_of, send
from tests.imaging.test_store import chunks_of, opened, put, read_all

WORK = {
    "digest of a part": (Spool, "write"),
    "zstd of a part": (Uncompressor, "_uncompress"),
    "reading partclone's stream": (Pipeline, "feed"),
    "end of the stream": (Pipeline, "finish"),
    "identity of a frame": (writer, "digest_of"),
    "zstd of a frame": (FrameWriter, "_frame"),
    "end of the item": (FrameWriter, "close"),
}
"""Everything in which an upload costs computing time."""


class Watched:
    """Notes the thread of each call; while ``hold`` is set, the next frame waits for ``release``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: dict[str, set[threading.Thread]] = {what: set() for what in WORK}
        self.hold, self.held, self.release = threading.Event(), threading.Event(), threading.Event()
        for what, (owner, name) in WORK.items():
            monkeypatch.setattr(owner, name, self._noted(what, getattr(owner, name)))

    def _noted(self, what: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            self.threads[what].add(threading.current_thread())
            if what == "zstd of a frame" and self.hold.is_set():
                self.held.set()
                assert self.release.wait(30), "the event loop stood still"
            return work(*arguments)

        return noted


async def test_no_work_on_an_upload_is_done_in_the_thread_of_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    async with opened(tmp_path / "images") as store:
        session = store.open_session("win", owner="token:anna")
        await send(session, "p1", MADE.stream)
        image = await commit(session, "p1", MADE.stream)
        assert await store.index(image, "p1") is not None, "it was cut into frames"
    assert [what for what, threads in watched.threads.items() if not threads] == [], "all of it happened"
    everywhere = set().union(*watched.threads.values())
    assert threading.current_thread() not in everywhere
    assert {thread.name.partition("_")[0] for thread in everywhere} == {"reframe", "receive"}


async def test_the_loop_serves_others_while_a_frame_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    async with opened(tmp_path / "images") as store, asyncio.timeout(60):
        await put(store, "other", {"a": b"abc"})
        session = store.open_session("win", owner="token:anna")
        first, *_ = parts_of(MADE.stream)
        watched.hold.set()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(session.part("p1", KIND, 1, chunks_of(first), sha256(first)))
            try:
                while not watched.held.is_set():
                    await asyncio.sleep(0.01)
                assert await read_all(store, "other", "a") == b"abc"
                assert [image.name for image in store.list()] == ["other"]
                assert (session.next_part("p1"), sending.done()) == (1, False), "it is still at the same frame"
            finally:
                watched.hold.clear()
                watched.release.set()
        assert sending.result().next_part == 2
        await send(session, "p1", MADE.stream, first=2)
        await commit(session, "p1", MADE.stream)
        stored = await read_all(store, "win", "p1")
    assert zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True).read() == MADE.plain
