"""The last partition and its file system take the disk: larger or smaller, with swap and extended partitions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.client import disks
from tests.client.disks import MEBIBYTE
from tests.client.machine import Fixture, captured, contents, everything, make_file_system, refused, restored

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: loop devices"),
]
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


def test_a_file_system_on_the_whole_disk_grows_with_it(loop: Fixture, tmp_path: Path) -> None:
    source = loop("source", 48)
    disks.run("mkfs.ext4", "-q", source)
    target = loop("target", 96)
    restored(captured(source).again(RESIZE="1", VERIFY="read"), target)
    assert size_of("ext4", target, tmp_path / "m") > 80 * MEBIBYTE
