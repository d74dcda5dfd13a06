"""What loaders and installers get over HTTP and TFTP: the real policy, registry and TFTP service behind real routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import httpx
import pytest

from pbserv.imaging import ranges
from pbserv.log import ServiceLog
from pbserv.policy import boot_routes, pixiecore_routes
from pbserv.policy.boots import BootTokens
from pbserv.policy.service import PolicyService
from pbserv.policy.virtual import VirtualFiles
from pbserv.registry.access import Access
from pbserv.registry.migrate import migrate
from pbserv.registry.records import BundleKind, DeviceState, WorkState
from pbserv.registry.registry import DeviceChange, Registry, WorkOrder
from pbserv.registry.tokens import WorkTokens
from pbserv.tftp.catalogue import Catalogue, MadeFile, RealFile, Refusal
from pbserv.tftp.config import TftpConf
from pbserv.tftp.packet import Opcode, Request
from pbserv.tftp.service import TftpService
from pbserv.types import MacAddress, Sighting
from pbserv.web.app import create_app
from pbserv.web.boot_files_routes import client_router, files_router
from tests.policy.test_attribution import Link
from tests.policy.test_service import Clock, started

DENIED, CARD, KNOWN = "52:54:00:00:00:d1", "52:54:00:00:00:d2", "52:54:00:00:00:01"
UUID = "a1b2c3d4-e5f6-4718-9a0b-1c2d3e4f50d1"
HERE, CARD_HERE, FAR, ELSEWHERE = "10.0.0.209", "10.0.0.210", "10.9.0.209", "10.9.0.77"
"""Of the denied device: two addresses on the link, one behind a router; and one of which nobody knows whose it is."""
LOCAL = "10.0.0.2"
TOKENS = WorkTokens(b"s" * 32)
INSTALL = """{"kind": "install", "kernel": "k", "installer": "preseed", "answer": "secret {{ mac }}\\n"}"""


@dataclass
class Site:
    registry: Registry
    policy: PolicyService
    tftp: TftpService
    clock: Clock
    app: object

    def http(self, peer: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, client=(peer, 50000))  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url=f"http://{LOCAL}:8067", trust_env=False)

    async def get(self, path: str, peer: str, method: str = "GET", **headers: str) -> httpx.Response:
        async with self.http(peer) as client:
            return await client.request(method, path, headers=headers)

    def read(self, name: str, peer: str, mode: str = "octet") -> bytes | None:
        """Over TFTP; None: refused, or there is none."""
        room = self.tftp._room
        assert room is not None
        catalogue: Catalogue = room.desk.catalogue
        try:
            room.desk._let_in(peer)
            found = catalogue.find(Request(Opcode.RRQ, name.encode(), mode), peer, LOCAL, lambda: None)
        except Refusal:
            return None
        if isinstance(found, MadeFile):
            return found.data
        assert isinstance(found, RealFile)
        with open(found.fd, "rb") as file:
            return file.read()

    def boot_token(self, mac: str) -> str:
        return BootTokens(TOKENS.key("boot")).mint(mac, self.clock.calendar().timestamp())


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    migrate(tmp_path / "registry.db")
    registry = Registry.open(tmp_path / "registry.db")
    link, clock = Link(), Clock()
    link.macs = {HERE: DENIED, CARD_HERE: CARD, "10.0.0.1": KNOWN}
    policy = await started(
        registry, tmp_path, neighbours=lambda: link, clock=clock, new_devices="accept", zone_default="menu"
    )
    for mac, address in ((DENIED, FAR), (CARD, ""), (KNOWN, "10.0.0.1")):
        uuid = UUID if mac != KNOWN else None
        policy.ruling(Sighting(MacAddress.parse(mac), uuid, None, "dhcp", address))
    await policy.flush()
    await registry.change_device(KNOWN, DeviceChange(state=DeviceState.KNOWN))
    for folder in ("tftp", "client"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tftp" / "plain").write_bytes(b"plain file")
    (tmp_path / "client" / "vmlinuz").write_bytes(b"a kernel")
    log, virtual = ServiceLog("tftp"), VirtualFiles(policy)
    tftp = TftpService(
        log, virtual, policy, {}, [policy], policy, {"client/vmlinuz": tmp_path / "client" / "vmlinuz"}
    )  # fmt: skip
    await tftp.start(TftpConf(interfaces=("127.0.0.1",), port=0, directory=tmp_path / "tftp"))
    routers = [
        ("policy", boot_routes.router(policy, registry, TOKENS)),
        ("policy", pixiecore_routes.router(policy, Access({}, TOKENS))),
        ("tftp", files_router(tftp, policy, ranges.plan, log)),
        ("", client_router(tmp_path / "client", ("vmlinuz",), policy, ranges.plan, log)),
    ]
    app = create_app(routers, running=lambda _: True, log=log, path_of=virtual.path_of)
    yield Site(registry, policy, tftp, clock, app)
    await tftp.stop()
    await policy.stop()
    await registry.close()


# a denied device ----------------------------------------------------------------------------------------------------


def names(mac: str) -> Iterator[str]:
    """Whatever a loader may ask for, in the ways in which it may be written."""
    hyphens = mac.replace(":", "-")
    yield from ("plain", "client/vmlinuz", "boot.ipxe", "autoexec.ipxe", "any/where/autoexec.ipxe", "settings.txt")
    yield from (f"boot/{hyphens}.ipxe", f"boot/{hyphens.upper()}.ipxe", f"boot/{mac.replace(':', '')}.ipxe")
    for folder in ("", "a/b/"):
        yield from (f"{folder}pxelinux.cfg/01-{hyphens}", f"{folder}pxelinux.cfg/{UUID}", f"{folder}pxelinux.cfg/0A",
                    f"{folder}pxelinux.cfg/default", f"{folder}grub.cfg", f"{folder}grub.cfg-01-{hyphens}",
                    f"{folder}grub.cfg-{UUID.upper()}")  # fmt: skip
    yield from (f"item/imaging/pxelinux.cfg/01-{hyphens}", f"{hyphens}/config.txt", f"{hyphens}/settings.txt")


def spelled(name: str) -> Iterator[str]:
    yield from (name, f"/{name}", f"//{name}", f"./{name}", f"x/../{name}", name.replace("/", "\\"), f"{name}\xff")


async def test_the_same_questions_of_a_known_device_are_answered(site: Site) -> None:
    """Or what follows would say nothing."""
    assert [name for name in names(DENIED) if site.read(name, HERE) is None] == [
        f"{DENIED.replace(':', '-')}/config.txt"
    ]
    for path in (f"/boot/{DENIED}.ipxe", f"/s/{site.boot_token(CARD)}/files/plain", "/client/vmlinuz"):
        for peer in (HERE, CARD_HERE, FAR):
            assert (await site.get(path, peer)).status_code == 200, (path, peer)


@pytest.mark.parametrize("peer", [HERE, CARD_HERE, FAR])
async def test_a_denied_device_reads_nothing_over_tftp(site: Site, peer: str) -> None:
    await site.registry.change_device(KNOWN, DeviceChange(state=DeviceState.DENIED))
    await site.registry.change_device(DENIED, DeviceChange(state=DeviceState.DENIED))
    own, others = site.boot_token(CARD), site.boot_token(KNOWN)
    for mac, token in product((DENIED, CARD, KNOWN), ("", f"s/{own}/", f"s/{others}/", "s/made-up/")):
        for name in names(mac):
            for spelling in spelled(f"{token}{name}"):
                assert site.read(spelling, peer) is None, spelling
                assert site.read(spelling, peer, "netascii") is None, spelling


async def test_who_names_a_denied_device_reads_nothing_of_it(site: Site) -> None:
    await site.registry.change_device(DENIED, DeviceChange(state=DeviceState.DENIED))
    shared = {name for name in names(DENIED) if name in set(names("52:54:00:00:00:99")) and UUID not in name.lower()}
    for mac in (DENIED, CARD):
        for name in names(mac):
            for spelling in spelled(name):
                got = site.read(spelling, ELSEWHERE)
                assert got is None or name in shared, spelling
                assert got is None or (b"pb.token" not in got and mac.encode() not in got), spelling
            assert site.read(f"s/{site.boot_token(mac)}/{name}", ELSEWHERE) is None, name


async def test_a_denied_device_gets_nothing_over_http(site: Site) -> None:
    await site.registry.change_documents([("bundle", "i", INSTALL)], [])
    work = await site.registry.add_work(WorkOrder(KNOWN, BundleKind.INSTALL, bundle="i", document=INSTALL))
    await site.registry.change_device(DENIED, DeviceChange(state=DeviceState.DENIED))
    others = TOKENS.issue(work.id)
    for peer in (HERE, CARD_HERE, FAR):
        paths = [f"/files/{name}" for mac in (DENIED, CARD, KNOWN) for name in names(mac)]
        paths += [path.replace("/files/", f"/s/{site.boot_token(CARD)}/files/") for path in paths]
        paths += [path.replace("/files", "/%66iles") for path in paths] + [path.replace("p", "%70") for path in paths]
        paths += [f"/boot/{mac}.ipxe{query}" for mac in (DENIED, CARD, KNOWN, "52:54:00:00:00:99")
                  for query in ("", f"?uuid={UUID}", "?item=imaging", "?sent=1")]  # fmt: skip
        paths += ["/boot.ipxe", "/client/vmlinuz", f"/v1/boot/{DENIED}", f"/v1/boot/{KNOWN}"]
        paths += [f"/boot/answer/{site.boot_token(DENIED)}/preseed.cfg", f"/boot/answer/{others}/preseed.cfg"]
        for path in paths:
            for method, headers in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=0-"})):
                answer = await site.get(path, peer, method, **headers)
                assert answer.status_code in (403, 404, 405), (peer, method, path, answer.text)
                assert "secret" not in answer.text
                assert answer.headers.get("etag") is None
    for query in ("", f"?uuid={UUID}", "?item=imaging"):
        assert (await site.get(f"/boot/{DENIED}.ipxe{query}", ELSEWHERE)).status_code == 403
        assert (await site.get(f"/boot/52:54:00:00:00:d3.ipxe?uuid={UUID}", ELSEWHERE)).status_code == 403


async def test_work_of_a_device_that_is_denied_ends_with_its_token(site: Site) -> None:
    work = await site.registry.add_work(WorkOrder(KNOWN, BundleKind.INSTALL, bundle="i", document=INSTALL))
    path = f"/boot/answer/{TOKENS.issue(work.id)}/preseed.cfg"
    assert (await site.get(path, ELSEWHERE)).text == f"secret {KNOWN}\n"
    await site.registry.change_device(KNOWN, DeviceChange(state=DeviceState.DENIED))
    assert (await site.get(path, ELSEWHERE)).status_code == 410
    assert (await site.get(f"/boot/done/{TOKENS.issue(work.id)}?ok=1", ELSEWHERE)).status_code == 200
    assert (await site.registry.work(work.id)).state is WorkState.CANCELLED


async def test_who_names_another_device_than_the_kernel_sees_changes_nothing(site: Site) -> None:
    before, stranger = site.policy.snapshot.device(KNOWN), "52:54:00:00:00:99"
    for mac in (KNOWN, stranger):
        assert site.read(f"pxelinux.cfg/01-{mac.replace(':', '-')}", HERE) is None
        assert (await site.get(f"/boot/{mac}.ipxe", HERE)).status_code == 403
        assert (await site.get(f"/v1/boot/{mac}", HERE)).status_code == 403
    assert site.policy.snapshot.device(KNOWN) == before
    assert site.policy.snapshot.device(stranger) is None


async def test_what_the_loader_tells_counts_in_the_same_boot(site: Site) -> None:
    """Also when an answer that was made before stands still."""
    rule = '{"when": "manufacturer == \\"LENOVO\\"", "bundle": "m"}'
    await site.registry.change_documents([("bundle", "m", '{"kind": "memtest"}'), ("rule", "r", rule)], [])
    path = f"/boot/{KNOWN}.ipxe"
    assert "memtest" not in (await site.get(path, "10.0.0.1")).text
    assert "memtest" in (await site.get(f"{path}?manufacturer=LENOVO", "10.0.0.1")).text


# work ---------------------------------------------------------------------------------------------------------------


async def assigned(site: Site, kind: str = "memtest") -> None:
    bundle = INSTALL if kind == "install" else f'{{"kind": "{kind}"}}'
    document = '{"bundle": "b", "folder": "/", "schedule": "once"}'
    await site.registry.change_documents([("bundle", "b", bundle), ("assignment", "all", document)], [])


async def test_what_is_done_once_is_not_begun_without_work(site: Site) -> None:
    """No report could end it: it would begin again at each boot."""
    await assigned(site, "install")
    await site.registry.forget(KNOWN)  # behind the back of the policy, so that no work can be made
    text = (await site.get(f"/boot/{KNOWN}.ipxe", "10.0.0.1")).text
    assert "its work could not be made" in text
    assert "kernel" not in text


async def test_two_questions_at_a_time_have_the_same_work(site: Site) -> None:
    await assigned(site)
    path = f"/boot/{KNOWN}.ipxe"
    one, other = await asyncio.gather(site.get(path, "10.0.0.1"), site.get(path, "10.0.0.1"))
    assert one.text == other.text
    [work] = await site.registry.works()
    assert f"/boot/done/{TOKENS.issue(work.id)}" in one.text


async def test_an_installation_that_began_does_not_expire(site: Site) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    order = WorkOrder(KNOWN, BundleKind.INSTALL, bundle="i", document=INSTALL, expires=soon)
    work = await site.registry.add_work(order)
    path = f"/boot/answer/{TOKENS.issue(work.id)}/preseed.cfg"
    assert (await site.get(path, "10.0.0.1", "HEAD")).status_code == 200
    assert (await site.registry.work(work.id)).state is WorkState.QUEUED
    assert (await site.get(path, "10.0.0.1")).status_code == 200
    began = await site.registry.work(work.id)
    assert (began.state, began.attempts) == (WorkState.RUNNING, 1)
    assert await site.registry.expire_works(soon + timedelta(hours=1)) == []
    assert (await site.get(f"/boot/done/{TOKENS.issue(work.id)}", ELSEWHERE)).status_code == 200
    assert (await site.registry.work(work.id)).state is WorkState.DONE


async def test_a_report_of_success_counts_also_after_the_time(site: Site) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    work = await site.registry.add_work(
        WorkOrder(KNOWN, BundleKind.MEMTEST, document='{"kind": "memtest"}', expires=soon)
    )
    await site.registry.expire_works(soon)
    await site.get(f"/boot/done/{TOKENS.issue(work.id)}?ok=0", "10.0.0.1")
    assert (await site.registry.work(work.id)).state is WorkState.EXPIRED
    await site.get(f"/boot/done/{TOKENS.issue(work.id)}?ok=1", "10.0.0.1")
    assert (await site.registry.work(work.id)).state is WorkState.DONE


async def test_what_strangers_say_is_kept_short_and_printable(site: Site) -> None:
    work = await site.registry.add_work(WorkOrder(KNOWN, BundleKind.MEMTEST, document='{"kind": "memtest"}'))
    await site.get(f"/boot/{KNOWN}.ipxe?item={'x' * 5000}", "10.0.0.1")
    await site.get(f"/boot/done/{TOKENS.issue(work.id)}?ok=0&reason=a%0Ab%1B[2J{'x' * 5000}", "10.0.0.1")
    await site.policy.flush_history()
    details = [event.detail for event in await site.registry.history(KNOWN)]
    assert max(map(len, details)) < 1100
    assert all(detail.isprintable() for detail in details)
    assert (await site.registry.work(work.id)).reason.startswith("a b [2Jx")
