"""Work that nobody began by its time ends by itself, and stands in nobody's way before that is written down."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pbserv.journal.journal import Journal
from pbserv.log import ServiceLog
from pbserv.policy.expiry import Expiry
from pbserv.registry.migrate import migrate
from pbserv.registry.records import BundleKind, DeviceState, WorkState
from pbserv.registry.registry import DeviceChange, Registry, WorkOrder
from tests.support.process import Installed

MAC = "52:54:00:00:00:01"
PAST = datetime.now(UTC) - timedelta(minutes=1)
ORDER = WorkOrder(MAC, BundleKind.RESTORE, "debian", assignment="all", expires=PAST)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    migrate(tmp_path / "registry.db")
    opened = Registry.open(tmp_path / "registry.db")
    await opened.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    yield opened
    await opened.close()


async def test_a_sweep_writes_it_down(registry: Registry) -> None:
    journal = Journal(registry)
    expiry = Expiry(registry, journal, ServiceLog("policy"))
    work = await registry.add_work(ORDER)
    assert [each.id for each in await expiry.sweep()] == [work.id]
    device = await registry.device(MAC)
    assert device.work is None
    assert [(run.assignment, run.state) for run in device.runs] == [("all", WorkState.EXPIRED)]
    await journal.flush_events()
    assert ("work", f"{work.id}: expired") in [(e.what, e.detail.rpartition(":")[0][:10]) for e in
                                               await registry.history(MAC)]  # fmt: skip
    assert await expiry.sweep() == []


async def test_a_registry_that_is_away_is_swept_the_next_time(registry: Registry, tmp_path: Path) -> None:
    await registry.add_work(ORDER)
    expiry = Expiry(registry, Journal(registry), ServiceLog("policy"))
    with sqlite3.connect(tmp_path / "registry.db") as other:
        other.execute("ALTER TABLE work RENAME TO hidden")
        other.commit()
        assert await expiry.sweep() == ()
        other.execute("ALTER TABLE hidden RENAME TO work")
        other.commit()
    assert len(await expiry.sweep()) == 1


@pytest.mark.parametrize("kind", [BundleKind.RESTORE, BundleKind.CAPTURE])
async def test_it_does_not_stand_in_the_way_of_other_work(registry: Registry, kind: BundleKind) -> None:
    late = await registry.add_work(WorkOrder(MAC, kind, "debian", expires=PAST))
    newer = await registry.add_work(WorkOrder(MAC, kind, "debian"))
    assert (await registry.work(late.id)).state is WorkState.EXPIRED
    assert (await registry.device(MAC)).work == newer


async def test_what_runs_goes_on(registry: Registry) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    work = await registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "debian", expires=soon))
    await registry.start_job(work.id, "", None)
    assert await registry.expire_works(soon + timedelta(hours=1)) == []


def test_the_server_sweeps(tmp_path: Path) -> None:
    server = Installed(tmp_path)
    server.ok("start")
    try:
        server.ok("device", "accept", MAC)
        server.ok("stop")
        with sqlite3.connect(server.state / "registry.db") as database:
            at = "2026-01-01 00:00:00.000000"
            database.execute(
                "INSERT INTO work (mac, kind, image, target_disk, finish, overwrite, state, reason, created, bundle,"
                " document, assignment, expires, retries, attempts)"
                " VALUES (?, 'memtest', '', '', 'reboot', 0, 'queued', '', ?, '', '', '', ?, 0, 0)",
                (MAC, at, at),
            )
        server.ok("start")
        server.ok("device", "show", MAC)
        [work] = server.json("work", "list", "--all")
        assert work["state"] == "expired"
        assert server.json("work", "list") == []
    finally:
        server.finish()
