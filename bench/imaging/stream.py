"""A partclone stream of real programs in an ext4, cut into parts and compressed as a device sends them. Needs root."""

from __future__ import annotations

import subprocess
from pathlib import Path

PART_BYTES = 64 << 20
SOURCE = Path("/usr/lib/x86_64-linux-gnu")
"""What it consists of: the libraries of this host. Only its kind matters for the work, not its version."""
DISK_BYTES = 16 << 30


def make_stream(folder: Path) -> Path:
    """The whole stream, as a file in ``folder``."""
    disk, stream = folder / "disk", folder / "stream"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-d", str(SOURCE), str(disk))
    _run("partclone.ext4", "-q", "-c", "-a", "0", "-L", "/dev/null", "-s", str(disk), "-O", str(stream))
    disk.unlink()
    return stream


def make_parts(folder: Path, count: int) -> Path:
    """``count`` files part1, part2 ... of PART_BYTES of the stream each; the directory that they are in."""
    parts = folder / "parts"
    parts.mkdir()
    stream = make_stream(folder)
    with stream.open("rb") as file:
        for number in range(1, count + 1):
            data = file.read(PART_BYTES)
            if len(data) < PART_BYTES:
                raise SystemExit(f"{SOURCE} has less than {count} parts of {PART_BYTES} bytes")
            done = subprocess.run(["zstd", "-q", "-1", "-c"], input=data, stdout=subprocess.PIPE, check=True)
            (parts / f"part{number}").write_bytes(done.stdout)
    stream.unlink()
    return parts


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr[-600:]}")
