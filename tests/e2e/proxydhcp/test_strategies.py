"""Each phrasing of the package's table that firmware of these two kinds may be escalated to leads to the script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.marks import MARKS
from tests.e2e.proxydhcp.environments import plain
from tests.e2e.proxydhcp.site import BIOS, UEFI, Firmwares, Kind, Site

pytestmark = MARKS


@pytest.fixture(scope="module")
def site(directory: Path, firmwares: Firmwares) -> Iterator[Site]:
    with plain(directory, firmwares) as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [
        (BIOS, "direct"), (BIOS, "hybrid"), (BIOS, "binl"), (BIOS, "discovery"), (BIOS, "two-item"),
        (UEFI, "discovery"), (UEFI, "two-item"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)  # fmt: skip
def test_strategy_leads_to_the_script(site: Site, kind: Kind, strategy: str) -> None:
    client = 'kind = "ipxe"\narch = 0' if kind is BIOS else 'kind = "uefi"'
    site.strategies(f'{client}\nstrategy = "{strategy}"')
    machine, _text = site.runs_its_script(kind)
    assert site.server.logged("proxydhcp", "boot file offered", machine.mac, f"strategy={strategy} ")
