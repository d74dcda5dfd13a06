"""PXELINUX on a BIOS whose ROM is iPXE: the ROM is handed pxelinux.0, which asks for its configuration by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.marks import MARKS
from tests.e2e.policy.site import OWN_DISK, Site, linux, runs_linux
from tests.support.qemu import powered

pytestmark = MARKS


@pytest.fixture(scope="module", autouse=True)
def rom_is_handed_a_loader(site: Site) -> Iterator[None]:
    """The ROM of these machines is iPXE, which would get its script at once."""
    site.server.configure("proxydhcp.conf", NBPx86="pxelinux.0", NBPiPXE="")
    site.server.ok("force-reload")
    yield
    site.server.configure("proxydhcp.conf", NBPx86=None, NBPiPXE=None)
    site.server.ok("force-reload")


def test_configuration_of_its_mac_boots_the_bundle(site: Site) -> None:
    machine = site.machine("pxelinux", "bios")
    site.device(machine, linux("sign=pxelinux"))
    with powered(machine) as console:
        text = runs_linux(console, "sign=pxelinux")
    assert "PXELINUX 6." in text
    hyphens = machine.mac.replace(":", "-")
    by_mac = site.server.log_lines("tftp", f"pxelinux.cfg/01-{hyphens}", "result=completed")
    by_uuid = site.server.log_lines("tftp", "pxelinux.cfg/", "result=completed", machine.uuid[-12:])
    assert by_mac or by_uuid


def test_menu_counts_down_and_boots_its_item(site: Site) -> None:
    machine = site.machine("pxelinux-menu", "bios")
    items = [{"name": "tiny", "title": "A small Linux", "bundle": "menu linux", "arguments": "sign=item"},
             {"name": "local", "title": "Local disk", "action": "local"}]  # fmt: skip
    site.apply({
        "bundle": {"menu linux": linux("sign=menu")},
        "menu": {"of pxelinux": {"items": items, "timeout_s": 2, "default": "tiny"}},
        "device": {machine.mac: {"state": "known", "menu": "of pxelinux"}},
    })  # fmt: skip
    with powered(machine) as console:
        runs_linux(console, "sign=menu sign=item")


def test_menu_that_says_local_disk_leaves_to_it(site: Site) -> None:
    machine = site.machine("pxelinux-local", "bios", disks=[site.disk("pxelinux-local", "bios")])
    items = [{"name": "local", "title": "Local disk", "action": "local"}]
    site.apply({
        "menu": {"pxelinux leaves": {"items": items, "timeout_s": 1}},
        "device": {machine.mac: {"state": "known", "menu": "pxelinux leaves"}},
    })  # fmt: skip
    with powered(machine) as console:
        console.wait_for(OWN_DISK, timeout_s=60)
