"""The routes on a real registry, policy service and image store, in this process; one caller of each role."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from pbserv.imaging.config import PbservConf
from pbserv.imaging.service import ImagingService, ImagingSettings
from pbserv.journal.journal import Journal
from pbserv.log import ServiceLog
from pbserv.policy.api import routes
from pbserv.policy.config import PolicyConf
from pbserv.policy.machines import Machines
from pbserv.policy.service import PolicyService, PolicySettings
from pbserv.registry.access import Access
from pbserv.registry.migrate import migrate
from pbserv.registry.records import Role
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import WorkTokens, digest
from pbserv.web.app import create_app


@dataclass(frozen=True)
class Served:
    """``viewer``, ``operator`` and ``admin`` call with a token of that role."""

    registry: Registry
    policy: PolicyService
    journal: Journal
    viewer: httpx.AsyncClient
    operator: httpx.AsyncClient
    admin: httpx.AsyncClient
    nobody: httpx.AsyncClient

    async def make(self, path: str, **fields: object) -> httpx.Response:
        """PUT an object that must be taken."""
        answer = await self.admin.put(path, json=fields)
        assert answer.is_success, answer.text
        return answer

    async def device(self, mac: str, **fields: object) -> None:
        answer = await self.operator.post("/devices", json={"mac": mac, **fields})
        assert answer.status_code == 201, answer.text


def _log(place: Path) -> ServiceLog:
    log = ServiceLog("policy")
    log.configure(4, place / "policy.log", 1, quiet=True)
    return log


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry without anything in it; to make one takes longer than most tests."""
    path = tmp_path_factory.mktemp("empty") / "registry.db"
    migrate(path)
    return path


@pytest.fixture
async def served(tmp_path: Path, empty: Path) -> AsyncIterator[Served]:
    shutil.copy(empty, tmp_path / "registry.db")
    registry = Registry.open(tmp_path / "registry.db")
    journal, tokens = Journal(registry), WorkTokens(b"s" * 32)
    roles = {digest(role.value): role.value for role in Role}
    access = Access(roles, tokens)
    policy = PolicyService(_log(tmp_path), registry, journal, tokens)
    imaging = ImagingService(
        _log(tmp_path), registry, access, journal, str, [tmp_path / "vmlinuz"], Machines(policy), tokens
    )
    await imaging.start(ImagingSettings(PbservConf(state_directory=tmp_path)))
    await policy.start(PolicySettings(PolicyConf(), None, 8067))
    app = create_app(
        [("imaging", imaging.router()), ("", routes.router(registry, policy, access, imaging))],
        running=lambda _: True, log=_log(tmp_path),
    )  # fmt: skip
    transport = httpx.ASGITransport(app)
    callers = [
        httpx.AsyncClient(
            timeout=60, transport=transport, base_url="http://test/api/v1", headers={"Authorization": f"Bearer {name}"}
        )
        for name in ("viewer", "operator", "admin", "wrong")
    ]
    yield Served(registry, policy, journal, *callers)
    for caller in callers:
        await caller.aclose()
    await policy.stop()
    await imaging.stop()
    await registry.close()
