"""What the load generator is told to do, and the works that are measured. Pure.

One rule: every server gets the same work; what it agreed to is in the result, not in here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BLOCK = 1428


@dataclass(frozen=True, slots=True)
class Work:
    """``seconds``: a time box; ``files`` for each client otherwise. ``leave``: unfinished files are left at its end.

    ``gro``: the generator takes a flight whole, as the server's UDP_SEGMENT made it. On the loopback a flight is
    otherwise cut into datagrams, and each of them received, on the server's core and in its time.
    """

    clients: int
    size: int
    window: int = 1
    block: int = BLOCK
    seconds: float = 0
    warmup: float = 0
    files: int = 0
    leave: bool = False
    loss: float = 0
    seed: int = 1
    limit: float = 60
    probe: bool = False
    gro: bool = False

    @property
    def file(self) -> str:
        return f"f{self.size}"

    def arguments(self) -> list[str]:
        """The options of the load generator, without the server's address and the pattern."""
        given = {
            "name": self.file, "size": self.size, "clients": self.clients, "block": self.block, "window": self.window,
            "seconds": self.seconds, "warmup": self.warmup, "files": self.files, "loss": self.loss, "seed": self.seed,
            "limit": self.limit,
        }  # fmt: skip
        found = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        return found + ["--abort"] * self.leave + ["--new-client-probe", "probe"] * self.probe + ["--gro"] * self.gro


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, and the ratio to the best peer that is demanded and aimed at."""

    key: str
    title: str
    work: Work
    floor: float
    aim: float | None = None
    per: Literal["bytes", "files"] = "bytes"


def _box(clients: int, size: int, window: int = 1, seconds: float = 2.0, leave: bool = False) -> Work:
    return Work(clients, size, window, seconds=seconds, warmup=0.3, leave=leave)


# A peer needs a minute and a half for 16 x 1 GiB: after eight seconds whoever has sent more has won.
ROWS = (
    Row("lock-64", "64 clients x 1 MiB, lock-step", _box(64, MIB), 1.0, 1.2),
    Row("lock-256", "256 clients x 1 MiB, lock-step", _box(256, MIB), 1.0, 1.2),
    Row("requests", "64 clients x 64 KiB, lock-step", _box(64, 64 * KIB), 1.0, 1.3, "files"),
    Row("lock-1", "1 client x 32 MiB, lock-step", _box(1, 32 * MIB), 0.97),
    Row("window-4", "64 clients x 1 MiB, windowsize 4", _box(64, MIB, 4), 2.0, 2.5),
    Row("window-16", "64 clients x 1 MiB, windowsize 16", _box(64, MIB, 16), 3.5, 5.0),
    Row("window-45", "64 clients x 1 MiB, windowsize 45", _box(64, MIB, 45), 4.0, 6.0),
    Row("window-1", "1 client x 32 MiB, windowsize 16", _box(1, 32 * MIB, 16), 1.3),
    Row("large", "16 clients x 1 GiB, windowsize 16", _box(16, GIB, 16, 8.0, leave=True), 2.5),
)

CEILING_ROWS = ("lock-64", "lock-1", "window-4", "window-16", "window-45")
LOSSES = (0.001, 0.01, 0.05)
LOSS_WINDOWS = (1, 16)
SCALE_CLIENTS = (1, 4, 16, 64, 256, 1000)
SCALE_WINDOWS = (1, 16)
PROBE_LIMIT_MS = 20.0
MEMORY_CLIENTS = 1000
MEMORY_EACH_KB = 50


def lossy(loss: float, window: int, seed: int) -> Work:
    """A fixed amount; the last of the clients counts. Small, or the peers would need minutes at 5 %."""
    return Work(16, 256 * KIB, window, files=1, loss=loss, seed=seed, limit=90)


def newcomers() -> Work:
    return replace(_box(64, MIB, 16, 6.0), probe=True)


def crowd(size: int) -> Work:
    return Work(MEMORY_CLIENTS, size, 16, seconds=5.0, leave=True)


def scale(clients: int, window: int) -> Work:
    """The more clients, the longer it takes until each has been served at all."""
    return _box(clients, MIB if clients > 1 else 32 * MIB, window, 1.5 if clients < 256 else 4.0, leave=True)


def quick(work: Work) -> Work:
    """The same in a hurry: says that it works, not how fast it is."""
    size = min(work.size, 256 * MIB)
    if work.files:
        return replace(work, size=min(size, 64 * KIB), limit=15.0)
    crowded = work.clients > 64
    seconds = 2.0 if work.clients >= MEMORY_CLIENTS else 0.5 if crowded or work.probe else 0.2
    return replace(work, size=size, seconds=seconds, warmup=0.05, leave=work.leave or crowded)
