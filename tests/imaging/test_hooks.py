"""Hooks: real programs, what they are told, and all the ways in which they misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from pbserv.imaging import hooks
from pbserv.imaging.hooks import Crowded, Hooks, unsafe
from pbserv.imaging.queue import Limits, StoreLimit
from pbserv.log import ServiceLog
from tests.imaging import trees
from tests.imaging.image_server import until
from tests.imaging.working import working

MAC = "52:54:00:00:00:01"


@pytest.fixture
async def made(tmp_path: Path) -> Hooks:
    log = ServiceLog("pbserv")
    log.configure(4, tmp_path / "pbserv.log", 1, quiet=True)
    (tmp_path / "hooks").mkdir(mode=0o755)
    found = Hooks(log)
    found.adopt(tmp_path / "hooks")
    return found


def put(place: Path, event: str, script: str, mode: int = 0o755) -> Path:
    path = place / "hooks" / event
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return path


async def test_without_a_program_everything_happens(made: Hooks) -> None:
    assert await made.ask("before-job", {"image": "x"}) == ""
    made.tell("job-done", {})
    made.adopt(None)
    assert await made.ask("before-job", {}) == ""


async def test_a_guard_says_no_with_the_first_line_of_its_stderr(tmp_path: Path, made: Hooks) -> None:
    put(tmp_path, "before-job", 'printf "\\n not\\033 now, %s\\nmore\\n" "$PB_DEVICE" >&2; exit 1')
    assert await made.ask("before-job", {"device": MAC}) == f"before-job: not? now, {MAC}"
    put(tmp_path, "before-job", "exit 0")
    assert await made.ask("before-job", {"device": MAC}) == ""
    put(tmp_path, "before-job", "exit 7")
    assert await made.ask("before-job", {}) == "before-job: it ended with 7"


async def test_it_is_told_by_its_environment_and_its_input(tmp_path: Path, made: Hooks) -> None:
    put(tmp_path, "before-job", f"cat >{tmp_path}/json; env >{tmp_path}/env; pwd >{tmp_path}/pwd")
    facts = {"device": MAC, "image": "$(reboot) 'x'", "kind": "restore"}
    assert await made.ask("before-job", facts) == ""
    assert json.loads((tmp_path / "json").read_text()) == {"event": "before-job", **facts}
    environment = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert (environment["PB_IMAGE"], environment["PB_EVENT"]) == ("$(reboot) 'x'", "before-job")
    assert (tmp_path / "pwd").read_text() == "/\n"
    assert not {name for name in environment if name.startswith("PYTEST")}, "nothing of the server's environment"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
async def test_what_others_can_write_is_not_started(tmp_path: Path, made: Hooks, mode: int) -> None:
    path = put(tmp_path, "before-job", "exit 0", mode)
    assert "chmod go-w" in await made.ask("before-job", {})
    path.chmod(0o755)
    path.parent.chmod(mode)
    assert "chmod go-w" in await made.ask("before-job", {})


async def test_what_cannot_be_started_refuses(tmp_path: Path, made: Hooks) -> None:
    path = put(tmp_path, "before-job", "exit 0", 0o644)
    assert "chmod +x" in await made.ask("before-job", {})
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    assert "cannot be started" in await made.ask("before-job", {})
    path.unlink()
    path.mkdir()
    assert "no program" in await made.ask("before-job", {})
    assert unsafe(tmp_path / "hooks" / "none") != ""


async def test_a_directory_that_cannot_be_entered_refuses(tmp_path: Path, made: Hooks) -> None:
    (tmp_path / "hooks").chmod(0o700)
    os.seteuid(65534)
    try:
        refused = await made.ask("before-job", {})
        made.tell("job-done", {})
    finally:
        os.seteuid(0)
    assert refused.startswith("before-job: ")
    assert "Permission denied" in refused
    assert await made.ask("before-job", {}) == "", "there is none of that name"


async def test_one_that_takes_too_long_is_ended_with_all_it_started(
    tmp_path: Path, made: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "LIMIT_S", 2.0)
    put(tmp_path, "before-job", f"echo $$ >{tmp_path}/pid; sleep 1000 & wait")
    assert "took longer than 2 s" in await made.ask("before-job", {})
    group = int((tmp_path / "pid").read_text())
    await asyncio.to_thread(_gone, group)


def _gone(group: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("something of the hook still runs")


async def test_what_it_leaves_running_is_ended_with_it(tmp_path: Path, made: Hooks) -> None:
    put(tmp_path, "before-job", f"echo $$ >{tmp_path}/pid; sleep 1000 & echo no >&2; exit 1")
    assert await made.ask("before-job", {}) == "before-job: no"
    await asyncio.to_thread(_gone, int((tmp_path / "pid").read_text()))


async def test_one_that_never_reads_and_never_stops_talking_is_bounded(
    tmp_path: Path, made: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "LIMIT_S", 3.0)
    put(tmp_path, "before-job", "while :; do printf '%s' xxxxxxxxxxxxxxxxxxxxxxxxxxxx >&2; done")
    assert "took longer" in await made.ask("before-job", {"device": "x" * 100_000})
    put(tmp_path, "before-job", "exec 0<&-; yes word | head -c 3000000 >&2; exit 1")
    assert await made.ask("before-job", {"device": "x" * 100_000}) == "before-job: word"


async def test_events_are_told_soon_and_in_turns(tmp_path: Path, made: Hooks) -> None:
    put(tmp_path, "job-done", f'echo "$PB_JOB" >>{tmp_path}/told')
    put(tmp_path, "job-failed", "echo broken >&2; exit 3")
    async with asyncio.TaskGroup() as group:
        telling = group.create_task(made.run())
        for number in range(10):
            made.tell("job-done", {"job": str(number)})
        made.tell("job-failed", {"job": "77"})
        await until(lambda: (tmp_path / "told").exists() and len((tmp_path / "told").read_text().split()) == 10)
        await until(lambda: "hook failed" in _squeezed(tmp_path / "pbserv.log"))
        telling.cancel()
    assert set((tmp_path / "told").read_text().split()) == {str(number) for number in range(10)}


async def test_hooks_of_jobs_and_images(tmp_path: Path) -> None:
    told = tmp_path / "told"
    for event in hooks.TOLD:
        put(tmp_path, event, f'echo "$PB_EVENT $PB_IMAGE $PB_VERSION $PB_REASON" >>{told}')
    async with working(tmp_path) as site, asyncio.TaskGroup() as group:
        site.imaging.hooks.adopt(tmp_path / "hooks")
        telling = group.create_task(site.imaging.hooks.run())
        await site.image()
        await site.device(MAC)
        guard = put(tmp_path, "before-job", 'echo "no restores of $PB_IMAGE on $PB_DEVICE" >&2; exit 1')
        wire = await site.order(MAC, kind="restore", image="classroom")
        refused = await wire.ask()
        assert (refused["ACTION"], refused["REASON"]) == ("local", f"before-job: no restores of classroom on {MAC}")
        [work] = await site.api("GET", "/work")
        assert work["state"] == "held"
        assert (await site.api("GET", "/queue"))["running"] == [], "its place is free"
        guard.unlink()
        await site.api("POST", f"/work/{work['id']}/cancel")
        put(tmp_path, "before-commit", 'echo "no $PB_IMAGE" >&2; test "$PB_IMAGE" != secret')
        capture = await site.order(MAC, kind="capture", image="secret")
        await capture.ask()
        await capture.call("PUT", f"/jobs/{capture.job}/items/p1", content=b"x")
        answer = await capture.call("POST", f"/jobs/{capture.job}/commit", content="pbserv-image 1\n")
        assert (answer.status_code, answer.text) == (403, "error: before-commit: no secret\n")
        await capture.result(ok=0, reason="refused")
        lines = [
            "job-started classroom", "image-committed classroom 1", "job-done classroom 1 ok", "job-started secret",
            "job-failed secret refused", "job-failed classroom 1",
        ]  # fmt: skip
        await until(lambda: all(line in _squeezed(told) for line in lines))
        telling.cancel()


async def test_dropped_and_converted_images_are_told_of(tmp_path: Path) -> None:
    told = tmp_path / "told"
    put(tmp_path, "image-committed", f'echo "$PB_IMAGE $PB_VERSION $PB_SOURCE" >>{told}')
    saved = trees.saved(trees.disk(tmp_path / "disk", "dos", ("ext4",)).parts[0])
    async with working(tmp_path) as site, asyncio.TaskGroup() as group:
        site.imaging.hooks.adopt(tmp_path / "hooks")
        imaging = site.imaging
        owned = (imaging.hooks.run, imaging.watcher.run, imaging.tasks.own)
        running = [group.create_task(run()) for run in owned]
        await until(lambda: bool(site.imaging.watcher._watches))
        (store,) = site.imaging._store.stores()
        (store.directory / "copy").write_bytes(trees.packed(saved, "gzip"))
        (store.directory / "copy").rename(store.directory / "lab.img")
        await until(lambda: "lab 1 drop" in _squeezed(told))
        assert site.imaging.figures()["images_received"] == 1
        await site.api("POST", "/images/lab/convert", {})
        await until(lambda: "lab 2 token:admin" in _squeezed(told))
        assert site.imaging.figures()["images_received"] == 1, "it was here"
        for task in running:
            task.cancel()


async def test_a_place_is_free_when_nothing_begins(tmp_path: Path) -> None:
    """Whatever stops it: here the call of the device is given up while the guard thinks."""
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        jobs = site.imaging._jobs
        jobs.running_now.queue.adopt(Limits({"main": StoreLimit(restores=1)}))
        site.imaging.hooks.adopt(tmp_path / "hooks")
        guard = put(tmp_path, "before-job", f"echo >{tmp_path}/asked; sleep 15")
        await site.order(MAC, kind="restore", image="classroom")
        work = await jobs.work(2)
        async with asyncio.TaskGroup() as group:
            begins = group.create_task(jobs.begin(work, MAC, "10.0.0.7", 1, store="main"))
            await until((tmp_path / "asked").exists)
            assert len(jobs.running_now.queue.busy(jobs.running_now.now)) == 1
            begins.cancel()
        assert begins.cancelled()
        assert jobs.running_now.queue.busy(jobs.running_now.now) == ()
        guard.unlink()
        wire = site.wire(MAC, 2)
        assert (await wire.ask())["ACTION"] == "restore"


async def test_a_guard_is_waited_for_only_so_long(tmp_path: Path, made: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "PLACE_S", 0.3)
    put(tmp_path, "before-job", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")
    async with asyncio.TaskGroup() as group:
        first = [group.create_task(made.ask("before-job", {})) for _ in range(hooks.AT_ONCE)]
        await until(lambda: made._places.locked())
        with pytest.raises(Crowded, match="ask again"):
            await made.ask("before-job", {})
        (tmp_path / "go").touch()
    assert [each.result() for each in first] == [""] * hooks.AT_ONCE
    assert await made.ask("before-job", {}) == ""


async def test_devices_that_cannot_be_asked_for_yet_wait_without_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "PLACE_S", 0.3)
    async with working(tmp_path) as site, asyncio.TaskGroup() as group:
        await site.image()
        macs = [f"52:54:00:00:00:{number:02x}" for number in range(hooks.AT_ONCE + 2)]
        wires = []
        for mac in macs:
            await site.device(mac)
            wires.append(await site.order(mac, kind="restore", image="classroom"))
        site.imaging.hooks.adopt(tmp_path / "hooks")
        put(tmp_path, "before-job", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")
        begins = [group.create_task(wire.ask()) for wire in wires[: hooks.AT_ONCE]]
        await until(lambda: site.imaging.hooks._places.locked())
        told = await wires[-1].ask()
        assert (told["ACTION"], "as many as may at once" in told["REASON"], "JOB" in told) == ("wait", True, False)
        old = await wires[-2].call("POST", "/work", data={"mac": wires[-2].mac})
        assert (old.status_code, old.text[:12]) == (503, "error: busy:"), "an older client knows no other words"
        running = {each["mac"] for each in (await site.api("GET", "/queue"))["running"]}
        assert running == set(macs), "who was admitted keeps its place: it asks again at once"
        (tmp_path / "go").touch()
        assert {(await each)["ACTION"] for each in begins} == {"restore"}
        assert (await wires[-1].ask())["ACTION"] == "restore"


async def test_two_consoles_are_asked_for_each_on_its_own(tmp_path: Path) -> None:
    """The same image for two disks of a device: neither takes the other's question out of the line."""
    async with working(tmp_path) as site, asyncio.TaskGroup() as group:
        await site.image()
        await site.device(MAC)
        await site.api("POST", "/apply", {"objects": {"bundle": {"m": {"kind": "maintenance"}}}})
        wire = await site.order(MAC, bundle="m")
        await wire.ask()
        site.imaging.hooks.adopt(tmp_path / "hooks")
        put(tmp_path, "before-job", f"echo $$ >>{tmp_path}/asked; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")
        forms = [
            {"action": "restore", "image": "classroom", "client": "2", "number": each} for each in ("1", "2", "", "")
        ]
        orders = [group.create_task(wire.call("POST", f"/jobs/{wire.job}/order", data=form)) for form in forms]
        await until(lambda: len(_squeezed(tmp_path / "asked").split()) == len(forms))
        (tmp_path / "go").touch()
        for order in orders:
            assert "ACTION=restore" in (await order).text


async def test_all_bytes_of_an_image_wait_longer_for_their_guard(
    tmp_path: Path, made: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would have to be sent again."""
    monkeypatch.setattr(hooks, "PLACE_S", 0.1)
    put(tmp_path, "before-commit", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(made.ask("before-commit", {}, 60)) for _ in range(hooks.AT_ONCE + 1)]
        await until(lambda: made._places.locked())
        with pytest.raises(Crowded):
            await made.ask("before-commit", {})
        (tmp_path / "go").touch()
    assert [each.result() for each in asked] == [""] * len(asked)


async def test_a_device_that_asks_again_takes_its_older_question_out_of_the_line(tmp_path: Path) -> None:
    async with working(tmp_path) as site, asyncio.TaskGroup() as group:
        await site.image()
        await site.device(MAC)
        wire = await site.order(MAC, kind="restore", image="classroom")
        site.imaging.hooks.adopt(tmp_path / "hooks")
        put(tmp_path, "before-job", f"echo $$ >>{tmp_path}/asked; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")
        stale = group.create_task(site.wire(MAC, 2).ask())
        await until((tmp_path / "asked").exists)
        newer = group.create_task(wire.ask())
        told = await stale
        assert (told["ACTION"], "asked again" in told["REASON"]) == ("wait", True)
        (tmp_path / "go").touch()
        assert (await newer)["ACTION"] == "restore"
        [job] = await site.api("GET", f"/jobs?mac={MAC}")
        assert (str(job["id"]), job["state"]) == (wire.job, "running")
        assert [each["mac"] for each in (await site.api("GET", "/queue"))["running"]] == [MAC]


def _squeezed(path: Path) -> str:
    lines = path.read_text().splitlines() if path.exists() else ()
    return "\n".join(" ".join(line.split()) for line in lines)


async def test_a_version_that_is_retired_is_told_once(tmp_path: Path) -> None:
    told = tmp_path / "told"
    put(tmp_path, "image-retired", f'echo "$PB_IMAGE $PB_VERSION $PB_SOURCE" >>{told}')
    async with working(tmp_path) as site, asyncio.TaskGroup() as group:
        site.imaging.hooks.adopt(tmp_path / "hooks")
        telling = group.create_task(site.imaging.hooks.run())
        await site.image()
        for verb in ("disable", "retire", "restore", "retire"):
            await site.api("POST", f"/images/classroom/versions/1/{verb}")
        await until(lambda: told.exists() and len(told.read_text().splitlines()) == 2)
        first, again = told.read_text().splitlines()
        assert first == again
        assert first.startswith("classroom 1 ")
        assert first != "classroom 1 ", "who did it"
        telling.cancel()
