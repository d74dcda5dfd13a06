"""LocalDHCPFlag = 0 where a DHCP server holds port 67: its clients' broadcasts are heard beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.marks import MARKS
from tests.e2e.proxydhcp.environments import same_host
from tests.e2e.proxydhcp.site import BIOS, BIOS_E1000, UEFI, UEFI_HTTP, Firmwares, Kind, Site

pytestmark = MARKS


@pytest.fixture(scope="module")
def site(directory: Path, firmwares: Firmwares) -> Iterator[Site]:
    with same_host(directory, firmwares, "0") as made:
        yield made


@pytest.mark.parametrize("kind", [BIOS, BIOS_E1000, UEFI, UEFI_HTTP], ids=lambda kind: kind.name)
def test_offer_reaches_the_machine(site: Site, kind: Kind) -> None:
    machine, _text = site.runs_its_script(kind)
    assert site.server.logged("proxydhcp", "boot file offered", machine.mac)


def test_undionly(site: Site) -> None:
    site.hands_undionly_over()


def test_automatic_flag_hears_broadcasts_beside_the_dhcp_server_too(site: Site) -> None:
    site.configure("proxydhcp.conf", LocalDHCPFlag="auto")
    machine, _text = site.runs_its_script(BIOS)
    assert site.server.logged("proxydhcp", "boot file offered", machine.mac)
