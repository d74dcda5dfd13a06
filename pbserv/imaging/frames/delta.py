"""What a version needs that another one does not have: by identity of frames, as runs of bytes. Pure.

One rule: a recipe makes the target's file byte for byte; whoever follows it compares the target's SHA-256 at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pbserv.imaging.frames.index import Index, Record


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive bytes of the target: copied from ``offset`` of the base, or sent from ``offset`` of the target."""

    copied: bool
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the target's file is made of the base's and of what is sent, in the target's order."""

    target_bytes: int
    target_sha256: bytes
    base_sha256: bytes
    runs: tuple[Run, ...]

    @property
    def sent_bytes(self) -> int:
        return sum(run.size_bytes for run in self.runs if not run.copied)

    def sends(self) -> list[tuple[int, int]]:
        """(offset in the target, bytes) of all that is sent, in order."""
        return [(run.offset, run.size_bytes) for run in self.runs if not run.copied]

    def text(self) -> str:
        """The recipe for a shell: a first line, then ``copy OFFSET BYTES`` and ``send BYTES``."""
        lines = [f"pbserv-delta 1 {self.target_bytes} {self.target_sha256.hex()} {self.base_sha256.hex()}"]
        for run in self.runs:
            lines.append(f"copy {run.offset} {run.size_bytes}" if run.copied else f"send {run.size_bytes}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Unshared:
    """The device frames of a version that another one does not have; bytes uncompressed and as they are stored."""

    frames: int
    plain_bytes: int
    stored_bytes: int


def missing(target: Index, have: Index) -> Recipe:
    """The recipe for ``target`` where ``have`` is there already, whatever the addresses of its frames."""
    head = target.header
    runs = tuple(_merged(_sources(target, have)))
    return Recipe(head.stored_bytes, head.sha256, have.header.sha256, runs)


def unshared(target: Index, have: Index) -> Unshared:
    """What of the device in ``target`` stands in no frame of ``have``."""
    frames = plain = stored = 0
    for number, record in enumerate(target.frames()):
        if number >= target.header.head_frames and have.find(record.identity) is None:
            frames, plain, stored = frames + 1, plain + record.plain_bytes, stored + record.stored_bytes
    return Unshared(frames, plain, stored)


def _sources(target: Index, have: Index) -> Iterator[Run]:
    for record in target.frames():
        there = _same(have, record)
        offset = record.offset if there is None else there.offset
        yield Run(there is not None, offset, record.stored_bytes)


def _same(have: Index, record: Record) -> Record | None:
    found = have.find(record.identity)
    if found is None or (found.digest, found.stored_bytes) != (record.digest, record.stored_bytes):
        return None
    return found


def _merged(runs: Iterator[Run]) -> Iterator[Run]:
    current: Run | None = None
    for run in runs:
        if current and run.copied == current.copied and run.offset == current.offset + current.size_bytes:
            current = Run(run.copied, current.offset, current.size_bytes + run.size_bytes)
            continue
        if current:
            yield current
        current = run
    if current:
        yield current
