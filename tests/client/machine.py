"""The client script on this machine's loop devices: how it is called, and what stands on a disk before and after."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.client import disks
from tests.client.standin import TOKEN, Job, StandIn

SCRIPT = Path(__file__).parents[2] / "client" / "pbclient.sh"
Fixture = Callable[..., str]


def client(server: StandIn, *devices: str, shell: list[str] | None = None, env: dict[str, str] | None = None) -> str:
    """Runs the script to its end; its output with the exit code in the last line."""
    options = [word for device in devices for word in ("--disk", device)]
    command = [*(shell or ["dash"]), str(SCRIPT), "--url", server.url, "--token", TOKEN, "--mac", "52:54:00:00:00:01"]
    done = subprocess.run(
        [*command, "--no-reboot", *options], capture_output=True, text=True, timeout=100, env=os.environ | (env or {})
    )
    return f"{done.stdout}{done.stderr}exit {done.returncode}"


def start(server: StandIn, *devices: str) -> subprocess.Popen[bytes]:
    """The script at work, in a process group of its own."""
    options = [word for device in devices for word in ("--disk", device)]
    command = ["dash", str(SCRIPT), "--url", server.url, "--token", TOKEN, "--mac", "52:54:00:00:00:01", "--no-reboot"]
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def make_file_system(device: str, number: int, command: list[str], folder: Path, seed: int) -> dict[str, str]:
    """Makes it, fills it, returns the content hashes."""
    with disks.partition(device, number) as node:
        disks.run(*command, node)
        if "vfat" in command[0]:
            return disks.fill_fat(node, folder, seed)
        with disks.mounted(node, folder) as mount:
            disks.fill(mount, seed)
            return disks.hashes(mount)


def contents(device: str, number: int, folder: Path) -> dict[str, str]:
    """Content hashes of the files on a partition."""
    with disks.partition(device, number) as node:
        if disks.run("blkid", "-p", "-o", "value", "-s", "TYPE", node).strip() == "vfat":
            return disks.read_fat(node, folder)
        with disks.mounted(node, folder) as mount:
            return disks.hashes(mount)


def boot_bytes(device: str, start: int, count: int) -> bytes:
    """Bytes of the disk, read past any cache of partitions."""
    disks.run("blockdev", "--flushbufs", device)
    with open(device, "rb") as file:
        file.seek(start)
        return file.read(count)


def write_bytes(device: str, start: int, data: bytes) -> None:
    """Overwrites bytes of the disk."""
    with open(device, "r+b") as file:
        file.seek(start)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


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


def refused(job: Job, *devices: str, shell: list[str] | None = None) -> str:
    """Why a restore did not go well."""
    with StandIn(job) as server:
        output = client(server, *devices, shell=shell)
    ok, reason = job.outcome()
    assert ok == "0", output
    return reason


def everything(device: str) -> bytes:
    """The bytes of the whole disk."""
    return boot_bytes(device, 0, int(disks.run("blockdev", "--getsize64", device)))
