"""Names that PXELINUX and GRUB make of a machine's UUID lead to the device, in either order of its bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pbserv.policy.service import PolicyService
from pbserv.policy.virtual import VirtualFiles
from pbserv.registry.migrate import migrate
from pbserv.registry.records import DeviceState
from pbserv.registry.registry import DeviceChange, Registry
from pbserv.types import MacAddress, Sighting
from tests.policy.test_service import started

MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
UUID = "a1b2c3d4-e5f6-4718-9a0b-1c2d3e4f5061"
AS_IT_COMES = "d4c3b2a1-f6e5-1847-9a0b-1c2d3e4f5061"
PEER, LOCAL = "10.0.0.7", "10.0.0.2"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[PolicyService]:
    """With one known device, whose UUID was told by DHCP."""
    migrate(tmp_path / "registry.db")
    registry = Registry.open(tmp_path / "registry.db")
    made = await started(registry, tmp_path, new_devices="accept", zone_default="menu")
    made.ruling(Sighting(MacAddress.parse(MAC), UUID, None, "dhcp", PEER))
    await made.flush()
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    yield made
    await made.stop()
    await registry.close()


@pytest.mark.parametrize("uuid", [UUID, AS_IT_COMES, AS_IT_COMES.upper()])
@pytest.mark.parametrize("name", ["pxelinux.cfg/{}", "bios/pxelinux.cfg/{}", "boot/grub/grub.cfg-{}"])
async def test_uuid_in_either_order(service: PolicyService, name: str, uuid: str) -> None:
    text = VirtualFiles(service).find(name.format(uuid), PEER, LOCAL)
    assert text is not None
    assert f"01-{MAC.replace(':', '-')}".encode() in text


async def test_uuid_of_nobody_is_no_file(service: PolicyService) -> None:
    assert VirtualFiles(service).find("pxelinux.cfg/00112233-4455-6677-8899-aabbccddeeff", PEER, LOCAL) is None


async def test_further_card_of_the_machine_reads_of_itself(service: PolicyService) -> None:
    service.ruling(Sighting(MacAddress.parse(OTHER), UUID, None, "dhcp", "10.0.0.8"))
    await service.flush()
    text = VirtualFiles(service).find(f"pxelinux.cfg/{AS_IT_COMES}", "10.0.0.8", LOCAL)
    assert text is not None
    assert f"01-{OTHER.replace(':', '-')}".encode() in text


async def test_a_loader_does_not_wait_for_ever_for_work_that_cannot_be_made(service: PolicyService) -> None:
    now = 0.0
    files = VirtualFiles(service, lambda: now)
    document = '{"bundle": "b", "folder": "/", "schedule": "once"}'
    registry = service._registry
    await registry.change_documents([("bundle", "b", '{"kind": "memtest"}'), ("assignment", "all", document)], [])
    await registry.forget(MAC)  # behind the back of the policy
    name = f"grub.cfg-01-{MAC.replace(':', '-')}"

    def waits() -> bool:
        text = files.find(name, PEER, LOCAL)
        assert text is not None
        assert (b"sleep 1\nconfigfile" in text) is not (b"b: no work could be made" in text)
        return b"configfile" in text

    for boot in range(2):
        for _ in range(60):
            assert waits()
            now += 1
        assert not waits()
        now += 20 + boot
    for number in range(5000):
        files._waited_long(MacAddress(number.to_bytes(6, "big")))
    assert len(files._waits) <= 4096
