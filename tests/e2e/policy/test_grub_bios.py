"""GRUB on a BIOS: an image with the server's address in it, which the ROM is handed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.marks import MARKS, PATIENCE_S
from tests.e2e.policy.site import NOTHING_BOOTS, OWN_DISK, Site, grub_image, linux, runs_linux
from tests.support.qemu import powered

pytestmark = MARKS


@pytest.fixture(scope="module", autouse=True)
def rom_is_handed_grub(site: Site) -> Iterator[None]:
    """The ROM of these machines is iPXE, which would get its script at once."""
    grub_image(site.server.tftp / "own-grub.0", site.server.host.address, "bios")
    site.server.configure("proxydhcp.conf", NBPx86="own-grub.0", NBPiPXE="")
    site.server.ok("force-reload")
    yield
    site.server.configure("proxydhcp.conf", NBPx86=None, NBPiPXE=None)
    site.server.ok("force-reload")


def test_configuration_of_its_uuid_boots_the_bundle(site: Site) -> None:
    machine = site.machine("grub-bios", "bios")
    site.device(machine, linux("sign=grub-bios"))
    with powered(machine) as console:
        text = runs_linux(console, "sign=grub-bios")
    assert "own-grub.0... ok" in text
    # GRUB writes the first three fields the other way round.
    assert site.server.logged("tftp", "file=/boot/grub/grub.cfg-", machine.uuid[18:], "result=completed")


def test_menu_that_says_local_disk_starts_it(site: Site) -> None:
    machine = site.machine("grub-bios-local", "bios", disks=[site.disk("grub-bios-local", "bios")])
    items = [{"name": "local", "title": "Local disk", "action": "local"}]
    site.apply({
        "menu": {"bios leaves": {"items": items, "timeout_s": 1}},
        "device": {machine.mac: {"state": "known", "menu": "bios leaves"}},
    })  # fmt: skip
    with powered(machine) as console:
        console.wait_for(OWN_DISK, timeout_s=PATIENCE_S, never=("grub>",))
        assert "No more network devices" not in console.text


def test_what_it_cannot_do_is_left_to_ipxe(site: Site) -> None:
    machine = site.machine("grub-bios-ipxe", "bios")
    site.device(machine, {"kind": "ipxe", "script": "echo SIGNPOST script of {{ mac }}\nsleep 30\n"})
    with powered(machine) as console:
        console.wait_for(f"SIGNPOST script of {machine.mac}", timeout_s=PATIENCE_S, never=NOTHING_BOOTS)
    assert site.sent(machine, "ipxe.lkrn")
