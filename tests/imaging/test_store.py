import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pbserv.errors import StartError
from pbserv.imaging.about import About
from pbserv.imaging.faults import (
    ChecksumMismatch,
    DamagedImage,
    DraftGone,
    Forbidden,
    ImageExists,
    InvalidName,
    ManifestMismatch,
    ShortBody,
    StoreClosed,
    StoreFull,
    UnknownImage,
    UploadRunning,
    UploadStalled,
)
from pbserv.imaging.manifest import DiskFacts, Manifest, ManifestError, ManifestItem, print_manifest
from pbserv.imaging.store import Store
from tests.imaging.image_server import files_below, sha256, until

DATA = {"table": b"label: gpt\n", "p1.ext4": os.urandom(3 * 1024 * 1024 + 17), "empty": b""}


async def chunks_of(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def manifest_of(data: dict[str, bytes]) -> str:
    items = tuple(ManifestItem(name, "raw", 0, len(body), sha256(body), len(body)) for name, body in data.items())
    return print_manifest(Manifest(DiskFacts(1 << 30, 512, "gpt", "bios"), items))


async def put(backend, name: str, data: dict[str, bytes] = DATA, **options):
    draft = backend.begin(name, **options)
    for item, body in data.items():
        await draft.receive(item, chunks_of(body))
    return await draft.commit(manifest_of(data))


async def read_all(backend, name: str, item: str, version: int | None = None) -> bytes:
    source = await backend.open(name, item, version)
    try:
        return await source.read(0, source.size_bytes + 1)
    finally:
        source.close()


@asynccontextmanager
async def opened(root: Path, **options) -> AsyncIterator[Store]:
    running = options.pop("jobs", ())
    store = Store(root, **{"free_floor_bytes": 0, **options})

    async def jobs() -> dict[int, int | None]:
        return dict.fromkeys(running)

    store.jobs = jobs
    await store.start()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(tmp_path):
    async with opened(tmp_path / "images") as store:
        yield store


async def test_an_image_is_stored_listed_read_and_survives_a_restart(tmp_path):
    root = tmp_path / "images"
    async with opened(root) as store:
        image = await put(store, "win")
        assert (image.name, image.version, store.versions("win")) == ("win", 1, (1,))
        assert store.list() == (image,)
        inside = [f"win/1/{name}" for name in ("empty", "facts", "manifest", "p1.ext4", "p1.ext4.pbx", "table")]
        assert files_below(root) == [*inside, "win/about"]
        assert (root / "win/1/manifest").read_text().startswith(manifest_of(DATA))
        for name, body in DATA.items():
            assert await read_all(store, "win", name) == body
    async with opened(root) as store:
        assert store.info("win") == image
        assert store.damages == ()


async def test_nothing_is_visible_before_the_commit(store, tmp_path):
    draft = store.begin("win")
    item = await draft.receive("table", chunks_of(b"abc"))
    assert (item.size_bytes, item.sha256) == (3, sha256(b"abc"))
    assert store.list() == ()
    assert sorted(os.listdir(tmp_path / "images")) == [".incoming", ".store"]
    with pytest.raises(UnknownImage):
        store.info("win")
    await draft.discard()
    assert files_below(tmp_path) == []
    assert os.listdir(tmp_path / "images/.incoming") == []


async def test_an_image_is_not_overwritten_unless_allowed(tmp_path):
    async with opened(tmp_path) as store:
        await put(store, "win")
        for overwrite in (None, False):
            with pytest.raises(ImageExists, match="win exists"):
                store.begin("win", overwrite=overwrite)
        with pytest.raises(Forbidden, match="AllowImageOverwrite"):
            store.begin("win", overwrite=True)
        store.allow_overwrite = True
        with pytest.raises(ImageExists):
            store.begin("win", overwrite=False)
        second = await put(store, "win", {"a": b"new"}, overwrite=True)
        third = await put(store, "win", {"a": b"newest"})
        assert (second.version, third.version, store.info("win").version) == (2, 3, 3)
        assert await read_all(store, "win", "a") == b"newest"
        assert await read_all(store, "win", "a", 2) == b"new"
        assert await read_all(store, "win", "table", 1) == DATA["table"]
        with pytest.raises(UnknownImage, match="no version 9"):
            store.info("win", 9)


async def test_the_second_upload_of_a_name_is_refused_while_the_first_runs(store):
    first = store.begin("win")
    with pytest.raises(UploadRunning, match="being uploaded"):
        store.begin("win")
    store.begin("other")
    first.discard()
    second = store.begin("win")
    await second.receive("a", chunks_of(b"x"))
    assert (await second.commit(manifest_of({"a": b"x"}))).version == 1


@pytest.mark.parametrize(
    ("expected", "fault"),
    [({"size_bytes": 4}, ShortBody), ({"size_bytes": 2}, ShortBody), ({"sha256": "0" * 64}, ChecksumMismatch)],
)
async def test_wrong_bodies_leave_nothing(store, tmp_path, expected, fault):
    draft = store.begin("win")
    with pytest.raises(fault):
        await draft.receive("a", chunks_of(b"abc"), **expected)
    assert files_below(tmp_path) == []
    await draft.receive("a", chunks_of(b"abc"), size_bytes=3, sha256=sha256(b"abc"))
    assert (await draft.commit(manifest_of({"a": b"abc"}))).version == 1


async def test_an_item_that_comes_again_replaces_the_first(store):
    draft = store.begin("win")
    await draft.receive("a", chunks_of(b"first"))
    with pytest.raises(ShortBody):
        await draft.receive("a", chunks_of(b"broken"), size_bytes=99)
    assert draft.items[0].sha256 == sha256(b"first")
    await draft.receive("a", chunks_of(b"second"))
    await draft.commit(manifest_of({"a": b"second"}))
    assert await read_all(store, "win", "a") == b"second"


@pytest.mark.parametrize(
    ("text", "fault", "says"),
    [
        ("rubbish", ManifestError, "line 1"),
        (manifest_of({"a": b"abc", "b": b""}), ManifestMismatch, "b is in the manifest, but never arrived"),
        (manifest_of({"a": b"abd"}), ManifestMismatch, "the manifest says 3 bytes"),
        (manifest_of({"a": b"abcd"}), ManifestMismatch, "the manifest says 4 bytes"),
        (manifest_of({"c": b"abc"}), ManifestMismatch, "c is in the manifest"),
    ],
)
async def test_a_commit_that_does_not_agree_changes_nothing(store, tmp_path, text, fault, says):
    draft = store.begin("win")
    await draft.receive("a", chunks_of(b"abc"))
    with pytest.raises(fault, match=says):
        await draft.commit(text)
    assert store.list() == ()
    await draft.commit(manifest_of({"a": b"abc"}))
    assert store.info("win").version == 1


async def test_an_item_that_is_not_in_the_manifest_is_refused(store):
    draft = store.begin("win")
    for name in ("a", "b"):
        await draft.receive(name, chunks_of(b"abc"))
    with pytest.raises(ManifestMismatch, match="b arrived, but is not in the manifest"):
        await draft.commit(manifest_of({"a": b"abc"}))


async def test_a_draft_ends_once(store):
    draft = store.begin("win")
    await draft.receive("a", chunks_of(b"abc"))
    await draft.commit(manifest_of({"a": b"abc"}))
    await draft.discard()
    assert store.info("win").version == 1
    for ended in (draft.receive("b", chunks_of(b"")), draft.commit("")):
        with pytest.raises(DraftGone, match="committed already"):
            await ended
    other = store.begin("other")
    await other.discard()
    await other.discard()
    with pytest.raises(DraftGone, match="discarded"):
        await other.receive("b", chunks_of(b""))


async def test_discarding_ends_an_item_that_is_arriving(store, tmp_path):
    more = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1024 * 1024
            await more.wait()

    draft = store.begin("win")

    async def receive() -> None:
        with pytest.raises(DraftGone):
            await draft.receive("a", endless())

    async with asyncio.TaskGroup() as group:
        group.create_task(receive())
        await until(lambda: files_below(tmp_path) != [])
        with pytest.raises(UploadRunning, match="still arriving"):
            await draft.commit(manifest_of({"a": b"abc"}))
        await draft.discard()
        assert os.listdir(tmp_path / "images/.incoming") == []
        more.set()


async def test_a_cancelled_upload_leaves_nothing(store, tmp_path):
    async def stuck() -> AsyncIterator[bytes]:
        yield b"x" * (2 * 1024 * 1024)
        await asyncio.Event().wait()

    draft = store.begin("win")
    async with asyncio.TaskGroup() as group:
        receiving = group.create_task(draft.receive("a", stuck()))
        await until(lambda: files_below(tmp_path) != [])
        receiving.cancel()
    assert files_below(tmp_path) == []
    await draft.discard()


async def test_a_sender_that_stalls_is_given_up(tmp_path):
    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with opened(tmp_path, idle_timeout_s=0.05) as store:
        with pytest.raises(UploadStalled):
            await store.begin("win").receive("a", silent())
        assert files_below(tmp_path) == []


async def test_the_free_space_floor_holds_before_and_during_an_upload(tmp_path):
    facts = os.statvfs(tmp_path)
    free = facts.f_bavail * facts.f_frsize
    async with opened(tmp_path, free_floor_bytes=free * 2) as store:
        with pytest.raises(StoreFull, match="make room"):
            store.begin("win")
    async with opened(tmp_path) as store:
        with pytest.raises(StoreFull):
            store.begin("win", size_bytes=free * 2)
        draft = store.begin("win")
        with pytest.raises(StoreFull):
            await draft.receive("a", chunks_of(b"x"), size_bytes=free * 2)
        assert files_below(tmp_path) == []


async def test_a_deleted_image_goes_at_once_and_stays_readable_for_who_reads_it(store, tmp_path):
    await put(store, "win")
    source = await store.open("win", "p1.ext4")
    await store.delete("win")
    assert store.list() == ()
    assert files_below(tmp_path) == []
    assert os.listdir(tmp_path / "images/.incoming") == []
    assert await source.read(0, 1 << 23) == DATA["p1.ext4"]
    source.close()
    with pytest.raises(UnknownImage):
        await store.delete("win")
    assert (await put(store, "win", {"a": b"x"})).version == 1


async def test_names_that_could_leave_the_store_are_refused(store):
    for name in ("../x", "..", "/etc", ".incoming", "a/b", ""):
        with pytest.raises(InvalidName):
            store.begin(name)
        with pytest.raises(InvalidName):
            store.info(name)
        with pytest.raises(InvalidName):
            await store.delete(name)
    draft = store.begin("win")
    for name in ("../x", ".part.1", "manifest", "a/b"):
        with pytest.raises(InvalidName):
            await draft.receive(name, chunks_of(b"x"))


async def test_symbolic_links_below_the_root_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "images"
    async with opened(root) as store:
        await put(store, "win", {"a": b"abc"})
        (root / "win/1/a").unlink()
        (outside / "a").write_bytes(b"xyz")
        (root / "win/1/a").symlink_to(outside / "a")
        with pytest.raises(DamagedImage):
            await store.open("win", "a")
        (root / "evil").symlink_to(outside)
        draft = store.begin("evil")
        await draft.receive("a", chunks_of(b"abc"))
        with pytest.raises(Exception, match="renaming it into place"):
            await draft.commit(manifest_of({"a": b"abc"}))
        await draft.discard()
        assert files_below(outside) == ["a"]
        assert store.versions("evil") == ()
    async with opened(root) as store:
        assert sorted(damage.path for damage in store.damages) == ["evil", "win/1"]


async def test_what_a_crash_left_is_removed_and_damage_is_named(tmp_path):
    root = tmp_path / "images"
    async with opened(root) as store:
        await put(store, "good", {"a": b"abc"})
        await put(store, "short", {"a": b"abc"})
    (root / ".incoming/win.0123").mkdir()
    (root / ".incoming/win.0123/.part.1").write_bytes(b"half")
    (root / ".incoming/file").write_bytes(b"")
    (root / "halfway").mkdir()
    (root / "short/1/a").write_bytes(b"ab")
    async with opened(root) as store:
        assert os.listdir(root / ".incoming") == []
        assert not (root / "halfway").exists()
        assert [image.name for image in store.list()] == ["good"]
        assert [damage.path for damage in store.damages] == ["short/1"]
        with pytest.raises(UnknownImage, match="not a file of 3 bytes"):
            store.info("short")
        with pytest.raises(ImageExists, match="damaged"):
            store.begin("short")
        await store.delete("short")
        await put(store, "short", {"a": b"x"})


async def test_a_folder_of_other_things_is_no_image_and_stays_as_it_is(tmp_path):
    """OpenGnSys has the images of an organizational unit in a folder of their own."""
    root = tmp_path / "images"
    async with opened(root) as store:
        await put(store, "good", {"a": b"abc"})
    for folder in ("groupx", "group y"):
        (root / folder).mkdir()
        (root / folder / "lab.img").write_bytes(b"an image")
    before = files_below(root)
    async with opened(root, allow_overwrite=True) as store:
        assert [one.name for one in store.all()] == ["good"]
        assert (store.damages, store.foreign) == ((), (f"{root}/group y", f"{root}/groupx"))
        assert list(store.layout.entries()) == [("good", "1")]
        with pytest.raises(ImageExists, match="groupx is a folder of other things"):
            store.begin("groupx")
        with pytest.raises(ImageExists, match="move it away"):
            await store.register("groupx", About())
        draft = store.begin("later")
        await draft.receive("a", chunks_of(b"abc"))
        (root / "later").mkdir()
        (root / "later/notes").write_bytes(b"made meanwhile")
        with pytest.raises(ImageExists, match="later is a folder of other things"):
            await draft.commit(manifest_of({"a": b"abc"}))
        await draft.discard()
        (root / "groupx").rename(root / "groupz")
        await put(store, "groupx", {"a": b"x"})
        assert store.info("groupx").version == 1
        (root / "later/notes").unlink()
        (root / "groupz").rename(root / "later/groupx")
        await store.delete("groupx")
        (root / "later/groupx").rename(root / "groupx")
        (root / "later").rmdir()
    assert files_below(root) == before


async def test_a_new_version_never_takes_the_number_of_a_damaged_one(tmp_path):
    async with opened(tmp_path) as store:
        await put(store, "win", {"a": b"abc"})
    (tmp_path / "win/1/manifest").write_bytes(b"\xff\x00")
    async with opened(tmp_path, allow_overwrite=True) as store:
        assert (await put(store, "win", {"a": b"x"})).version == 2


async def test_two_processes_cannot_use_one_store(store, tmp_path):
    second = Store(tmp_path / "images")
    with pytest.raises(StartError, match="another process uses it"):
        await second.start()
    with pytest.raises(StoreClosed):
        second.begin("win")


async def test_a_store_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StartError, match="check StateDirectory"):
        await Store(tmp_path / "file" / "images").start()


async def test_closing_discards_what_is_being_uploaded(tmp_path):
    async with opened(tmp_path) as store:
        draft = store.begin("win")
        await draft.receive("a", chunks_of(b"abc"))
    assert files_below(tmp_path) == []
    with pytest.raises(DraftGone):
        await draft.receive("a", chunks_of(b"abc"))


async def test_the_loop_stays_free_while_uploads_are_written(store):
    """While 32 MiB are hashed and written, other work on the loop gets its turn between the blocks."""
    turns, block = 0, os.urandom(1024 * 1024)
    ended = asyncio.Event()

    async def ticker() -> None:
        nonlocal turns
        while not ended.is_set():
            turns += 1
            await asyncio.sleep(0)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(32):
            yield block

    async with asyncio.TaskGroup() as group:
        group.create_task(ticker())
        await store.begin("win").receive("a", body())
        ended.set()
    assert turns > 32
    assert threading.active_count() <= 32


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a tiny file system")
async def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path):
    async def mount(*arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(*arguments)
        assert await process.wait() == 0

    await mount("mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path))
    try:
        async with opened(tmp_path) as store:
            draft = store.begin("win")
            with pytest.raises(StoreFull):
                await draft.receive("a", chunks_of(bytes(5 * 1024 * 1024)))
            assert files_below(tmp_path) == []
            await draft.receive("a", chunks_of(bytes(1024 * 1024)))
            await draft.commit(manifest_of({"a": bytes(1024 * 1024)}))
        async with opened(tmp_path, free_floor_bytes=-(1 << 40)) as store:  # no look ahead: the kernel itself refuses
            draft = store.begin("other")
            with pytest.raises(StoreFull, match="No space left on device"):
                await draft.receive("a", chunks_of(bytes(5 * 1024 * 1024)))
            await draft.discard()
            assert files_below(tmp_path) == ["win/1/a", "win/1/facts", "win/1/manifest", "win/about"]
    finally:
        await mount("umount", str(tmp_path))
