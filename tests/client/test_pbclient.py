"""The client script on loop devices against real HTTP: what it restores, what it captures, what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import zlib
from pathlib import Path

import pytest

from tests.client import disks
from tests.client.disks import MEBIBYTE
from tests.client.machine import (
    SCRIPT,
    Fixture,
    boot_bytes,
    client,
    contents,
    everything,
    make_file_system,
    refused,
    restored,
    write_bytes,
)
from tests.client.standin import Job, StandIn

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: loop devices"),
]

DOS_TABLE = """label: dos
label-id: 0x5eed0001
start=2048, size=60MiB, type=83, bootable
size=16MiB, type=82
size=50MiB, type=5
p5 : size=40MiB, type=c
"""
GPT_TABLE = """label: gpt
label-id: 5EED0000-0000-4000-8000-000000000001
start=2048, size=40MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="EFI System"
size=1MiB, type=21686148-6449-6E6F-744E-656564454649
size=60MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=5EED0000-0000-4000-8000-000000000003
"""


@pytest.fixture
def small_image(loop: Fixture, tmp_path: Path) -> Job:
    """A job that restores an image of one ext4 partition (about 2 MB stored)."""
    device = loop("small", 64, table="label: dos\nstart=2048, size=40MiB, type=83\n")
    with disks.partition(device, 1) as node:
        disks.run("mkfs.ext4", "-q", node)
        with disks.mounted(node, tmp_path / "small") as mount:
            (mount / "noise").write_bytes(os.urandom(2_000_000))
    job = Job("capture")
    with StandIn(job) as server:
        output = client(server, device)
    assert job.outcome() == ("1", ""), output
    return Job("restore", items=job.items, manifest=job.manifest)


@pytest.mark.parametrize(
    ("shell", "scan"), [(["dash"], True), (["busybox", "sh"], False)], ids=["dash-partscan", "busybox-noscan"]
)
def test_dos_disk_survives_capture_and_restore(loop: Fixture, tmp_path: Path, shell: list[str], scan: bool) -> None:
    """ext4, swap, and a FAT logical partition come back on a larger disk: clean, every file's hash equal."""
    source = loop("source", 160, table=DOS_TABLE, scan=scan)
    write_bytes(source, 0, b"\xeb\x63" + b"boot code" * 20)
    write_bytes(source, 512, b"second stage" * 500)
    ext4 = make_file_system(source, 1, ["mkfs.ext4", "-q", "-L", "root"], tmp_path / "m1", 1)
    fat = make_file_system(source, 5, ["mkfs.vfat", "-F", "16", "-n", "DATA"], tmp_path / "m5", 2)
    with disks.partition(source, 2) as node:
        disks.run("mkswap", "-U", "5eed0000-0000-4000-8000-00000000000a", "-L", "swap", node)

    job = Job("capture")
    with StandIn(job) as server:
        output = client(server, source, shell=shell)
    assert job.outcome() == ("1", ""), output
    assert output.endswith("exit 0")
    kinds = {line.split()[2] for line in job.manifest.splitlines()[2:]}
    assert kinds == {"sfdisk", "boot", "partclone.ext4", "partclone.vfat", "swap"}
    assert job.work["mac"] == "52:54:00:00:00:01"

    target = loop("target", 300, scan=scan)
    job = Job("restore", items=job.items, manifest=job.manifest)
    with StandIn(job) as server:
        output = client(server, target, shell=shell)
    assert job.outcome() == ("1", ""), output
    with disks.partition(target, 1) as node:
        disks.run("e2fsck", "-fn", node)
    with disks.partition(target, 5) as node:
        disks.run("fsck.vfat", "-n", node)
    with disks.partition(target, 2) as node:
        facts = disks.run("blkid", "-p", "-o", "export", node)
        assert "LABEL=swap" in facts
        assert "UUID=5eed0000-0000-4000-8000-00000000000a" in facts
    assert contents(target, 1, tmp_path / "m1") == ext4
    assert contents(target, 5, tmp_path / "m5") == fat
    assert boot_bytes(target, 0, 446) == boot_bytes(source, 0, 446)
    assert boot_bytes(target, 512, MEBIBYTE - 512) == boot_bytes(source, 512, MEBIBYTE - 512)
    assert [disks.extent(target, n) for n in (1, 2, 3, 5)] == [disks.extent(source, n) for n in (1, 2, 3, 5)]


@pytest.mark.parametrize("sector", [512, 4096])
def test_gpt_disk_moves_to_a_larger_one(loop: Fixture, tmp_path: Path, sector: int) -> None:
    """The new disk has a valid GPT of its own size, the same ids, and the same contents."""
    table = GPT_TABLE if sector == 512 else GPT_TABLE.replace("start=2048", "start=256")
    source = loop("source", 128, sector=sector, table=table)
    write_bytes(source, 0, b"\xeb\x63" + b"boot code" * 20)
    esp = make_file_system(
        source, 1, ["mkfs.vfat", "-F", "16", "-s", str(2048 // sector or 1), "-S", str(sector)], tmp_path / "m1", 3
    )
    root = make_file_system(source, 3, ["mkfs.ext4", "-q"], tmp_path / "m3", 4)
    start = disks.extent(source, 2)[0] * sector
    write_bytes(source, start, b"core image" * 1000)

    job = Job("capture")
    with StandIn(job) as server:
        output = client(server, source)
    assert job.outcome() == ("1", ""), output
    target = loop("target", 256, sector=sector)
    job = Job("restore", items=job.items, manifest=job.manifest)
    with StandIn(job) as server:
        output = client(server, target)
    assert job.outcome() == ("1", ""), output
    assert contents(target, 1, tmp_path / "m1") == esp
    assert contents(target, 3, tmp_path / "m3") == root
    assert boot_bytes(target, start, MEBIBYTE) == boot_bytes(source, start, MEBIBYTE)
    assert boot_bytes(target, 0, 440) == boot_bytes(source, 0, 440)
    assert "No problems found" in disks.run("sgdisk", "-v", target)
    kept = [line.split(" : ")[1] for line in disks.run("sfdisk", "-d", source).splitlines() if " : " in line]
    assert [line.split(" : ")[1] for line in disks.run("sfdisk", "-d", target).splitlines() if " : " in line] == kept
    last = int(disks.run("sfdisk", "-d", target).split("last-lba: ")[1].split()[0])
    assert last > 250 * MEBIBYTE // sector


def test_disk_without_a_table_is_restored_whole(loop: Fixture, tmp_path: Path) -> None:
    source, target = loop("source", 64), loop("target", 64)
    disks.run("mkfs.ext4", "-q", source)
    with disks.mounted(source, tmp_path / "m") as mount:
        disks.fill(mount, 5)
        files = disks.hashes(mount)
    job = Job("capture")
    with StandIn(job) as server:
        output = client(server, source)
    assert job.outcome() == ("1", ""), output
    with StandIn(restore := Job("restore", items=job.items, manifest=job.manifest)) as server:
        output = client(server, target)
    assert restore.outcome() == ("1", ""), output
    with disks.mounted(target, tmp_path / "m") as mount:
        assert disks.hashes(mount) == files


@pytest.mark.parametrize("sector", [512, 4096])
def test_fat12_comes_back_whole(loop: Fixture, tmp_path: Path, sector: int) -> None:
    """partclone loses the ends of files on FAT12: it is copied sector by sector."""
    table = f"label: dos\nstart={MEBIBYTE // sector}, size=24MiB, type=1\n"
    source, target = loop("source", 32, sector=sector, table=table), loop("target", 32, sector=sector)
    files = make_file_system(source, 1, ["mkfs.vfat", "-F", "12", "-S", str(sector)], tmp_path / "m", 8)
    job = Job("capture")
    with StandIn(job) as server:
        output = client(server, source)
    assert job.outcome() == ("1", ""), output
    with StandIn(restore := Job("restore", items=job.items, manifest=job.manifest)) as server:
        output = client(server, target)
    assert restore.outcome() == ("1", ""), output
    assert contents(target, 1, tmp_path / "m") == files


def test_ntfs_is_captured_clean_and_refused_hibernated_or_dirty(loop: Fixture, tmp_path: Path) -> None:
    source = loop("source", 64, table="label: dos\nstart=2048, size=50MiB, type=7\n")
    with disks.partition(source, 1) as node:
        disks.run("mkntfs", "-F", "-Q", "-q", node)
    job = Job("capture")
    with StandIn(job) as server:
        output = client(server, source)
    assert job.outcome() == ("1", ""), output
    assert "p1.ntfs.zst partclone.ntfs 1 " in job.manifest
    with disks.partition(source, 1) as node:
        with disks.mounted(node, tmp_path / "m") as mount:
            (mount / "hiberfil.sys").write_bytes(b"hibr".ljust(8192, b"\0"))  # as Windows leaves it
        with StandIn(job := Job("capture")) as server:
            client(server, source)
        assert job.outcome()[0] == "0"
        assert "holds a hibernated Windows (or fast start-up is on)" in job.outcome()[1]
        disks.run("ntfs-3g", "-o", "remove_hiberfile", node, str(tmp_path / "m"))
        disks.run("umount", str(tmp_path / "m"))
    with disks.partition(source, 1) as node:
        disks.run("ntfsfix", node)  # leaves the volume marked for a check by Windows
    job = Job("capture")
    with StandIn(job) as server:
        client(server, source)
    ok, reason = job.outcome()
    assert ok == "0"
    assert "NTFS" in reason
    assert "refused" in reason


@pytest.mark.parametrize("place", ["p1.ext4.zst", "boot.zst", "table.sfdisk"])
def test_damaged_byte_is_never_a_success(loop: Fixture, small_image: Job, place: str) -> None:
    small_image.damage = place
    target = loop("target", 64)
    with StandIn(small_image) as server:
        output = client(server, target)
    ok, reason = small_image.outcome()
    assert ok == "0"
    assert place in reason
    assert output.endswith("exit 1")
    if place != "p1.ext4.zst":
        assert boot_bytes(target, 0, MEBIBYTE) == bytes(MEBIBYTE)


def test_broken_connections_are_resumed_where_they_stopped(loop: Fixture, small_image: Job, tmp_path: Path) -> None:
    small_image.break_after = {"p1.ext4.zst": [300_000, 100_000]}
    target = loop("target", 64)
    with StandIn(small_image) as server:
        output = client(server, target)
    assert small_image.outcome() == ("1", ""), output
    assert small_image.ranges == ["bytes=300000-", "bytes=400000-"]
    assert (tmp_path / "small").is_dir()
    with disks.partition(target, 1) as node:
        disks.run("e2fsck", "-fn", node)


def test_cancel_stops_the_work(loop: Fixture, small_image: Job) -> None:
    small_image.hold, small_image.cancel = "p1.ext4.zst", True
    with StandIn(small_image) as server:
        output = client(server, loop("target", 64))
    assert small_image.outcome() == ("0", "cancelled"), output
    last = small_image.progress[-1]
    assert (last["stage"], last["item"]) == ("restore", "p1.ext4.zst")
    assert 0 < int(last["bytes"]) < int(last["total"])
    assert int(small_image.result["seconds"]) < 30 if small_image.result else False


def test_several_candidates_are_refused_with_the_list(loop: Fixture, small_image: Job) -> None:
    first, second = loop("first", 64), loop("second", 65)
    with StandIn(small_image) as server:
        client(server, first, second)
    ok, reason = small_image.outcome()
    assert ok == "0"
    assert "several disks" in reason
    assert first in reason
    assert second in reason
    assert boot_bytes(first, 0, MEBIBYTE) == boot_bytes(second, 0, MEBIBYTE) == bytes(MEBIBYTE)


@pytest.mark.parametrize("selector", ["size", "path"])
def test_the_job_names_the_disk(loop: Fixture, small_image: Job, selector: str) -> None:
    first, second = loop("first", 64), loop("second", 65)
    small_image.target_disk = f"size:{65 * MEBIBYTE}" if selector == "size" else second
    with StandIn(small_image) as server:
        output = client(server, first, second)
    assert small_image.outcome() == ("1", ""), output
    assert boot_bytes(first, 0, MEBIBYTE) == bytes(MEBIBYTE)
    assert boot_bytes(second, 510, 2) == b"\x55\xaa"


@pytest.mark.parametrize("selector", ["size", "path"])
def test_a_disk_given_here_that_is_not_the_one_the_job_names_is_refused(
    loop: Fixture, small_image: Job, selector: str
) -> None:
    """Neither is written. Given and named alike, it is taken."""
    given, named = loop("given", 64), loop("named", 65)
    small_image.target_disk = f"size:{65 * MEBIBYTE}" if selector == "size" else named
    reason = refused(small_image, given)
    assert reason.startswith(
        f"refused: the job names {small_image.target_disk}, which is not the disk given here, {given}"
    )
    assert f"present: {given} {64 * MEBIBYTE} bytes" in reason
    assert not (everything(given) + everything(named)).strip(b"\0")
    alike = small_image.again()
    alike.target_disk = small_image.target_disk
    restored(alike, named)
    assert not everything(given).strip(b"\0")


def test_a_disk_is_named_by_a_whole_value_only(loop: Fixture, small_image: Job) -> None:
    """Not by the last word of a path that leads nowhere, and not by nothing where a disk has no serial number."""
    target, other = loop("target", 64), loop("other", 8)
    name = target.removeprefix("/dev/")
    for selector in (f"by-id:{name}", f"/dev/disk/by-path/{name}", name, "serial:", "model:"):
        small_image.target_disk = selector
        reason = refused(small_image, target, other)
        assert f"no disk is {selector}; present: {target} " in reason
        assert f"; {other} {8 * MEBIBYTE} bytes" in reason
    assert not everything(target).strip(b"\0")


def test_of_several_disks_the_only_one_that_fits_is_taken(loop: Fixture, small_image: Job) -> None:
    first, second = loop("first", 32), loop("second", 64)
    with StandIn(small_image) as server:
        output = client(server, first, second)
    assert small_image.outcome() == ("1", ""), output
    assert boot_bytes(second, 510, 2) == b"\x55\xaa"


def test_lvm_member_needs_naming(loop: Fixture, small_image: Job) -> None:
    """An LVM label in a partition: refused while unnamed; a disk too small is left out of the choice."""
    small = loop("small-one", 8)
    target = loop("target", 64, table="label: dos\nstart=2048, size=40MiB, type=8e\n")
    label = (32).to_bytes(4, "little") + b"LVM2 001" + b"a" * 32
    checksum = zlib.crc32(label.ljust(492, b"\0"), 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF  # LVM's own seed, not inverted
    label = b"LABELONE" + (1).to_bytes(8, "little") + checksum.to_bytes(4, "little") + label
    write_bytes(target, MEBIBYTE + 512, label.ljust(512, b"\0"))
    with disks.partition(target, 1) as node:
        kind = subprocess.run(["blkid", "-p", "-o", "value", "-s", "TYPE", node], capture_output=True, text=True).stdout
    assert kind.strip() == "LVM2_member"
    with StandIn(small_image) as server:
        client(server, small, target)
    ok, reason = small_image.outcome()
    assert ok == "0"
    assert "LVM2_member" in reason
    assert f"present: {target} {64 * MEBIBYTE} bytes; {small} {8 * MEBIBYTE} bytes" in reason
    assert boot_bytes(target, MEBIBYTE + 512, 8) == b"LABELONE"

    named = Job("restore", items=small_image.items, manifest=small_image.manifest, target_disk=target)
    with StandIn(named) as server:
        output = client(server, small, target)
    assert named.outcome() == ("1", ""), output


def test_mounted_disk_is_refused_even_when_named(loop: Fixture, small_image: Job, tmp_path: Path) -> None:
    target = loop("target", 64)
    disks.run("mkfs.ext4", "-q", target)
    with disks.mounted(target, tmp_path / "m"), StandIn(small_image) as server:
        client(server, target)
    ok, reason = small_image.outcome()
    assert ok == "0"
    assert f"the disk is in use: {target} is mounted on" in reason
    assert f"present: {target} {64 * MEBIBYTE} bytes" in reason


def test_disk_that_is_too_small_is_refused_untouched(loop: Fixture, small_image: Job) -> None:
    target = loop("target", 32)
    with StandIn(small_image) as server:
        client(server, target)
    ok, reason = small_image.outcome()
    assert ok == "0"
    assert "too small" in reason
    assert f"{target} has {32 * MEBIBYTE}; present: {target} {32 * MEBIBYTE} bytes" in reason
    assert boot_bytes(target, 0, MEBIBYTE) == bytes(MEBIBYTE)


def test_read_only_disk_is_refused_with_the_others(loop: Fixture, small_image: Job) -> None:
    first, target = loop("first", 64), loop("target", 65)
    disks.run("blockdev", "--setro", target)
    small_image.target_disk = target
    try:
        reason = refused(small_image, first, target)
    finally:
        disks.run("blockdev", "--setrw", target)  # the loop device keeps it, and is given to others
    assert (
        f"{target} is read-only; present: {target} {65 * MEBIBYTE} bytes read-only; {first} {64 * MEBIBYTE}" in reason
    )
    assert not (everything(first) + everything(target)).strip(b"\0")


def test_other_sector_size_is_refused_untouched(loop: Fixture, small_image: Job) -> None:
    target = loop("target", 64, sector=4096)
    with StandIn(small_image) as server:
        client(server, target)
    ok, reason = small_image.outcome()
    assert ok == "0"
    assert "sectors of 4096 bytes" in reason
    assert f"present: {target} {64 * MEBIBYTE} bytes" in reason
    assert boot_bytes(target, 0, MEBIBYTE) == bytes(MEBIBYTE)


def test_upload_that_arrived_wrong_is_a_failure(loop: Fixture, tmp_path: Path) -> None:
    source = loop("source", 32, table="label: dos\nstart=2048, size=20MiB, type=83\n")
    make_file_system(source, 1, ["mkfs.ext4", "-q"], tmp_path / "m", 6)
    job = Job("capture", lie="p1.ext4.zst")
    with StandIn(job) as server:
        client(server, source)
    ok, reason = job.outcome()
    assert ok == "0"
    assert "checksum mismatch" in reason
    assert job.manifest == ""


def test_tool_that_fails_is_a_failure(loop: Fixture, tmp_path: Path) -> None:
    """A damaged file system: partclone says so, the reason carries it."""
    source = loop("source", 32, table="label: dos\nstart=2048, size=20MiB, type=83\n")
    make_file_system(source, 1, ["mkfs.ext4", "-q"], tmp_path / "m", 7)
    with disks.partition(source, 1) as node:
        disks.run("debugfs", "-w", "-R", "ssv state 2", node)
    job = Job("capture")
    with StandIn(job) as server:
        client(server, source)
    ok, reason = job.outcome()
    assert ok == "0"
    assert "source failed" in reason
    assert job.result is not None
    assert "capture" in job.result["log"]


def test_nothing_to_do_and_no_answer(loop: Fixture) -> None:
    with StandIn(Job("local")) as server:
        assert client(server).endswith("exit 0")
        url = server.url
    command = ["sh", str(SCRIPT), "--url", url, "--token", "wrong", "--mac", "52:54:00:00:00:01", "--no-reboot"]
    with StandIn(Job("local"), port=int(url.rsplit(":", 1)[1])):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "wrong token" in done.stdout


def loops_over(device: str, folder: Path) -> set[str]:
    """The loop devices over files of this folder or over this device; other tests may run beside this one."""
    rows = json.loads(disks.run("losetup", "--list", "--json", "-O", "NAME,BACK-FILE"))["loopdevices"]
    return {row["name"] for row in rows if row["back-file"].startswith((str(folder), device))}


def test_no_trace_is_left(loop: Fixture, small_image: Job, tmp_path: Path) -> None:
    """No temporary files and no loop devices of its own."""
    target = loop("target", 64, scan=False)
    before = loops_over(target, tmp_path)
    with StandIn(small_image) as server:
        client(server, target, env={"TMPDIR": str(tmp_path / "small")})
    assert small_image.outcome()[0] == "1"
    assert list((tmp_path / "small").iterdir()) == []
    assert loops_over(target, tmp_path) == before
