"""What goes wrong around jobs: devices that start again, answers that get lost, tokens of other work; real routes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pbserv.imaging.config import PbservConf
from pbserv.imaging.queue import Limits, StoreLimit
from pbserv.imaging.referral import Scope, sign
from pbserv.imaging.referring import USED_FOR_S
from pbserv.imaging.service import ImagingSettings
from pbserv.registry.faults import UnavailableError
from pbserv.registry.records import Role, Work, WorkState
from pbserv.registry.tokens import digest
from tests.imaging.working import ITEM, Wire, Working, read, working

MACS = [f"52:54:00:00:00:{number:02x}" for number in range(1, 4)]
MAC = MACS[0]


def limit(site: Working, restores: int, captures: int = 0) -> None:
    """As the configuration of the stores says it."""
    site.imaging._jobs.running_now.queue.adopt(Limits({"main": StoreLimit(restores, captures)}))


def busy(site: Working) -> set[tuple[str, str]]:
    """Who has a place, and what for."""
    running = site.imaging._jobs.running_now
    return {(ask.device, ask.direction) for ask in running.queue.busy(running.now)}


async def may_overwrite(site: Working, place: Path) -> None:
    """As AllowImageOverwrite = YES says it."""
    conf = PbservConf(state_directory=place, allow_overwrite=True)
    (await site.imaging.prepare(ImagingSettings(conf))).commit()


async def maintenance(site: Working, mac: str = MAC) -> Wire:
    """A device with somebody at its console, who may have images."""
    await site.device(mac)
    await site.api("POST", "/apply", {"objects": {"bundle": {"m": {"kind": "maintenance"}}}})
    wire = await site.order(mac, bundle="m")
    assert (await wire.ask())["ACTION"] == "maintenance"
    return wire


async def ordered(wire: Wire, action: str, image: str, number: str = "") -> Wire:
    """The job of an order at the console; ``number``: what the client calls the order."""
    form = {"action": action, "image": image, "client": "2", "number": number}
    told = read(await wire.call("POST", f"/jobs/{wire.job}/order", data=form))
    return Wire(wire.client, wire.mac, wire.token, told["JOB"])


async def test_an_ordered_capture_frees_the_name_of_its_image_when_the_device_starts_again(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        wire = await maintenance(site)
        half = await ordered(wire, "capture", "half")
        assert (await half.call("PUT", f"/jobs/{half.job}/items/p1", content=ITEM)).status_code == 200
        assert [each.image for each in site.imaging._store.sessions()] == ["half"]
        assert (await wire.ask())["ACTION"] == "maintenance"
        assert (await site.registry.job(int(half.job))).state is WorkState.FAILED
        assert site.imaging._store.sessions() == ()


async def test_a_committed_capture_outlives_the_end_of_its_job(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        wire = await maintenance(site)
        whole = await ordered(wire, "capture", "whole")
        await whole.commit()
        await wire.ask()
        assert site.imaging._store.versions("whole") == (1,)
        assert (await whole.call("POST", f"/jobs/{whole.job}/result", data={"ok": "1"})).text == "OK\n"
        assert site.imaging._store.versions("whole") == (1,)


async def test_a_report_with_the_token_of_other_work_gives_nobody_a_place(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        for mac in MACS[:2]:
            await site.device(mac)
        silent = await site.order(MAC, kind="restore", image="classroom")
        other = await site.order(MACS[1], kind="restore", image="classroom")
        await silent.ask()
    async with working(tmp_path) as site:
        other.client, other.job = site.client, silent.job
        refused = await other.call("POST", f"/jobs/{silent.job}/progress")
        assert (refused.status_code, busy(site), site.imaging.busy) == (409, set(), False)


async def test_a_job_whose_work_could_not_be_asked_for_gets_its_place_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        wire = await site.order(MAC, kind="restore", image="classroom")
        await wire.ask()
    async with working(tmp_path) as site:
        wire.client = site.client

        async def away(_work: int) -> Work:
            raise UnavailableError("the registry's database cannot be reached: gone")

        with monkeypatch.context() as gone:
            gone.setattr(site.registry, "work", away)
            assert (await wire.call("POST", f"/jobs/{wire.job}/progress")).status_code == 503
        assert await wire.progress() == "CONTINUE"
        assert busy(site) == {(MAC, "restore")}


async def test_a_report_of_an_old_job_frees_no_place(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        wire = await site.order(MAC, kind="restore", image="classroom")
        await wire.ask()
        old = Wire(wire.client, MAC, wire.token, wire.job)
        await wire.ask()  # its power was cut
        assert busy(site) == {(MAC, "restore")}
        assert await old.result(ok=0, reason="late") == "OK"
        assert busy(site) == {(MAC, "restore")}
        await wire.result(ok=1)
        assert busy(site) == set()


async def test_two_orders_on_two_consoles_have_a_place_until_the_last_one_ends(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        for number, image in enumerate(("one", "two"), 1):
            await site.image(image, f"52:54:00:00:0f:0{number}")
        limit(site, 1, 1)
        wire = await maintenance(site)
        first, second = await ordered(wire, "restore", "one"), await ordered(wire, "restore", "two")
        assert busy(site) == {(MAC, "restore")}
        await first.result(ok=1)
        assert busy(site) == {(MAC, "restore")}, "the other one still runs"
        third = await ordered(wire, "capture", "three")
        assert busy(site) == {(MAC, "restore"), (MAC, "capture")}
        await second.result(ok=1)
        assert busy(site) == {(MAC, "capture")}
        await third.result(ok=0, reason="the disk is broken")
        assert busy(site) == set()


async def test_an_order_that_waits_takes_no_place_from_the_one_that_runs(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MACS[1])
        limit(site, 1, 1)
        other = await site.order(MACS[1], kind="capture", image="other")
        assert (await other.ask())["ACTION"] == "capture"
        wire = await maintenance(site)
        running = await ordered(wire, "restore", "classroom")
        form = {"action": "capture", "image": "mine", "client": "2"}
        assert read(await wire.call("POST", f"/jobs/{wire.job}/order", data=form))["ACTION"] == "wait"
        assert busy(site) == {(MAC, "restore"), (MACS[1], "capture")}
        await running.progress()
        await other.result(ok=0, reason="the disk is broken")
        assert read(await wire.call("POST", f"/jobs/{wire.job}/order", data=form))["ACTION"] == "capture"
        assert busy(site) == {(MAC, "restore"), (MAC, "capture")}


async def test_the_places_of_orders_are_free_when_the_device_starts_again(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        wire = await maintenance(site)
        await ordered(wire, "restore", "classroom")
        assert busy(site) == {(MAC, "restore")}
        await wire.ask()
        assert busy(site) == set()


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_server_that_is_updated_before_the_first_byte_fails_no_capture(tmp_path: Path, overwrite: bool) -> None:
    """The device runs its script before it, or counts what there is to send."""
    async with working(tmp_path) as site:
        if overwrite:
            await site.image("fresh")
            await may_overwrite(site, tmp_path)
        await site.device(MAC)
        wire = await site.order(MAC, kind="capture", image="fresh", overwrite=overwrite, store="main")
        assert (await wire.ask())["ACTION"] == "capture"
        assert await wire.progress(stage="before") == "CONTINUE"
    async with working(tmp_path) as site:
        wire.client = site.client
        await may_overwrite(site, tmp_path)
        await wire.capture()
        assert site.imaging._store.versions("fresh") == ((1, 2) if overwrite else (1,))


@pytest.mark.parametrize("overwrite", [False, True])
async def test_nor_one_that_was_ordered_at_the_console(tmp_path: Path, overwrite: bool) -> None:
    async with working(tmp_path) as site:
        if overwrite:
            await site.image("fresh")
            await may_overwrite(site, tmp_path)
        wire = await maintenance(site)
        form = {"action": "capture", "image": "fresh", "client": "2", "overwrite": str(int(overwrite))}
        job = read(await wire.call("POST", f"/jobs/{wire.job}/order", data=form))["JOB"]
    async with working(tmp_path) as site:
        await may_overwrite(site, tmp_path)
        await Wire(site.client, MAC, wire.token, job).capture()
        assert site.imaging._store.versions("fresh") == ((1, 2) if overwrite else (1,))


@pytest.mark.parametrize("why", ["it sent something", "its work was cancelled"])
async def test_a_capture_whose_upload_is_lost_does_not_begin_in_the_middle(tmp_path: Path, why: str) -> None:
    async with working(tmp_path) as site:
        await site.device(MAC)
        wire = await site.order(MAC, kind="capture", image="lost")
        await wire.ask()
        await wire.progress(bytes=5 if why == "it sent something" else 0)
        if why != "it sent something":
            await site.api("POST", "/work/1/cancel")
    async with working(tmp_path) as site:
        wire.client = site.client
        sent = await wire.call("PUT", f"/jobs/{wire.job}/items/p1", content=ITEM)
        assert sent.status_code == (410 if why == "it sent something" else 409)
        assert site.imaging._store.sessions() == ()


async def test_an_order_whose_answer_was_lost_leaves_no_job_behind(tmp_path: Path) -> None:
    """And no other order of the same image, on a second console or of an older client, is taken for it."""
    async with working(tmp_path) as site:
        await site.image()
        wire = await maintenance(site)
        lost = await ordered(wire, "restore", "classroom", "17.1")
        beside = [await ordered(wire, "restore", "classroom", number) for number in ("18.1", "", "")]
        again = await ordered(wire, "restore", "classroom", "17.1")
        gone = await site.registry.job(int(lost.job))
        assert (gone.state, "its answer was lost" in gone.reason) == (WorkState.FAILED, True)
        for one in (*beside, again):
            assert (await site.registry.job(int(one.job))).state is WorkState.RUNNING
        assert await lost.progress() == "CANCEL"
        for one in beside:
            await one.result(ok=1)
        assert busy(site) == {(MAC, "restore")}
        await again.result(ok=1)
        assert (busy(site), await site.registry.image_users("classroom", 1)) == (set(), [])


async def test_what_devices_of_another_server_fetch_is_in_use(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.image("other", "52:54:00:00:0f:fe")
        token, now = digest(Role.IMAGES.value), int(time.time())
        site.imaging._referring._clock = lambda: now
        ticket = sign(Scope("get", "classroom", 1), token, now + 60)
        for name in ("classroom", "other"):
            await site.api("POST", f"/images/{name}/versions/1/disable")
            await site.api("POST", f"/images/{name}/versions/1/retire")
            place = f"/api/v1/images/{name}/items/p1"
            got = await site.client.get(
                place, params={"version": 1, "ticket": ticket}, headers={"Authorization": "Bearer none"}
            )
            assert got.status_code == (200 if name == "classroom" else 401)
        await site.api("DELETE", "/images/other?version=1")
        now += USED_FOR_S - 60
        refused = await site.api("DELETE", "/images/classroom?version=1", status=409)
        assert "a device of another server, which asked for it 59 min ago" in refused["error"]
        now += 61
        await site.api("DELETE", "/images/classroom?version=1")
