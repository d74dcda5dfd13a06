"""Captures whose streams go up in parts: whole, idempotent, resumed after an outage, never half a success."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

from tests.client import disks
from tests.client.disks import MEBIBYTE
from tests.client.machine import SCRIPT, Fixture, client, contents, make_file_system
from tests.client.standin import TOKEN, Job, StandIn, unpacked

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: loop devices"),
]
TABLE = "label: dos\nstart=2048, size=40MiB, type=83\nsize=8MiB, type=da\n"
PART = 2 * MEBIBYTE


@pytest.fixture
def source(loop: Fixture, tmp_path: Path) -> str:
    """An ext4 with 6 MB of noise, and a partition of unknown content, 8 MiB: four parts exactly."""
    device = loop("source", 52, table=TABLE)
    make_file_system(device, 1, ["mkfs.ext4", "-q"], tmp_path / "m", 61)
    with disks.partition(device, 1) as node, disks.mounted(node, tmp_path / "m") as mount:
        (mount / "noise").write_bytes(os.urandom(6_000_000))
    return device


def capture(**more: str) -> Job:
    return Job("capture", options={"PROTOCOL": "2", "PART_BYTES": str(PART), **more})


def test_streams_go_up_in_parts_and_come_back(loop: Fixture, source: str, tmp_path: Path) -> None:
    with StandIn(job := capture()) as server:
        output = client(server, source, shell=["busybox", "sh"])
    assert job.outcome() == ("1", ""), output
    assert len(job.parts["p2.raw.zst"]) == 4
    assert set(job.parts) == {"p1.ext4.zst", "p2.raw.zst"}
    for parts in job.parts.values():
        sizes = [len(unpacked(part)) for part in parts]
        assert set(sizes[:-1]) == {PART}
        assert 0 < sizes[-1] <= PART
    stream = unpacked(job.items["p1.ext4.zst"])
    assert stream.startswith(b"partclone-image")
    assert stream[96:100] == bytes(4), "no checksums between the blocks"
    assert re.search(r"^fact p1\.ext4\.zst fs_bytes 41943040$", job.manifest, re.MULTILINE)
    assert re.search(r"^fact p1\.ext4\.zst tool partclone-0\.\S+$", job.manifest, re.MULTILINE)
    target = loop("target", 64)
    with StandIn(again := job.again(VERIFY="read")) as server:
        output = client(server, target)
    assert again.outcome() == ("1", ""), output
    assert contents(target, 1, tmp_path / "m") == contents(source, 1, tmp_path / "m")


def test_progress_never_falls_while_the_server_completes_an_item(source: str) -> None:
    with StandIn(job := capture()) as server:
        job.pause = dict.fromkeys(("p1.ext4.zst", "p2.raw.zst"), 5.0)
        output = client(server, source)
    assert job.outcome() == ("1", ""), output
    counted = [int(said["bytes"]) for said in job.progress]
    assert counted == sorted(counted)
    assert counted[-1] >= 8 * MEBIBYTE


def test_an_old_server_gets_whole_items_and_no_facts(source: str) -> None:
    with StandIn(job := Job("capture")) as server:
        output = client(server, source)
    assert job.outcome() == ("1", ""), output
    assert job.work["client"] == "2"
    assert job.parts == {}
    assert "fact " not in job.manifest


@pytest.mark.parametrize(
    "faults",
    [{2: ["break", "503"], 4: ["500", "break"]}, {3: ["forget"]}, {1: ["503"], 2: ["forget"]}],
    ids=["broken", "forgotten", "both"],
)
def test_parts_are_sent_again_from_where_the_server_wants_them(source: str, faults: dict[int, list[str]]) -> None:
    """ "forget": the server has lost the part before, as one may that was restarted."""
    forgets = any("forget" in fault for fault in faults.values())
    with StandIn(job := capture()) as server:
        job.part_faults = faults
        output = client(server, source, env={"PB_RETRY_PAUSE": "0.5"})
    assert job.outcome() == ("1", ""), output
    assert not any(job.part_faults.values())
    with disks.partition(source, 2) as node:
        whole = disks.run("sha256sum", node).split()[0]
    assert hashlib.sha256(unpacked(job.items["p2.raw.zst"])).hexdigest() == whole
    assert ("reading up to it again" in output) == forgets


def test_a_server_that_is_away_for_a_while_finds_the_rest(source: str) -> None:
    """Another server on the same address, with the parts that the first one had."""
    job = capture()
    reached = threading.Event()
    with StandIn(job) as server:
        job.at_part = (3, reached)
        url = server.url
        command = ["dash", str(SCRIPT), "--url", url, "--token", TOKEN, "--mac", "52:54:00:00:00:01", "--no-reboot"]
        running = subprocess.Popen(
            [*command, "--disk", source], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert reached.wait(60)
        job.broken = True
    assert running.stdout is not None
    assert any("trying again" in line for line in running.stdout)
    job.broken = False
    job.finished.clear()
    with StandIn(job, port=int(url.rsplit(":", 1)[1])), running:
        output, _ = running.communicate(timeout=200)
    assert job.outcome() == ("1", ""), output


def test_a_server_that_restarts_is_waited_for_with_every_request(source: str) -> None:
    with StandIn(job := capture()) as server:
        job.away = {"table.sfdisk": 5, "boot.zst": 5, "commit": 5, "result": 7}
        output = client(server, source, env={"PB_RETRY_PAUSE": "0.1"})
    assert job.outcome() == ("1", ""), output
    assert max(job.away.values()) < 1


def test_a_capture_is_announced_with_what_it_takes_at_least(loop: Fixture, tmp_path: Path) -> None:
    """A quarter of what the file systems hold; a store without that room refuses before any stream is read."""
    table = "label: gpt\nstart=2048, size=40MiB\nsize=120MiB\nsize=310MiB\nsize=20MiB\n"
    source = loop("source", 500, table=table)
    for number, kind in enumerate(("ntfs -Q", "btrfs", "xfs", "ext4"), start=1):
        with disks.partition(source, number) as node:
            disks.run(*f"mkfs.{kind} -q".split(), node)
    with disks.partition(source, 4) as node, disks.mounted(node, tmp_path / "m") as mount:
        (mount / "noise").write_bytes(os.urandom(10_000_000))
    with StandIn(job := capture()) as server:
        job.room = 2_000_000
        output = client(server, source)
    assert job.outcome() == ("0", "item table.sfdisk: server answered 507: error: no room for that"), output
    assert 2_500_000 < job.expected < 15_000_000
    assert (job.items, job.parts) == ({}, {})


def test_empty_tables_of_a_file_system_are_not_announced(loop: Fixture) -> None:
    """An ext4 of 4 GB, nearly a fifth of it inode tables and journal, and no file."""
    source = loop("source", 4096, table="label: gpt\nstart=2048, size=4000MiB\n")
    with disks.partition(source, 1) as node:
        disks.run("mkfs.ext4", "-q", "-N", "2000000", node)
    with StandIn(job := capture()) as server:
        job.room = -1
        client(server, source)
    assert job.outcome()[0] == "0"
    assert 0 <= job.expected < 1_000_000


def test_a_hibernated_linux_is_refused(loop: Fixture) -> None:
    """Its swap holds a memory, which a restored machine would go on with; nothing else is taken before."""
    source = loop("source", 52, table="label: gpt\nstart=2048, size=20MiB\nsize=16MiB\n")
    with disks.partition(source, 1) as node:
        disks.run("mkfs.ext4", "-q", node)
    with disks.partition(source, 2) as node:
        disks.run("mkswap", node)
        with Path(node).open("r+b") as swap:
            swap.seek(4086)
            swap.write(b"S1SUSPEND")
        assert disks.run("blkid", "-p", "-o", "value", "-s", "TYPE", node).strip() == "swsuspend"
    with StandIn(job := capture()) as server:
        client(server, source, shell=["busybox", "sh"])
    ok, reason = job.outcome()
    _, dry_ok, dry_reason = planned(source)
    assert (ok, dry_ok) == ("0", "0")
    for why in (reason, dry_reason):
        assert why.endswith("holds a hibernated Linux: start it and shut it down")
    assert (job.items, job.parts) == ({}, {})


def test_a_refused_part_ends_the_capture(source: str) -> None:
    with StandIn(job := capture()) as server:
        job.part_faults = {2: ["413"]}
        client(server, source)
    ok, reason = job.outcome()
    assert ok == "0"
    assert "413" in reason
    assert "p1.ext4.zst" in reason
    assert job.manifest == ""


def test_a_reader_that_fails_completes_nothing(source: str) -> None:
    with disks.partition(source, 1) as node:
        disks.run("debugfs", "-w", "-R", "ssv state 2", node)
    with StandIn(job := capture()) as server:
        client(server, source)
    ok, reason = job.outcome()
    assert ok == "0"
    assert "source failed" in reason
    assert "p1.ext4.zst" not in job.items


@pytest.mark.parametrize("small", [False, True])
def test_a_cancel_ends_the_waiting_for_a_server_in_trouble(source: str, small: bool) -> None:
    job = capture()
    job.part_faults = {2: ["503"] * 40}
    job.away = {"table.sfdisk": 40 * small}
    job.cancel = True
    with StandIn(job) as server:
        output = client(server, source)
    assert job.outcome() == ("0", "cancelled"), output


def test_a_dry_run_takes_nothing(source: str) -> None:
    with StandIn(job := capture(DRY_RUN="1")) as server:
        output = client(server, source)
    assert job.outcome() == ("1", ""), output
    assert job.items == {}
    assert job.result is not None
    assert "partition 1: 41943040 bytes, ext4" in job.result["plan"]


def planned(device: str) -> tuple[str, str, str]:
    """(plan, ok, reason) of a dry run."""
    with StandIn(job := capture(DRY_RUN="1")) as server:
        client(server, device)
    assert job.items == {}
    assert job.result is not None
    return job.result.get("plan", ""), *job.outcome()


def test_a_dry_run_is_of_what_a_capture_would_take(loop: Fixture) -> None:
    """A file system without a table; a cache, which is no part of an image; a table that is not supported."""
    whole = loop("whole", 16)
    disks.run("mkfs.ext4", "-q", whole)
    assert f"the whole disk: {16 * MEBIBYTE} bytes, ext4" in planned(whole)[0]
    cached = loop("cached", 64, table='label: gpt\nstart=2048, size=20MiB\nsize=30MiB, name="PBCACHE"\n')
    for number in (1, 2):
        with disks.partition(cached, number) as node:
            disks.run("mkfs.ext4", "-q", node)
    plan, ok, _ = planned(cached)
    assert ok == "1"
    assert "partition 1: " in plan
    assert "partition 2 is the cache of this device; it is left out" in plan
    assert "partition 2: " not in plan
    assert planned(loop("empty", 16))[2].endswith("holds neither partitions nor a file system")
    assert "of type sgi are not supported" in planned(loop("sgi", 16, table="label: sgi\nsize=8MiB\n"))[2]
