"""A loader that does nothing but restart the machine: after LoopLimit rounds the machine gets its local disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.marks import MARKS, PATIENCE_S
from tests.e2e.proxydhcp.environments import plain
from tests.e2e.proxydhcp.site import UEFI, Firmwares, Site, boots_own_disk
from tests.support.netns import run
from tests.support.qemu import powered

pytestmark = MARKS
ROUNDS = 2


@pytest.fixture(scope="module")
def site(directory: Path, firmwares: Firmwares) -> Iterator[Site]:
    with plain(directory, firmwares, LoopLimit=str(ROUNDS), NBPx64="restart.efi") as made:
        early = directory / "restart.cfg"
        early.write_text("reboot\n")
        run(
            "grub-mkimage", "-O", "x86_64-efi", "-o", made.server.tftp / "restart.efi", "-p", "/", "-c", early, "reboot"
        )
        yield made


def test_device_in_a_loop_gets_its_local_disk(site: Site) -> None:
    machine = site.machine(UEFI, disk=True)
    for _ in range(ROUNDS):
        with powered(machine) as console:
            console.wait_for("NBP filename is restart.efi", timeout_s=PATIENCE_S)
            machine.wait_end(PATIENCE_S)
    with powered(machine) as console:
        boots_own_disk(console)
        assert "PXE-E21: Remote boot cancelled" in console.text
    assert any("loop" in f"{what} {detail}" for what, detail in site.server.history(machine.mac))
