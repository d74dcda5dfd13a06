"""Devices at work: registry, policy and imaging service of this process, and a device that speaks the client's wire."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any  # Any: JSON values and the arguments of httpx

import httpx

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

ITEM = b"a partition's bytes"


@dataclass
class Wire:
    """A device with the token of its work."""

    client: httpx.AsyncClient
    mac: str
    token: str
    job: str = ""

    async def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", **arguments.pop("headers", {})}
        return await self.client.request(method, f"/client/v1{path}", headers=headers, **arguments)

    async def ask(self, **told: str) -> dict[str, str]:
        """Asks for work as a client of today does, unless ``client`` says another one."""
        answer = read(await self.call("POST", "/work", data={"mac": self.mac, "client": "2", **told}))
        self.job = answer.get("JOB", "")
        return answer

    async def progress(self, **form: str | int) -> str:
        return (await self.call("POST", f"/jobs/{self.job}/progress", data=form)).text.strip()

    async def result(self, **form: str | int) -> str:
        return (await self.call("POST", f"/jobs/{self.job}/result", data=form)).text.strip()

    async def capture(self) -> None:
        """All that a capture sends."""
        await self.commit()
        assert await self.result(ok=1) == "OK"

    async def commit(self) -> None:
        """The same up to its commit."""
        stored = (await self.call("PUT", f"/jobs/{self.job}/items/p1", content=ITEM)).text.split()
        manifest = f"pbserv-image 1\ndisk 1048576 512 dos bios\nitem p1 raw 1 {stored[0]} {stored[1]} {stored[0]}\n"
        answer = await self.call("POST", f"/jobs/{self.job}/commit", content=manifest)
        assert answer.text == "COMMITTED\n", answer.text


def read(answer: httpx.Response) -> dict[str, str]:
    """The shell lines of an answer."""
    assert answer.status_code == 200, answer.text
    return dict(shlex.split(line)[0].split("=", 1) for line in answer.text.splitlines())


@dataclass
class Working:
    """``client`` calls as an administrator."""

    registry: Registry
    policy: PolicyService
    imaging: ImagingService
    journal: Journal
    tokens: WorkTokens
    client: httpx.AsyncClient
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def api(self, method: str, path: str, body: object = None, status: int | None = None) -> Any:
        answer = await self.client.request(method, f"/api/v1{path}", json=body)
        assert answer.is_success if status is None else answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def device(self, mac: str, **fields: object) -> None:
        await self.api("POST", "/devices", {"mac": mac, **fields})

    async def order(self, mac: str, **body: object) -> Wire:
        """Work for a device that is there, and the device with its token."""
        made = await self.api("POST", "/work", {"mac": mac, **body})
        return self.wire(mac, made["work"]["id"])

    def wire(self, mac: str, work: int) -> Wire:
        return Wire(self.client, mac, self.tokens.issue(work))

    async def image(self, name: str = "classroom", mac: str = "52:54:00:00:0f:ff") -> None:
        """An image that was captured from a device of its own."""
        await self.device(mac)
        wire = await self.order(mac, kind="capture", image=name)
        assert (await wire.ask())["ACTION"] == "capture"
        await wire.capture()


@cache
def _empty() -> bytes:
    """A registry without anything in it; to make one takes longer than most tests."""
    with TemporaryDirectory() as place:
        migrate(Path(place) / "registry.db")
        return (Path(place) / "registry.db").read_bytes()


@asynccontextmanager
async def working(place: Path) -> AsyncIterator[Working]:
    """Everything runs."""
    if not (place / "registry.db").exists():
        (place / "registry.db").write_bytes(_empty())
    registry = Registry.open(place / "registry.db")
    journal, tokens = Journal(registry), WorkTokens(b"s" * 32)
    access = Access({digest(role.value): role.value for role in Role}, tokens)
    log = ServiceLog("pbserv")
    log.configure(4, place / "pbserv.log", 1, quiet=True)
    policy = PolicyService(log, registry, journal, tokens)
    imaging = ImagingService(log, registry, access, journal, str, [place / "vmlinuz"], Machines(policy), tokens)
    await policy.start(PolicySettings(PolicyConf(), None, 8067))
    await imaging.start(ImagingSettings(PbservConf(state_directory=place)))
    app = create_app(
        [("imaging", imaging.router()), ("", routes.router(registry, policy, access, imaging))],
        running=lambda _: True, log=log,
    )  # fmt: skip
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test", headers={"Authorization": "Bearer admin"}
    )
    try:
        yield Working(registry, policy, imaging, journal, tokens, client)
    finally:
        await client.aclose()
        await imaging.stop()
        await policy.stop()
        await registry.close()
