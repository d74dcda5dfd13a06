"""Several stores as one backend."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pbserv.conf.places import StorePlace
from pbserv.errors import StartError
from pbserv.imaging.about import About
from pbserv.imaging.backend import ImagingBackend, VersionedBackend, is_versioned
from pbserv.imaging.faults import (
    Forbidden,
    ImageExists,
    InUse,
    NotSupported,
    StoreClosed,
    StoreFull,
    UnknownImage,
    UnknownStore,
    UploadRunning,
)
from pbserv.imaging.slot import BackendSlot
from pbserv.imaging.states import VersionState
from pbserv.imaging.stores import Stores, StoresSettings
from tests.imaging.test_store import put, read_all


def settings_of(root: Path, *names: str, **options) -> StoresSettings:
    places = tuple(StorePlace(name, root / name) for name in names)
    return StoresSettings(places, allow_overwrite=True, free_floor_bytes=0, **options)


@asynccontextmanager
async def running(settings: StoresSettings) -> AsyncIterator[Stores]:
    stores = Stores(settings)
    await stores.start()
    try:
        yield stores
    finally:
        await stores.close()


async def test_an_image_belongs_to_one_store(tmp_path):
    async with running(settings_of(tmp_path, "main", "fast")) as stores:
        await put(stores, "win")
        await put(stores, "lab", store="fast")
        assert [(image.name, image.store) for image in stores.all()] == [("lab", "fast"), ("win", "main")]
        assert (tmp_path / "fast/lab/1").is_dir()
        await put(stores, "lab", {"a": b"x"})
        assert (stores.info("lab").version, stores.versions("lab")) == (2, (1, 2))
        assert await read_all(stores, "lab", "a") == b"x"
        with pytest.raises(ImageExists, match="is in store fast"):
            stores.begin("lab", store="main")
        with pytest.raises(UnknownStore, match="'attic', but main, fast"):
            stores.begin("other", store="attic")
        with pytest.raises(ImageExists):
            await stores.register("win", About(), "fast")
        assert (await stores.register("new", About(), "fast")).store == "fast"
        with pytest.raises(UnknownImage):
            stores.info("nothing")
        assert [(facts.name, facts.images, facts.versions) for facts in stores.stores()] == [
            ("main", 1, 1),
            ("fast", 2, 2),
        ]
        await stores.delete("lab")
        await put(stores, "lab", store="main")


async def test_limits_are_of_each_store(tmp_path):
    places = (StorePlace("small", tmp_path / "small", quota=1 << 20), StorePlace("big", tmp_path / "big", keep=1))
    async with running(StoresSettings(places, allow_overwrite=True, free_floor_bytes=0)) as stores:
        with pytest.raises(StoreFull, match="store small has a quota of 1 MiB"):
            await put(stores, "win")
        await stores.sessions()[0].discard()
        for _ in range(2):
            await put(stores, "win", store="big")
        assert [version.state.value for version in stores.object("win").versions] == ["retired", "enabled"]


async def test_images_are_stored_only_in_allowed_directories(tmp_path):
    async with running(settings_of(tmp_path, "main", "fast", upload_directories=(tmp_path / "fast",))) as stores:
        with pytest.raises(Forbidden, match="UploadDirectories"):
            stores.begin("win", store="main")
        await put(stores, "win")
        assert stores.object("win").store == "fast"
    async with running(settings_of(tmp_path, "main", upload_directories=(tmp_path / "elsewhere",))) as stores:
        with pytest.raises(Forbidden):
            stores.begin("other")


async def test_a_name_that_two_stores_have_is_served_from_the_first(tmp_path):
    for name in ("main", "fast"):
        async with running(settings_of(tmp_path, name)) as stores:
            await put(stores, "win", {"a": name.encode()})
    async with running(settings_of(tmp_path, "main", "fast")) as stores:
        assert await read_all(stores, "win", "a") == b"main"
        assert [damage.path for damage in stores.damages] == ["fast:win"]
        assert [image.name for image in stores.list()] == ["win"]
    async with running(settings_of(tmp_path, "fast", "main")) as stores:
        assert await read_all(stores, "win", "a") == b"fast"


async def test_a_reload_lets_no_store_take_over_an_image_and_uncovers_one_when_its_double_is_gone(tmp_path):
    main, fast = StorePlace("main", tmp_path / "main"), StorePlace("fast", tmp_path / "fast")
    settings = settings_of(tmp_path, "main")
    async with running(settings_of(tmp_path, "fast")) as stores:
        await put(stores, "win", {"a": b"fast"})
        await put(stores, "win", {"a": b"fast"})
        await put(stores, "lab", {"a": b"fast"})
    async with running(settings) as stores:
        served = await put(stores, "win", {"a": b"main"})
        with pytest.raises(StartError, match=r"fast has images of the same names as store main.*: win; name"):
            await stores.prepare(replace(settings, places=(fast, main)))
        assert (stores.info("win"), len(stores.stores())) == (served, 1)
        for _ in range(2):  # what was refused is closed
            (await stores.prepare(replace(settings, places=(main, fast)))).commit()
        assert await read_all(stores, "win", "a") == b"main"
        assert [damage.path for damage in stores.damages] == ["fast:win"]
        assert [image.name for image in stores.list()] == ["lab", "win"]
        with pytest.raises(StartError, match="same names"):  # neither does another order
            await stores.prepare(replace(settings, places=(fast, main)))
        (await stores.prepare(replace(settings, places=(fast,)))).commit()
        assert (stores.damages, stores.versions("win"), await read_all(stores, "win", "a")) == ((), (1, 2), b"fast")


async def test_a_store_inside_another_is_no_image_of_it(tmp_path):
    places = (StorePlace("main", tmp_path), StorePlace("fast", tmp_path / "fast/images"))
    async with running(StoresSettings(places, free_floor_bytes=0)) as stores:
        await put(stores, "win", store="fast")
    async with running(StoresSettings(places, free_floor_bytes=0)) as stores:
        assert stores.damages == ()
        assert stores.object("win").store == "fast"


async def test_a_reload_adds_and_takes_away_stores(tmp_path):
    both, one = settings_of(tmp_path, "main", "fast"), settings_of(tmp_path, "main")
    async with running(one) as stores:
        await put(stores, "win")
        (await stores.prepare(both)).abort()
        assert len(stores.stores()) == 1
        (await stores.prepare(both)).commit()
        await put(stores, "lab", store="fast")
        draft = stores.begin("other", store="fast")
        with pytest.raises(StartError, match="image other is being uploaded"):
            await stores.prepare(one)
        await draft.discard()
        source = await stores.open("lab", "p1.ext4")
        (await stores.prepare(one)).commit()
        assert [image.name for image in stores.list()] == ["win"]
        assert len(await source.read(0, 1 << 20)) == 1 << 20
        source.close()
        (await stores.prepare(both)).commit()  # its lock was given back
        assert [image.name for image in stores.list()] == ["lab", "win"]
        limited = replace(both, places=(replace(both.places[0], quota=1), both.places[1]), allow_overwrite=False)
        (await stores.prepare(limited)).commit()
        with pytest.raises(StoreFull):
            stores.begin("more")
        assert not stores.allow_overwrite
        with pytest.raises(StartError, match="names change with a restart"):
            await stores.prepare(replace(both, places=(StorePlace("other", tmp_path / "main"),)))
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StartError):
            await stores.prepare(settings_of(tmp_path, "main", "fast", "file"))
        assert len(stores.stores()) == 2


async def test_nothing_begins_in_a_store_while_a_reload_takes_it_away(tmp_path):
    both, one = settings_of(tmp_path, "main", "fast"), settings_of(tmp_path, "main")
    async with running(both) as stores:
        await put(stores, "lab", store="fast")
        fast = stores.store("fast")
        reload = await stores.prepare(one)
        for begin in (stores.begin, stores.open_session):
            with pytest.raises(StoreClosed, match="store fast is being taken away by a reload"):
                begin("other", store="fast")
        with pytest.raises(StoreClosed):
            await stores.register("other", About(), "fast")
        with pytest.raises(InUse, match="being taken away"):
            await stores.delete("lab")
        with pytest.raises(InUse), fast.locks.shared("lab", 1, "is being verified"):
            pass
        assert await read_all(stores, "lab", "p1.ext4")
        reload.abort()
        await put(stores, "other", store="fast")
        with pytest.raises(StartError):
            await stores.prepare(replace(one, places=(*one.places, StorePlace("x", tmp_path / "fast/lab/1/table"))))
        await put(stores, "more", store="fast")
        (await stores.prepare(one)).commit()
        assert stores.all() == ()


async def test_a_store_that_jobs_run_with_is_not_taken_away(tmp_path):
    asked = []

    async def at_work(store: str, images: Collection[str]) -> list[str]:
        asked.append((store, set(images)))
        return ["job 17 of 52:54:00:12:34:56"]

    async with running(settings_of(tmp_path, "main", "fast")) as stores:
        await put(stores, "win")
        await put(stores, "lab", store="fast")
        stores.at_work = at_work
        with pytest.raises(StartError, match="store fast cannot be taken away: job 17 of 52:54"):
            await stores.prepare(settings_of(tmp_path, "main"))
        assert asked == [("fast", {"lab"})]
        await put(stores, "other", store="fast")


async def test_a_store_that_cannot_start_stops_all(tmp_path):
    (tmp_path / "fast").write_bytes(b"")
    with pytest.raises(StartError):
        await Stores(settings_of(tmp_path, "main", "fast")).start()
    async with running(settings_of(tmp_path, "main")):
        pass


async def test_the_slot_passes_on_what_the_backend_can(tmp_path):
    slot = BackendSlot()
    versioned: VersionedBackend = slot
    with pytest.raises(StoreClosed):
        versioned.all()
    stores = Stores(settings_of(tmp_path, "main"))
    assert is_versioned(stores)
    await slot.put(stores)
    await put(slot, "win")
    image = slot.object("win")
    assert (await slot.rollback("win", 1, "anna")).served == image.served == slot.info("win")
    assert await slot.index(slot.info("win"), "table") is None
    slot.begin("other")
    with pytest.raises(UploadRunning):
        slot.begin("other")
    await slot.close()


class _Own:
    """A backend of somebody's own: no more than an ImagingBackend."""

    allow_overwrite = False

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def list(self):
        return ()


async def test_what_an_own_backend_cannot_do_is_said():
    slot = BackendSlot()
    own: ImagingBackend = _Own()  # type: ignore[assignment]
    await slot.put(own)
    assert (slot.list(), slot.damages, await slot.prepare(settings_of(Path("/nowhere"), "main"))) == ((), (), None)
    with pytest.raises(NotSupported, match="LIBRARY_NAME"):
        slot.all()


async def test_each_retirement_is_told_once(tmp_path):
    told = []
    settings = settings_of(tmp_path, "main")
    settings = replace(settings, places=tuple(replace(place, keep=2) for place in settings.places))
    async with running(settings) as stores:
        stores.retired = lambda *one: told.append(one)
        for _ in range(4):
            await put(stores, "win")
        assert told == [("win", 1, "keep"), ("win", 2, "keep")]
        await stores.move("win", 2, VersionState.DISABLED, "ann")
        await stores.move("win", 2, VersionState.RETIRED, "ann")
        assert told[2:] == [("win", 2, "ann")]
    async with running(settings) as stores:
        told.clear()
        stores.retired = lambda *one: told.append(one)
        await stores.verified("win", 1, "")
        assert told == [], "told before the restart"
        await stores.delete("win")
        for _ in range(3):
            await put(stores, "win")
        assert told == [("win", 1, "keep")], "of another image of that name"
