"""Nobody answers on port 4011: UEFI stops after our offer twice, and then gets one that needs no port 4011."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.marks import MARKS
from tests.e2e.proxydhcp.environments import plain
from tests.e2e.proxydhcp.site import UEFI, Firmwares, Site, boots_own_disk
from tests.support.qemu import powered

pytestmark = MARKS


@pytest.fixture(scope="module")
def site(directory: Path, firmwares: Firmwares) -> Iterator[Site]:
    with plain(directory, firmwares, BootServerPort="4012") as made:
        yield made


def test_the_strategy_that_works_is_found_and_remembered(site: Site) -> None:
    for _ in range(2):
        machine = site.machine(UEFI, disk=True)
        with powered(machine) as console:
            boots_own_disk(console)
            assert "PXE-E16: No valid offer received" in console.text
    machine, _text = site.runs_its_script(UEFI)
    offers = site.server.logged("proxydhcp", "boot file offered", machine.mac, "kind=uefi")
    assert ["strategy=direct " in line for line in offers] == [False, False, True]
    assert any(what == "strategy learned" and "direct" in detail for what, detail in site.server.history(machine.mac))
