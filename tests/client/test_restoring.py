"""What a restore may be asked for: single partitions, a dry run, reading back, images of other tools."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import disks
from tests.client.disks import MEBIBYTE
from tests.client.machine import (
    Fixture,
    boot_bytes,
    captured,
    client,
    contents,
    everything,
    make_file_system,
    refused,
    restored,
    start,
    write_bytes,
)  # fmt: skip
from tests.client.site import until
from tests.client.standin import Job, StandIn

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: loop devices"),
]
TWO = """label: dos
start=2048, size=24MiB, type=83, bootable
size=40MiB, type=83
"""


@pytest.fixture(scope="module")
def two_once(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """An image of two ext4 partitions."""
    place = tmp_path_factory.mktemp("two")
    with disks.loop(place / "two.img", 68 * MEBIBYTE, table=TWO) as source:
        make_file_system(source, 1, ["mkfs.ext4", "-q", "-L", "one"], place / "t1", 21)
        make_file_system(source, 2, ["mkfs.ext4", "-q", "-L", "two"], place / "t2", 22)
        return captured(source)


@pytest.fixture
def two(two_once: Job) -> Job:
    """One to change."""
    return Job("restore", items=dict(two_once.items), manifest=two_once.manifest)


def test_one_partition_comes_back_and_the_rest_stays(loop: Fixture, two: Job, tmp_path: Path) -> None:
    """The table has other sizes than the image's, a partition in front keeps every byte."""
    target = loop("target", 128, table="label: dos\nstart=4096, size=30MiB, type=83\nsize=60MiB, type=83\n")
    make_file_system(target, 1, ["mkfs.ext4", "-q"], tmp_path / "m1", 23)
    before = boot_bytes(target, 0, 32 * MEBIBYTE)
    output = restored(job := two.again(PARTITIONS="2"), target)
    assert boot_bytes(target, 0, 32 * MEBIBYTE) == before, output
    assert contents(target, 2, tmp_path / "m2")["text"]
    with disks.partition(target, 2) as node:
        disks.run("e2fsck", "-fn", node)
        assert "LABEL=two" in disks.run("blkid", "-p", "-o", "export", node)
    assert job.result is not None
    assert job.result["verified"] == "stream"
    assert "p1.ext4.zst" not in job.gets


def test_an_item_goes_into_another_partition_and_grows_there(loop: Fixture, two: Job) -> None:
    target = loop("target", 128, table="label: gpt\nstart=2048, size=30MiB\nsize=20MiB\nsize=64MiB\n")
    restored(two.again(PARTITIONS="1", TARGET_PARTITION="3", RESIZE="1"), target)
    with disks.partition(target, 3) as node:
        disks.run("e2fsck", "-fn", node)
        facts = disks.run("dumpe2fs", "-h", node)
        assert "LABEL=one" in disks.run("blkid", "-p", "-o", "export", node)
    found = dict(line.split(":", 1) for line in facts.splitlines() if ":" in line)
    assert int(found["Block count"]) * int(found["Block size"]) == 64 * MEBIBYTE


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"PARTITIONS": "7"}, "no partition 7; it has: 1 2"),
        ({"TARGET_PARTITION": "1"}, "the image has several: 1 2"),
        ({"PARTITIONS": "1", "TARGET_PARTITION": "4"}, "has no partition 4; it has: 1 2"),
        ({"PARTITIONS": "2"}, "partition 2 of"),
        ({"PARTITIONS": "1;reboot"}, "no numbers of partitions"),
    ],
)
def test_what_has_no_place_is_refused_untouched(loop: Fixture, two: Job, options: dict[str, str], said: str) -> None:
    target = loop("target", 64, table="label: dos\nstart=2048, size=30MiB, type=83\nsize=20MiB, type=83\n")
    before = everything(target)
    assert said in refused(two.again(**options), target)
    assert everything(target) == before


def test_a_dry_run_tells_its_plan_and_writes_nothing(loop: Fixture, two: Job) -> None:
    target = loop("target", 128)
    restored(job := two.again(DRY_RUN="1", RESIZE="1", VERIFY="read"), target)
    assert everything(target) == bytes(128 * MEBIBYTE)
    assert job.result is not None
    plan = job.result["plan"]
    assert f"partition 2: {40 * MEBIBYTE} bytes become {103 * MEBIBYTE}" in plan
    assert "p1.ext4.zst (partclone.ext4," in plan
    assert "read back" in plan
    assert not job.result.get("verified")
    assert "too small" in refused(two.again(DRY_RUN="1"), loop("small", 40))


def test_swap_beside_a_file_system_is_not_counted(loop: Fixture) -> None:
    """As the server counts: of such an image the file system is what goes into the partition that was named."""
    source = loop("source", 40, table="label: dos\nstart=2048, size=24MiB, type=83\nsize=8MiB, type=82\n")
    for number, maker in ((1, "mkfs.ext4"), (2, "mkswap")):
        with disks.partition(source, number) as node:
            disks.run(maker, "-q", "-L", "one", node)
    target = loop("target", 64, table="label: gpt\nstart=2048, size=9MiB\nsize=30MiB\n")
    job = captured(source)
    restored(again := job.again(TARGET_PARTITION="2"), target)
    assert again.result is not None
    assert "p2.swap" not in again.result["plan"]
    with disks.partition(target, 2) as node:
        disks.run("e2fsck", "-fn", node)
        assert "LABEL=one" in disks.run("blkid", "-p", "-o", "export", node)
    restored(job.again(TARGET_PARTITION="1", PARTITIONS="2"), target)
    with disks.partition(target, 1) as node:
        assert "TYPE=swap" in disks.run("blkid", "-p", "-o", "export", node)


@contextlib.contextmanager
def full_disk(folder: Path, missing: int) -> Iterator[str]:
    """A disk of 40 MiB of which one block, at ``missing``, cannot be written, as the kernel notices later."""
    folder.mkdir()
    disks.run("mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder))
    try:
        with (file := folder / "disk.img").open("wb") as image:
            image.write(bytes(missing))
            image.seek(missing + 4096)
            image.write(bytes(40 * MEBIBYTE - missing - 4096))
        with (folder / "rest").open("ab", buffering=0) as rest, contextlib.suppress(OSError):
            while True:
                rest.write(bytes(4096))
        with disks.loop(file, 0, scan=False) as device:
            # A longer write that ends early counts as whole there.
            most = Path(f"/sys/block/{device.removeprefix('/dev/')}/queue/max_sectors_kb")
            usual = most.read_text()
            most.write_text("4")
            try:
                yield device
            finally:
                most.write_text(usual)  # it outlives the device
    finally:
        disks.run("umount", str(folder))


@pytest.fixture
def bootable(loop: Fixture) -> Job:
    """An image of one ext4 with something in front of it, and a swap."""
    table = "label: dos\nstart=2048, size=24MiB, type=83\nsize=8MiB, type=82\n"
    source = loop("source", 40, table=table)
    for number, maker in ((1, "mkfs.ext4"), (2, "mkswap")):
        with disks.partition(source, number) as node:
            disks.run(maker, "-q", node)
    write_bytes(source, 0, b"\xeb\x63" + b"boot code" * 20)
    write_bytes(source, 512, os.urandom(MEBIBYTE - 512))
    return captured(source)


def test_a_boot_area_that_cannot_be_written_is_noticed(tmp_path: Path, bootable: Job) -> None:
    with full_disk(tmp_path / "full", 64 << 10) as target:
        assert refused(bootable.again(), target).startswith("writing the boot area failed: dd: ")


@pytest.mark.parametrize("place", ["disk", "partition"])
def test_what_the_kernel_could_not_write_is_noticed_at_the_end(tmp_path: Path, bootable: Job, place: str) -> None:
    """Behind the partitions, or in the swap, whoever wrote there."""
    missing = (39 if place == "disk" else 28) * MEBIBYTE
    job = bootable.again(AFTER="1")
    node, start = "$PB_DISK", 0
    if place == "partition":
        start = 25 * MEBIBYTE  # the loop device is where the kernel shows no partitions
        node = f"$(ls ${{PB_DISK}}p2 || losetup -nl -O NAME,OFFSET | awk '$2 == {start} {{ print $1 }}')"
    job.scripts = {
        "after": f"dd if=/dev/urandom of={node} bs=4096 count=1 seek={(missing - start) // 4096} conv=notrunc\n"
    }
    with full_disk(tmp_path / "full", missing) as target:
        assert "the image is on the disk, but not all that was written to /dev/loop" in refused(job, target)


@pytest.mark.parametrize("place", [100, 70_000, 0])
def test_the_boot_area_is_read_back_too(loop: Fixture, bootable: Job, tmp_path: Path, place: int) -> None:
    """Code, and the sectors behind the table; a byte of them is changed while the swap is made."""
    target = loop("target", 64)
    tool = tmp_path / "mkswap"
    damage = f"printf X | dd of={target} bs=1 seek={place} conv=notrunc,fsync\n" if place else ""
    tool.write_text(f"#!/bin/sh\n{damage}exit 0\n")
    tool.chmod(0o755)
    shell = ["unshare", "-m", "sh", "-c", f'mount --bind {tool} "$(command -v mkswap)" && exec dash "$@"', "sh"]
    with StandIn(job := bootable.again(VERIFY="read")) as server:
        output = client(server, target, shell=shell)
    ok, reason = job.outcome()
    assert (ok, "boot area: the disk does not hold what was written" in reason) == (
        ("0", True) if place else ("1", False)
    ), output


def test_a_sector_that_reads_back_wrong_is_a_failure(loop: Fixture, two: Job) -> None:
    """The facts of another content stand for a disk that lies."""
    target = loop("target", 128)
    right = next(line for line in two.manifest.splitlines() if line.startswith("fact p2.ext4.zst body_sha256 "))
    two.manifest = two.manifest.replace(right, right[:-64] + "0" * 64)
    assert "does not hold what was written" in refused(two.again(VERIFY="read"), target)


def test_without_facts_an_image_is_not_verifiable(loop: Fixture, two: Job) -> None:
    two.manifest = "\n".join(line for line in two.manifest.splitlines() if "body_sha256" not in line) + "\n"
    assert "not verifiable" in refused(two.again(VERIFY="read"), target := loop("target", 128))
    assert everything(target) == bytes(128 * MEBIBYTE)


def came_back_whole(loop: Fixture, source: str) -> tuple[Job, str]:
    """The one partition, of 40 MiB, is captured as it is, restored and read back; job and target."""
    inside = boot_bytes(source, MEBIBYTE, 40 * MEBIBYTE)
    job = captured(source)
    assert "item p1.raw.zst raw 1 " in job.manifest
    target = loop("target", 64)
    restored(again := job.again(VERIFY="read"), target)
    assert again.result is not None
    assert again.result["verified"] == "read"
    assert boot_bytes(target, MEBIBYTE, 40 * MEBIBYTE) == inside
    return job, target


def test_luks_is_opaque_and_comes_back_whole(loop: Fixture, tmp_path: Path) -> None:
    source = loop("source", 48, table="label: gpt\nstart=2048, size=40MiB\n")
    key = tmp_path / "key"
    key.write_text("a passphrase")
    with disks.partition(source, 1) as node:
        disks.run("cryptsetup", "-q", "luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
                  node, str(key))  # fmt: skip
    write_bytes(source, 39 * MEBIBYTE, os.urandom(MEBIBYTE))
    job, target = came_back_whole(loop, source)
    with disks.partition(target, 1) as node:
        disks.run("cryptsetup", "open", "--test-passphrase", "--key-file", str(key), node)
    assert "raw cannot be resized" in refused(job.again(RESIZE="1"), loop("other", 64))


def lvm(command: str, node: str) -> str:
    """A command of LVM that sees this device alone, and leaves nothing on this machine."""
    name, *words = command.split()
    config = (
        f'devices {{ filter=["a|^{node}$|", "r|.*|"] use_devicesfile=0 obtain_device_list_from_udev=0 hints="none" }} '
        "backup { backup=0 archive=0 } activation { udev_sync=0 udev_rules=0 monitoring=0 }"
    )
    return disks.run(name, "--config", config, *words)


def test_lvm_is_opaque_and_comes_back_whole(loop: Fixture) -> None:
    """With its volume group, which is none of this machine's."""
    source = loop("source", 48, table="label: gpt\nstart=2048, size=40MiB\n")
    with disks.partition(source, 1) as node:
        lvm(f"pvcreate -q -y {node}", node)
        lvm(f"vgcreate -q opaque {node}", node)
        known = lvm("pvs --noheadings -o vg_name,pv_uuid,vg_uuid,pv_size", node)
    assert "opaque" in known
    write_bytes(source, 20 * MEBIBYTE, os.urandom(MEBIBYTE))
    _job, target = came_back_whole(loop, source)
    with disks.partition(target, 1) as node:
        assert lvm("pvs --noheadings -o vg_name,pv_uuid,vg_uuid,pv_size", node) == known


@pytest.mark.parametrize("tool", ["gzip", "lzop", "lz4", "xz", "bzip2", "none"])
def test_an_image_of_a_partition_compressed_by_another_tool(loop: Fixture, two: Job, tool: str) -> None:
    """As images of other tools are served: no table, no disk; it needs a partition to go into."""
    name = "p1.ext4.zst"
    data = subprocess.run(["zstd", "-dcq"], input=two.items[name], capture_output=True, check=True).stdout
    if tool != "none":
        data = subprocess.run([tool, "-c"], input=data, capture_output=True, check=True).stdout
    two.items["image"] = data
    lines = [
        "pbserv-image 1",
        "disk 0 512 none bios",
        f"item image partclone.ext4 0 {len(data)} {hashlib.sha256(data).hexdigest()} 0",
    ]
    job = Job("restore", items=two.items, manifest="\n".join([*lines, f"fact image compressor {tool}"]) + "\n")
    target = loop("target", 64, table="label: dos\nstart=2048, size=30MiB, type=83\n")
    assert "must say which partition" in refused(job.again(), target)
    restored(job.again(TARGET_PARTITION="1"), target)
    with disks.partition(target, 1) as node:
        disks.run("e2fsck", "-fn", node)


def hidden(device: str, number: int, offset: int = 0) -> int:
    """Sectors before the file system, as its boot sector tells."""
    with disks.partition(device, number) as node:
        return int.from_bytes(boot_bytes(node, offset + 28, 4), "little")


def test_an_image_of_ntfsclone(loop: Fixture, tmp_path: Path) -> None:
    source = loop("source", 40, table="label: dos\nstart=2048, size=32MiB, type=7\n")
    with disks.partition(source, 1) as node:
        disks.run(*("mkfs.ntfs", "-Q", "-q", "-F"), node)
        with disks.mounted(node, tmp_path / "m") as mount:
            disks.fill(mount, 81)
            files = disks.hashes(mount)
        data = subprocess.run(["ntfsclone", "-q", "-s", "-o", "-", node], capture_output=True, check=True).stdout
    lines = [
        "pbserv-image 1",
        "disk 0 512 none bios",
        f"item w ntfsclone 0 {len(data)} {hashlib.sha256(data).hexdigest()} 0",
    ]
    job = Job("restore", items={"w": data}, manifest="\n".join([*lines, "fact w compressor none"]) + "\n")
    target = loop("target", 64, table="label: dos\nstart=4096, size=40MiB, type=7\n")
    restored(job.again(TARGET_PARTITION="1"), target)
    assert contents(target, 1, tmp_path / "m") == files
    assert [hidden(target, 1), hidden(target, 1, 32 * MEBIBYTE - 512)] == [4096] * 2, "in the boot sector and its copy"


@pytest.mark.parametrize("action", ["restore", "capture"])
def test_a_client_that_is_killed_leaves_nothing_that_counts(loop: Fixture, two: Job, action: str) -> None:
    """SIGKILL for it and all it started, as a power cut; the next job does the work."""
    target = loop("target", 128)
    restored(two.again(), target)
    if action == "restore":
        job = two.again()
        job.hold = "p2.ext4.zst"
    else:
        job = Job("capture", options={"PROTOCOL": "2", "PART_BYTES": str(MEBIBYTE)})
        job.part_faults = {2: ["503"] * 100}
    with StandIn(job) as server:
        running = start(server, target)
        until(lambda: any(said["stage"] == action for said in job.progress), 60)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    assert job.result is None
    if action == "capture":
        assert job.manifest == ""
        captured(target)
        return
    restored(two.again(VERIFY="read"), target)


def test_file_systems_at_another_place_know_it_and_labels_with_spaces_come_back(loop: Fixture) -> None:
    """What a BIOS boots of Windows finds its disk by the hidden sectors; FAT32 has them twice."""
    table = "label: dos\nstart=2048, size=9MiB, type=7\nsize=36MiB, type=c\nsize=8MiB, type=82\n"
    source = loop("source", 56, table=table)
    with disks.partition(source, 1) as node:
        disks.run("mkfs.ntfs", "-Q", "-q", "-F", "-p", "2048", node)
    with disks.partition(source, 2) as node:
        disks.run("mkfs.vfat", "-F", "32", "-s", "1", "-h", "20480", node)
    with disks.partition(source, 3) as node:
        disks.run("mkswap", "-q", "-L", r"my \ swap", node)
    job = captured(source)
    target = loop("target", 80, table=table.replace("start=2048", "start=66624"))
    assert "nothing of what is written can be resized" in refused(job.again(PARTITIONS="2", RESIZE="1"), target)
    restored(again := job.again(PARTITIONS="1,2,3", RESIZE="1", VERIFY="read"), target)
    assert again.result is not None
    assert "partition 2: vfat cannot be resized" in again.result["plan"]
    assert hidden(target, 1) == 66624
    assert [hidden(target, 2), hidden(target, 2, 6 * 512)] == [disks.extent(target, 2)[0]] * 2
    with disks.partition(target, 3) as node:
        assert disks.run("blkid", "-p", "-o", "value", "-s", "LABEL", node) == "my \\ swap\n"
    old = job.items["p3.swap"].decode()
    assert r"LABEL=my \\ swap" in old


def test_the_time_spent_waiting_for_the_server_is_told(loop: Fixture, two: Job) -> None:
    job = two.again()
    job.pause = {"p2.ext4.zst": 3.0}
    restored(job, loop("target", 128))
    assert job.result is not None
    assert int(job.result["waited"]) > 1500
