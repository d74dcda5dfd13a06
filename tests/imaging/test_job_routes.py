"""Jobs as devices and people see them: live figures, the queue, cancel, what is on a device, waking; real routes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zstandard

from pbserv.imaging.queue import Limits, StoreLimit
from pbserv.imaging.waker import EVERY_S, TIMES, Waker
from pbserv.net.wol import Woken
from pbserv.registry.records import WorkState
from pbserv.types import MacAddress
from tests.imaging.working import ITEM, Working, read, working

MACS = [f"52:54:00:00:00:{number:02x}" for number in range(1, 6)]
MAC = MACS[0]


def limit(site: Working, restores: int, captures: int = 0) -> None:
    """As the configuration of the stores says it."""
    site.imaging._jobs.running_now.queue.adopt(Limits({"main": StoreLimit(restores, captures)}))


async def test_a_job_is_seen_live_and_written_down_in_turns(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        wire = await site.order(MAC, kind="restore", image="classroom")
        before = datetime.now(UTC)
        await wire.ask()
        assert await wire.progress(stage="write", item="p1", bytes=10, total=100, rate=5, waited=7) == "CONTINUE"
        view = await site.api("GET", f"/jobs/{wire.job}")
        assert (view["stage"], view["bytes_done"], view["rate"], view["eta_s"], view["waited_ms"]) == (
            "write", 10, 5, 18, 7,
        )  # fmt: skip
        assert (view["store"], view["state"], view["finished"]) == ("main", "running", None)
        began, now = datetime.fromisoformat(view["started"]), datetime.now(UTC)
        assert before <= began <= now
        assert 0 <= view["seconds"] <= round((now - before).total_seconds(), 1), "as long as it runs by now"
        [listed] = await site.api("GET", f"/jobs?mac={MAC}")
        assert (listed["bytes_done"], listed["eta_s"]) == (10, 18)
        assert (await site.registry.job(int(wire.job))).bytes_done == 0, "nothing was written for a report"
        await site.imaging._jobs.running_now.flush()
        assert (await site.registry.job(int(wire.job))).bytes_done == 10
        assert (await wire.call("GET", f"/jobs/{wire.job}/items/p1")).content == ITEM
        assert await wire.result(ok=1, verified="stream", waited=1234) == "OK"
        done = await site.registry.job(int(wire.job))
        assert (done.state, done.stage, done.bytes_done, done.verified) == (WorkState.DONE, "done", 100, "stream")
        assert (done.bytes_sent, done.waited_ms, done.store) == (len(ITEM), 1234, "main")
        assert (await site.api("GET", f"/jobs/{wire.job}"))["eta_s"] is None
        await site.policy.flush()
        learned = (await site.api("GET", f"/devices/{MAC}"))["learned"]
        assert (learned["image"], learned["image_version"]) == ("classroom", "1")


async def test_a_full_store_makes_devices_wait(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        limit(site, 1)
        for mac in MACS[:4]:
            await site.device(mac)
        first, second, old, urgent = [
            await site.order(mac, kind="restore", image="classroom", priority=priority)
            for mac, priority in zip(MACS, (0, 0, 0, 10), strict=False)
        ]
        assert (await first.ask())["ACTION"] == "restore"
        told = await second.ask()
        assert (told["ACTION"], told["POSITION"], told["RETRY_S"], "JOB" in told) == ("wait", "1", "2", False)
        assert told["REASON"] == "position 1 of 1 in the queue: store main: 1 of 1 restores"
        refused = await old.call("POST", "/work", data={"mac": old.mac})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "4")
        assert refused.text.startswith("error: busy: position 2 of 2")
        assert (await urgent.ask())["POSITION"] == "1"
        queue = await site.api("GET", "/queue")
        assert [(each["mac"], each["position"], each["of"]) for each in queue["waiting"]] == [
            (MACS[3], 1, 3), (MACS[1], 2, 3), (MACS[2], 3, 3),
        ]  # fmt: skip
        assert [each["mac"] for each in queue["running"]] == [MAC]
        assert queue["limits"] == {"main": {"restores": 1, "captures": 0}}
        assert [work["state"] for work in await site.api("GET", "/work")].count("queued") == 3, "no job begins waiting"
        await first.result(ok=1)
        assert (await second.ask())["ACTION"] == "wait"
        assert (await urgent.ask())["ACTION"] == "restore"
        history = await site.api("GET", f"/devices/{MACS[1]}/history")
        assert [each["detail"] for each in history if each["what"] == "queue"] == [
            "waits at position 1 (store main: 1 of 1 restores)"
        ]
        await site.api("POST", f"/jobs/{urgent.job}/cancel")
        assert (await second.ask())["ACTION"] == "restore", "a place of cancelled work is free"


async def test_a_site_bears_so_many_jobs(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.api("POST", "/apply", {"objects": {"folder": {"/lab": {"max_jobs": 1}}}})
        wires = []
        for mac in MACS[:3]:
            await site.device(mac, folder="/lab/one" if mac != MACS[2] else "/")
            wires.append(await site.order(mac, kind="restore", image="classroom"))
        assert (await wires[0].ask())["ACTION"] == "restore"
        assert "site /lab: 1 of 1 jobs" in (await wires[1].ask())["REASON"]
        assert (await wires[2].ask())["ACTION"] == "restore", "it stands elsewhere"


async def test_a_cancelled_job_stops_at_its_next_report(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        wire = await site.order(MAC, kind="restore", image="classroom")
        await wire.ask()
        assert await wire.progress(bytes=1) == "CONTINUE"
        await site.api("POST", f"/jobs/{wire.job}/cancel")
        assert await wire.progress(bytes=2) == "CANCEL"
        await wire.result(ok=0, reason="cancelled")
        assert (await site.api("GET", f"/jobs/{wire.job}"))["state"] == "cancelled"
        await site.api("POST", f"/jobs/{wire.job}/cancel", status=409)
        await site.api("POST", "/jobs/999/cancel", status=404)
        again = await site.order(MAC, kind="restore", image="classroom")
        await again.ask()
        old = again.job
        await again.ask()  # its power was cut
        renewed, again.job = again.job, old
        assert await again.progress(bytes=1) == "CANCEL"
        again.job = renewed
        assert await again.progress(bytes=1) == "CONTINUE"


async def test_a_job_ordered_on_the_device_is_cancelled_alone(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        await site.api("POST", "/apply", {"objects": {"bundle": {"m": {"kind": "maintenance"}}}})
        wire = await site.order(MAC, bundle="m")
        await wire.ask()
        form = {"action": "restore", "image": "classroom", "client": "2"}
        ordered = read(await wire.call("POST", f"/jobs/{wire.job}/order", data=form))
        assert (ordered["PROTOCOL"], ordered["VERSION"], ordered["FINISH"]) == ("2", "1", "none")
        await site.api("POST", f"/jobs/{ordered['JOB']}/cancel")
        maintenance, wire.job = wire.job, ordered["JOB"]
        assert await wire.progress(bytes=1) == "CANCEL"
        await wire.result(ok=0)
        wire.job = maintenance
        assert await wire.progress() == "CONTINUE"
        limit(site, 1)
        await site.device(MACS[1])
        other = await site.order(MACS[1], kind="restore", image="classroom")
        await other.ask()
        waits = read(await wire.call("POST", f"/jobs/{wire.job}/order", data=form))
        assert (waits["ACTION"], waits["POSITION"]) == ("wait", "1"), "an order takes a place like any other"


async def test_a_restarted_server_knows_what_goes_on(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        for mac in MACS[:2]:
            await site.device(mac)
        wire = await site.order(MAC, kind="restore", image="classroom")
        waiting = await site.order(MACS[1], kind="restore", image="classroom")
        await wire.ask()
    async with working(tmp_path) as site:
        limit(site, 1)
        wire.client = waiting.client = site.client
        assert await wire.progress(bytes=5, total=9) == "CONTINUE"
        assert (await waiting.ask())["ACTION"] == "wait", "the device at work has its place"
        assert (await wire.call("POST", f"/jobs/{wire.job}/progress", data={"bytes": "x"})).status_code == 422
        other = site.wire(MACS[1], 3)
        other.job = wire.job
        assert (await other.call("POST", f"/jobs/{wire.job}/progress")).status_code == 409, "another device's job"
        await wire.result(ok=1)
        assert (await waiting.ask())["ACTION"] == "restore"


async def test_a_dry_run_changes_nothing_and_says_its_plan(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        for kind, image in (("restore", "classroom"), ("capture", "fresh")):
            wire = await site.order(MAC, kind=kind, image=image, dry_run=True)
            assert (await wire.ask())["DRY_RUN"] == "1"
            if kind == "capture":
                refused = await wire.call("PUT", f"/jobs/{wire.job}/items/p1", content=b"x")
                assert (refused.status_code, "dry run" in refused.text) == (409, True)
            await wire.result(ok=1, plan="would write p1 to /dev/sda1", log="looked")
            job = await site.api("GET", f"/jobs/{wire.job}")
            assert (job["state"], job["reason"], job["verified"]) == ("done", "dry run: nothing was written", "")
            assert job["log"] == "would write p1 to /dev/sda1\n\nlooked"
        await site.policy.flush()
        assert "image" not in (await site.api("GET", f"/devices/{MAC}"))["learned"]
        assert (await site.api("GET", f"/devices/{MAC}/images"))["history"] == []


async def test_which_images_a_device_has_seen(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        times = []
        for ok in (1, 0):
            wire = await site.order(MAC, kind="restore", image="classroom")
            before = datetime.now(UTC)
            await wire.ask()
            at_work = datetime.now(UTC)
            await asyncio.sleep(0.3)
            reporting = datetime.now(UTC)
            await wire.result(ok=ok, reason="" if ok else "disk failed", verified="read" if ok else "")
            times.insert(0, (before, at_work, reporting, datetime.now(UTC)))
        seen = await site.api("GET", f"/devices/{MAC}/images")
        assert [(each["image"], each["version"], each["state"], each["verified"]) for each in seen["history"]] == [
            ("classroom", 1, "failed", ""), ("classroom", 1, "done", "read"),
        ]  # fmt: skip
        for each, (before, at_work, reporting, over) in zip(seen["history"], times, strict=True):
            started, finished = (datetime.fromisoformat(each[name]) for name in ("started", "finished"))
            assert before <= started <= at_work < reporting <= finished <= over
            assert each["seconds"] == round((finished - started).total_seconds(), 1) >= 0.3
            job = await site.api("GET", f"/jobs/{each['job']}")
            assert {name: job[name] for name in ("started", "finished", "seconds")} == {
                name: each[name] for name in ("started", "finished", "seconds")
            }
        assert seen["current"] == seen["history"][1]
        cut = await site.api("GET", f"/devices/{MAC}/images?limit=1")
        assert len(cut["history"]) == 1
        assert cut["current"] == seen["current"], "however many came after it"
        [captured] = (await site.api("GET", "/devices/52:54:00:00:0f:ff/images"))["history"]
        assert (captured["direction"], captured["version"]) == ("capture", 1)
        await site.api("GET", f"/devices/{MACS[3]}/images", status=404)


async def test_who_needs_an_image(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        await site.device(MACS[1])
        assert await site.registry.image_users("classroom") == []
        wire = await site.order(MAC, kind="restore", image="classroom")
        assert await site.registry.image_users("classroom") == [f"work 2 of {MAC}"]
        await wire.ask()
        assert await site.registry.image_users("classroom") == [f"job {wire.job} of {MAC}"]
        await wire.result(ok=0, reason="no disk")
        assert await site.registry.image_users("classroom") == [f"work 2 of {MAC}"], "held: it may be tried again"
        await site.api("POST", "/work/2/cancel")
        assert await site.registry.image_users("classroom") == []
        bundles = {"b": {"kind": "restore", "image": "classroom"}, "loose": {"kind": "restore", "image": "classroom"}}
        named = {"bundle": bundles, "assignment": {"a": {"bundle": "b", "folder": "/"}}}
        await site.api("POST", "/apply", {"objects": named})
        policy = site.imaging._policy
        assert policy.uses_image("classroom") == ("bundle 'b' (assignment 'a')",)
        assert policy.uses_image("other") == ()


class Woke:
    """Keeps what would have been sent, and when."""

    def __init__(self) -> None:
        self.macs: list[str] = []

    def __call__(self, macs: Iterable[MacAddress], _last: str) -> Woken:
        self.macs += map(str, macs)
        return Woken(("10.0.0.255",))


async def test_devices_are_woken_at_the_order_and_twice_more(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        now, woke = datetime.now(UTC), Woke()
        running = site.imaging._jobs.running_now
        waker = Waker(site.registry, site.journal, site.imaging._log, running, send=woke, calendar=lambda: now)
        site.registry.subscribe(waker.device_changed)
        for mac in MACS[:2]:
            await site.device(mac)
        await waker.turn()
        await site.order(MAC, kind="restore", image="classroom", wake=True)
        await site.order(MACS[1], kind="restore", image="classroom")
        for _ in range(TIMES + 2):
            await waker.turn()
            await waker.turn()
            now += timedelta(seconds=EVERY_S + 1)
        assert woke.macs == [MAC] * TIMES, "the other one was not asked for"
        assert (await site.api("GET", "/work/2"))["woken"] is not None
        await site.api("POST", "/work/2/cancel")
        await site.api("POST", "/work/2/retry")
        await waker.turn()
        assert woke.macs == [MAC] * (TIMES + 1), "a retry wakes it anew"
        wire = site.wire(MAC, 2)
        await wire.ask()
        now += timedelta(seconds=EVERY_S + 1)
        await waker.turn()
        assert len(woke.macs) == TIMES + 1, "it is at work"


async def test_no_more_devices_are_woken_than_can_begin(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        limit(site, 1)
        now, woke = datetime.now(UTC), Woke()
        running = site.imaging._jobs.running_now
        waker = Waker(site.registry, site.journal, site.imaging._log, running, send=woke, calendar=lambda: now)
        for number, mac in enumerate(MACS):
            await site.device(mac)
            await site.order(mac, kind="restore", image="classroom", wake=True, priority=number)
        await waker.turn()
        assert woke.macs == list(reversed(MACS))[:3], "one place and two to spare, the highest priority first"
        for number, action in ((5, "restore"), (4, "wait"), (3, "wait")):
            assert (await site.wire(MACS[number - 1], number + 1).ask())["ACTION"] == action
        now += timedelta(seconds=EVERY_S + 1)
        await waker.turn()
        assert len(woke.macs) == 3, "those to spare wait already"
        for number in (4, 5):
            await site.api("POST", f"/work/{number}/cancel")
        now += timedelta(seconds=EVERY_S + 1)
        await waker.turn()
        assert woke.macs[3:] == [MACS[1], MACS[0]], "nobody waits any more"


async def test_an_operator_wakes_a_device(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        woke = Woke()
        site.imaging._waker._send = woke
        await site.device(MAC)
        await site.device(MACS[1])
        await site.api("POST", f"/devices/{MAC}/join", {"mac": MACS[1]})
        answer = await site.api("POST", f"/devices/{MACS[1]}/wake")
        assert answer == {"mac": MAC, "sent": ["10.0.0.255"], "faults": []}
        assert woke.macs == MACS[:2]
        await site.api("POST", f"/devices/{MACS[3]}/wake", status=404)


@pytest.mark.parametrize("role", ["viewer", "wrong", ""])
async def test_who_may_only_look_changes_nothing(tmp_path: Path, role: str) -> None:
    async with working(tmp_path) as site:
        await site.device(MAC)
        site.client.headers["Authorization"] = f"Bearer {role}"
        status = 403 if role == "viewer" else 401
        await site.api("POST", "/jobs/1/cancel", status=status)
        await site.api("POST", f"/devices/{MAC}/wake", status=status)
        await site.api("GET", "/queue", status=200 if role == "viewer" else 401)


async def test_devices_that_report_write_nothing(tmp_path: Path) -> None:
    """No report waits for the database: with its only writer held, all of them are answered."""
    async with working(tmp_path) as site:
        await site.image()
        macs = [f"52:54:00:01:{number >> 8:02x}:{number & 255:02x}" for number in range(80)]
        await site.api("POST", "/apply", {"devices": {mac: {} for mac in macs}})
        wires = [await site.order(mac, kind="restore", image="classroom") for mac in macs]
        for wire in wires:
            await wire.ask()
        async with site.registry._writing, asyncio.timeout(100):
            for turn in range(3):
                for wire in wires:
                    assert await wire.progress(stage="write", bytes=turn, total=9) == "CONTINUE"
        await site.imaging._jobs.running_now.flush()
        jobs = await site.registry.running_jobs()
        assert (len(jobs), {job.bytes_done for job in jobs}) == (80, {2})


def stream(size: int) -> bytes:
    """Bytes of a raw item that do not repeat."""
    return hashlib.shake_128(b"disk").digest(size)


async def test_a_capture_that_has_no_room_is_refused_before_its_first_byte(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.device(MAC)
        wire = await site.order(MAC, kind="capture", image="vast", store="main")
        await wire.ask()
        body = zstandard.compress(stream(1000))
        headers = {"X-Expected-Bytes": str(2**59), "X-Checksum-SHA256": hashlib.sha256(body).hexdigest()}
        for way in ("p1", "p1/parts/1?kind=raw"):
            refused = await wire.call("PUT", f"/jobs/{wire.job}/items/{way}", content=body, headers=headers)
            assert (refused.status_code, refused.text[:7]) == (507, "error: "), refused.text
            headers["Content-Encoding"] = "zstd"
        headers["X-Expected-Bytes"] = str(len(body))
        taken = await wire.call("PUT", f"/jobs/{wire.job}/items/p1/parts/1?kind=raw", content=body, headers=headers)
        assert taken.status_code == 200, taken.text


async def test_a_capture_comes_in_parts(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.device(MAC)
        wire = await site.order(MAC, kind="capture", image="parts", store="main")
        told = await wire.ask()
        assert (told["ACTION"], told["PART_BYTES"]) == ("capture", str(64 * 1024 * 1024))
        plain, digests, size = [stream(200_000), stream(100_000)], "", 0
        place = f"/jobs/{wire.job}/items/p1"
        for number, data in enumerate(plain, 1):
            body = zstandard.compress(data)
            headers = {"X-Checksum-SHA256": hashlib.sha256(body).hexdigest(), "Content-Encoding": "zstd"}
            for _ in range(2):  # its answer was lost
                answer = await wire.call("PUT", f"{place}/parts/{number}?kind=raw", content=body, headers=headers)
                size_so_far = size + len(body)
                assert answer.text == f"{number + 1} {size_so_far} {headers['X-Checksum-SHA256']}\n", answer.text
            size, digests = size_so_far, digests + headers["X-Checksum-SHA256"]
        wrong = await wire.call("PUT", f"{place}/parts/5?kind=raw", content=body, headers=headers)
        assert (wrong.status_code, "next=3" in wrong.text) == (409, True), wrong.text
        bare = await wire.call("PUT", f"{place}/parts/3?kind=raw", content=body)
        assert (bare.status_code, "X-Checksum-SHA256" in bare.text) == (400, True)
        form = {"parts": "2", "bytes": "300000"}
        stored = (await wire.call("POST", f"{place}/complete", data=form)).text
        assert stored == f"{size} {hashlib.sha256(digests.encode()).hexdigest()}\n"
        manifest = f"pbserv-image 1\ndisk 1048576 512 dos bios\nitem p1 raw 1 {stored.strip()} 300000\n"
        assert (await wire.call("POST", f"/jobs/{wire.job}/commit", content=manifest)).text == "COMMITTED\n"
        await wire.result(ok=1)
        again = await site.order(MAC, kind="restore", image="parts")
        await again.ask()
        content = (await again.call("GET", f"/jobs/{again.job}/items/p1")).content
        assert zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(content) == b"".join(
            plain
        )


@pytest.mark.parametrize("after", ["", "true"])
async def test_a_capture_is_done_when_its_device_vanished_after_the_commit(tmp_path: Path, after: str) -> None:
    """Nothing is captured again; the work says what nobody knows."""
    async with working(tmp_path) as site:
        await site.device(MAC)
        bundle = {"kind": "capture", "image": "once", "after": after}
        await site.api("POST", "/apply", {"objects": {"bundle": {"b": bundle}}})
        wire = await site.order(MAC, bundle="b")
        assert (await wire.ask())["ACTION"] == "capture"
        job = wire.job
        await wire.commit()
        told = await wire.ask()  # its power was cut
        assert (told["ACTION"], "the image was committed" in told["REASON"]) == ("local", True)
        assert (await wire.ask())["ACTION"] == "local", "the answer was lost"
        [done] = await site.api("GET", f"/jobs?mac={MAC}")
        assert (str(done["id"]), done["state"], done["version"], done["reason"]) == (job, "done", 1, told["REASON"])
        [work] = await site.api("GET", "/work?everything=true")
        assert (work["state"], "script after may not" in work["reason"]) == ("done", bool(after))
        assert (await site.api("GET", "/images/once"))["versions"] == [1]
        wire.job = job
        assert await wire.result(ok=0, reason="late") == "OK"
        assert (await site.api("GET", f"/jobs/{job}"))["state"] == "done"


async def test_a_capture_whose_script_after_failed_is_not_tried_again(tmp_path: Path) -> None:
    """Its image is there: another run would only hide why the work is held."""
    async with working(tmp_path) as site:
        await site.device(MAC)
        bundle = {"kind": "capture", "image": "once", "after": "false", "retries": 2}
        await site.api("POST", "/apply", {"objects": {"bundle": {"b": bundle}}})
        wire = await site.order(MAC, bundle="b")
        await wire.ask()
        await wire.result(ok=0, reason="the disk is broken")
        [work] = await site.api("GET", "/work")
        assert (work["state"], work["retries"]) == ("queued", 1), "nothing was committed"
        await wire.ask()
        await wire.commit()
        await wire.result(ok=0, reason="script after ended with 1")
        [work] = await site.api("GET", "/work")
        assert (work["state"], work["reason"]) == ("held", "script after ended with 1")


async def test_a_cancelled_order_frees_the_name_of_its_image(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        await site.api("POST", "/apply", {"objects": {"bundle": {"m": {"kind": "maintenance"}}}})
        wire = await site.order(MAC, bundle="m")
        await wire.ask()
        form = {"action": "capture", "image": "half", "client": "2"}
        for _ in range(2):
            ordered = read(await wire.call("POST", f"/jobs/{wire.job}/order", data=form))
            assert (await wire.call("PUT", f"/jobs/{ordered['JOB']}/items/p1", content=ITEM)).status_code == 200
            await site.api("POST", f"/jobs/{ordered['JOB']}/cancel")


async def test_scripts_around_a_restore(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        bundle = {"kind": "restore", "image": "classroom", "before": "echo one\r\necho two\r\n\r\n"}
        await site.api("POST", "/apply", {"objects": {"bundle": {"b": bundle}}})
        wire = await site.order(MAC, bundle="b")
        assert "script before" in (await wire.ask(client=""))["REASON"], "an older client would leave them out"
        await site.api("POST", "/work/2/retry")
        told = await wire.ask()
        assert (told["BEFORE"], told["AFTER"]) == ("1", "0")
        assert (await wire.call("GET", f"/jobs/{wire.job}/scripts/before")).text == "echo one\necho two\n"
        assert (await wire.call("GET", f"/jobs/{wire.job}/scripts/after")).status_code == 409
        assert (await wire.call("GET", f"/jobs/{wire.job}/scripts/other")).status_code == 422


async def test_filling_the_cache_and_deploying_from_it(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        body = {"mac": MAC, "kind": "cache", "image": "classroom", "resize": True}
        assert "resize" in (await site.api("POST", "/work", body, 422))["error"]
        await site.api("POST", "/work", {"mac": MAC, "kind": "deploy", "image": "none"}, 404)
        for kind in ("cache", "deploy"):
            wire = await site.order(MAC, kind=kind, image="classroom")
            assert f"work of kind {kind}" in (await wire.ask(client=""))["REASON"]
            [work] = await site.api("GET", "/work")
            await site.api("POST", f"/work/{work['id']}/retry")
            told = await wire.ask()
            assert (told["ACTION"], told["VERSION"]) == (kind, "1")
            assert (await wire.call("GET", f"/jobs/{wire.job}/manifest")).text.startswith("pbserv-image 1")
            assert (await wire.call("GET", f"/jobs/{wire.job}/items/p1")).content == ITEM
            await wire.result(ok=1, verified="stream")
            seen = await site.api("GET", f"/devices/{MAC}/images")
            assert (seen["history"][0]["direction"], seen["current"] is None) == (
                ("cache", True) if kind == "cache" else ("restore", False)
            )
        identity = await site.api("GET", f"/devices/{MAC}/identity")
        assert identity["just_imaged"] is True
