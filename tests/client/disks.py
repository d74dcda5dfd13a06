"""Disks for the imaging client's tests: loop devices over sparse files, with partitions and file systems on them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

MEBIBYTE = 1 << 20


def run(*command: str, stdin: str | None = None) -> str:
    """The program's output; an AssertionError with both outputs when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def loop(path: Path, size_bytes: int, *, sector: int = 512, table: str = "", scan: bool = True) -> Iterator[str]:
    """A loop device over ``path``, made of that size unless it exists, with the sfdisk ``table`` on it."""
    if not path.exists():
        with path.open("wb") as file:
            file.truncate(size_bytes)
    options = ["--partscan"] if scan else []
    device = run("losetup", "--find", "--show", "--sector-size", str(sector), *options, str(path)).strip()
    try:
        if table:
            run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", device, stdin=table)
            subprocess.run(["partx", "-u", device], capture_output=True, check=False)
        yield device
    finally:
        subprocess.run(["partx", "-d", device], capture_output=True, check=False)
        run("losetup", "--detach", device)


@contextlib.contextmanager
def partition(device: str, number: int) -> Iterator[str]:
    """A block device that is exactly this partition, whether or not the kernel shows partitions here."""
    sector = int(run("blockdev", "--getss", device))
    start, size = extent(device, number)
    options = ["--offset", str(start * sector), "--sizelimit", str(size * sector), "--sector-size", str(sector)]
    node = run("losetup", "--find", "--show", *options, device).strip()
    try:
        yield node
    finally:
        os.sync()
        run("losetup", "--detach", node)
        run("blockdev", "--flushbufs", device)


def extent(device: str, number: int) -> tuple[int, int]:
    """(start, size) of a partition in sectors."""
    for line in run("sfdisk", "-d", device).splitlines():
        name, _, rest = line.partition(" : ")
        if name.startswith(device) and name.endswith(f"p{number}"):
            fields = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
            return int(fields["start"]), int(fields["size"])
    raise AssertionError(f"{device} has no partition {number}")


@contextlib.contextmanager
def mounted(node: str, folder: Path) -> Iterator[Path]:
    """The file system of ``node``, mounted."""
    folder.mkdir(exist_ok=True)
    run("mount", node, str(folder))
    try:
        yield folder
    finally:
        run("umount", str(folder))


def fill(folder: Path, seed: int, files: int = 12) -> None:
    """Puts files of known bytes into a mounted file system."""
    for index in range(files):
        block = hashlib.sha256(f"{seed}/{index}".encode()).digest()
        (folder / f"file{index}").write_bytes(
            b"".join(hashlib.sha256(block + bytes([n % 256, n // 256])).digest() for n in range(index * 700 + 1))
        )
    (folder / "text").write_text("the same line again\n" * 5000)


def fill_fat(node: str, folder: Path, seed: int) -> dict[str, str]:
    """The same for a FAT file system, which not every test machine's kernel can mount; content hashes."""
    folder.mkdir()
    fill(folder, seed)
    run("mcopy", "-i", node, *map(str, sorted(folder.iterdir())), "::/")
    return hashes(folder)


def read_fat(node: str, folder: Path) -> dict[str, str]:
    """Content hashes of the files of a FAT file system."""
    copy = folder.with_name(folder.name + "-copy")
    copy.mkdir()
    run("mcopy", "-i", node, "::/*", str(copy))
    return hashes(copy)


def hashes(folder: Path) -> dict[str, str]:
    """Relative name to content hash of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
