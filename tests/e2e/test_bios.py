"""BIOS: SeaBIOS whose network ROM is iPXE. One story in order: left alone, captured, restored, local disk."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Lab, note
from tests.e2e.marks import MARKS, PATIENCE_S
from tests.e2e.story import Story, begin, same_disk, told
from tests.support.netns import Room
from tests.support.qemu import Machine, powered
from tests.support.server import Statistics

pytestmark = MARKS
IMAGE = "bios-golden"


@pytest.fixture(scope="module")
def story(lab: Lab) -> Story:
    return begin(lab, "bios")


def test_a_device_that_nobody_accepted_boots_as_if_we_were_not_there(lab: Lab, story: Story) -> None:
    console = lab.boots_own_disk(story.source, story.guest)
    assert "Nothing to boot" in console  # iPXE got an address and no offer of ours
    device = next(device for device in lab.server.json("device", "list") if device["mac"] == story.source.mac)
    assert device["state"] == "pending"
    assert lab.server.logged("preboot-policy", f"pbserv device accept {story.source.mac}")


def test_its_disk_is_captured(lab: Lab, story: Story) -> None:
    before = lab.server.statistics()
    lab.server.ok("device", "accept", story.source.mac)
    seconds = lab.work(story.source, "capture", story.source.mac, IMAGE)
    note("bios: capture, power-on to restart, s", seconds)
    image = next(image for image in lab.server.json("image", "list") if image["name"] == IMAGE)
    assert {item["kind"] for item in image["items"]} >= {"sfdisk", "boot", "partclone.ext4", "partclone.vfat", "swap"}
    assert lab.server.statistics() == Statistics(before.requests + 1, before.sent, before.received + 1)


def test_a_blank_machine_restores_it(lab: Lab, story: Story) -> None:
    before = lab.server.statistics()
    lab.server.ok("device", "accept", story.target.mac)
    seconds = lab.work(story.target, "restore", story.target.mac, IMAGE)
    note("bios: restore, power-on to restart, s", seconds)
    same_disk(story.guest.path, story.target.disks[0])
    assert lab.server.statistics() == Statistics(before.requests + 1, before.sent + 1, before.received)


def test_at_the_next_power_on_it_gets_local_disk_and_boots_the_restored_system(lab: Lab, story: Story) -> None:
    console = lab.boots_own_disk(story.target, story.guest)
    assert "Filename: boot.ipxe" in console  # the ROM is iPXE already and was used as such
    assert "undionly" not in console
    assert "booting from the local disk" in console
    assert "pbclient" not in console


def test_log_and_history_say_what_happened(lab: Lab, story: Story) -> None:
    told(lab.server, story.source.mac, IMAGE, "capture")
    told(lab.server, story.target.mac, IMAGE, "restore")
    for mac in (story.source.mac, story.target.mac):
        assert lab.server.logged("proxydhcp", "boot file offered", mac, "kind=ipxe", "verdict=boot")
        assert lab.server.logged("tftp", "sent", "boot.ipxe", "completed")


def test_with_an_empty_nbpipxe_the_rom_is_handed_nbpx86_and_runs_it(lab: Lab, story: Story) -> None:
    lab.server.configure("proxydhcp.conf", NBPiPXE="")
    lab.server.ok("force-reload")
    try:
        console = lab.boots_own_disk(story.target, story.guest)
    finally:
        lab.server.configure("proxydhcp.conf", NBPiPXE=None)
        lab.server.ok("force-reload")
    assert "undionly.kpxe : " in console  # fetched by the ROM ...
    assert "using undionly on" in console  # ... and run: the new iPXE drives the card through UNDI
    assert lab.server.logged("tftp", "undionly.kpxe", "sent")
    assert "booting from the local disk" in console


def test_the_same_blank_machine_without_our_server_does_not_boot(lab: Lab, silent_room: Room) -> None:
    machine = Machine("bios-alone", "bios", silent_room, lab.directory, [lab.blank("bios-alone")])
    with powered(machine) as console:
        console.wait_for("No bootable device", timeout_s=PATIENCE_S)
        assert "Nothing to boot" in console.text
        assert "pbclient" not in console.text
