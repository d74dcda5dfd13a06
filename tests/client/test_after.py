"""What belongs to a restore besides the image: scripts around it, the identity file, add-on images."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.client import disks
from tests.client.machine import Fixture, boot_bytes, client, everything, refused
from tests.client.standin import Job, StandIn

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: loop devices"),
]
TABLE = "label: dos\nstart=2048, size=8MiB, type=83\nsize=24MiB, type=83\n"


def captured(device: str) -> Job:
    with StandIn(job := Job("capture", options={"PROTOCOL": "2"})) as server:
        output = client(server, device)
    assert job.outcome() == ("1", ""), output
    return job


@pytest.fixture
def image(loop: Fixture, tmp_path: Path) -> Job:
    """A data partition in front, a Linux behind it."""
    source = loop("source", 34, table=TABLE)
    for number, folders in ((1, ["data"]), (2, ["etc", "usr"])):
        with disks.partition(source, number) as node:
            disks.run("mkfs.ext4", "-q", node)
            with disks.mounted(node, tmp_path / "m") as mount:
                for folder in folders:
                    (mount / folder).mkdir()
                if "usr" in folders:
                    (mount / "usr/lib").mkdir(mode=0o755)
                    (mount / "lib").symlink_to("usr/lib")
    return captured(source)


def archive(folder: Path) -> bytes:
    """A tree of files as the server keeps it."""
    (folder / "opt/tool").mkdir(parents=True)
    (folder / "opt/tool/run").write_text("#!/bin/sh\n")
    os.chown(folder / "opt/tool/run", 1234, 5678)
    (folder / "opt/tool/run").chmod(0o4755)
    (folder / "opt/link").symlink_to("tool/run")
    (folder / "lib").mkdir(mode=0o700)
    (folder / "lib/tool.so").touch()
    made = subprocess.run(["tar", "-C", str(folder), "-c", "opt", "lib"], capture_output=True, check=True).stdout
    return subprocess.run(["zstd", "-qc"], input=made, capture_output=True, check=True).stdout


def test_add_ons_and_identity_get_onto_the_system(loop: Fixture, image: Job, tmp_path: Path) -> None:
    job = image.again(ADDONS="tools", IDENTITY="1", VERIFY="read")
    job.identity = "HOSTNAME='lab7'\n# for "
    job.addons = {"tools": archive(tmp_path / "tree")}
    target = loop("target", 40)
    with StandIn(job) as server:
        output = client(server, target)
    assert job.outcome() == ("1", ""), output
    with disks.partition(target, 2) as node, disks.mounted(node, tmp_path / "m") as mount:
        told = mount / "etc/pbserv/identity"
        assert told.read_text() == "HOSTNAME='lab7'\n# for linux"
        assert (told.stat().st_mode & 0o777, told.stat().st_uid) == (0o600, 0)
        tool = (mount / "opt/tool/run").stat()
        assert (tool.st_mode & 0o7777, tool.st_uid, tool.st_gid) == (0o4755, 1234, 5678)
        assert os.readlink(mount / "opt/link") == "tool/run"
        assert os.readlink(mount / "lib") == "usr/lib"
        assert ((mount / "usr/lib").stat().st_mode & 0o777, (mount / "usr/lib/tool.so").exists()) == (0o755, True)
    with disks.partition(target, 1) as node, disks.mounted(node, tmp_path / "m") as mount:
        assert not (mount / "etc").exists()


@pytest.mark.parametrize("link", ["/{outside}", "../../../../../../../../../../{outside}", "usr/lib"])
def test_an_add_on_does_not_follow_links_out_of_the_system(
    loop: Fixture, image: Job, tmp_path: Path, link: str
) -> None:
    """Where the restored system is not the one that runs, its absolute links lead into the latter."""
    outside = tmp_path / "outside"
    outside.mkdir()
    target = loop("target", 40)
    with StandIn(job := image.again()) as server:
        client(server, target)
    with disks.partition(target, 2) as node, disks.mounted(node, tmp_path / "m") as mount:
        (mount / "opt").symlink_to(link.format(outside=str(outside).lstrip("/")))
    job = captured(target).again(ADDONS="tools")
    job.addons = {"tools": archive(tmp_path / "tree")}
    with StandIn(job) as server:
        output = client(server, target)
    assert not list(outside.iterdir()), output
    ok, reason = job.outcome()
    with disks.partition(target, 2) as node, disks.mounted(node, tmp_path / "m") as mount:
        if link == "usr/lib":
            assert (ok, reason) == ("1", "")
            assert (mount / "usr/lib/tool/run").is_file()
        else:
            assert reason.startswith(
                "the image is on the disk, but the add-on tools cannot be laid over it: its folder /opt"
            )
            assert not (mount / "usr/lib/tool.so").exists(), "nothing of it"


@pytest.mark.parametrize("link", ["etc/pbserv", "etc/pbserv/identity"])
def test_an_identity_does_not_follow_links_out_of_the_system(
    loop: Fixture, image: Job, tmp_path: Path, link: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = loop("target", 40)
    with StandIn(image.again()) as server:
        client(server, target)
    with disks.partition(target, 2) as node, disks.mounted(node, tmp_path / "m") as mount:
        (mount / link).parent.mkdir(exist_ok=True)
        (mount / link).symlink_to(outside if link == "etc/pbserv" else outside / "identity")
    job = captured(target).again(IDENTITY="1")
    assert f"/{link} is a link that leads out of the system" in refused(job, target)
    assert not list(outside.iterdir())


def test_windows_gets_its_own_file(loop: Fixture, tmp_path: Path) -> None:
    source = loop("source", 64, table="label: dos\nstart=2048, size=50MiB, type=7\n")
    with disks.partition(source, 1) as node:
        disks.run("mkfs.ntfs", "-Q", "-q", "-F", node)
        with disks.mounted(node, tmp_path / "m") as mount:
            (mount / "Windows").mkdir()
    job = captured(source).again(IDENTITY="1")
    job.identity = "name "
    target = loop("target", 64)
    with StandIn(job) as server:
        output = client(server, target)
    assert job.outcome() == ("1", ""), output
    with disks.partition(target, 1) as node, disks.mounted(node, tmp_path / "m") as mount:
        assert (mount / "pbserv/identity.txt").read_text() == "name windows"


@pytest.mark.parametrize(("tool", "told"), [("raw", "etc/pbserv/identity"), ("ntfsclone", "pbserv/identity.txt")])
def test_a_system_that_another_tool_saved_gets_its_file(loop: Fixture, tmp_path: Path, tool: str, told: str) -> None:
    source = loop("source", 34, table="label: dos\nstart=2048, size=30MiB, type=83\n")
    with disks.partition(source, 1) as node:
        disks.run(*("mkfs.ext4 -q" if tool == "raw" else "mkfs.ntfs -Q -q -F").split(), node)
        with disks.mounted(node, tmp_path / "m") as mount:
            (mount / ("etc" if tool == "raw" else "Windows")).mkdir()
        command = ["dd", f"if={node}", "bs=1M", "status=none"] if tool == "raw" else ["ntfsclone", "-qso", "-", node]
        data = subprocess.run(command, capture_output=True, check=True).stdout
    digest = hashlib.sha256(data).hexdigest()
    lines = ["pbserv-image 1", "disk 0 512 none bios", f"item w {tool} 0 {len(data)} {digest} {len(data)}"]
    manifest = "\n".join([*lines, "fact w compressor none"]) + "\n"
    job = Job("restore", items={"w": data}, manifest=manifest).again(IDENTITY="1", TARGET_PARTITION="1")
    job.identity = "name "
    target = loop("target", 40, table="label: dos\nstart=4096, size=32MiB, type=83\n")
    with StandIn(job) as server:
        output = client(server, target)
    assert job.outcome() == ("1", ""), output
    with disks.partition(target, 1) as node, disks.mounted(node, tmp_path / "m") as mount:
        assert (mount / told).read_text().startswith("name ")


def test_without_a_system_an_identity_is_noted_and_an_add_on_fails(loop: Fixture, image: Job) -> None:
    target = loop("target", 40, table=TABLE)
    job = image.again(IDENTITY="1", PARTITIONS="1")
    with StandIn(job) as server:
        output = client(server, target)
    assert job.outcome() == ("1", ""), output
    assert "no identity file was written" in output
    job = image.again(ADDONS="tools", PARTITIONS="1")
    job.addons = {"tools": b"never read"}
    with StandIn(job) as server:
        client(server, target)
    ok, reason = job.outcome()
    assert ok == "0"
    assert reason.startswith("the image is on the disk, but no partition with a system")


def test_an_add_on_that_is_not_there_is_refused_before_anything_is_written(loop: Fixture, image: Job) -> None:
    """Also in a dry run."""
    target = loop("target", 40)
    for options in ({}, {"DRY_RUN": "1"}):
        reason = refused(image.again(ADDONS="tools", **options), target)
        assert reason.startswith("refused: no add-on tools: ")
    assert everything(target) == bytes(40 * disks.MEBIBYTE)


def test_scripts_run_around_a_restore(loop: Fixture, image: Job, tmp_path: Path) -> None:
    target = loop("target", 40)
    seen = tmp_path / "seen"
    job = image.again(BEFORE="1", AFTER="1")
    job.scripts = {
        "before": f"echo before $PB_ACTION $PB_DISK $(blkid -p -o value -s PTTYPE $PB_DISK) >>{seen}\n",
        "after": f"echo after $PB_IMAGE $(blkid -p -o value -s PTTYPE $PB_DISK) >>{seen}\n",
    }
    with StandIn(job) as server:
        output = client(server, target)
    assert job.outcome() == ("1", ""), output
    assert seen.read_text() == f"before restore {target}\nafter an-image dos\n"


def test_a_script_that_fails_before_keeps_the_disk_and_one_after_says_that_it_is_written(
    loop: Fixture, image: Job
) -> None:
    target = loop("target", 40)
    job = image.again(BEFORE="1")
    job.scripts = {"before": "echo not today; exit 4\n"}
    with StandIn(job) as server:
        client(server, target)
    assert job.outcome() == ("0", "script before ended with 4: not today")
    assert not any(boot_bytes(target, 0, 1 << 20))
    job = image.again(AFTER="1")
    job.scripts = {"after": "exit 5\n"}
    with StandIn(job) as server:
        client(server, target)
    assert job.outcome() == ("0", "the image is on the disk, but script after ended with 5")


def test_a_script_that_makes_the_disk_another_table_is_followed(loop: Fixture, image: Job) -> None:
    """What lies now where the partition was before keeps every byte; what has no room any more is refused."""
    target = loop("target", 80, table="label: dos\nstart=2048, size=8MiB, type=83\nsize=24MiB, type=83\n")
    table = "label: dos\nstart=2048, size=36MiB, type=83\nstart=81920, size={}MiB, type=83\n"
    script = "printf '%s' '{}' | sfdisk -q --no-reread --no-tell-kernel --force $PB_DISK\n"
    job = image.again(BEFORE="1", PARTITIONS="2")
    job.scripts = {"before": script.format(table.format(30))}
    before = boot_bytes(target, disks.MEBIBYTE, 39 * disks.MEBIBYTE)
    with StandIn(job) as server:
        output = client(server, target)
    assert job.outcome() == ("1", ""), output
    assert boot_bytes(target, disks.MEBIBYTE, 39 * disks.MEBIBYTE) == before
    with disks.partition(target, 2) as node:
        disks.run("e2fsck", "-fn", node)
    job = image.again(BEFORE="1", PARTITIONS="2")
    job.scripts = {"before": script.format(table.format(9))}
    before = boot_bytes(target, disks.MEBIBYTE, 79 * disks.MEBIBYTE)
    assert f"partition 2 of {target} is too small" in refused(job, target)
    assert boot_bytes(target, disks.MEBIBYTE, 79 * disks.MEBIBYTE) == before


@pytest.mark.parametrize("action", ["restore", "capture"])
def test_a_script_that_leaves_the_disk_in_use_is_noticed(
    loop: Fixture, image: Job, tmp_path: Path, action: str
) -> None:
    target = loop("target", 40)
    disks.run("mkfs.ext4", "-q", target)
    before = everything(target)
    job = image.again(BEFORE="1") if action == "restore" else Job("capture", options={"PROTOCOL": "2", "BEFORE": "1"})
    (tmp_path / "m").mkdir(exist_ok=True)
    job.scripts = {"before": f"mount -o ro,noload $PB_DISK {tmp_path}/m\n"}
    try:
        reason = refused(job, target)
    finally:
        disks.run("umount", str(tmp_path / "m"))
    assert reason.startswith(f"refused: the disk is in use: {target} is mounted on {tmp_path}/m")
    assert everything(target) == before
    assert not job.manifest or action == "restore"


def test_scripts_run_around_a_capture(loop: Fixture, tmp_path: Path) -> None:
    source = loop("source", 34, table=TABLE)
    for number in (1, 2):
        with disks.partition(source, number) as node:
            disks.run("mkfs.ext4", "-q", node)
    seen = tmp_path / "seen"
    job = Job("capture", options={"PROTOCOL": "2", "BEFORE": "1", "AFTER": "1"})
    job.scripts = {"before": f"echo $PB_ACTION >{seen}\n", "after": f"echo after >>{seen}; exit 1\n"}
    with StandIn(job) as server:
        client(server, source)
    assert job.outcome() == ("0", "the image is in the store, but script after ended with 1")
    assert job.manifest
    assert seen.read_text() == "capture\nafter\n"
