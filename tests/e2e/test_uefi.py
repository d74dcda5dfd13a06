"""UEFI: OVMF with its own PXE client. One story in order: captured, restored, local disk without the boot manager."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Lab, note
from tests.e2e.marks import MARKS, PATIENCE_S
from tests.e2e.story import Story, begin, same_disk, told
from tests.support.netns import Room
from tests.support.qemu import Machine, powered
from tests.support.server import Statistics

pytestmark = MARKS
IMAGE = "uefi-golden"


@pytest.fixture(scope="module")
def story(lab: Lab) -> Story:
    return begin(lab, "uefi")


def test_its_disk_boots_and_is_captured(lab: Lab, story: Story) -> None:
    before = lab.server.statistics()
    lab.server.ok("device", "accept", story.source.mac)
    seconds = lab.work(story.source, "capture", story.source.mac, IMAGE)
    note("uefi: capture, power-on to restart, s", seconds)
    image = next(image for image in lab.server.json("image", "list") if image["name"] == IMAGE)
    assert {item["kind"] for item in image["items"]} >= {"sfdisk", "partclone.vfat", "partclone.ext4", "swap"}
    assert lab.server.statistics() == Statistics(before.requests + 1, before.sent, before.received + 1)


def test_a_blank_machine_restores_it(lab: Lab, story: Story) -> None:
    before = lab.server.statistics()
    lab.server.ok("device", "accept", story.target.mac)
    seconds = lab.work(story.target, "restore", story.target.mac, IMAGE)
    note("uefi: restore, power-on to restart, s", seconds)
    same_disk(story.guest.path, story.target.disks[0])
    order = story.target.boot_order
    assert "pbserv disk" in order[order.index(next(entry for entry in order if "PXEv4" in entry)) + 1]
    assert lab.server.statistics() == Statistics(before.requests + 1, before.sent + 1, before.received)


def test_local_disk_reaches_the_restored_system_without_the_boot_manager(lab: Lab, story: Story) -> None:
    console = lab.boots_own_disk(story.target, story.guest)
    assert "Start PXE over IPv4" in console
    assert "PXE-E21: Remote boot cancelled" in console, "the offer says so; nothing is loaded"
    assert "snponly" not in console
    assert "pbclient" not in console


def test_the_captured_machine_still_boots_too(lab: Lab, story: Story) -> None:
    lab.boots_own_disk(story.source, story.guest)


def test_log_and_history_say_what_happened(lab: Lab, story: Story) -> None:
    for mac, kind in ((story.source.mac, "capture"), (story.target.mac, "restore")):
        told(lab.server, mac, IMAGE, kind)
        assert lab.server.logged("proxydhcp", "boot file acknowledged", mac, "UEFI x64")


def test_the_same_blank_machine_without_our_server_does_not_boot(lab: Lab, silent_room: Room) -> None:
    machine = Machine("uefi-alone", "uefi", silent_room, lab.directory, [lab.blank("uefi-alone")])
    with powered(machine) as console:
        console.wait_for("PXE-E16: No valid offer received", timeout_s=PATIENCE_S)
        assert "iPXE" not in console.text
        assert "pbclient" not in console.text
