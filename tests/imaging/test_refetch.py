"""What is damaged here and no store here has comes from another server that has the same item."""

from __future__ import annotations

import asyncio
import os

import httpx
import pytest

from pbserv.imaging.referring import Referring, Remotes
from pbserv.imaging.refetch import Refetch
from pbserv.imaging.repair import Repairer
from pbserv.imaging.scrub import ScrubOrder, scrub
from pbserv.imaging.tasks import Cancelled, Report
from pbserv.registry.tokens import digest
from tests.imaging.image_server import serving
from tests.imaging.test_scrub import damage, native, record_at
from tests.imaging.test_sessions import CHANGED
from tests.imaging.test_store import opened, put

FAST = ScrubOrder(rate_mb=0)


@pytest.fixture
async def store(tmp_path):
    async with opened(tmp_path / "here", allow_overwrite=True) as store:
        yield store


@pytest.fixture
async def branch(tmp_path):
    async with serving(tmp_path / "there", allow_overwrite=True) as server:
        yield server


class Asked:
    """A scrub of ``store`` that may ask ``urls``; ``troubles``: what was said of them."""

    def __init__(self, store, *urls: str, token: str = "the-site-token") -> None:
        self.store, self.troubles, self.now = store, [], 0.0
        referring = Referring(tuple, lambda _: None)
        remotes = {f"store{number}": url for number, url in enumerate(urls)}
        referring.remotes = Remotes(remotes, digest(token) if token else "")
        self.refetch = Refetch(referring, self.troubles.append, lambda: self.now)

    async def scrub(self) -> tuple[str, list[str]]:
        lines: list[str] = []
        return await scrub([self.store], FAST, Report(), lines.append, self.refetch), lines


def url_of(server) -> str:
    return server.api.removesuffix("/api/v1")


@pytest.mark.parametrize("number", [1, 2])
async def test_a_frame_is_put_back(store, branch, tmp_path, number):
    """Also where the copy has another number, or is not the version that is served."""
    image = await native(store, "win")
    if number == 2:
        await native(branch.store, "win", CHANGED)
    await native(branch.store, "win")
    before = (tmp_path / "here/win/1/p1").read_bytes()
    frame, record = await record_at(store, image, 0x120000)
    damage(tmp_path / "here/win/1/p1", record.offset + 9)
    damage(tmp_path / "here/win/1/p1", 3)  # and one of the head
    asked = Asked(store, url_of(branch))
    result, lines = await asked.scrub()
    assert result == "1 version verified, none damaged, 2 frames repaired"
    version = "version 1" if number == 1 else "the served version"
    assert lines[1] == (
        f"image win version 1 item p1: frame {frame} at byte {record.offset}, device address 0x120000: its stored "
        f"bytes are not those that the index names (repaired from image win {version} item p1 at {url_of(branch)})"
    )
    assert (tmp_path / "here/win/1/p1").read_bytes() == before
    assert store.info("win") == image
    assert asked.troubles == []
    assert branch.figures[0] == 0, "nobody's request"


async def test_a_copy_that_is_not_served_and_a_file_that_was_cut_short(store, branch, tmp_path):
    await native(store, "win")
    for made in (CHANGED, CHANGED):
        await native(branch.store, "win", made)
    await native(branch.store, "win")
    await native(branch.store, "win", CHANGED)
    path = tmp_path / "here/win/1/p1"
    before = path.read_bytes()
    os.truncate(path, len(before) // 2)
    result, lines = await Asked(store, url_of(branch)).scrub()
    assert "none damaged" in result
    assert "win version 3 item p1 at" in lines[0]
    assert path.read_bytes() == before


async def test_an_item_of_one_piece_comes_whole(store, branch, tmp_path):
    for place in (store, branch.store):
        await put(place, "small", {"a": b"abcdef"})
    path = tmp_path / "here/small/1/a"
    path.write_bytes(b"abXdef and more")
    result, lines = await Asked(store, url_of(branch)).scrub()
    assert result == "1 version verified, none damaged, 1 frame repaired"
    assert lines[0].endswith(f"(repaired from image small version 1 item a at {url_of(branch)})")
    assert path.read_bytes() == b"abcdef"


async def test_another_item_of_that_name_is_no_copy(store, branch, tmp_path):
    await native(store, "win")
    await native(branch.store, "win", CHANGED)
    damage(tmp_path / "here/win/1/p1", 3)
    asked = Asked(store, url_of(branch))
    assert await asked.scrub() == (
        "1 version verified, 1 damaged and not served",
        [store.object("win").version(1).damage],
    )
    assert asked.troubles == []


async def test_damage_there_does_not_come_here(store, branch, tmp_path):
    """A server that has not noticed its own damage: the frame is not taken, others are."""
    image = await native(store, "win")
    await native(branch.store, "win")
    _, record = await record_at(store, image, 0x120000)
    for place in ("here", "there"):
        damage(tmp_path / place / "win/1/p1", record.offset + 9)
    damage(tmp_path / "here/win/1/p1", 3)
    wrong = (tmp_path / "here/win/1/p1").read_bytes()[record.offset : record.offset + 20]
    result, _ = await Asked(store, url_of(branch)).scrub()
    assert result == "1 version verified, 1 damaged and not served, 1 frame repaired"
    assert (tmp_path / "here/win/1/p1").read_bytes()[record.offset : record.offset + 20] == wrong


async def test_servers_that_cannot_help_are_said_and_the_next_one_is_asked(store, branch, tmp_path):
    await native(store, "win")
    await native(branch.store, "win")
    path = tmp_path / "here/win/1/p1"
    damage(path, 3)
    asked = Asked(store, "http://127.0.0.1:1", url_of(branch))
    assert (await asked.scrub())[0] == "1 version verified, none damaged, 1 frame repaired"
    [trouble] = asked.troubles
    assert trouble.startswith("image win item p1: a copy was looked for at http://127.0.0.1:1: ")
    damage(path, 3)
    assert "1 frame repaired" in (await asked.scrub())[0]
    assert len(asked.troubles) == 1, "not asked again so soon"
    asked.now += 100
    damage(path, 3)
    await asked.scrub()
    assert len(asked.troubles) == 2
    damage(path, 3)
    refused = Asked(store, url_of(branch), token="another")
    assert "1 damaged" in (await refused.scrub())[0]
    assert "401" in refused.troubles[0]
    silent = Asked(store, url_of(branch), token="")
    assert ("1 damaged" in (await silent.scrub())[0], silent.troubles) == (True, [])


@pytest.mark.parametrize("lie", ["whole", "other range", "short", "long"])
async def test_answers_that_are_not_what_was_asked_for(store, tmp_path, lie):
    image = await native(store, "win")
    damage(tmp_path / "here/win/1/p1", 3)
    etag = f'"{image.manifest.item("p1").sha256}"'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if head.startswith("head"):
            text = f"HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: 9\r\nConnection: close\r\n\r\n"
        else:
            asked = head.split("range: bytes=")[1].splitlines()[0]
            size = int(asked.split("-")[1]) + 1
            told = "1-2" if lie == "other range" else asked
            status = "200 OK" if lie == "whole" else "206 Partial Content"
            sent = {"short": size - 1, "long": 50_000_000}.get(lie, size)
            text = f"HTTP/1.1 {status}\r\nContent-Range: bytes {told}/*\r\nConnection: close\r\n\r\n" + "x" * sent
        writer.write(text.encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        asked = Asked(store, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert "1 damaged" in (await asked.scrub())[0]
    assert len(asked.troubles) == 1


async def test_a_scrub_that_is_cancelled_asks_nobody_any_more(store, branch, tmp_path):
    image = await native(store, "win")
    damage(tmp_path / "here/win/1/p1", 3)
    report = Report()
    report.cancel()
    asked = Asked(store, url_of(branch))
    copies = asked.refetch.copies(image, "p1", report.check)
    with pytest.raises(Cancelled):
        next(copies)
    assert asked.troubles == []
    assert Repairer([store], store, image, "p1", asked.refetch, report.check).repair([]) == []


async def test_a_server_that_says_nothing_does_not_hold_who_cancels(store, tmp_path):
    await native(store, "win")
    damage(tmp_path / "here/win/1/p1", 3)
    connections: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.put_nowait(writer)

    async with await asyncio.start_server(nothing, "127.0.0.1", 0) as server:
        asked = Asked(store, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with asyncio.TaskGroup() as group:
            scrubbing = group.create_task(asked.scrub())
            connection = await connections.get()
            scrubbing.cancel()
            await asyncio.sleep(0)
            connection.close()
    assert scrubbing.cancelled()
    assert "timed out" not in asked.troubles[0], "the loop went on meanwhile"
    assert store.locks.holds == ()


async def test_no_more_than_its_time_is_given_to_an_item(store, branch):
    image = await native(store, "win")
    await native(branch.store, "win")
    asked = Asked(store, url_of(branch))

    def late() -> None:
        asked.now += 1000

    def first() -> object:
        return next(asked.refetch.copies(image, "p1", late), None)

    assert await asyncio.to_thread(first) is None
    assert "300 s" in asked.troubles[0]


async def test_items_without_frames_are_not_refetched(store, branch, tmp_path):
    await put(store, "old", {"a": b"abc"})
    async with httpx.AsyncClient(timeout=60) as client:
        assert (await client.get(f"{branch.api}/images")).status_code == 401
    damage(tmp_path / "here/old/1/a", 0)
    assert "1 damaged" in (await Asked(store, url_of(branch)).scrub())[0]
