"""Files to send, what must leave of them, and a thread whose work is done when the test says so."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pbserv.tftp.content import Content, FileFault, FileId, block_count
from pbserv.tftp.readers import Readers


def wire(data: bytes, block_size: int, first: int, count: int, rollover: int = 0) -> bytes:
    """What must leave, written the slow way."""
    out = []
    for block in range(first, min(first + count, block_count(len(data), block_size) + 1)):
        number = block
        while number > 65535:
            number = number - 65536 + rollover
        out += [b"\0\3", number.to_bytes(2, "big"), data[(block - 1) * block_size : block * block_size]]
    return b"".join(out)


def opened(path: Path) -> tuple[int, FileId]:
    fd = os.open(path, os.O_RDONLY)
    return fd, FileId.of(os.fstat(fd))


def make(folder: Path, name: str, size: int) -> Path:
    """A file of ``size`` bytes that was last written long ago, so that any write shows."""
    path = folder / name
    path.write_bytes(b"x" * size)
    os.utime(path, ns=(10**18, 10**18))
    return path


def forget(path: Path) -> None:
    """Have the kernel keep nothing of the file in memory, where that can be asked for."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


class Thread:
    """Runs nothing by itself."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], object], Callable[[object], None]]] = []
        self.readers = Readers(lambda work, done: self.waiting.append((work, done)))

    def work(self) -> None:
        while self.waiting:
            work, done = self.waiting.pop(0)
            try:
                result = work()
            except FileFault as fault:
                result = fault
            done(result)

    def get(self, content: Content, first: int, count: int) -> bytes:
        """The blocks, however often they must be asked for. Raises FileFault."""
        for _ in range(10):
            calls: list[None] = []
            flight = content.flight(first, count, lambda calls=calls: calls.append(None))
            if flight is not None:
                return bytes(flight)
            assert not calls
            self.work()
            assert len(calls) == 1
        raise AssertionError("never came")
