"""What the stores ask the registry: who needs a version, which devices are at work in a store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pbserv.conf.places import StorePlace
from pbserv.errors import StartError
from pbserv.imaging.config import PbservConf
from pbserv.imaging.keeper import ORPHANED_AFTER
from pbserv.imaging.queue import Admitted
from pbserv.imaging.service import ImagingSettings
from pbserv.imaging.stores import Stores
from pbserv.registry.records import BundleKind, WorkState
from tests.imaging.working import Working, working

MAC = "52:54:00:00:00:01"


def stores_of(site: Working) -> Stores:
    stores = site.imaging._store._backend
    assert isinstance(stores, Stores)
    return stores


async def test_a_version_that_waiting_work_asks_for_is_neither_retired_nor_purged(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        stores = stores_of(site)
        await site.order(MAC, kind="restore", image="classroom", version=1)
        await site.api("POST", "/images/classroom/versions/1/disable")
        refused = await site.api("POST", "/images/classroom/versions/1/retire", status=409)
        assert f"work 2 of {MAC}" in refused["error"]
        await site.api("POST", "/work/2/cancel")
        await site.api("POST", "/images/classroom/versions/1/retire")
        await site.api("POST", "/work/2/retry")
        refused = await site.api("DELETE", "/images/classroom?version=1", status=409)
        assert f"work 2 of {MAC}" in refused["error"]
        assert await stores.sweep(datetime.now(UTC)) == ()
        await site.api("POST", "/work/2/cancel")
        assert await stores.sweep(datetime.now(UTC)) == ("image classroom version 1",)


async def test_a_reload_takes_no_store_away_while_devices_restore_from_it(tmp_path: Path) -> None:
    elsewhere = StorePlace("other", tmp_path / "other")
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        wire = await site.order(MAC, kind="restore", image="classroom")
        assert (await wire.ask())["ACTION"] == "restore"
        settings = ImagingSettings(PbservConf(state_directory=tmp_path, image_stores=(elsewhere,)))
        with pytest.raises(StartError, match=f"store main cannot be taken away: job {wire.job} of {MAC}"):
            await site.imaging.prepare(settings)
        assert await stores_of(site).at_work("none", {"classroom"}) == [f"job {wire.job} of {MAC}"]
        assert await stores_of(site).at_work("none", {"other"}) == []
        await wire.result(ok=1)
        (await site.imaging.prepare(settings)).commit()
        assert [store.name for store in stores_of(site).stores()] == ["other"]


async def test_a_device_waits_while_a_reload_takes_its_store_away(tmp_path: Path) -> None:
    """Also one whose job is just about to begin keeps the store."""
    elsewhere = StorePlace("other", tmp_path / "other")
    settings = ImagingSettings(PbservConf(state_directory=tmp_path, image_stores=(elsewhere,)))
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        wire = await site.order(MAC, kind="restore", image="classroom")
        reload = await site.imaging.prepare(settings)
        assert (await wire.ask())["ACTION"] == "wait"
        reload.abort()
        [work] = [
            work for work in await site.api("GET", "/work") if work["image"] == "classroom" and work["mac"] == MAC
        ]
        begun = site.imaging._jobs.running_now.admit(
            await site.registry.work(work["id"]), BundleKind.RESTORE, "classroom", "main"
        )
        assert isinstance(begun, Admitted)
        with pytest.raises(StartError, match=f"store main cannot be taken away: device {MAC}"):
            await site.imaging.prepare(settings)
        assert (await wire.ask())["ACTION"] == "restore"


async def test_so_does_one_that_has_a_job_of_another_kind(tmp_path: Path) -> None:
    """A device in imaging maintenance has a job without a store; it is about to begin a restore there."""
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        await site.api("POST", "/apply", {"objects": {"bundle": {"m": {"kind": "maintenance"}}}})
        wire = await site.order(MAC, bundle="m")
        assert (await wire.ask())["ACTION"] == "maintenance"
        stores, [work] = stores_of(site), [each for each in await site.api("GET", "/work") if each["mac"] == MAC]
        assert await stores.at_work("main", ()) == []
        begun = site.imaging._jobs.running_now.admit(
            await site.registry.work(work["id"]), BundleKind.RESTORE, "classroom", "main"
        )
        assert isinstance(begun, Admitted)
        assert await stores.at_work("main", ()) == [f"device {MAC}"]
        assert await stores.at_work("other", ()) == []


async def test_a_device_that_vanished_while_it_was_cancelled_pins_no_image(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        wire = await site.order(MAC, kind="restore", image="classroom")
        await wire.ask()
        await site.api("POST", "/work/2/cancel")
        assert await site.registry.image_users("classroom") == []
        keeper = site.imaging._keeper
        await keeper.close_orphans(datetime.now(UTC))
        assert (await site.registry.job(int(wire.job))).state is WorkState.RUNNING, "it may still report"
        await keeper.close_orphans(datetime.now(UTC) + ORPHANED_AFTER + timedelta(seconds=1))
        assert (await site.registry.job(int(wire.job))).state is WorkState.CANCELLED
        assert await stores_of(site).at_work("main", ()) == []
        await wire.result(ok=1)
        assert (await site.registry.job(int(wire.job))).state is WorkState.CANCELLED, "a late report changes nothing"
