"""What the load generator is told to do, and the works that are measured. Pure.

One rule: every server gets the same packets, recorded from real firmware; only the machine's numbers in them change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["bios", "uefi", "uefi-4011", "ipxe-4011", "replay"]

DEVICES = 4096
PER_ROW = 250
SERVER = "10.96.0.1"
NETWORK = "10.96.0.0"
PREFIX = 16
LOADERS = ("undionly.kpxe", "snponly.efi", "boot.ipxe")  # the defaults of NBPx86, NBPx64 and NBPiPXE
OUTSTANDING = (1, 32, 256, 1000)
LOADER_BYTES = 100_000
P99_LIMIT_MS = 50.0


@dataclass(frozen=True, slots=True)
class Work:
    """``outstanding`` questions are under way at any time for ``seconds`` after ``warmup``; with ``bursts`` so many
    leave at once, and the next ones when nobody waits any more. ``count``: so many replies. For "replay" so many
    ``machines`` are switched on within ``spread`` seconds, and each fetches its loader.
    """

    kind: Kind
    outstanding: int = 1
    seconds: float = 4.0
    warmup: float = 1.0
    bursts: bool = False
    machines: int = 0
    spread: float = 1.0
    count: int = 0
    patience_ms: int = 1000
    limit: float = 60.0

    def arguments(self) -> list[str]:
        """The options of the load generator, without where and whom it asks."""
        if self.kind == "replay":
            given: dict[str, object] = {
                "kind": self.kind, "machines": self.machines, "spread": self.spread, "limit": self.limit,
                "size": LOADER_BYTES,
            }  # fmt: skip
        else:
            given = {
                "kind": self.kind, "outstanding": self.outstanding, "devices": DEVICES, "seconds": self.seconds,
                "warmup": self.warmup, "count": self.count, "patience": self.patience_ms, "limit": self.limit,
            }  # fmt: skip
        found = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        return found + ["--bursts"] * self.bursts


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, and what is demanded of it. ``strict``: none lost, and p99 below P99_LIMIT_MS."""

    key: str
    title: str
    work: Work
    floor: float | None = None
    aim: float | None = None
    strict: bool = False


def _offers(kind: Literal["bios", "uefi"], outstanding: int) -> Row:
    title = f"{kind.upper()} offers, {outstanding:,} outstanding"
    floor = 1.2 if outstanding == 32 else None
    aim = 2.0 if outstanding == 32 else None
    return Row(f"{kind}-{outstanding}", title, Work(kind, outstanding), floor, aim, outstanding == 1000)


def _burst(kind: Literal["bios", "uefi"]) -> Row:
    title = f"{kind.upper()} offers, bursts of 1,000"
    return Row(f"{kind}-burst", title, Work(kind, 1000, seconds=4.0, warmup=0, bursts=True), 4.0, strict=True)


ROWS = (
    *(_offers("bios", outstanding) for outstanding in OUTSTANDING),
    _burst("bios"),
    *(_offers("uefi", outstanding) for outstanding in OUTSTANDING),
    _burst("uefi"),
    Row("uefi-4011", "UEFI ACKs on 4011, 32 outstanding", Work("uefi-4011", 32), 1.2),
    Row("ipxe-4011", "iPXE ACKs on 4011, 32 outstanding", Work("ipxe-4011", 32), 1.2),
)
REPLAY, CEILING = "replay", "ceiling"
KEYS = (*(row.key for row in ROWS), REPLAY, CEILING)
CEILING_ROWS = ("bios-1", "bios-32", "bios-1000", "uefi-1000", "uefi-4011")


def storm() -> Work:
    """EDK2's last repetition of a DISCOVER comes after 28 s; whoever has no loader after a minute has failed."""
    return Work("replay", machines=1000, limit=60.0)


def first_reply(kind: Kind) -> Work:
    """Is the server there? One question after the other, until one is answered as it should be."""
    asked: Kind = "uefi" if kind == "replay" else kind
    return Work(asked, seconds=0, warmup=0, count=1, patience_ms=50, limit=1.0)


def quick(work: Work) -> Work:
    """The same in a hurry: says that it works, not how fast it is."""
    if work.kind == "replay":
        return replace(work, machines=100, spread=0.1)
    return replace(work, seconds=1.5) if work.bursts else replace(work, seconds=0.3, warmup=0.1)


def mac(device: int) -> str:
    return f"02:69:70:00:{device >> 8:02x}:{device & 255:02x}"


def address(device: int) -> str:
    """No address ends in 0 or 255, which could be taken for a broadcast. See frame_address() in frame.c."""
    return f"10.96.{16 + device // PER_ROW}.{device % PER_ROW + 1}"


def population() -> list[tuple[str, str]]:
    """MAC and address of every device that is ever played."""
    return [(mac(device), address(device)) for device in range(DEVICES)]
