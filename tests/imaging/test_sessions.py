"""Uploads in parts: they go on after a restart, become native, and share frames with the version before."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard

from pbserv.conf.places import StorePlace
from pbserv.imaging.away import Away
from pbserv.imaging.captures import Captures
from pbserv.imaging.faults import (
    ChecksumMismatch,
    DraftGone,
    ImageExists,
    InvalidRequest,
    ManifestMismatch,
    ShortBody,
    StoreFault,
    StoreFull,
    UploadRunning,
    WrongPart,
)
from pbserv.imaging.frames.delta import unshared
from pbserv.imaging.manifest import DiskFacts, Manifest, ManifestItem, print_manifest
from pbserv.imaging.referring import Referring
from pbserv.imaging.slot import BackendSlot
from pbserv.imaging.store_rules import StoreRules
from pbserv.imaging.stores import Stores, StoresSettings
from pbserv.log import ServiceLog
from pbserv.registry.records import BundleKind, Job, WorkState
from tests.imaging.image_server import files_below, sha256
from tests.imaging.making import partclone
from tests.imaging.test_store import chunks_of, opened, put, read_all
from tests.imaging.test_stores import settings_of

PART = 300_000
KIND = "partclone.ext4"
MADE = partclone(range(0, 600, 2), 700, per_checksum=64)
CHANGED = partclone(range(0, 600, 2), 700, per_checksum=64, seeds={300: 7})


def parts_of(stream: bytes) -> list[bytes]:
    return [zstandard.compress(stream[at : at + PART]) for at in range(0, len(stream), PART)]


def told(parts: list[bytes]) -> tuple[int, str]:
    """What a client finds out on its own: bytes sent, and the digest over the digests."""
    digests = "".join(sha256(part) for part in parts)
    return sum(map(len, parts)), hashlib.sha256(digests.encode()).hexdigest()


def manifest_of(**items: tuple[str, int, str, int]) -> str:
    """Items by name without their dot and ending: kind, bytes, digest, uncompressed bytes."""
    found = tuple(
        ManifestItem(name, kind, 1, size, digest, plain) for name, (kind, size, digest, plain) in items.items()
    )
    return print_manifest(Manifest(DiskFacts(1 << 30, 512, "gpt", "bios"), found))


async def send(session, item: str, stream: bytes, first: int = 1, last: int | None = None) -> None:
    for number, part in enumerate(parts_of(stream), start=1):
        if first <= number and (last is None or number <= last):
            await session.part(item, KIND, number, chunks_of(part), sha256(part))


async def commit(session, item: str, stream: bytes):
    arrived = await session.complete(item, len(parts_of(stream)), len(stream))
    assert (arrived.size_bytes, arrived.sha256) == told(parts_of(stream))
    return await session.commit(manifest_of(**{item: (KIND, arrived.size_bytes, arrived.sha256, len(stream))}))


@pytest.fixture
def registry_job() -> Callable[[int, str], Job]:
    def job(number: int, image: str) -> Job:
        at = datetime(2026, 1, 2, tzinfo=UTC)
        state = WorkState.RUNNING
        return Job(number, 1, "52:54:00:12:34:56", BundleKind.CAPTURE, image, None, "", state, "", "", "", 0, 0, 0, at,
                   None, "")  # fmt: skip

    return job


@pytest.fixture
async def store(tmp_path):
    async with opened(tmp_path / "images", allow_overwrite=True) as store:
        yield store


async def test_parts_become_a_native_item(store, tmp_path):
    session = store.open_session("win", owner="token:anna")
    assert (session.owner, session.store, session.next_part("p1")) == ("token:anna", "main", 1)
    await send(session, "p1", MADE.stream)
    progress = session.progress()["p1"]
    assert (progress.next_part, progress.received_bytes, progress.complete) == (
        len(parts_of(MADE.stream)) + 1, told(parts_of(MADE.stream))[0], False)  # fmt: skip
    image = await commit(session, "p1", MADE.stream)
    stored = await read_all(store, "win", "p1")
    assert zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True).read() == MADE.plain
    item = image.manifest.item("p1")
    assert (item.stored_bytes, item.sha256, item.uncompressed_bytes) == (len(stored), sha256(stored), len(MADE.plain))
    assert image.manifest.fact("p1", "body_sha256") == sha256(b"".join(MADE.contents))
    assert image.facts.received["p1"].sha256 == told(parts_of(MADE.stream))[1]
    names = ["facts", "manifest", "p1", "p1.pbx"]
    assert files_below(tmp_path / "images") == [*(f"win/1/{name}" for name in names), "win/about"]
    assert store.facts().used_bytes == sum((tmp_path / "images/win/1" / name).stat().st_size for name in names)
    index = await store.index(image, "p1")
    assert index.index.header.sha256.hex() == item.sha256
    index.close()


async def test_two_versions_share_the_frames_of_what_did_not_change(store):
    images = []
    for made in (MADE, CHANGED):
        session = store.open_session("win", overwrite=bool(images))
        await send(session, "p1", made.stream)
        images.append(await commit(session, "p1", made.stream))
    old, new = [await store.index(image, "p1") for image in images]
    try:
        assert unshared(new.index, old.index).frames == 1
    finally:
        old.close()
        new.close()


async def test_the_old_protocol_becomes_native_too(store):
    body = zstandard.compress(MADE.stream)
    session = store.open_session("win", owner="job:17")
    arrived = await session.receive("p1.ext4.zst", chunks_of(body), size_bytes=len(body), sha256=sha256(body))
    assert (arrived.size_bytes, arrived.sha256) == (len(body), sha256(body))
    table = await session.receive("table", chunks_of(b"label: gpt\n"))
    image = await session.commit(
        manifest_of(**{"p1.ext4.zst": (KIND, len(body), sha256(body), len(MADE.stream)),
                       "table": ("sfdisk", table.size_bytes, table.sha256, 11)})
    )  # fmt: skip
    stored = await read_all(store, "win", "p1.ext4.zst")
    assert zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True).read() == MADE.plain
    assert image.manifest.item("p1.ext4.zst").sha256 == sha256(stored) != sha256(body)
    assert await read_all(store, "win", "table") == b"label: gpt\n"
    assert image.facts.received["p1.ext4.zst"].sha256 == sha256(body)


async def test_what_is_uploaded_as_it_is_stays_as_it_is(store):
    body = zstandard.compress(MADE.stream)
    for session in (store.open_session("one", asis=True), store.begin("two")):
        await session.receive("p1", chunks_of(body))
        await session.commit(manifest_of(p1=(KIND, len(body), sha256(body), len(MADE.stream))))
        assert await read_all(store, session.image, "p1") == body


async def test_a_partclone_stream_under_another_kind_is_refused(store):
    body = zstandard.compress(MADE.stream)
    session = store.open_session("win")
    await session.receive("p1", chunks_of(body))
    with pytest.raises(ManifestMismatch, match="says raw, but it is a partclone stream"):
        await session.commit(manifest_of(p1=("raw", len(body), sha256(body), len(MADE.stream))))


async def test_refusals_leave_the_upload_as_it_was(store):
    session = store.open_session("win")
    parts = parts_of(MADE.stream)
    await send(session, "p1", MADE.stream, last=2)
    with pytest.raises(ChecksumMismatch):
        await session.part("p1", KIND, 3, chunks_of(parts[2]), "0" * 64)
    with pytest.raises(WrongPart) as wrong:
        await session.part("p1", KIND, 9, chunks_of(parts[2]), None)
    assert wrong.value.next_part == 3
    with pytest.raises(InvalidRequest, match=r"of kind 'partclone\.ext4'"):
        await session.part("p1", "raw", 3, chunks_of(parts[2]), None)
    assert (await session.part("p1", KIND, 2, chunks_of(parts[1]), None)).next_part == 3
    with pytest.raises(WrongPart):
        await session.part("p1", KIND, 2, chunks_of(parts[0]), None)
    with pytest.raises(ShortBody):
        await session.complete("p1", len(parts), None)
    with pytest.raises(ManifestMismatch, match="never arrived"):
        await session.commit(manifest_of(p1=(KIND, 1, "0" * 64, 1)))
    with pytest.raises(ManifestMismatch, match="no part of item p2"):
        await session.complete("p2", 1, None)
    with pytest.raises(UploadRunning):
        store.open_session("win")
    await send(session, "p1", MADE.stream, first=3)
    assert (await commit(session, "p1", MADE.stream)).version == 1


async def test_a_commit_gives_up_items_that_are_not_complete(store, tmp_path):
    session = store.open_session("win", owner="token:anna")
    await send(session, "p2", MADE.stream, last=1)
    await send(session, "p1", MADE.stream)
    image = await commit(session, "p1", MADE.stream)
    names = ["facts", "manifest", "p1", "p1.pbx"]
    assert files_below(tmp_path / "images") == [*(f"win/1/{name}" for name in names), "win/about"]
    assert store.facts().used_bytes == sum((tmp_path / "images/win/1" / name).stat().st_size for name in names)
    assert image.manifest.item("p2") is None


async def test_what_a_commit_gave_up_begins_anew_where_it_failed(store, monkeypatch):
    session = store.open_session("win", owner="token:anna")
    await send(session, "p2", MADE.stream, last=1)
    await send(session, "p1", MADE.stream)
    rename = store.layout._place

    def broken(*_arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(store.layout, "_place", broken)
    with pytest.raises(StoreFault, match="renaming it into place"):
        await commit(session, "p1", MADE.stream)
    assert list(session.progress()) == ["p1"]
    names = {"facts", "manifest", "p1", "p1.pbx", "session"}
    there = {path.name for path in (store.root / ".incoming" / f"win.{session.number}").iterdir()}
    assert (names <= there, [name for name in there if name.startswith("p2")]) == (True, [])
    with pytest.raises(WrongPart):
        await send(session, "p2", MADE.stream, first=2)
    monkeypatch.setattr(store.layout, "_place", rename)
    await send(session, "p2", MADE.stream)
    arrived = [await session.complete(name, None, None) for name in ("p1", "p2")]
    items = {item.name: (KIND, item.size_bytes, item.sha256, len(MADE.stream)) for item in arrived}
    image = await session.commit(manifest_of(**items))
    assert len(await read_all(store, "win", "p2")) == image.manifest.item("p2").stored_bytes
    assert store.facts().used_bytes == sum(path.stat().st_size for path in (store.root / "win/1").iterdir())


async def test_an_upload_goes_on_after_a_restart(tmp_path):
    parts = parts_of(MADE.stream)
    async with opened(tmp_path) as store:
        session = store.open_session("win", owner="token:anna")
        await session.receive("table", chunks_of(b"label: gpt\n"))
        await send(session, "p1", MADE.stream, last=2)
        await send(session, "p2", MADE.stream)
        await session.complete("p2", len(parts), None)
        number, used = session.number, store.facts().used_bytes
    folder = next((tmp_path / ".incoming").iterdir())
    (folder / ".part.17").write_bytes(b"half a part")
    async with opened(tmp_path) as store:
        (session,) = store.sessions()
        assert (session.number, session.image, session.owner) == (number, "win", "token:anna")
        assert {name: item.complete for name, item in session.progress().items()} == {
            "table": True, "p1": False, "p2": True}  # fmt: skip
        assert (session.next_part("p1"), store.leftovers) == (3, ())
        assert used <= store.facts().used_bytes < used + 100_000  # checkpoints count too from now on
        assert not (folder / ".part.17").exists()
        with pytest.raises(UploadRunning):
            store.begin("win")
        await send(session, "p1", MADE.stream, first=3)
        arrived = await session.complete("p1", len(parts), len(MADE.stream))
        both = (KIND, arrived.size_bytes, arrived.sha256, len(MADE.stream))
        image = await session.commit(manifest_of(table=("sfdisk", 11, sha256(b"label: gpt\n"), 11), p1=both, p2=both))
        assert await read_all(store, "win", "p1") == await read_all(store, "win", "p2")
        assert image.manifest.fact("p1", "body_sha256") == sha256(b"".join(MADE.contents))
        assert store.facts().used_bytes == sum(path.stat().st_size for path in (tmp_path / "win/1").iterdir())
    async with opened(tmp_path) as store:
        assert (store.sessions(), store.info("win"), store.damages) == ((), image, ())


async def test_what_nobody_can_go_on_with_is_removed(tmp_path):
    async with opened(tmp_path) as store:
        for name, owner in (("one", "job:1"), ("two", "job:2"), ("three", "token:anna")):
            await store.open_session(name, owner=owner).receive("table", chunks_of(b"label: gpt\n"))
        await store.begin("four").receive("table", chunks_of(b"label: gpt\n"))
    (three,) = (tmp_path / ".incoming").glob("three.*")
    (three / "session").write_bytes(b"{")
    async with opened(tmp_path, jobs=[2]) as store:
        assert [session.image for session in store.sessions()] == ["two"]
        assert sorted(action.why for action in store.leftovers) == ["a crash left it", "job 1 does not run any more"]
        await store.sessions()[0].discard()
        assert files_below(tmp_path) == []
        assert store.facts().used_bytes == 0


async def test_discarding_an_upload_in_parts_removes_everything(store, tmp_path):
    session = store.open_session("win")
    await send(session, "p1", MADE.stream, last=2)
    await session.discard()
    assert (files_below(tmp_path), store.facts().used_bytes, store.sessions()) == ([], 0, ())
    with pytest.raises(DraftGone):
        await send(session, "p1", MADE.stream, first=3)


async def test_a_part_that_does_not_fit_is_refused_and_the_upload_goes_on(tmp_path):
    rules = StoreRules(quota_bytes=500_000, floor_bytes=0)
    stream = partclone(range(600), 700, seeds={number: number for number in range(600)}).stream
    async with opened(tmp_path, rules=rules) as store:
        session = store.open_session("win")
        with pytest.raises(StoreFull, match="quota"):
            await session.part("p1", "raw", 1, chunks_of(hashlib.shake_256(b"").digest(600_000)), None)
        assert session.next_part("p1") == 1
        store.rules = replace(rules, quota_bytes=0)
        await session.part("p1", "raw", 1, chunks_of(stream), None)


def captures_of(slot: BackendSlot) -> Captures:
    return Captures(slot, Away(Referring(tuple, lambda _upload: None), bytes(32), ServiceLog("imaging")))


async def test_a_capture_that_cannot_fit_is_refused_before_its_first_byte(tmp_path, registry_job):
    place = StorePlace("main", tmp_path, quota=1 << 20, floor=0)
    slot = BackendSlot()
    await slot.put(Stores(StoresSettings((place,))))
    captures = captures_of(slot)
    captures.begin(job := registry_job(17, "win"), overwrite=False)
    with pytest.raises(StoreFull, match="has a quota of 1 MiB and uses 0 MiB; 2 MiB more do not fit"):
        captures.session(job, 2 << 20)
    assert slot.sessions() == ()
    assert captures.session(job, 1000).image == "win"
    await captures.close()
    await slot.close()


async def test_a_capture_goes_on_after_a_restart(tmp_path, registry_job):
    settings = settings_of(tmp_path, "main")
    job = registry_job(17, "win")

    async def jobs():
        return {17: None}

    async def start(slot: BackendSlot) -> Captures:
        stores = Stores(settings)
        stores.jobs = jobs
        await slot.put(stores)
        return captures_of(slot)

    slot = BackendSlot()
    captures = await start(slot)
    captures.begin(job, overwrite=False)
    await send(captures.session(job), "p1", MADE.stream, last=2)
    await captures.close()
    await slot.close()

    captures = await start(slot)
    with pytest.raises(DraftGone, match="must start again"):
        captures.draft(job)
    captures.resume([job])
    session = captures.session(job)
    assert session.next_part("p1") == 3
    await send(session, "p1", MADE.stream, first=3)
    arrived = await session.complete("p1", None, None)
    text = manifest_of(p1=(KIND, arrived.size_bytes, arrived.sha256, len(MADE.stream)))
    image, now = await captures.commit(job, text)
    assert (image.facts.job, now) == (17, True)
    await captures.close()
    await slot.close()

    captures = await start(slot)  # the answer to the commit was lost, and the registry does not know of it
    captures.resume([job])
    assert await captures.commit(job, text) == (image, False)
    captures.end(17)
    with pytest.raises(ImageExists):
        slot.open_session("win", overwrite=False)
    await slot.close()


async def test_the_stores_find_uploads(tmp_path):
    stores = Stores(settings_of(tmp_path, "main", "fast"))
    await stores.start()
    session = stores.open_session("win", store="fast", owner="job:3")
    assert (session.store, stores.session(session.number), stores.session_of_job(3)) == ("fast", session, session)
    assert (stores.sessions(), stores.session_of_job(4), stores.made_by_job(3)) == ((session,), None, None)
    await put(stores, "other")
    with pytest.raises(DraftGone, match="there is no upload"):
        stores.session("0123")
    await session.discard()
    with pytest.raises(DraftGone):
        stores.session(session.number)
    await stores.close()
    assert not list((Path(tmp_path) / "fast/.incoming").iterdir())
