"""What servers of other sites, and pixiecore, are told: real routes before the real policy service and registry."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from pbserv.log import ServiceLog
from pbserv.policy import pixiecore_routes, resolve_routes
from pbserv.policy.decide import Ruling
from pbserv.policy.oracles.wire import read_ruling
from pbserv.policy.service import PolicyService
from pbserv.policy.virtual import VirtualFiles
from pbserv.registry.access import Access
from pbserv.registry.migrate import migrate
from pbserv.registry.records import BundleKind, DeviceState, Role
from pbserv.registry.registry import DeviceChange, Registry, WorkOrder
from pbserv.registry.tokens import WorkTokens, digest
from pbserv.types import Verdict
from pbserv.web.app import create_app
from tests.policy.test_attribution import Link
from tests.policy.test_service import started

MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
QUESTION = {"mac": MAC, "arch": 7, "labels": {"client_kind": "uefi", "serial": "ABC"}, "via": "dhcp"}
TOKENS = WorkTokens(b"s" * 32)
ROLES = {role: f"token of {role}" for role in Role}
LIVE = '{"kind": "linux", "kernel": "live/vmlinuz", "arguments": "quiet"}'


@dataclass
class Site:
    registry: Registry
    policy: PolicyService
    client: httpx.AsyncClient

    async def resolve(self, role: Role | None = Role.SITE, **question: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {ROLES[role]}"} if role is not None else {}
        return await self.client.post("/api/v1/policy/resolve", json={**QUESTION, **question}, headers=headers)

    async def ruling(self, **question: Any) -> Ruling:
        answer = await self.resolve(**question)
        assert answer.status_code == 200, answer.text
        return read_ruling(answer.content)

    async def boot(self, mac: str = MAC, **headers: str) -> httpx.Response:
        return await self.client.get(f"/v1/boot/{mac}", headers=headers)

    async def accept(self, mac: str = MAC, state: DeviceState = DeviceState.KNOWN) -> None:
        await self.registry.change_device(mac, DeviceChange(state=state))

    async def live(self) -> None:
        """The zone boots a Linux from the network."""
        await self.registry.change_documents(
            [("bundle", "live", LIVE), ("assignment", "all", '{"bundle": "live", "folder": "/"}')], []
        )


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    migrate(tmp_path / "registry.db")
    registry = Registry.open(tmp_path / "registry.db")
    link = Link()
    link.macs = {"10.0.0.9": OTHER}
    policy = await started(registry, tmp_path, neighbours=lambda: link)
    access = Access({digest(token): role.value for role, token in ROLES.items()}, TOKENS)

    routers = [
        ("policy", resolve_routes.router(policy, access, TOKENS)),
        ("policy", pixiecore_routes.router(policy, access)),
    ]
    app = create_app(
        routers, running=lambda _name: policy.running, log=ServiceLog("pbserv"), path_of=VirtualFiles(policy).path_of
    )
    transport = httpx.ASGITransport(app, client=("10.0.0.9", 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://10.0.0.5:8067") as client:
        yield Site(registry, policy, client)
    await policy.stop()
    await registry.close()


# resolve ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.IMAGES])
async def test_another_role_may_not_resolve(site: Site, role: Role) -> None:
    answer = await site.resolve(role)
    assert (answer.status_code, "role site" in answer.json()["error"]) == (403, True)


async def test_nobody_may_resolve(site: Site) -> None:
    assert (await site.resolve(None)).status_code == 401


@pytest.mark.parametrize("role", [Role.SITE, Role.ADMIN])
async def test_a_new_device_is_registered_here(site: Site, role: Role) -> None:
    answer = await site.resolve(role)
    assert answer.status_code == 200
    assert answer.json()["verdict"] == "silent"
    assert f"pbserv device accept {MAC}" in answer.json()["refused"]
    await site.policy.flush()
    device = await site.registry.device(MAC)
    assert device is not None
    assert (device.state, device.arch) == (DeviceState.PENDING, 7)


async def test_what_is_assigned(site: Site) -> None:
    await site.accept()
    await site.live()
    ruling = await site.ruling()
    assert ruling.bundle is not None
    assert (ruling.decision.verdict, ruling.bundle.kernel) == (Verdict.BOOT, "live/vmlinuz")
    assert (ruling.url, ruling.token, ruling.work) == ("http://10.0.0.5:8067", "", None)
    assert "assignment all to the zone" in ruling.decision.reason


async def test_a_denied_device(site: Site) -> None:
    await site.accept(state=DeviceState.DENIED)
    ruling = await site.ruling()
    assert (ruling.decision.verdict, ruling.refused) == (Verdict.SILENT, "device is denied")


async def test_work_comes_with_a_token_that_is_good_here(site: Site) -> None:
    await site.accept()
    work = await site.registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "win11"))
    ruling = await site.ruling()
    assert ruling.work is not None
    assert (ruling.work.id, ruling.work.image, TOKENS.work_of(ruling.token)) == (work.id, "win11", work.id)
    assert ruling.decision.work is None


async def test_labels_are_learned_and_count(site: Site) -> None:
    await site.accept()
    await site.registry.change_documents(
        [("bundle", "live", LIVE), ("rule", "abc", '{"bundle": "live", "when": "serial == \\"ABC\\""}')], []
    )
    assert (await site.ruling()).decision.bundle == "live"
    assert (await site.ruling(mac=OTHER, labels={})).decision.bundle == ""
    await site.policy.flush()
    device = await site.registry.device(MAC)
    assert device is not None
    assert device.serial == "ABC"


@pytest.mark.parametrize(
    "wrong",
    [{"mac": "x"}, {"mac": None}, {"uuid": "x"}, {"arch": -1}, {"arch": 70_000}, {"labels": {"x" * 33: ""}},
     {"labels": {"x": "y" * 257}}, {"labels": {f"l{n}": "" for n in range(65)}}, {"more": 1}, {"via": "x" * 17}],
)  # fmt: skip
async def test_what_is_no_question(site: Site, wrong: dict[str, Any]) -> None:
    answer = await site.resolve(**wrong)
    assert (answer.status_code, bool(answer.json()["error"])) == (422, True)


async def test_a_stopped_policy_says_so(site: Site) -> None:
    await site.policy.stop()
    answer = await site.resolve()
    assert (answer.status_code, "pbserv start policy" in answer.json()["error"]) == (503, True)


# pixiecore ----------------------------------------------------------------------------------------------------------


def bearer(role: Role) -> dict[str, str]:
    return {"Authorization": f"Bearer {ROLES[role]}"}


async def test_pixiecore_boots_what_is_assigned_as_often_as_it_asks(site: Site) -> None:
    await site.accept()
    await site.live()
    first = await site.boot(**bearer(Role.SITE))
    assert first.status_code == 200, first.text
    assert first.json()["kernel"].endswith("/files/live/vmlinuz")
    assert "quiet" in first.json()["cmdline"]
    assert (await site.boot(**bearer(Role.OPERATOR))).json() == first.json()


async def test_a_viewer_makes_no_work_and_gets_no_token_of_work(site: Site) -> None:
    """To look is one thing: the token of work opens the bytes of its image."""
    await site.accept()
    await site.registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "win11"))
    assert "pb.token" in (await site.boot(**bearer(Role.SITE))).text
    answer = await site.boot(**bearer(Role.VIEWER))
    assert (answer.status_code, "site or operator" in answer.json()["error"]) == (403, True)


async def test_work_that_cannot_be_made_boots_nothing(site: Site) -> None:
    await site.accept()
    install = '{"kind": "memtest"}'
    await site.registry.change_documents(
        [("bundle", "m", install), ("assignment", "all", '{"bundle": "m", "folder": "/", "schedule": "once"}')], []
    )
    await site.registry.forget(MAC)  # behind the back of the policy: its work cannot be made
    answer = await site.boot(**bearer(Role.SITE))
    assert (answer.status_code, "its work could not be made" in answer.json()["error"]) == (404, True)


async def test_a_token_for_images_boots_nothing(site: Site) -> None:
    await site.accept()
    await site.live()
    assert (await site.boot(**bearer(Role.IMAGES))).status_code == 403
    assert (await site.boot(**bearer(Role.SITE))).status_code == 200


async def test_a_password_is_a_token_too(site: Site) -> None:
    await site.accept()
    await site.live()
    text = base64.b64encode(f"site:{ROLES[Role.SITE]}".encode()).decode()
    assert (await site.boot(Authorization=f"Basic {text}")).status_code == 200
    for wrong in ("Basic", "Basic !", "Basic " + base64.b64encode(b"x:y").decode(), "Basic " + "A" * 2000, "Digest x"):
        assert (await site.boot(Authorization=wrong)).status_code == 403


async def test_who_asks_for_another_device_needs_a_token(site: Site) -> None:
    await site.accept()
    await site.live()
    answer = await site.boot()
    assert (answer.status_code, OTHER in answer.json()["error"]) == (403, True)
    await site.accept(OTHER)
    assert (await site.boot(OTHER)).status_code == 200


async def test_what_does_not_boot_from_the_network(site: Site) -> None:
    await site.accept()
    answer = await site.boot(**bearer(Role.SITE))
    assert (answer.status_code, answer.json()["error"].startswith("local: ")) == (404, True)
    await site.accept(state=DeviceState.DENIED)
    answer = await site.boot(**bearer(Role.SITE))
    assert (answer.status_code, answer.json()["error"]) == (403, "device is denied")


async def test_what_is_no_mac(site: Site) -> None:
    assert (await site.boot("nonsense", **bearer(Role.SITE))).status_code == 404
