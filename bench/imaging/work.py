"""What the HTTP load generator is told to do, and the downloads that are measured. Pure.

One rule: every server gets the same work, and gives the same file of the same page cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
IMAGE = "bench"
Kind = Literal["image", "file"]


@dataclass(frozen=True, slots=True)
class Work:
    """``kind``: an item of an image, with a token; or a boot file, which needs none.

    ``break_bytes``: the connection is broken off after so many bytes and the file resumed on another. ``check``: every
    so manieth read is compared with what the file has, and the others are thrown away unseen.
    """

    kind: Kind
    clients: int
    size: int
    seconds: float
    warmup: float = 0.5
    new: bool = False
    break_bytes: int = 0
    check: int = 1

    @property
    def file(self) -> str:
        return f"f{self.size}"

    def arguments(self) -> list[str]:
        """The options of the load generator, without the server's address, the path, the token and the pattern."""
        given = {
            "size": self.size, "clients": self.clients, "seconds": self.seconds, "warmup": self.warmup,
            "limit": self.seconds + self.warmup + 30, "check": self.check, "break": self.break_bytes,
        }  # fmt: skip
        found = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        return found + ["--new"] * self.new


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, and the ratio to the peer that is demanded."""

    key: str
    title: str
    work: Work
    floor: float
    aim: float | None = None
    per: Literal["bytes", "files"] = "bytes"


LARGE = 2 * GIB
CHECK_FEW = 16
"""Comparing costs a client more than a server needs for sending: every byte is compared in the resumed row alone."""

ROWS = (
    Row("big-1", "1 client, 2 GiB", Work("image", 1, LARGE, 5.0, check=CHECK_FEW), 1.0),
    Row("big-32", "32 clients, 2 GiB", Work("image", 32, LARGE, 8.0, check=CHECK_FEW), 1.0),
    Row("resume", "8 clients, 2 GiB, resumed every 64 MiB, every byte compared",
        Work("image", 8, LARGE, 6.0, break_bytes=64 * MIB), 1.0),
    Row("small-keep-4", "1,000 clients, 4 KiB, keep-alive", Work("file", 1000, 4 * KIB, 4.0), 0.3, per="files"),
    Row("small-keep-32", "1,000 clients, 32 KiB, keep-alive", Work("file", 1000, 32 * KIB, 4.0), 0.3, per="files"),
    Row("small-new-4", "1,000 clients, 4 KiB, a connection for each",
        Work("file", 1000, 4 * KIB, 4.0, new=True), 0.3, per="files"),
    Row("small-new-32", "1,000 clients, 32 KiB, a connection for each",
        Work("file", 1000, 32 * KIB, 4.0, new=True), 0.3, per="files"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Upload:
    """Devices that store images at once: ``parts`` of 64 MiB each. ``probe``: new TFTP clients ask meanwhile."""

    key: str
    title: str
    clients: int
    parts: int
    probe: bool = False


UPLOADS = (
    Upload("up-1", "1 upload", 1, 6),
    Upload("up-4", "4 uploads at once", 4, 3),
    Upload("up-32", "32 uploads at once", 32, 1),
    Upload("delay", "4 uploads at once, new TFTP clients meanwhile", 4, 6, probe=True),
)


@dataclass(frozen=True, slots=True)
class Scrub:
    """A store that is verified, and the programs that do the same work, as a shell runs them (the files are ``$@``).

    ``deep``: frames are uncompressed too. ``copies``: images of the same programs, about 0.7 GB each.
    """

    key: str
    title: str
    peer: str
    command: str
    deep: bool = False
    copies: int = 2


SCRUBS = (
    Scrub("scrub", "stored frames", "openssl", 'cat "$@" | openssl dgst -sha512-256'),
    Scrub("scrub-deep", "stored frames, uncompressed too", "zstd | openssl",
          'cat "$@" | openssl dgst -sha512-256; zstd -dcq "$@" | openssl dgst -sha512-256', deep=True),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Restore:
    """An image restored by the imaging client on a virtual machine; ``file_bytes``: in one file system."""

    key: str
    title: str
    file_bytes: int


RESTORES = (Restore("vm-restore", "BIOS, MBR, ext4", 128 * MIB),)


@dataclass(frozen=True, slots=True)
class Delta:
    """What an upgrade of packages costs with the frames as they are configured; ``file_systems`` of ``rootfs.MAKE``."""

    key: str
    title: str
    file_systems: tuple[str, ...]


DELTAS = (Delta("delta", "Debian 12 before and after its upgrades", ("ext4", "xfs")),)
DELTA_LIMIT = 3.0
"""Uncompressed bytes of the extents that are not shared, by bytes of the 4 KiB used blocks that changed."""
MEMORY_LIMIT_MB = 256
"""More than the idle server has, whatever the number of uploads."""
PROBE_LIMIT_MS = 20.0

KEYS = tuple(each.key for each in (*ROWS, *UPLOADS, *SCRUBS, *RESTORES, *DELTAS))


def sizes(rows: tuple[Row, ...], kind: Kind) -> list[int]:
    """The sizes of all files of one kind that these rows ask for."""
    return sorted({row.work.size for row in rows if row.work.kind == kind})


def quick_upload(upload: Upload) -> Upload:
    return replace(upload, clients=min(upload.clients, 8), parts=1)


def quick_scrub(scrub: Scrub) -> Scrub:
    return replace(scrub, copies=1)


def quick_restore(restore: Restore) -> Restore:
    return replace(restore, file_bytes=32 * MIB)


def quick(row: Row) -> Row:
    """The same in a hurry: says that it works, and roughly how fast it is."""
    work = row.work
    size = min(work.size, 256 * MIB)
    return replace(row, work=replace(work, size=size, seconds=min(work.seconds, 1.5), warmup=0.3))
