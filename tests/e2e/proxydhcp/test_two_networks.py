"""A server with a card in each of two networks tells each machine the address that it has there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.marks import MARKS
from tests.e2e.proxydhcp.environments import two_networks
from tests.e2e.proxydhcp.site import BIOS, BIOS_E1000, UEFI, UEFI_HTTP, Firmwares, Kind, Site

pytestmark = MARKS


@pytest.fixture(scope="module")
def site(directory: Path, firmwares: Firmwares) -> Iterator[Site]:
    with two_networks(directory, firmwares) as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "where"),
    [(BIOS, 0), (BIOS, 1), (BIOS_E1000, 1), (UEFI, 1), (UEFI_HTTP, 1)],
    ids=["bios-first", "bios-second", "bios-e1000-second", "uefi-second", "uefi-http-second"],
)
def test_machine_is_told_the_address_on_its_side(site: Site, kind: Kind, where: int) -> None:
    machine, text = site.runs_its_script(kind, where)
    assert site.addresses[1 - where] not in text
    offers = site.server.logged("proxydhcp", "boot file offered", machine.mac)
    assert offers
    assert all(f"server={site.addresses[where]} " in line for line in offers)


def test_undionly_is_told_the_address_on_its_side(site: Site) -> None:
    site.hands_undionly_over(1)
