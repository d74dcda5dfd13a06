"""The F8 menu on real firmware: its prompt counts down to this server's entry, and F8 lets a person choose another.

Both firmwares get the menu by an override: one is iPXE and would get its script, the other UEFI.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.marks import MARKS, PATIENCE_S
from tests.e2e.proxydhcp.environments import plain
from tests.e2e.proxydhcp.site import BIOS, UEFI, Firmwares, Kind, Site, boots_own_disk
from tests.support.qemu import powered

pytestmark = MARKS
_LONG_S = 60  # a person has this long to press F8
_SECOND = "SIGNPOST second entry of the menu"


@pytest.fixture(scope="module")
def site(directory: Path, firmwares: Firmwares) -> Iterator[Site]:
    with plain(directory, firmwares, MenuTimeout="3", MenuEntries="Second entry=second.ipxe") as made:
        (made.server.tftp / "second.ipxe").write_text(f"#!ipxe\necho {_SECOND}\nsleep 60\n")
        made.strategies('kind = "ipxe"\narch = 0\nstrategy = "menu"', 'kind = "uefi"\nstrategy = "menu"')
        yield made


@pytest.fixture
def unhurried(site: Site) -> Iterator[None]:
    """Whoever presses a key has more time than a busy host needs to see the prompt."""
    site.configure("proxydhcp.conf", MenuTimeout=str(_LONG_S))
    yield
    site.configure("proxydhcp.conf", MenuTimeout="3")


@pytest.mark.parametrize("kind", [BIOS, UEFI], ids=lambda kind: kind.name)
def test_prompt_counts_down_and_takes_this_server(site: Site, kind: Kind) -> None:
    machine, text = site.runs_its_script(kind)
    assert "Press F8" in text
    assert text.index("(3)") < text.index("(2)") < text.index("(1)")
    assert site.server.logged("proxydhcp", "boot file acknowledged", machine.mac, "strategy=menu")


@pytest.mark.usefixtures("unhurried")
def test_f8_shows_the_menu_and_the_second_entry_boots(site: Site) -> None:
    machine = site.machine(BIOS, keyboard=True)
    with powered(machine) as console:
        console.wait_for(f"({_LONG_S})", timeout_s=PATIENCE_S)
        machine.press("f8")
        console.wait_for("Second entry", timeout_s=PATIENCE_S)
        machine.press("down", "ret")
        console.wait_for(_SECOND, timeout_s=PATIENCE_S)
    assert site.server.logged("proxydhcp", "boot file acknowledged", machine.mac, "file=second.ipxe")


@pytest.mark.usefixtures("unhurried")
def test_last_entry_is_the_local_disk(site: Site) -> None:
    machine = site.machine(UEFI, disk=True, keyboard=True)
    with powered(machine) as console:
        console.wait_for(f"({_LONG_S})", timeout_s=PATIENCE_S)
        machine.press("f8")
        console.wait_for("Second entry", timeout_s=PATIENCE_S)
        machine.press("down", "down", "ret")
        boots_own_disk(console)
        assert "PXE-E21: Remote boot cancelled" in console.text
