"""What /readyz says, on a real registry and services that are, or are not, there."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from pbserv.log import ServiceLog
from pbserv.registry.migrate import migrate
from pbserv.registry.registry import Registry
from pbserv.service import ServiceStatus
from pbserv.web import health_routes
from pbserv.web.app import create_app


async def ask(registry: Registry, statuses: list[ServiceStatus], path: str = "/readyz") -> httpx.Response:
    routes = health_routes.router(registry.token_digests, lambda: statuses)
    app = create_app([("", routes)], running=lambda name: True, log=ServiceLog("pbserv"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pbserv") as client:
        return await client.get(path)


@pytest.fixture
async def registry(tmp_path: Path):
    migrate(tmp_path / "registry.db")
    opened = Registry.open(tmp_path / "registry.db")
    yield opened
    await opened.close()


async def test_ready_when_all_that_is_to_run_runs(registry: Registry) -> None:
    answer = await ask(registry, [ServiceStatus("tftp", "TFTP", True), ServiceStatus("policy", "policy", True)])
    assert (answer.status_code, answer.text) == (200, "ready\n")
    assert answer.headers["content-type"].startswith("text/plain")


async def test_one_line_for_each_thing_that_is_not(registry: Registry, tmp_path: Path) -> None:
    tftp = ServiceStatus("tftp", "TFTP", False, reason="udp 10.1.2.3:69 is taken by pid 77")
    answer = await ask(registry, [tftp, ServiceStatus("policy", "policy", True)])
    assert (answer.status_code, answer.text) == (503, "tftp: is not running; see: pbserv status\n")
    lost = Registry.open("postgresql://nobody:x@127.0.0.1:1/none")
    answer = await ask(lost, [tftp])
    await lost.close()
    assert answer.status_code == 503
    assert [line.partition(":")[0] for line in answer.text.splitlines()] == ["registry", "tftp"]
    assert str(tmp_path) not in answer.text
    assert "10.1.2.3" not in answer.text


async def test_health_is_the_process_alone(registry: Registry) -> None:
    answer = await ask(registry, [ServiceStatus("tftp", "TFTP", False)], "/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")
