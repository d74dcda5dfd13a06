"""The store with states: what is served, what was said of images, what may be purged."""

import json
import os

import pytest

from pbserv.imaging.about import About, AboutChange
from pbserv.imaging.faults import (
    Changed,
    ImageExists,
    InUse,
    InvalidName,
    StoreFull,
    UnknownImage,
    UnknownStore,
    WrongState,
)
from pbserv.imaging.states import ImageKind, VersionState
from pbserv.imaging.store_rules import StoreRules, nobody
from tests.imaging.image_server import files_below, sha256
from tests.imaging.test_store import chunks_of, manifest_of, opened, put, read_all

VALIDATED, ENABLED, DISABLED, RETIRED = VersionState


@pytest.fixture
async def store(tmp_path):
    async with opened(tmp_path / "images", allow_overwrite=True) as store:
        yield store


async def put_many(store, name: str, count: int) -> None:
    for number in range(count):
        await put(store, name, {"a": b"%d" % number})


def states(store, name: str) -> dict[int, VersionState]:
    return {version.number: version.state for version in store.object(name).versions}


async def test_a_commit_is_signed_off_and_survives_a_restart(tmp_path):
    async with opened(tmp_path) as store:
        draft = store.begin("win", creator="job:17")
        await draft.receive("a", chunks_of(b"abc"))
        image = await draft.commit(manifest_of({"a": b"abc"}))
        before = store.object("win")
        assert (before.state, before.kind, before.store, before.served) == ("enabled", ImageKind.DISK, "main", image)
        version = before.version(1)
        assert version.about.manifest_sha256 == sha256((tmp_path / "win/1/manifest").read_bytes())
        assert (version.about.by, image.facts.creator, image.facts.job) == ("job:17", "job:17", 17)
        assert image.facts.received["a"].sha256 == sha256(b"abc")
    async with opened(tmp_path) as store:
        assert store.object("win") == before


async def test_images_of_an_older_pbserv_are_served_as_they_are(tmp_path):
    async with opened(tmp_path, allow_overwrite=True) as store:
        await put_many(store, "win.11", 0)
        await put_many(store, "win", 2)
    os.rename(tmp_path / "win", tmp_path / "win.11")  # a name that could be given then
    for name in ("about", "1/facts", "2/facts"):
        (tmp_path / "win.11" / name).unlink()
    (tmp_path / ".store").unlink()
    rules = StoreRules(allow_overwrite=True, auto_enable=False, floor_bytes=0)
    async with opened(tmp_path, rules=rules) as store:
        assert states(store, "win.11") == {1: ENABLED, 2: ENABLED}
        assert store.info("win.11").version == 2
        assert store.info("win.11").facts.creator == ""
        assert not (tmp_path / "win.11/about").exists()
        await put(store, "win.11", {"a": b"x"})
        assert states(store, "win.11") == {1: ENABLED, 2: ENABLED, 3: VALIDATED}
        with pytest.raises(InvalidName, match="try 'other-1'"):
            store.begin("other.1")
    async with opened(tmp_path, rules=rules) as store:
        assert store.info("win.11").version == 2


async def test_a_version_that_about_does_not_know_is_not_enabled_where_that_takes_a_decision(tmp_path):
    async with opened(tmp_path, allow_overwrite=True) as store:
        await put_many(store, "win", 2)
    about = json.loads((tmp_path / "win/about").read_text())
    del about["versions"]["2"]  # the power went between the two steps of the commit
    about["versions"]["7"] = {"state": "enabled"}  # and in the middle of a purge
    (tmp_path / "win/about").write_text(json.dumps(about))
    async with opened(tmp_path, rules=StoreRules(auto_enable=False, floor_bytes=0)) as store:
        assert states(store, "win") == {1: ENABLED, 2: VALIDATED}
        assert (store.info("win").version, store.object("win").about.last) == (1, 7)
    async with opened(tmp_path) as store:
        assert states(store, "win") == {1: ENABLED, 2: ENABLED}


async def test_an_about_that_cannot_be_read_is_damage(tmp_path):
    async with opened(tmp_path, allow_overwrite=True) as store:
        await put_many(store, "win", 2)
        await store.move("win", 2, RETIRED, "anna")
    good = (tmp_path / "win/about").read_bytes()
    (tmp_path / "win/about").write_bytes(b"{")
    async with opened(tmp_path) as store:
        assert [damage.path for damage in store.damages] == ["win"]
        with pytest.raises(UnknownImage, match="about: is not JSON"):
            store.info("win")
        with pytest.raises(ImageExists):
            store.begin("win")
    (tmp_path / "win/about").write_bytes(good)
    async with opened(tmp_path) as store:
        assert (store.info("win").version, store.damages) == (1, ())


async def test_states_and_what_is_served(store, tmp_path):
    await put_many(store, "win", 3)
    assert store.info("win").version == 3
    await store.move("win", 3, DISABLED, "anna")
    assert (store.info("win").version, store.versions("win")) == (2, (1, 2, 3))
    assert store.info("win", 3).version == 3
    await store.move("win", 2, RETIRED, "anna")
    with pytest.raises(WrongState, match="version 2 is retired and cannot become enabled, but disabled"):
        await store.move("win", 2, ENABLED, "anna")
    with pytest.raises(UnknownImage, match="has no version 9"):
        await store.move("win", 9, ENABLED, "anna")
    await store.move("win", 1, DISABLED, "anna")
    with pytest.raises(UnknownImage, match="version 1 is disabled, version 2 is retired"):
        store.info("win")
    assert store.list() == ()
    with pytest.raises(ImageExists):
        store.begin("win", overwrite=False)
    async with opened(tmp_path / "other") as other:
        assert other.all() == ()
    image = await store.move("win", 3, ENABLED, "anna")
    assert (image.served.version, image.version(3).about.by) == (3, "anna")


async def test_states_survive_a_restart(tmp_path):
    async with opened(tmp_path, allow_overwrite=True) as store:
        await put_many(store, "win", 3)
        await store.rollback("win", None, "anna")
        before = store.all()
    async with opened(tmp_path) as store:
        assert store.all() == before
        assert store.info("win").version == 2


async def test_roll_back(store):
    await put_many(store, "win", 3)
    assert (await store.rollback("win", None, "anna")).served.version == 2
    assert states(store, "win") == {1: ENABLED, 2: ENABLED, 3: DISABLED}
    assert (await store.rollback("win", 1, "anna")).served.version == 1
    with pytest.raises(WrongState, match="no enabled version before"):
        await store.rollback("win", None, "anna")
    assert (await store.rollback("win", 3, "anna")).served.version == 3


async def test_generations_are_kept(tmp_path):
    rules = StoreRules(allow_overwrite=True, keep=2, floor_bytes=0)
    async with opened(tmp_path, rules=rules) as store:
        await put_many(store, "win", 4)
        assert states(store, "win") == {1: RETIRED, 2: RETIRED, 3: ENABLED, 4: ENABLED}
        await store.change("win", AboutChange(keep=0))
        await put_many(store, "win", 1)
        assert states(store, "win")[3] is ENABLED
        await store.rollback("win", 3, "anna")
        await store.change("win", AboutChange(keep=1))
        await put_many(store, "win", 1)
        assert states(store, "win") == {1: RETIRED, 2: RETIRED, 3: RETIRED, 4: RETIRED, 5: RETIRED, 6: ENABLED}


async def test_purging_takes_two_steps(store, tmp_path):
    await put_many(store, "win", 2)
    for version in (2, None):
        with pytest.raises(WrongState, match="retire it first"):
            await store.purge("win", version)
    await store.move("win", 2, RETIRED, "anna")
    used = store.facts().used_bytes
    await store.purge("win", 2)
    assert store.facts().used_bytes < used
    assert files_below(tmp_path / "images") == ["win/1/a", "win/1/facts", "win/1/manifest", "win/about"]
    assert (await put(store, "win", {"a": b"x"})).version == 3
    with pytest.raises(UnknownImage):
        await store.purge("win", 2)
    for version in (1, 3):
        await store.move("win", version, RETIRED, "anna")
    await store.purge("win")
    assert files_below(tmp_path / "images") == []
    assert (store.all(), store.facts().used_bytes) == ((), 0)


async def test_the_last_version_takes_the_image_with_it(store, tmp_path):
    await put_many(store, "win", 1)
    await store.move("win", 1, RETIRED, "anna")
    await store.purge("win", 1)
    assert (files_below(tmp_path), store.all()) == ([], ())


async def test_an_image_in_use_is_neither_purged_nor_deleted(store):
    await put_many(store, "win", 2)

    async def users(image: str, version: int | None) -> list[str]:
        return ["job 17 of 52:54:00:12:34:56"] if version in (None, 1) else []

    store.users = users
    await store.move("win", 2, RETIRED, "anna")
    with pytest.raises(InUse, match="win is in use: job 17 of 52:54"):
        await store.move("win", 1, RETIRED, "anna")  # the last one that is served
    with pytest.raises(InUse):
        await store.delete("win")
    await store.move("win", 1, DISABLED, "anna")
    with pytest.raises(InUse, match="version 1 is in use"):
        await store.move("win", 1, RETIRED, "anna")
    store.users = nobody
    await store.move("win", 1, RETIRED, "anna")
    store.users = users
    with pytest.raises(InUse, match="version 1 is in use"):
        await store.purge("win", 1)
    with store.locks.shared("win", 2, "is being scrubbed"), pytest.raises(InUse, match="is being scrubbed"):
        await store.purge("win", 2)
    await store.purge("win", 2)


async def test_what_is_said_of_an_image(store, tmp_path):
    image = await store.register("lab", About(title="Room 12", kind=ImageKind.PARTITION))
    assert (image.state, image.kind, image.served, store.list()) == ("registered", ImageKind.PARTITION, None, ())
    with pytest.raises(UnknownImage, match="registered"):
        store.info("lab")
    with pytest.raises(ImageExists):
        await store.register("lab", About())
    with pytest.raises(UnknownStore):
        await store.register("other", About(), "attic")
    changed = await store.change("lab", AboutChange(comment="new"), image.etag)
    assert (changed.about.title, changed.about.comment) == ("Room 12", "new")
    with pytest.raises(Changed):
        await store.change("lab", AboutChange(comment="newer"), image.etag)
    with pytest.raises(UnknownImage):
        await store.change("nothing", AboutChange(comment="newer"))
    await put(store, "lab", {"a": b"x"}, overwrite=False)
    assert store.object("lab").about.title == "Room 12"
    await store.move("lab", 1, RETIRED, "anna")
    await store.purge("lab")
    await store.register("lab", About())
    await store.purge("lab")
    assert files_below(tmp_path) == []


async def test_the_quota_counts_what_is_kept_and_what_arrives(tmp_path):
    rules = StoreRules(allow_overwrite=True, quota_bytes=(3 << 20) + 65536, floor_bytes=0)
    async with opened(tmp_path, rules=rules) as store:
        with pytest.raises(StoreFull, match="quota of 3 MiB"):
            store.begin("win", size_bytes=4 << 20)
        draft = store.begin("win")
        with pytest.raises(StoreFull, match="quota"):
            await draft.receive("a", chunks_of(bytes(4 << 20)))
        assert store.facts().used_bytes == 0
        await draft.receive("a", chunks_of(bytes(2 << 20)))
        await draft.receive("a", chunks_of(bytes(1 << 20)))
        await draft.commit(manifest_of({"a": bytes(1 << 20)}))
        used = store.facts().used_bytes
        assert used == sum(path.stat().st_size for path in (tmp_path / "win/1").iterdir())
        other = store.begin("other")
        await other.receive("a", chunks_of(bytes(1 << 20)))
        await other.discard()
        assert store.facts().used_bytes == used
    async with opened(tmp_path, rules=rules) as store:
        assert store.facts().used_bytes == used
        await store.delete("win")
        assert store.facts().used_bytes == 0


async def test_a_version_that_a_scrub_found_damaged_is_not_served(store):
    await put_many(store, "win", 2)
    await store.verified("win", 1, "")
    await store.verified("win", 2, "item a: frame 3 at byte 7: wrong")
    assert store.info("win").version == 1
    image = store.object("win")
    assert (image.served.version, image.version(2).damage) == (1, "item a: frame 3 at byte 7: wrong")
    assert (image.version(1).about.verified is not None, image.version(2).about.verified) == (True, None)
    await store.verified("win", 1, "bad too")
    with pytest.raises(UnknownImage, match="bad too"):
        store.info("win")
    await store.verified("win", 2, "")
    assert store.info("win").version == 2


async def test_files_in_the_root_are_no_damage_and_a_linked_one_goes_with_its_version(tmp_path):
    async with opened(tmp_path, allow_overwrite=True) as store:
        await put_many(store, "win", 2)
    os.link(tmp_path / "win/1/a", tmp_path / "win.img")
    for name in ("win.img.sum", "win.img.full.sum", "other.img"):
        (tmp_path / name).write_bytes(b"x")
    async with opened(tmp_path) as store:
        assert store.damages == ()
        await store.move("win", 1, RETIRED, "anna")
        await store.purge("win", 1)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".incoming", ".store", "other.img", "win"]
        assert await read_all(store, "win", "a") == b"1"
