"""Another pbserv that resolves policies, on a real connection: its answers, and what counts while it is not there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pbserv.log import ServiceLog
from pbserv.policy.decide import Ruling
from pbserv.policy.model import Bundle, Menu
from pbserv.policy.oracles.preboot_server import DOWN_S, PrebootServer, ServerSettings, without_there
from pbserv.policy.oracles.questions import FAILED_S, KEPT_S
from pbserv.policy.oracles.wire import wire_of
from pbserv.registry.records import BundleKind, Finish, Work, WorkState
from pbserv.types import ClientArch, Decision, MacAddress, Sighting, Verdict
from tests.policy.oracles.host import Host, answer, owned
from tests.policy.oracles.test_hook import Clock

MAC = "52:54:00:12:34:56"
SIGHTING = Sighting(MacAddress.parse(MAC), None, ClientArch(7), "dhcp", "", (("client_kind", "uefi"),))
LINUX = Bundle(name="live", kind=BundleKind.LINUX, kernel="live/vmlinuz")
STANDING = Ruling(Decision(Verdict.BOOT, "group lab: linux live", ("known", "group lab"), bundle="live"), bundle=LINUX)
WORK = Work(
    7, MAC, BundleKind.RESTORE, "win", "", Finish.REBOOT, False, WorkState.QUEUED, "", datetime(2026, 1, 1, tzinfo=UTC)
)
RESTORE = Bundle(name="win", kind=BundleKind.RESTORE, image="win")
ONCE = Ruling(Decision(Verdict.BOOT, "work 7: restore win", bundle="win"), bundle=RESTORE, work=WORK)
BEGAN = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Calendar(Clock):
    """Both clocks, moved together."""

    def calendar(self) -> datetime:
        return BEGAN + timedelta(seconds=self.now - 1000.0)


def says(ruling: Ruling) -> bytes:
    return answer(200, wire_of(ruling, url="http://10.9.9.9:8067", token="7.abc").model_dump_json())


@contextlib.asynccontextmanager
async def asking(
    host: Host, clock: Calendar | None = None, file: Path | None = None, log: ServiceLog | None = None
) -> AsyncIterator[PrebootServer]:
    clock = clock or Calendar()
    async with owned() as supervisor:
        settings = ServerSettings(f"127.0.0.1:{host.port}", "the token", file)
        server = PrebootServer(settings, supervisor.spawn, log or ServiceLog("policy"), clock, clock.calendar)
        await server.open()
        yield server
        await server.close()


async def test_what_it_decides_counts_here() -> None:
    async with Host(says(ONCE)).serving() as host, asking(host) as server:
        found = await server.wait(SIGHTING, 5.0)
        assert found.ruling is not None
        assert (found.failed, found.why) == (False, f"PrebootServer 127.0.0.1:{host.port} decides")
        assert (found.ruling.bundle, found.ruling.work, found.ruling.decision.work) == (RESTORE, WORK, None)
        assert (found.ruling.url, found.ruling.token) == ("http://10.9.9.9:8067", "7.abc")
        assert found.ruling.decision.steps[-1] == found.why
        (question,) = host.asked
        assert (question.method, question.target) == ("POST", "/api/v1/policy/resolve")
        assert question.headers["authorization"] == "Bearer the token"
        assert json.loads(question.body) == {
            "mac": MAC, "uuid": None, "arch": 7, "labels": {"client_kind": "uefi"}, "address": "", "via": "dhcp",
        }  # fmt: skip


async def test_silence_there_is_silence_here() -> None:
    refused = Ruling(Decision(Verdict.SILENT, "device is denied"), "device is denied")
    async with Host(says(refused)).serving() as host, asking(host) as server:
        found = await server.wait(SIGHTING, 5.0)
        assert found.ruling is not None
        assert (found.ruling.decision.verdict, found.ruling.refused) == (Verdict.SILENT, "device is denied")


async def test_new_labels_are_another_question_and_all_are_told() -> None:
    later = SIGHTING._replace(via="http", details=(("serial", "ABC"),))
    async with Host(says(STANDING)).serving() as host, asking(host) as server:
        await server.wait(SIGHTING, 5.0)
        assert server.known(later, 1000.0) is None
        await server.wait(later, 5.0)
        assert json.loads(host.asked[1].body)["labels"] == {"client_kind": "uefi", "serial": "ABC"}
        assert server.known(SIGHTING, 1000.0) is not None
        assert server.known(later, 1000.0) is not None


FAILURES = {
    "a wrong token": (answer(401, {"error": "x"}), "PrebootServerToken"),
    "a token of another role": (answer(403, {"error": "x"}), "role site"),
    "an older server": (answer(404, {"error": "x"}), "answers 404"),
    "one that stops": (answer(503), "answers 503"),
    "no ruling": (answer(200, b"{}"), "verdict"),
    "a newer kind of bundle": (
        answer(200, {"verdict": "boot", "reason": "x", "bundle": {"name": "x", "kind": "quantum"}}), "quantum",
    ),
    "huge": (answer(200, b" " * 1_100_000), "1024 KiB"),
    "elsewhere": (answer(307, Location="http://127.0.0.1:1/"), "another server"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
async def test_no_answer_about_a_device_that_was_never_asked_about(name: str) -> None:
    text, why = FAILURES[name]
    async with Host(text).serving() as host, asking(host) as server:
        found = await server.wait(SIGHTING, 5.0)
        assert found.failed
        assert found.ruling is not None
        assert (found.ruling.decision.verdict, found.ruling.refused) == (Verdict.SILENT, "")
        assert why in found.ruling.decision.reason or name == "a newer kind of bundle"
        assert "never asked about this device before" in found.ruling.decision.reason


async def test_when_the_link_is_down_what_was_last_said_counts_however_old() -> None:
    clock, host = Calendar(), Host(says(STANDING))
    async with asking_of(host, clock) as server:
        async with host.serving():
            await server.wait(SIGHTING, 5.0)
        clock.now += 30 * 24 * 3600
        found = await server.wait(SIGHTING, 5.0)
        at = f"{BEGAN.astimezone():%Y-%m-%d %H:%M:%S}"
        assert found.failed
        assert found.ruling is not None
        assert f"from the cache of {at}; the imaging server does not decide" in found.ruling.decision.reason
        assert (found.ruling.decision.verdict, found.ruling.bundle) == (Verdict.BOOT, LINUX)
        assert (found.ruling.url, found.ruling.token) == ("", "")  # files come from here
        async with host.serving():
            clock.now += max(FAILED_S, DOWN_S)
            again = await server.wait(SIGHTING, 5.0)
            assert (again.failed, len(host.asked)) == (False, 2)


@contextlib.asynccontextmanager
async def asking_of(host: Host, clock: Calendar) -> AsyncIterator[PrebootServer]:
    """As ``asking``, of a server that is not there yet: it gets its port now."""
    async with host.serving():
        pass
    async with asking(host, clock) as server:
        yield server


async def test_work_is_done_there_only() -> None:
    clock, host = Calendar(), Host(says(ONCE))
    async with asking_of(host, clock) as server:
        async with host.serving():
            await server.wait(SIGHTING, 5.0)
        clock.now += KEPT_S
        found = await server.wait(SIGHTING, 5.0)
        assert found.ruling is not None
        assert (found.ruling.decision.verdict, found.ruling.work, found.ruling.token) == (Verdict.LOCAL, None, "")
        assert "work 7: restore win" in found.ruling.decision.reason


def test_a_menu_is_its_default_item_without_the_server() -> None:
    shown = replace(STANDING, menu=Menu(name="default"), without_menu=Verdict.BOOT, url="http://far")
    found = without_there(replace(shown, decision=replace(shown.decision, verdict=Verdict.MENU)))
    assert (found.menu, found.decision.verdict, found.bundle, found.url) == (None, Verdict.BOOT, LINUX, "")
    bare = Ruling(Decision(Verdict.MENU, "ZoneDefault = menu"), menu=Menu(name="default"))
    assert without_there(bare).decision.verdict is Verdict.LOCAL


async def test_a_restart_while_the_link_is_down(tmp_path: Path) -> None:
    file, clock, host = tmp_path / "state" / "answers", Calendar(), Host(says(STANDING))
    async with host.serving(), asking(host, clock, file) as server:
        await server.wait(SIGHTING, 5.0)
    assert "7.abc" not in file.read_text()
    async with asking(host, clock, file) as server:
        found = await server.wait(SIGHTING, 5.0)
        assert found.ruling is not None
        assert (found.failed, found.ruling.bundle) == (True, LINUX)
        other = await server.wait(SIGHTING._replace(mac=MacAddress.parse("52:54:00:00:00:01")), 5.0)
        assert other.ruling is not None
        assert other.ruling.decision.verdict is Verdict.SILENT


async def test_a_file_that_is_lost_is_said_and_does_not_stop_it(tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("x")
    log = ServiceLog("policy")
    log.configure(2, tmp_path / "log", 1, "json", quiet=True)
    async with Host(says(STANDING)).serving() as host, asking(host, file=tmp_path / "answers", log=log) as server:
        assert not (await server.wait(SIGHTING, 5.0)).failed
    log.close()
    assert "answers of another server are lost" in (tmp_path / "log").read_text()
    assert MAC in (tmp_path / "answers").read_text()


async def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    log = ServiceLog("policy")
    log.configure(2, tmp_path / "log", 1, "json", quiet=True)
    async with (
        Host(says(STANDING)).serving() as host,
        asking(host, file=tmp_path / "file" / "answers", log=log) as server,
    ):
        assert not (await server.wait(SIGHTING, 5.0)).failed
    log.close()
    assert "answers of another server are not kept" in (tmp_path / "log").read_text()


async def test_a_server_that_is_down_is_not_waited_for_by_each_device() -> None:
    clock, host = Calendar(), Host(says(STANDING))
    macs = [MacAddress(bytes((2, 0, 0, 0, 0, number))) for number in range(20)]
    async with asking_of(host, clock) as server:
        assert (await server.wait(SIGHTING, 5.0)).failed
        async with host.serving():  # it is there again, but is believed to be down for some seconds
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(server.wait(Sighting(mac), 5.0)) for mac in macs]
            assert all(task.result().failed for task in tasks)
            assert host.asked == []
            clock.now += DOWN_S
            assert not (await server.wait(Sighting(macs[0])._replace(via="x"), 5.0)).failed


async def test_an_answer_that_is_forgotten_still_serves_when_the_link_is_down() -> None:
    clock, host = Calendar(), Host(says(STANDING))
    async with asking_of(host, clock) as server:
        async with host.serving():
            await server.wait(SIGHTING, 5.0)
            server.forget(MAC)
            assert server.known(SIGHTING, clock.now) is None
        found = await server.wait(SIGHTING, 5.0)
        assert found.ruling is not None
        assert (found.failed, found.ruling.bundle) == (True, LINUX)
