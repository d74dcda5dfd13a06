"""A router's relay agent asks for the machines, with option 82, and drops answers that do not bring it back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.marks import MARKS
from tests.e2e.proxydhcp.environments import relayed
from tests.e2e.proxydhcp.site import BIOS, BIOS_E1000, UEFI, UEFI_HTTP, Firmwares, Kind, Site

pytestmark = MARKS


@pytest.fixture(scope="module")
def site(directory: Path, firmwares: Firmwares) -> Iterator[Site]:
    with relayed(directory, firmwares) as made:
        yield made


@pytest.mark.parametrize("kind", [BIOS, BIOS_E1000, UEFI, UEFI_HTTP], ids=lambda kind: kind.name)
def test_machine_behind_a_relay_runs_its_script(site: Site, kind: Kind) -> None:
    machine, _text = site.runs_its_script(kind)
    relay = f"to={site.rooms[0].net}.254:67"
    assert site.server.logged("proxydhcp", "boot file offered", machine.mac, relay)


def test_undionly_behind_a_relay(site: Site) -> None:
    site.hands_undionly_over()
