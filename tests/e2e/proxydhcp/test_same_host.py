"""LocalDHCPFlag = 1: the DHCP server on our host says PXEClient, and we answer on port 4011 only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.marks import MARKS
from tests.e2e.proxydhcp.environments import same_host
from tests.e2e.proxydhcp.site import BIOS, BIOS_E1000, UEFI, Firmwares, Kind, Site, boots_own_disk
from tests.support.qemu import powered

pytestmark = MARKS
_OPTION_60 = "--dhcp-option-force=60,PXEClient"


@pytest.fixture(scope="module")
def site(directory: Path, firmwares: Firmwares) -> Iterator[Site]:
    with same_host(directory, firmwares, "1", _OPTION_60) as made:
        yield made


@pytest.mark.parametrize("kind", [BIOS, BIOS_E1000, UEFI], ids=lambda kind: kind.name)
def test_machine_asks_port_4011_and_runs_its_script(site: Site, kind: Kind) -> None:
    machine, _text = site.runs_its_script(kind)
    assert site.server.logged("proxydhcp", "boot file acknowledged", machine.mac)
    assert not site.server.log_lines("proxydhcp", "boot file offered", machine.mac)


def test_acknowledgement_can_say_local_disk(site: Site) -> None:
    site.configure("preboot-policy.conf", ZoneDefault="local")
    machine = site.machine(UEFI, disk=True)
    with powered(machine) as console:
        boots_own_disk(console)
        assert "PXE-E21: Remote boot cancelled" in console.text
    assert site.server.logged("proxydhcp", "acknowledged", machine.mac, "strategy=local")
