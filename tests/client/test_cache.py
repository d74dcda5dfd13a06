"""The cache partition: filled, used instead of the server, kept by a restore, and done without when it is no good."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import disks
from tests.client.disks import MEBIBYTE
from tests.client.machine import (
    SCRIPT,
    Fixture,
    boot_bytes,
    captured,
    client,
    contents,
    everything,
    make_file_system,
    refused,
)
from tests.client.standin import Job, StandIn

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: loop devices"),
]
ITEM = "p1.ext4.zst"


@pytest.fixture(scope="module")
def image_once(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """An image of one ext4 of 30 MiB, about 5 MB stored."""
    place = tmp_path_factory.mktemp("image")
    with disks.loop(place / "image.img", 40 * MEBIBYTE, table="label: gpt\nstart=2048, size=30MiB\n") as source:
        make_file_system(source, 1, ["mkfs.ext4", "-q"], place / "m", 71)
        with disks.partition(source, 1) as node, disks.mounted(node, place / "m") as mount:
            (mount / "noise").write_bytes(os.urandom(5_000_000))
        return captured(source)


@pytest.fixture
def image(image_once: Job) -> Job:
    """One to change."""
    return Job("restore", items=dict(image_once.items), manifest=image_once.manifest)


def with_cache(loop: Fixture, *, start: int = 64, size: int = 30, label: str = "gpt") -> str:
    """A disk of 128 MiB with nothing but a cache partition; sizes in MiB."""
    name = ', name="PBCACHE"' if label == "gpt" else ""
    disk = loop("disk", 128, table=f"label: {label}\nstart={start}MiB, size={size}MiB, type=L{name}\n")
    with disks.partition(disk, 1) as node:
        disks.run("mkfs.ext4", "-q", "-m", "0", "-L", "PBCACHE" if label == "dos" else "x", node)
    return disk


def run(job: Job, disk: str) -> str:
    """The client's output for work of version 3 of the image; both shells that it is for get their share."""
    job.options.setdefault("VERSION", "3")
    with StandIn(job) as server:
        return client(server, disk, shell=["busybox", "sh"] if job.action == "deploy" else ["dash"])


@contextlib.contextmanager
def cached(disk: str, folder: Path, number: int = 1) -> Iterator[Path]:
    """The folder of images in the cache."""
    with disks.partition(disk, number) as node, disks.mounted(node, folder) as mount:
        yield mount / "images"


def number_of_cache(disk: str) -> int:
    line = next(line for line in disks.run("sfdisk", "-d", disk).splitlines() if "PBCACHE" in line)
    return int(line.split(" :")[0].rsplit("p", 1)[1])


def test_updating_and_deploying_are_separate_and_nothing_is_fetched_twice(
    loop: Fixture, image: Job, tmp_path: Path
) -> None:
    disk = with_cache(loop)
    before = disks.run("sfdisk", "-d", disk)
    output = run(first := image.again("cache"), disk)
    assert first.outcome() == ("1", ""), output
    assert first.gets == [ITEM]
    size, free = map(int, first.work["cache"].split())
    assert 20 * MEBIBYTE < free < size <= 30 * MEBIBYTE
    assert disks.run("sfdisk", "-d", disk) == before, "an update of the cache touches nothing else"
    with cached(disk, tmp_path / "c") as folder:
        assert (folder / "an-image/3" / ITEM).read_bytes() == image.items[ITEM]

    assert run(again := image.again("cache"), disk)
    assert (again.outcome(), again.gets) == (("1", ""), [])
    newer = image.again("cache", VERSION="4")
    run(newer, disk)
    assert (newer.outcome(), newer.gets) == (("1", ""), []), "the same digest is there already"

    output = run(deployed := image.again("deploy"), disk)
    assert deployed.outcome() == ("1", ""), output
    assert ITEM not in deployed.gets
    assert "noise" in contents(disk, 1, tmp_path / "m")
    with cached(disk, tmp_path / "c", number_of_cache(disk)) as folder:
        assert {path.name for path in (folder / "an-image").iterdir()} == {"3", "4"}, "it outlives the restore"
    assert "No problems found" in disks.run("sgdisk", "-v", disk)
    assert subprocess.run(["grep", "-c", "pbclient", "/proc/mounts"], capture_output=True, text=True).stdout == "0\n"


def test_a_plain_restore_keeps_the_cache_and_the_last_partition_grows_up_to_it(
    loop: Fixture, image: Job, tmp_path: Path
) -> None:
    disk = with_cache(loop, label="dos")
    assert run(filled := image.again("cache"), disk)
    assert filled.outcome() == ("1", "")
    output = run(job := image.again(RESIZE="1"), disk)
    assert job.outcome() == ("1", ""), output
    assert job.gets.count(ITEM) == 1, "a plain restore asks the server"
    assert disks.extent(disk, 1) == (2048, 63 * 2048)
    with cached(disk, tmp_path / "c", number_of_cache(disk)) as folder:
        assert (folder / "an-image/3" / ITEM).is_file()
    run(job := image.again(CACHE="use"), disk)
    assert (job.outcome(), ITEM in job.gets) == (("1", ""), False)


def test_a_cache_in_the_way_is_refused_unless_it_is_given_up(loop: Fixture, image: Job) -> None:
    disk = with_cache(loop, start=20)
    before = boot_bytes(disk, 0, 128 * MEBIBYTE)
    run(job := image.again("deploy"), disk)
    assert job.outcome()[0] == "0"
    assert "the cache partition (1)" in job.outcome()[1]
    assert boot_bytes(disk, 0, 128 * MEBIBYTE) == before
    output = run(job := image.again("deploy", CACHE="give-up"), disk)
    assert job.outcome() == ("1", ""), output
    assert "it is given up" in output
    assert "PBCACHE" not in disks.run("sfdisk", "-d", disk)


def test_what_stopped_half_way_goes_on_there(loop: Fixture, image: Job, tmp_path: Path) -> None:
    disk = with_cache(loop)
    with cached(disk, tmp_path / "c") as folder:
        (folder / "an-image/3").mkdir(parents=True)
        (folder / "an-image/3" / f"{ITEM}.part").write_bytes(image.items[ITEM][:3_000_000])
    output = run(job := image.again("cache"), disk)
    assert job.outcome() == ("1", ""), output
    assert job.ranges == ["bytes=3000000-"]


@pytest.mark.parametrize("half", [False, True])
def test_damage_in_the_cache_is_found_and_fetched_again(loop: Fixture, image: Job, tmp_path: Path, half: bool) -> None:
    """Also of a part that an earlier fetch left."""
    disk = with_cache(loop)
    data = bytearray(image.items[ITEM])
    data[1000] ^= 1
    with cached(disk, tmp_path / "c") as folder:
        (folder / "an-image/3").mkdir(parents=True)
        name = f"{ITEM}.part" if half else ITEM
        (folder / "an-image/3" / name).write_bytes(data[:2_000_000] if half else data)
    output = run(job := image.again("deploy"), disk)
    assert job.outcome() == ("1", ""), output
    assert job.gets.count(ITEM) == (2 if half else 1)
    assert "noise" in contents(disk, 1, tmp_path / "m")


def test_damage_found_while_restoring_falls_back_to_the_server(loop: Fixture, image: Job, tmp_path: Path) -> None:
    """CACHE=use trusts the cache until the digest says otherwise."""
    disk = with_cache(loop)
    data = bytearray(image.items[ITEM])
    data[1000] ^= 1
    with cached(disk, tmp_path / "c") as folder:
        (folder / "an-image/3").mkdir(parents=True)
        (folder / "an-image/3" / ITEM).write_bytes(data)
    output = run(job := image.again(CACHE="use"), disk)
    assert job.outcome() == ("1", ""), output
    assert "the copy in the cache is damaged" in output
    assert "noise" in contents(disk, 1, tmp_path / "m")


def test_too_small_a_cache_fails_the_update_and_not_the_restore(loop: Fixture, image: Job, tmp_path: Path) -> None:
    disk = with_cache(loop, size=4)
    run(job := image.again("cache"), disk)
    ok, reason = job.outcome()
    assert ok == "0"
    assert f"the cache is too small: the image needs {len(image.items[ITEM])} bytes" in reason
    output = run(job := image.again("deploy"), disk)
    assert job.outcome() == ("1", ""), output
    assert "restoring directly" in output
    assert job.result is not None
    assert "too small" in job.result["log"]
    assert "noise" in contents(disk, 1, tmp_path / "m")
    output = run(job := image.again("deploy"), loop("other", 64))
    assert job.outcome() == ("1", ""), output
    assert "no cache partition" in output


def test_the_least_recently_used_goes_first(loop: Fixture, image: Job, tmp_path: Path) -> None:
    disk = with_cache(loop)
    with cached(disk, tmp_path / "c") as folder:
        for age, name in ((300, "old/1"), (200, "older-name/7"), (100, "kept/2")):
            (folder / name).mkdir(parents=True)
            (folder / name / "p1.ext4.zst").write_bytes(os.urandom(7_500_000))
            os.utime(folder / name, (1_700_000_000 - age, 1_700_000_000 - age))
    output = run(job := image.again("cache"), disk)
    assert job.outcome() == ("1", ""), output
    with cached(disk, tmp_path / "c") as folder:
        assert {path.parent.name for path in folder.glob("*/*")} == {"older-name", "kept", "an-image"}


def test_what_cannot_go_from_the_cache_ends_the_work_with_the_reason(loop: Fixture, image: Job, tmp_path: Path) -> None:
    """It is not tried for ever."""
    disk = with_cache(loop)
    with cached(disk, tmp_path / "c") as folder:
        (folder / "old/1").mkdir(parents=True)
        (folder / "old/1" / ITEM).write_bytes(os.urandom(23_000_000))
        disks.run("chattr", "+i", str(folder / "old/1" / ITEM))
    run(job := image.again("cache"), disk)
    assert job.outcome()[0] == "0"
    assert "refused: the cache cannot be written: old/1 cannot be removed: " in job.outcome()[1]


def test_a_disk_that_fails_leaves_a_good_copy_in_the_cache(loop: Fixture, image: Job, tmp_path: Path) -> None:
    disk = with_cache(loop)
    with cached(disk, tmp_path / "c") as folder:
        (folder / "an-image/3").mkdir(parents=True)
        (folder / "an-image/3" / ITEM).write_bytes(image.items[ITEM])
    job = image.again(CACHE="use", VERSION="3")
    failing = 'mount --bind /bin/false "$(command -v partclone.restore)" && exec dash "$@"'
    reason = refused(job, disk, shell=["unshare", "-m", "sh", "-c", failing, "sh"])
    assert reason.startswith(f"item {ITEM}: writer failed (1")
    assert ITEM not in job.gets
    with cached(disk, tmp_path / "c", number_of_cache(disk)) as folder:
        assert (folder / "an-image/3" / ITEM).read_bytes() == image.items[ITEM]


def test_the_cache_is_no_part_of_an_image(loop: Fixture, image: Job) -> None:
    disk = with_cache(loop)
    run(image.again("deploy"), disk)
    with StandIn(job := Job("capture", options={"PROTOCOL": "2"})) as server:
        output = client(server, disk)
    assert job.outcome() == ("1", ""), output
    assert "PBCACHE" not in job.items["table.sfdisk"].decode()
    assert [line.split()[1] for line in job.manifest.splitlines() if line.startswith("item p")] == [ITEM]


def test_made_listed_and_cleared_by_hand(loop: Fixture, image: Job, tmp_path: Path) -> None:
    disk = loop("disk", 128, table="label: gpt\nstart=2048, size=40MiB\n")

    def img(*words: str) -> str:
        script = SCRIPT.with_name("img")
        done = subprocess.run(["dash", str(script), "cache", *words], capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, env=os.environ | {"PB_DISKS": disk})  # fmt: skip
        return f"{done.stdout}{done.stderr}exit {done.returncode}"

    assert "behind its partitions" in img("create", disk, "100M", "-y")
    assert "say -y" in img("create", disk, "32M")
    output = img("create", disk, "32M", "-y")
    assert output.endswith("exit 0"), output
    assert disks.extent(disk, 2)[1] == 32 * 2048
    assert "there is a cache partition already" in img("create", disk, "32M", "-y")
    run(job := image.again("cache"), disk)
    assert job.outcome() == ("1", "")
    assert "an-image/3" in img("list")
    assert "empty" in img("clear", "-y")
    assert "an-image" not in img()


@pytest.mark.parametrize("size", ["33554432", "20480", "M", "M32", "032M", "1.5G"])
def test_a_size_has_its_unit(loop: Fixture, size: str) -> None:
    """Without one, sectors would be meant for a partition and bytes for a cache."""
    disk = loop("disk", 64, table="label: gpt\nstart=2048, size=20MiB\n")
    before = everything(disk)
    for words in (["cache", "create", disk, size, "-y"], ["partition", disk, "create", "linux", size, "-y"]):
        done = subprocess.run(
            ["dash", str(SCRIPT.with_name("img")), *words], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, "no size: a number and K, M, G or T" in done.stderr) == (2, True), done.stderr
    assert everything(disk) == before


@pytest.mark.parametrize("table", ["label: dos\n" + "size=4MiB, type=83\n" * 4, ""], ids=["four", "bare"])
def test_no_cache_is_made_where_there_is_no_place_for_it(loop: Fixture, table: str) -> None:
    """Four primary partitions; a file system without a table."""
    disk = loop("disk", 48, table=table)
    if not table:
        disks.run("mkfs.ext4", "-q", disk)
    before = boot_bytes(disk, 0, 48 * MEBIBYTE)
    command = ["dash", str(SCRIPT.with_name("img")), "cache", "create", disk, "20M", "-y"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | {"PB_DISKS": disk})
    assert done.returncode == 1
    assert ("no cache partition now" if table else "not empty (ext4)") in done.stderr
    assert boot_bytes(disk, 0, 48 * MEBIBYTE) == before


def whole(image: Job) -> Job:
    """The same file system as the image of a disk without a table."""
    line = next(line for line in image.manifest.splitlines() if line.startswith(f"item {ITEM} "))
    lines = [
        "pbserv-image 1",
        f"disk {30 * MEBIBYTE} 512 none bios",
        line.replace("partclone.ext4 1 ", "partclone.ext4 0 "),
    ]
    return Job("restore", items=image.items, manifest="\n".join(lines) + "\n")


def test_a_cache_is_not_written_over_by_a_whole_disk_or_a_single_partition(loop: Fixture, image: Job) -> None:
    disk = with_cache(loop)
    before = boot_bytes(disk, 0, 128 * MEBIBYTE)
    for work in (whole(image).again("deploy"), image.again(PARTITIONS="1")):
        run(work, disk)
        assert "would be written over it" in work.outcome()[1]
        assert boot_bytes(disk, 0, 128 * MEBIBYTE) == before
    output = run(job := whole(image).again("deploy", CACHE="give-up"), disk)
    assert job.outcome() == ("1", ""), output
    disks.run("e2fsck", "-fn", disk)


def with_table(image: Job, table: str) -> Job:
    """The image with another table."""
    old, new = image.items["table.sfdisk"], table.encode()
    lines = image.manifest.replace(" gpt ", f" {table.split()[1]} ", 1).splitlines()
    sums = f"{len(new)} {hashlib.sha256(new).hexdigest()} {len(new)}"
    lines = [f"item table.sfdisk sfdisk 0 {sums}" if line.startswith("item table.sfdisk ") else line for line in lines]
    assert old != new
    return Job("restore", items=image.items | {"table.sfdisk": new}, manifest="\n".join(lines) + "\n")


def test_a_cache_that_the_new_table_cannot_name_is_refused(loop: Fixture, image: Job) -> None:
    end = with_cache(loop, start=64, size=64, label="dos")
    run(job := image.again(DRY_RUN="1"), end)
    assert "second table of a GPT" in job.outcome()[1]
    disk = loop("large", 3 << 20, table=f'label: gpt\nstart={5 << 19}MiB, size=30MiB, name="PBCACHE"\n')
    dos = with_table(image, "label: dos\n/dev/sda1 : start=2048, size=61440, type=83\n")
    run(job := dos.again(DRY_RUN="1"), disk)
    assert "of type dos, cannot reach" in job.outcome()[1]


def test_a_table_that_cannot_be_made_is_refused_in_the_plan(loop: Fixture, image: Job) -> None:
    bad = with_table(image, "label: gpt\n/dev/sda1 : start=2048, size=61440\n/dev/sda2 : start=4096, size=4096\n")
    run(job := bad.again(DRY_RUN="1"), loop("target", 64))
    assert "the table cannot be made" in job.outcome()[1]


def test_the_queue_is_waited_for(loop: Fixture, image: Job) -> None:
    job = image.again()
    job.waits = 2
    output = run(job, loop("target", 64))
    assert job.outcome() == ("1", ""), output
    assert "waiting: position 2 of 2" in output
