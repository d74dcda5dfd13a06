"""PXELINUX on a BIOS whose ROM is iPXE: the ROM is handed pxelinux.0, which asks for its configuration by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.marks import MARKS, PATIENCE_S
from tests.e2e.policy.site import NOTHING_BOOTS, OWN_DISK, Site, linux, runs_linux
from tests.support.qemu import Machine, powered

pytestmark = MARKS
# PXELINUX asks by no UUID whose seventh byte, as it stands in option 97 (and here at 16:18), is below 10 or above EF in
# hexadecimal digits (syslinux core/sysappend.c, is_valid_uuid): by one in eight of those that are made by chance.
UUID = "1f8d46a2-7c03-4b9c-8e55-3a6d0c91f7b4"
PASSED_OVER_UUID = "1f8d46a2-7c03-4b05-8e55-3a6d0c91f7b5"
# A board's UUID that thousands share, so it is none that says who asks.
SHARED_UUID = "12345678-1234-5678-90ab-cddeefaabbcc"


@pytest.fixture(scope="module", autouse=True)
def rom_is_handed_a_loader(site: Site) -> Iterator[None]:
    """The ROM of these machines is iPXE, which would get its script at once."""
    site.server.configure("proxydhcp.conf", NBPx86="pxelinux.0", NBPiPXE="")
    site.server.ok("force-reload")
    yield
    site.server.configure("proxydhcp.conf", NBPx86=None, NBPiPXE=None)
    site.server.ok("force-reload")


def test_configuration_of_its_uuid_boots_the_bundle_and_reports_that_the_work_is_done(site: Site) -> None:
    machine = site.machine("pxelinux", "bios", uuid=UUID)
    site.order(machine, linux("sign=pxelinux"))
    with powered(machine) as console:
        text = runs_linux(console, "sign=pxelinux")
    assert "PXELINUX 6." in text
    assert "Initramfs unpacking failed" not in text  # the report is fetched as one of its files
    # PXELINUX writes the first three fields the other way round.
    assert site.server.logged("tftp", "file=pxelinux.cfg/", machine.uuid[18:], "result=completed")
    assert site.work_ended(machine)


def test_uuid_that_boards_share_is_refused_and_its_mac_boots_the_bundle(site: Site) -> None:
    machine = site.machine("pxelinux-shared", "bios", uuid=SHARED_UUID)
    site.device(machine, linux("sign=pxelinux"))
    with powered(machine) as console:
        runs_linux(console, "sign=pxelinux")
    assert site.server.logged("tftp", "file=pxelinux.cfg/", SHARED_UUID[18:], "refused")
    assert site.sent(machine, of_its_mac(machine))


def test_uuid_that_pxelinux_passes_over_makes_it_ask_by_its_mac(site: Site) -> None:
    machine = site.machine("pxelinux-mac", "bios", uuid=PASSED_OVER_UUID)
    site.device(machine, linux("sign=pxelinux"))
    with powered(machine) as console:
        runs_linux(console, "sign=pxelinux")
    assert site.sent(machine, of_its_mac(machine))
    assert not site.server.log_lines("tftp", "file=pxelinux.cfg/", PASSED_OVER_UUID[18:])


def of_its_mac(machine: Machine) -> str:
    """The configuration's name that says who asks without a UUID."""
    return f"pxelinux.cfg/01-{machine.mac.replace(':', '-')}"


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
        text = runs_linux(console, "sign=menu sign=item")
    assert "A small Linux" in text
    assert "Local disk" in text


def test_item_that_needs_work_waits_until_it_is_made(site: Site) -> None:
    machine = site.machine("pxelinux-waits", "bios")
    items = [{"name": "shell", "title": "A shell", "action": "maintenance"}]
    site.apply({
        "menu": {"pxelinux waits": {"items": items, "timeout_s": 1, "default": "shell"}},
        "device": {machine.mac: {"state": "known", "menu": "pxelinux waits"}},
    })  # fmt: skip
    with powered(machine) as console:
        console.wait_for("client/vmlinuz... ok", timeout_s=PATIENCE_S, never=NOTHING_BOOTS)
        assert "pbserv: the work is being made" in console.text
        assert "maintenance" in console.text.split("the work is being made")[1]


def test_menu_that_says_local_disk_leaves_to_it(site: Site) -> None:
    machine = site.machine("pxelinux-local", "bios", disks=[site.disk("pxelinux-local", "bios")])
    items = [{"name": "local", "title": "Local disk", "action": "local"}]
    site.apply({
        "menu": {"pxelinux leaves": {"items": items, "timeout_s": 1}},
        "device": {machine.mac: {"state": "known", "menu": "pxelinux leaves"}},
    })  # fmt: skip
    with powered(machine) as console:
        console.wait_for(OWN_DISK, timeout_s=PATIENCE_S)
        assert "PXELINUX 6." in console.text


def test_memory_test(site: Site) -> None:
    machine = site.machine("pxelinux-memtest", "bios", screen=True)
    site.device(machine, {"kind": "memtest", "arguments": "console=ttyS0,115200"})
    with powered(machine) as console:
        console.wait_for("Memtest86+", timeout_s=PATIENCE_S, never=NOTHING_BOOTS)
    assert site.sent(machine, "memtest86+x64.bin")


def test_what_it_cannot_do_is_left_to_ipxe(site: Site) -> None:
    machine = site.machine("pxelinux-ipxe", "bios")
    site.device(machine, {"kind": "ipxe", "script": "echo SIGNPOST script of {{ mac }}\nsleep 30\n"})
    with powered(machine) as console:
        console.wait_for(f"SIGNPOST script of {machine.mac}", timeout_s=PATIENCE_S, never=NOTHING_BOOTS)
        assert "PXELINUX 6." in console.text
    assert site.sent(machine, "undionly.kpxe")
