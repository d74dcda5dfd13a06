"""The client and the real server: file systems there and back, damage in the store, a server that is killed."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import disks
from tests.client.disks import MEBIBYTE
from tests.client.machine import Fixture, boot_bytes, contents, make_file_system
from tests.client.site import MAC, Site, until
from tests.support.process import Installed

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(280),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: loop devices"),
]
KINDS = {
    1: ["mkfs.vfat", "-F", "16"],
    2: ["mkfs.ext4", "-q"],
    3: ["mkfs.ntfs", "-Q", "-q", "-F"],
    4: ["mkfs.btrfs", "-q"],
    5: ["mkfs.xfs", "-q"],
}
CHECKS = {
    1: ["fsck.vfat", "-n"], 2: ["e2fsck", "-fn"], 3: ["ntfsresize", "-i", "-f"], 4: ["btrfs", "check"],
    5: ["xfs_repair", "-n"],
}  # fmt: skip
TABLE = "label: gpt\nstart=2048, size=20MiB\nsize=24MiB\nsize=24MiB\nsize=120MiB\nsize=310MiB\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """One of our own: it gets killed."""
    installed = Installed(tmp_path_factory.mktemp("own-server"))
    installed.ok("start")
    installed.ok("device", "accept", MAC)
    yield installed
    installed.finish()


@pytest.fixture
def own(server: Installed, tmp_path: Path) -> Site:
    """The device and that server."""
    return Site(server, tmp_path)


def work(site: Site, kind: str, image: str, **options: object) -> int:
    """Ordered for the device; the number of the work."""
    body = {"mac": MAC, "kind": kind, "image": image, **options}
    return int(site.api("POST", "/work", body)["work"]["id"])


def test_five_file_systems_there_and_back(own: Site, loop: Fixture, tmp_path: Path) -> None:
    """Read back bit by bit where blocks are used, clean for the tools of each, every file as it was."""
    source = loop("source", 502, table=TABLE)
    files = {
        number: make_file_system(source, number, command, tmp_path / f"m{number}", 90 + number)
        for number, command in KINDS.items()
    }
    number = work(own, "capture", "five")
    output = own.run("--disk", source)
    assert output.endswith("exit 0"), output
    job = own.work(number)["jobs"][0]
    assert (job["state"], job["version"]) == ("done", 1)
    version = own.api("GET", "/images/five/versions/1")
    origin = {"mac": MAC, "job": job["id"], "disk": source, "partition": "", "model": ""}
    assert version["origin"] == origin
    assert version["facts"]["origin_disk"] == source

    number = work(own, "restore", "five", verify="read", resize=True)
    target = loop("target", 560)
    output = own.run("--disk", target)
    assert output.endswith("exit 0"), output
    for number, command in CHECKS.items():
        with disks.partition(target, number) as node:
            disks.run(*command, node)
        assert contents(target, number, tmp_path / f"m{number}") == files[number]
    assert disks.extent(target, 5)[1] > 360 * 2048


def test_a_damaged_byte_in_the_store_is_never_a_success(own: Site, loop: Fixture, tmp_path: Path) -> None:
    source = loop("source", 40, table="label: dos\nstart=2048, size=30MiB, type=83\n")
    make_file_system(source, 1, ["mkfs.ext4", "-q"], tmp_path / "m", 99)
    work(own, "capture", "rotten")
    assert own.run("--disk", source).endswith("exit 0")
    stored = next(path for path in own.server.state.rglob("p1.ext4.zst") if "rotten" in str(path))
    with stored.open("r+b") as file:
        file.seek(stored.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x10]))
    number = work(own, "restore", "rotten")
    output = own.run("--disk", loop("target", 40))
    assert output.endswith("exit 1"), output
    done = own.work(number)
    assert done["state"] == "held"
    assert "item p1.ext4.zst" in done["reason"]
    own.cancel(number)


NOISE = "label: dos\nstart=2048, size=170MiB, type=da\n"


def write_noise(disk: str) -> None:
    with open(disk, "r+b") as file:
        file.seek(MEBIBYTE)
        for _ in range(170):
            file.write(os.urandom(MEBIBYTE))


def test_a_server_that_is_killed_in_the_middle_of_a_capture_gets_the_rest(own: Site, loop: Fixture) -> None:
    source = loop("source", 180, table=NOISE)
    write_noise(source)
    before = boot_bytes(source, 0, 171 * MEBIBYTE)
    number = work(own, "capture", "survivor")
    with own.start("--disk", source) as running:
        until(lambda: any(own.server.state.rglob("p1.raw.zst.state")), 120)
        os.kill(own.server.pid, signal.SIGKILL)
        until(lambda: own.server.call("status").returncode != 0, 30)
        own.server.ok("start")
        output, _ = running.communicate(timeout=240)
    assert running.returncode == 0, output
    assert "trying again" in output
    assert own.work(number)["jobs"][0]["state"] == "done"
    target = loop("target", 180)
    work(own, "restore", "survivor", verify="read")
    assert own.run("--disk", target).endswith("exit 0")
    assert boot_bytes(target, MEBIBYTE, 170 * MEBIBYTE) == before[MEBIBYTE:]


@pytest.fixture(scope="module")
def noise(server: Installed, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an image of one partition of 170 MiB that nothing compresses, and the SHA-256 of its bytes."""
    place = tmp_path_factory.mktemp("noise")
    with disks.loop(place / "noise.img", 180 * MEBIBYTE, table=NOISE) as source:
        write_noise(source)
        work(own := Site(server, place), "capture", "noise")
        output = own.run("--disk", source)
        assert output.endswith("exit 0"), output
        return hashlib.sha256(boot_bytes(source, MEBIBYTE, 170 * MEBIBYTE)).hexdigest()


def flowing(site: Site) -> bool:
    """Whether a megabyte of an item has gone through the client that restores, or all of it."""
    for stage in site.place.glob("pbclient.*/stage"):
        if stage.read_text().startswith("restore\n") and (meter := stage.with_name("meter")).exists():
            try:
                counts = Path(f"/proc/{meter.read_text().split()[0]}/io").read_text()
            except (OSError, IndexError):
                return meter.read_text() != ""
            return int(counts.split("wchar: ")[1].split()[0]) > 2 * MEBIBYTE
    return False


def test_a_server_that_is_killed_in_the_middle_of_a_restore(own: Site, loop: Fixture, noise: str) -> None:
    target = loop("target", 180)
    number = work(own, "restore", "noise", verify="read")
    with own.start("--disk", target) as running:
        until(lambda: flowing(own), 120)
        os.kill(own.server.pid, signal.SIGKILL)
        until(lambda: own.server.call("status").returncode != 0, 30)
        own.server.ok("start")
        output, _ = running.communicate(timeout=240)
    assert running.returncode == 0, output
    (job,) = own.work(number)["jobs"]
    assert (job["state"], job["verified"]) == ("done", "read")
    assert hashlib.sha256(boot_bytes(target, MEBIBYTE, 170 * MEBIBYTE)).hexdigest() == noise


@pytest.mark.parametrize("kind", ["restore", "capture"])
def test_a_client_that_is_killed_begins_again(own: Site, loop: Fixture, noise: str, kind: str) -> None:
    """SIGKILL for it and all it started, as a power cut; the next start does the work, nothing of the first counts."""
    disk = loop("disk", 180, table=NOISE)
    write_noise(disk)
    image = "noise" if kind == "restore" else "cut"
    number = work(own, kind, image, **({"verify": "read"} if kind == "restore" else {}))
    with own.start("--disk", disk, group=True) as running:
        until(lambda: flowing(own) if kind == "restore" else any(own.server.state.rglob("p1.raw.zst.state")), 120)
        os.killpg(running.pid, signal.SIGKILL)
    names = {found["name"] for found in own.api("GET", "/images")["images"] if found["versions"]}
    assert "cut" not in names
    output = own.run("--disk", disk)
    assert output.endswith("exit 0"), output
    first, second = sorted(own.work(number)["jobs"], key=lambda job: job["id"])
    assert (first["state"], second["state"]) == ("failed", "done")
    assert "started again before it reported" in first["reason"]
    assert second["version"] == 1
    if kind == "restore":
        assert hashlib.sha256(boot_bytes(disk, MEBIBYTE, 170 * MEBIBYTE)).hexdigest() == noise
    assert own.api("GET", "/uploads")["uploads"] == []


def test_a_client_that_is_killed_after_its_commit_is_done(own: Site, loop: Fixture, tmp_path: Path) -> None:
    """In its script after, which lasts as long as the client: the image is there, and is captured once."""
    disk = loop("disk", 40, table="label: gpt\nstart=2048, size=30MiB\n")
    files = make_file_system(disk, 1, ["mkfs.ext4", "-q"], tmp_path / "m", 97)
    lasting = "while kill -0 $PPID; do sleep 1; done"
    number = own.order("in its script", kind="capture", image="whole", after=lasting)
    with own.start("--disk", disk, group=True) as running:
        until(lambda: any(job["version"] for job in own.work(number)["jobs"]) or running.poll() is not None, 120)
        os.killpg(running.pid, signal.SIGKILL)
    assert own.work(number)["state"] == "running"
    output = own.run("--disk", disk)
    assert output.endswith("exit 0"), output
    assert "nothing to do here the image was committed" in output
    done = own.work(number)
    assert (done["state"], [(job["state"], job["version"]) for job in done["jobs"]]) == ("done", [("done", 1)])
    assert "script after may not have ended" in done["reason"]
    assert own.api("GET", "/images/whole")["versions"] == [1]
    assert own.api("GET", "/uploads")["uploads"] == []
    work(own, "restore", "whole", verify="read")
    target = loop("target", 40)
    assert own.run("--disk", target).endswith("exit 0")
    assert contents(target, 1, tmp_path / "m") == files


def test_scripts_cache_and_deploy(own: Site, loop: Fixture, tmp_path: Path) -> None:
    """What the server hands on of a bundle, and of the device's cache."""
    source = loop("source", 40, table="label: gpt\nstart=2048, size=30MiB\n")
    make_file_system(source, 1, ["mkfs.ext4", "-q"], tmp_path / "m", 98)
    work(own, "capture", "kept")
    assert own.run("--disk", source).endswith("exit 0")
    target = loop("target", 100, table='label: gpt\nstart=60MiB, size=30MiB, type=L, name="PBCACHE"\n')
    with disks.partition(target, 1) as node:
        disks.run("mkfs.ext4", "-q", node)
    number = work(own, "cache", "kept")
    output = own.run("--disk", target)
    assert output.endswith("exit 0"), output
    assert own.work(number)["state"] == "done"
    assert "1 items fetched" in output

    seen = tmp_path / "seen"
    own.apply({
        "bundle": {
            "from the cache": {
                "kind": "deploy", "image": "kept", "finish": "none", "before": f"echo $PB_ACTION >{seen}",
                "after": f"echo $PB_IMAGE >>{seen}",
            }
        }
    })  # fmt: skip
    own.api("POST", "/work", {"bundle": "from the cache", "mac": MAC})
    output = own.run("--disk", target)
    assert output.endswith("exit 0"), output
    assert "0 items fetched, 1 were there" in output
    assert seen.read_text() == "deploy\nkept\n"
    assert contents(target, 1, tmp_path / "m")
