"""What a restore may be asked for: single partitions, a dry run, a last partition that grows, reading back."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.client import disks
from tests.client.disks import MEBIBYTE
from tests.client.machine import Fixture, boot_bytes, client, contents, make_file_system, start, write_bytes
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


def captured(device: str, **options: str) -> Job:
    """The image of a disk, with the facts that a server adds."""
    with StandIn(job := Job("capture", options={"PROTOCOL": "2", **options})) as server:
        output = client(server, device)
    assert job.outcome() == ("1", ""), output
    return job


def restored(job: Job, *devices: str) -> str:
    """The output of a restore that went well."""
    with StandIn(job) as server:
        output = client(server, *devices)
    assert job.outcome() == ("1", ""), output
    return output


def refused(job: Job, *devices: str) -> str:
    """Why a restore did not go well."""
    with StandIn(job) as server:
        output = client(server, *devices)
    ok, reason = job.outcome()
    assert ok == "0", output
    return reason


def everything(device: str) -> bytes:
    """The bytes of the whole disk."""
    return boot_bytes(device, 0, int(disks.run("blockdev", "--getsize64", device)))


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


MAKERS = {
    "ext4": ["mkfs.ext4", "-q"], "xfs": ["mkfs.xfs", "-q"], "btrfs": ["mkfs.btrfs", "-q"],
    "ntfs": ["mkfs.ntfs", "-Q", "-q", "-F"],
}  # fmt: skip


def size_of(kind: str, node: str, folder: Path) -> int:
    """Bytes of the file system, as its own tools tell."""
    if kind == "ntfs":
        return int(next(
            line.split(":")[1].split()[0] for line in disks.run("ntfsresize", "-i", "-f", node).splitlines()
            if line.startswith("Current volume size")
        ))  # fmt: skip
    if kind == "ext4":
        disks.run("e2fsck", "-fn", node)
    if kind == "xfs":
        disks.run("xfs_repair", "-n", node)
    if kind == "btrfs":
        disks.run("btrfs", "check", node)
    with disks.mounted(node, folder):
        return os.statvfs(folder).f_blocks * os.statvfs(folder).f_frsize


@pytest.mark.parametrize(("kind", "label"), [("ext4", "dos"), ("xfs", "gpt"), ("btrfs", "gpt"), ("ntfs", "dos")])
def test_the_last_partition_and_its_file_system_take_the_disk(
    loop: Fixture, tmp_path: Path, kind: str, label: str
) -> None:
    """With reading back, before it grows."""
    size = 350 if kind == "xfs" else 130
    source = loop("source", size + 10, table=f"label: {label}\nstart=2048, size={size}MiB\n")
    with disks.partition(source, 1) as node:
        disks.run(*MAKERS[kind], node)
        with disks.mounted(node, tmp_path / "m") as mount:
            disks.fill(mount, 31)
            files = disks.hashes(mount)
    target = loop("target", 2 * size)
    job = captured(source)
    assert f"fact p1.{kind}.zst fs_bytes " in job.manifest
    output = restored(again := job.again(RESIZE="1", VERIFY="read"), target)
    assert again.result is not None
    assert again.result["verified"] == "read"
    assert disks.extent(target, 1)[1] * 512 > (2 * size - 3) * MEBIBYTE
    assert contents(target, 1, tmp_path / "m") == files, output
    with disks.partition(target, 1) as node:
        assert size_of(kind, node, tmp_path / "m") > 1.6 * size * MEBIBYTE
    if label == "gpt":
        assert "No problems found" in disks.run("sgdisk", "-v", target)


def test_a_file_system_smaller_than_its_partition_fits_on_a_smaller_disk(loop: Fixture, tmp_path: Path) -> None:
    """Only when the last partition may change its size."""
    source = loop("source", 120, table="label: gpt\nstart=2048, size=110MiB\n")
    with disks.partition(source, 1) as node:
        disks.run("mkfs.ext4", "-q", node, "30M")
        with disks.mounted(node, tmp_path / "m") as mount:
            disks.fill(mount, 41)
            files = disks.hashes(mount)
    job = captured(source)
    target = loop("target", 48)
    assert "too small" in refused(job.again(), target)
    assert everything(target) == bytes(48 * MEBIBYTE)
    restored(job.again(RESIZE="1"), target)
    assert contents(target, 1, tmp_path / "m") == files
    with disks.partition(target, 1) as node:
        disks.run("e2fsck", "-fn", node)
    assert "No problems found" in disks.run("sgdisk", "-v", target)
    assert "too small" in refused(job.again(RESIZE="1"), loop("tiny", 24))


def test_swap_behind_the_last_file_system_moves_to_the_end(loop: Fixture) -> None:
    source = loop("source", 64, table="label: dos\nstart=2048, size=40MiB, type=83\nsize=8MiB, type=82\n")
    with disks.partition(source, 1) as node:
        disks.run("mkfs.ext4", "-q", node)
    with disks.partition(source, 2) as node:
        disks.run("mkswap", "-q", node)
    job = captured(source)
    target = loop("target", 128)
    restored(job.again(RESIZE="1"), target)
    assert disks.extent(target, 1) == (2048, 119 * 2048)
    assert disks.extent(target, 2) == (120 * 2048, 8 * 2048)
    with disks.partition(target, 2) as node:
        assert "TYPE=swap" in disks.run("blkid", "-p", "-o", "export", node)


def test_a_logical_partition_grows_with_the_extended_one(loop: Fixture) -> None:
    table = "label: dos\nstart=2048, size=8MiB, type=83\nsize=50MiB, type=5\np5 : size=30MiB, type=83\n"
    source = loop("source", 64, table=table)
    for number in (1, 5):
        with disks.partition(source, number) as node:
            disks.run("mkfs.ext4", "-q", node)
    target = loop("target", 128)
    restored(captured(source).again(RESIZE="1"), target)
    start, size = disks.extent(target, 5)
    assert start + size == sum(disks.extent(target, 2))
    assert size > 115 * 2048
    with disks.partition(target, 5) as node:
        disks.run("e2fsck", "-fn", node)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("label: dos\nstart=2048, size=20MiB, type=83\nsize=20MiB, type=5\np5 : size=9MiB, type=82\n",
         "inside an extended"),
        ("label: dos\nstart=2048, size=20MiB, type=83\nsize=16MiB, type=c\n", "vfat cannot be resized"),
    ],
)  # fmt: skip
def test_what_cannot_grow_is_refused_with_the_reason(loop: Fixture, tmp_path: Path, table: str, said: str) -> None:
    source = loop("source", 64, table=table)
    make_file_system(source, 1, ["mkfs.ext4", "-q"], tmp_path / "m1", 51)
    swap = "p5 " in table
    with disks.partition(source, 5 if swap else 2) as node:
        disks.run(*(["mkswap", "-q"] if swap else ["mkfs.vfat", "-F", "16"]), node)
    job = captured(source)
    assert said in refused(job.again(RESIZE="1"), target := loop("target", 128))
    assert everything(target) == bytes(128 * MEBIBYTE)


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


def test_luks_is_opaque_and_comes_back_whole(loop: Fixture, tmp_path: Path) -> None:
    source = loop("source", 48, table="label: gpt\nstart=2048, size=40MiB\n")
    key = tmp_path / "key"
    key.write_text("a passphrase")
    with disks.partition(source, 1) as node:
        disks.run("cryptsetup", "-q", "luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
                  node, str(key))  # fmt: skip
    write_bytes(source, 39 * MEBIBYTE, os.urandom(MEBIBYTE))
    inside = boot_bytes(source, MEBIBYTE, 40 * MEBIBYTE)
    job = captured(source)
    assert "item p1.raw.zst raw 1 " in job.manifest
    target = loop("target", 64)
    restored(again := job.again(VERIFY="read"), target)
    assert again.result is not None
    assert again.result["verified"] == "read"
    assert boot_bytes(target, MEBIBYTE, 40 * MEBIBYTE) == inside
    with disks.partition(target, 1) as node:
        disks.run("cryptsetup", "open", "--test-passphrase", "--key-file", str(key), node)
    assert "raw cannot be resized" in refused(job.again(RESIZE="1"), loop("other", 64))


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


def test_a_file_system_on_the_whole_disk_grows_with_it(loop: Fixture, tmp_path: Path) -> None:
    source = loop("source", 48)
    disks.run("mkfs.ext4", "-q", source)
    target = loop("target", 96)
    restored(captured(source).again(RESIZE="1", VERIFY="read"), target)
    assert size_of("ext4", target, tmp_path / "m") > 80 * MEBIBYTE


def test_an_image_of_ntfsclone(loop: Fixture, tmp_path: Path) -> None:
    source = loop("source", 40, table="label: dos\nstart=2048, size=32MiB, type=7\n")
    with disks.partition(source, 1) as node:
        disks.run(*MAKERS["ntfs"], node)
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
    target = loop("target", 64, table="label: dos\nstart=2048, size=40MiB, type=7\n")
    restored(job.again(TARGET_PARTITION="1"), target)
    assert contents(target, 1, tmp_path / "m") == files


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


def test_the_time_spent_waiting_for_the_server_is_told(loop: Fixture, two: Job) -> None:
    job = two.again()
    job.pause = {"p2.ext4.zst": 3.0}
    restored(job, loop("target", 128))
    assert job.result is not None
    assert int(job.result["waited"]) > 1500
