"""The store of file contents that are sent often.

One rule: what is kept in memory is bounded; a file that does not fit is read while it is sent.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from pbserv.tftp.content import (
    HEADER_BYTES,
    Content,
    FileFault,
    FileId,
    block_count,
    laid_out_bytes,
)
from pbserv.tftp.laidout import Key, LaidOut
from pbserv.tftp.lines import Counting, LineIndex, Lines
from pbserv.tftp.readers import Readers, Start
from pbserv.tftp.scatter import at_hand
from pbserv.tftp.streamed import Streamed

__all__ = [
    "HEADER_BYTES",
    "Content",
    "ContentStore",
    "FileFault",
    "FileId",
    "LaidOut",
    "Streamed",
    "block_count",
    "laid_out_bytes",
]

LARGEST_DIRECT_READ = 2 << 20
"""Bytes that are read at once in the event loop; larger files are read in a thread."""
LARGEST_CONVERTED = 4 << 20
"""Text files up to this are converted to netascii as a whole, and kept."""
MOST_BLOCKS_KEPT = 200_000
MOST_INDEXES_KEPT = 64
SETTLED_NS = 20_000_000
"""Two ticks of the slowest kernel clock. Before Linux 6.13 a file that changes twice within one keeps its stamp."""


Ready = Callable[["Content | FileFault"], None]


@dataclass(slots=True)
class _Load:
    reserved: int
    waiting: list[Ready]


@dataclass(slots=True)
class _Count:
    counting: Counting
    waiting: list[tuple[int, Callable[[LineIndex], Content], Ready]] = field(default_factory=list)


class ContentStore:
    """Recently used files, per block size, bounded in bytes. Files in use are never evicted.

    ``in_thread``: see readers.Start.
    """

    def __init__(self, limit_bytes: int, in_thread: Start, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.limit_bytes = limit_bytes
        self.hits = self.misses = self.streams = 0
        self._readers = Readers(in_thread)
        self._clock_ns = clock_ns
        self._kept: dict[Key, LaidOut] = {}
        self._idle: OrderedDict[Key, LaidOut] = OrderedDict()  # those of _kept that nobody uses, oldest first
        self._loading: dict[Key, _Load] = {}
        self._indexes: OrderedDict[FileId, LineIndex] = OrderedDict()
        self._counting: dict[FileId, _Count] = {}
        self._held = self._evictable = 0

    @property
    def held_bytes(self) -> int:
        """Bytes kept or being read."""
        return self._held

    def obtain(self, fd: int, identity: FileId, block_size: int, window: int, ready: Ready, rollover: int = 0) -> None:
        """Hand the content of ``fd`` to ``ready``, at once or later; takes ``fd`` over."""
        blocks = identity.size // block_size + 1
        key = (identity, block_size, rollover if blocks > 65535 else 0, False)
        if self._found(fd, key, ready):
            return
        if self._reserve(laid_out_bytes(identity.size, block_size), blocks):
            self._load(fd, key, laid_out_bytes(identity.size, block_size), LaidOut.of_file, rollover, ready)
        else:
            self.streams += 1
            ready(Streamed(fd, identity, block_size, window, self._readers, rollover))

    def obtain_netascii(
        self, fd: int, identity: FileId, block_size: int, window: int, ready: Ready, rollover: int = 0
    ) -> None:
        """As ``obtain``; the content's size is that after conversion."""
        blocks = block_count(2 * identity.size, block_size)  # no more than these
        key = (identity, block_size, rollover if blocks > 65535 else 0, True)
        if self._found(fd, key, ready):
            return
        most = laid_out_bytes(2 * identity.size, block_size)
        if identity.size <= LARGEST_CONVERTED and self._reserve(most, blocks):
            self._load(fd, key, most, LaidOut.of_text, rollover, ready)
            return
        self.streams += 1

        def lines(index: LineIndex) -> Content:
            return Lines(fd, identity, index, block_size, window, self._readers, rollover)

        index = self._indexes.get(identity)
        if index is not None:
            self._indexes.move_to_end(identity)
            ready(lines(index))
        elif identity in self._counting:
            self._counting[identity].waiting.append((fd, lines, ready))
        else:
            self._counting[identity] = _Count(Counting(fd, identity), [(fd, lines, ready)])
            self._count(identity, None)

    def resize(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._evict(0)

    # -- what is kept ---------------------------------------------------------------------------------------------

    def _found(self, fd: int, key: Key, ready: Ready) -> bool:
        kept = self._kept.get(key)
        if kept is not None:
            os.close(fd)
            self.hits += 1
            if not kept.users:
                del self._idle[key]
                self._evictable -= kept.length
            kept.users += 1
            ready(kept)
            return True
        load = self._loading.get(key)
        if load is not None:
            os.close(fd)
            self.hits += 1
            load.waiting.append(ready)
        return load is not None

    def _reserve(self, needed: int, blocks: int) -> bool:
        if blocks > MOST_BLOCKS_KEPT or self._held - self._evictable + needed > self.limit_bytes:
            return False
        self._evict(needed)
        self._held += needed
        return True

    def _evict(self, needed: int) -> None:
        while self._idle and self._held + needed > self.limit_bytes:
            key, content = self._idle.popitem(last=False)
            del self._kept[key]
            self._held -= content.length
            self._evictable -= content.length

    def _on_idle(self, content: LaidOut) -> None:
        key = content.key
        if key is None:
            self._held -= content.length
            return
        self._idle[key] = content
        self._evictable += content.length
        if self._held > self.limit_bytes:  # the limit was lowered while it was in use
            self._evict(0)

    # -- reading --------------------------------------------------------------------------------------------------

    def _load(
        self,
        fd: int,
        key: Key,
        reserved: int,
        lay_out: Callable[[int, FileId, int, int], LaidOut],
        rollover: int,
        ready: Ready,
    ) -> None:
        identity, block_size = key[0], key[1]
        self.misses += 1
        self._loading[key] = _Load(reserved, [ready])
        settled = self._settled(identity)

        def read() -> LaidOut:
            try:
                return lay_out(fd, identity, block_size, rollover)
            finally:
                os.close(fd)

        if identity.size > LARGEST_DIRECT_READ or not at_hand(fd, identity.size):
            self._readers.run(read, partial(self._loaded, key, settled))
            return
        try:
            content: LaidOut | FileFault = read()
        except FileFault as fault:
            content = fault
        self._loaded(key, settled, content)

    def _settled(self, identity: FileId) -> bool:
        """A file that changed just now may change again without a new time stamp: what was read of it is sent, but
        not kept for others."""
        return abs(self._clock_ns() - identity.ctime_ns) > SETTLED_NS

    def _loaded(self, key: Key, settled: bool, result: LaidOut | FileFault) -> None:
        load = self._loading.pop(key)
        self._held -= load.reserved
        if isinstance(result, LaidOut):
            self._held += result.length
            result.users = len(load.waiting)
            result.on_idle = self._on_idle
            if settled:
                result.key = key
                self._kept[key] = result
        for ready in load.waiting:
            ready(result)

    def _count(self, identity: FileId, fault: FileFault | None) -> None:
        """Go on counting the line ends of a file, or be done with it."""
        count = self._counting[identity]
        if fault is None and count.counting.index is None:
            self._readers.run(count.counting.advance, partial(self._count, identity))
            return
        del self._counting[identity]
        index = count.counting.index
        if index is not None and self._settled(identity):
            self._indexes[identity] = index
            if len(self._indexes) > MOST_INDEXES_KEPT:
                self._indexes.popitem(last=False)
        for fd, lines, ready in count.waiting:
            if index is not None:
                ready(lines(index))
            else:
                os.close(fd)
                ready(fault or FileFault("cannot be counted"))
