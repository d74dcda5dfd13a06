"""The files beside an item while it arrives: index, head, list of parts, checkpoint. Blocking, for worker threads.

One rule: a checkpoint is replaced by one rename, after everything that it counts is on the disk.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from pbserv.imaging.faults import DamagedImage, InvalidName
from pbserv.imaging.frames.checkpoint import Checkpoint, decode, encode
from pbserv.imaging.frames.writer import write_all

INDEX, HEAD, STATE, PARTS = ".pbx", ".head", ".state", ".parts"

_NEW: Final = ".new"
_PART: Final = struct.Struct("<32sQ")
_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def working_files(name: str) -> tuple[str, ...]:
    """Names beside an item that are of no use once it is complete and its version is published."""
    return (name + STATE, name + HEAD, name + PARTS)


def check_free_name(name: str) -> str:
    """``name`` itself unless it ends as the files beside an item do; raises InvalidName."""
    if name.endswith((INDEX, HEAD, STATE, STATE + _NEW, PARTS)):
        raise InvalidName(
            f"{name[:80]!r} cannot be the name of an item: names in {INDEX}, {HEAD}, {STATE}, {STATE}{_NEW} or "
            f"{PARTS} are the store's own"
        )
    return name


def open_file(folder_fd: int, name: str, flags: int = 0) -> int:
    """For reading and writing; made where it is not there."""
    return os.open(name, _OPEN | flags, 0o640, dir_fd=folder_fd)


def unlink(folder_fd: int, name: str) -> None:
    """Remove a file; one that is gone is fine."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder_fd)


def write_part(folder_fd: int, base: str, number: int, digest: bytes, size_bytes: int) -> None:
    """Put a part into the list, durably."""
    with _opened(folder_fd, base + PARTS) as fd:
        write_all(fd, _PART.pack(digest, size_bytes), (number - 1) * _PART.size)
        os.fdatasync(fd)


def read_part(folder_fd: int, base: str, number: int) -> tuple[bytes, int]:
    """SHA-256 and size of a part's body; raises DamagedImage."""
    with _opened(folder_fd, base + PARTS) as fd:
        data = os.pread(fd, _PART.size, (number - 1) * _PART.size)
    if len(data) != _PART.size:
        raise DamagedImage(f"item {base}: the list of its parts is too short; send the item anew")
    digest, size = _PART.unpack(data)
    return digest, size


def write_state(folder_fd: int, base: str, point: Checkpoint) -> None:
    """Replace the checkpoint, durably."""
    new = base + STATE + _NEW
    with _opened(folder_fd, new, os.O_TRUNC) as fd:
        write_all(fd, encode(point), 0)
        os.fsync(fd)
    os.rename(new, base + STATE, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    os.fsync(folder_fd)


def read_state(folder_fd: int, name: str) -> Checkpoint:
    """The checkpoint of an upload that was interrupted; raises FileNotFoundError, DamagedImage."""
    fd = os.open(name + STATE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
    with open(fd, "rb") as file:
        return decode(file.read(), name)


@contextmanager
def _opened(folder_fd: int, name: str, flags: int = 0) -> Iterator[int]:
    fd = open_file(folder_fd, name, flags)
    try:
        yield fd
    finally:
        os.close(fd)
