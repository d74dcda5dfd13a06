"""A capture into a store of another server, where answers are lost or the other one knows the key already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from pbserv.imaging.away import Away
from pbserv.imaging.elsewhere import Elsewhere
from pbserv.imaging.faults import DraftGone
from pbserv.imaging.peer import NoAnswer
from pbserv.imaging.referring import Referring, Remotes
from pbserv.imaging.stores import Stores
from pbserv.log import ServiceLog
from pbserv.registry.records import BundleKind, Job, WorkState
from pbserv.registry.tokens import digest
from tests.imaging.image_server import EventLines, Running, serving, until
from tests.imaging.test_sessions import MADE, send
from tests.imaging.test_stores import settings_of

AT = datetime(2026, 1, 2, tzinfo=UTC)
JOB = Job(7, 1, "52:54:00:12:34:56", BundleKind.CAPTURE, "win", None, "main", WorkState.RUNNING, "", "", "", 0, 0, 0,
          AT, None, "")  # fmt: skip


@pytest.fixture
async def branch(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path / "branch") as server:
        yield server


def away_to(url: str) -> Away:
    referring = Referring(tuple, lambda _upload: None)
    referring.remotes = Remotes({"main": url}, digest("the-site-token"))
    return Away(referring, b"s" * 32, cast("ServiceLog", EventLines()))


class Line:
    """To a server; ``lose``: the next answer is kept back until ``lost`` is set, and the connection ends then."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.lose = True
        self.answered, self.lost = asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forth(reader, there))
                both.create_task(self._back(there_reader, writer, there))
        finally:
            writer.close()
            there.close()

    async def _forth(self, reader: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            there.write(data)

    async def _back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, there: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            if self.lose:
                self.lose = False
                self.answered.set()
                await self.lost.wait()
                break
            writer.write(data)
        writer.close()
        there.close()


@asynccontextmanager
async def line_to(branch: Running) -> AsyncIterator[tuple[Line, str]]:
    line = Line(int(branch.api.rpartition(":")[2].partition("/")[0]))
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    try:
        yield line, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_an_upload_whose_begin_was_not_answered_is_given_up_with_its_work(branch: Running) -> None:
    async with line_to(branch) as (line, url), asyncio.TaskGroup() as group:
        away = away_to(url)
        away.begin(JOB, "main", "", overwrite=False)
        asking = group.create_task(_refused(away))
        await line.answered.wait()
        assert [each.image for each in branch.store.sessions()] == ["win"]
        away.end(JOB.id)
        away._pending.clear()  # it was looked for there before it had begun
        line.lost.set()
        await asking
        running = group.create_task(away.run())
        await until(lambda: not branch.store.sessions())
        running.cancel()


async def _refused(away: Away) -> None:
    with pytest.raises(NoAnswer):
        await away.item(JOB, "p1")


async def test_a_version_of_an_older_job_with_the_same_number_is_not_this_one(branch: Running) -> None:
    """The registry may be older than the images: a number is given twice then."""
    branch.store.store("main").allow_overwrite = True
    away = away_to(branch.api.removesuffix("/api/v1"))
    for version in (1, 2):
        away.begin(JOB, "main", "", overwrite=True)
        await away.item(JOB, "p1.img", 1, "partclone.ext4")
        [session] = branch.store.sessions()
        await send(session, "p1.img", MADE.stream)
        done = await session.complete("p1.img", None, len(MADE.stream))
        line = f"item p1.img partclone.ext4 1 {done.size_bytes} {done.sha256} {len(MADE.stream)}"
        manifest = f"pbserv-image 1\ndisk {1 << 30} 512 gpt bios\n{line}\n"
        assert await away.commit(JOB, manifest, "") == version
        assert await away.commit(JOB, manifest, "") == version, "its answer was lost"
    assert branch.store.versions("win") == (1, 2)


async def test_what_hinders_that_an_image_is_referred_to_is_logged(tmp_path: Path) -> None:
    made, log = Stores(settings_of(tmp_path, "a")), EventLines()
    elsewhere = Elsewhere(made, Referring(tuple, lambda _upload: None), cast("ServiceLog", log))
    await made.start()
    try:
        await elsewhere.captured("win", "main", "job:7")
        assert (made.object("win").about.owner, log.lines) == ("main", [])
        made.store("a").leaving = True
        await elsewhere.captured("lab", "main", "job:8")
    finally:
        await made.close()
    [(event, said)] = log.lines
    assert (event, said["remedy"]) == ("image is not referred to yet", "pbserv image register lab --owner main")


async def test_an_address_that_is_none_is_a_server_that_does_not_answer() -> None:
    away = away_to("http://[::1")
    away.begin(JOB, "main", "", overwrite=False)
    await _refused(away)


async def test_a_server_that_is_restarted_before_the_first_byte_begins_the_upload(branch: Running) -> None:
    url = branch.api.removesuffix("/api/v1")
    job = replace(JOB, store="main")
    before, after, again = away_to(url), away_to(url), away_to(url)
    before.begin(job, "main", "", overwrite=False)
    before.close()
    after.resume([job], lambda _store: False, {job.id: ("", False)})
    assert (await after.item(job, "p1")).status_code == 307
    [session] = branch.store.sessions()
    again.resume([job], lambda _store: False, {job.id: ("", False)})
    assert (await again.item(job, "p1")).status_code == 307, "killed once more: the registry knows no byte of it"
    assert [each.number for each in branch.store.sessions()] == [session.number]


async def test_one_that_had_sent_something_does_not_begin_in_the_middle(branch: Running) -> None:
    away, job = away_to(branch.api.removesuffix("/api/v1")), replace(JOB, store="main")
    away.resume([job], lambda _store: False)
    with pytest.raises(DraftGone, match="is over there"):
        await away.item(job, "p1")
    assert branch.store.sessions() == ()
