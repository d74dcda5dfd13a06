"""Every firmware through the plainest network: a DHCP server on another host that knows nothing of booting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.marks import MARKS, PATIENCE_S
from tests.e2e.proxydhcp.environments import plain
from tests.e2e.proxydhcp.site import BIOS, BIOS_E1000, UEFI, UEFI_HTTP, Firmwares, Kind, Site
from tests.support.qemu import powered

pytestmark = MARKS


@pytest.fixture(scope="module")
def site(directory: Path, firmwares: Firmwares) -> Iterator[Site]:
    with plain(directory, firmwares) as made:
        yield made


@pytest.mark.parametrize("kind", [BIOS, BIOS_E1000], ids=lambda kind: kind.name)
def test_rom_that_is_ipxe_takes_the_script(site: Site, kind: Kind) -> None:
    machine, text = site.runs_its_script(kind)
    assert "Filename: boot.ipxe" in text
    assert site.server.logged("proxydhcp", "boot file offered", machine.mac, "kind=ipxe", "file=boot.ipxe")
    assert "boot menu shown" in site.journal(machine)


def test_rom_is_handed_undionly_and_that_takes_the_script(site: Site) -> None:
    machine = site.hands_undionly_over()
    assert site.server.logged("proxydhcp", "boot file offered", machine.mac, "file=undionly.kpxe")


def test_uefi_asks_port_4011_and_its_snponly_takes_the_script(site: Site) -> None:
    machine, text = site.runs_its_script(UEFI)
    assert "NBP filename is snponly.efi" in text
    assert "using SNP on" in text
    assert site.server.logged("proxydhcp", "boot file acknowledged", machine.mac, "kind=uefi", "file=snponly.efi")
    told = site.journal(machine)
    steps = ("DISCOVER", "OFFER", "port 4011", "ACK", "snponly.efi: completed", "boot.ipxe: completed", "asked by http")
    places = [told.find(step) for step in steps]
    assert -1 not in places, told
    assert places == sorted(places), told
    assert "boot menu shown" in told


def test_uefi_http_boot_loads_snponly_by_http_and_that_takes_the_script(site: Site) -> None:
    machine, text = site.runs_its_script(UEFI_HTTP)
    assert f"URI: http://{site.addresses[0]}:" in text
    assert "using SNP on" in text
    assert site.server.logged("proxydhcp", "boot file offered", machine.mac, "kind=http", "file=snponly.efi")
    assert any(
        what == "http" and detail.startswith("snponly.efi: completed")
        for what, detail in site.server.history(machine.mac)
    )


def test_standby_server_answers_who_asks_again(site: Site) -> None:
    # iPXE says 4 seconds in its first DISCOVER and 10 in its second, a second later; there is no third.
    site.configure("proxydhcp.conf", MinimumSecs="5", ReplyDelay="300")
    try:
        machine, _text = site.runs_its_script(BIOS)
    finally:
        site.configure("proxydhcp.conf", MinimumSecs=None, ReplyDelay=None)
    assert site.server.logged("proxydhcp", machine.mac, "verdict=standby", "secs 4")
    assert len(site.server.logged("proxydhcp", "boot file offered", machine.mac)) == 1


def test_journal_follows_a_machine_that_starts_again_at_once(site: Site) -> None:
    machine = site.machine(BIOS)
    for _ in range(2):
        with powered(machine) as console:
            console.wait_for(site.script_of(machine), timeout_s=PATIENCE_S)
    told = site.journal(machine)
    assert told.count("asked by http") == 2, told
    assert "boot menu shown" in told, told
