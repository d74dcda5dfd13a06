"""A device whose policy says local disk: its firmware goes on with the boot order at once, without any loader of ours.

"No answer" would have the same end, but a UEFI firmware waits a minute for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import note
from tests.e2e.marks import MARKS, PATIENCE_S
from tests.e2e.proxydhcp.environments import plain
from tests.e2e.proxydhcp.site import BIOS, UEFI, UEFI_HTTP, Firmwares, Kind, Site, boots_own_disk
from tests.support.qemu import Machine, powered

pytestmark = MARKS
SILENCE_S = 60  # EDK2 asks four times: 4, 8, 16 and 32 s
# What firmware prints when it begins with the network.
ASKS = ("Configuring (net0", "Start PXE over IPv4", "Start HTTP Boot over IPv4")


@pytest.fixture(scope="module")
def site(directory: Path, firmwares: Firmwares) -> Iterator[Site]:
    with plain(directory, firmwares) as made:
        made.configure("preboot-policy.conf", ZoneDefault="local")
        yield made


def goes_on(site: Site, kind: Kind, what: str) -> tuple[Machine, str]:
    """The machine's own disk is booted, before silence would have led there; its console's text."""
    machine = site.machine(kind, disk=True)
    with powered(machine) as console:
        asks = console.wait_for(*ASKS, timeout_s=PATIENCE_S)
        seconds = boots_own_disk(console)
        note(f"local disk, {what}: power-on to its first line, s", seconds)
        assert seconds - asks < SILENCE_S
        text = console.text
    assert "its local disk" in site.journal(machine)
    return machine, text


def test_rom_that_is_ipxe_is_told_by_its_script(site: Site) -> None:
    _machine, text = goes_on(site, BIOS, "iPXE ROM by its script")
    assert "booting from the local disk" in text


def test_menu_item_of_type_0_sends_a_rom_on(site: Site) -> None:
    site.strategies('kind = "ipxe"\narch = 0\nstrategy = "direct"\nlocal = "local"')
    try:
        machine, text = goes_on(site, BIOS, "iPXE ROM by a menu item of type 0")
    finally:
        site.strategies()
    assert "Booting from PXE menu" in text
    assert "Filename:" not in text
    assert site.server.logged("proxydhcp", machine.mac, "strategy=local")


def test_menu_item_of_type_0_sends_uefi_on(site: Site) -> None:
    machine, text = goes_on(site, UEFI, "UEFI")
    assert "PXE-E21: Remote boot cancelled" in text  # the firmware's words for a local boot
    assert "NBP filename" not in text
    assert site.server.logged("proxydhcp", machine.mac, "strategy=local")


def test_file_that_is_not_there_sends_uefi_http_boot_on(site: Site) -> None:
    _machine, text = goes_on(site, UEFI_HTTP, "UEFI HTTP Boot")
    assert "404 Not Found" in text
