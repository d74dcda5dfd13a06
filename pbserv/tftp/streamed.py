"""A file sent as it is, read with one preadv2 for several windows.

One rule: no byte passes through Python; the kernel writes each block behind its header.
"""

from __future__ import annotations

from pbserv.tftp.content import FileFault, FileId
from pbserv.tftp.readahead import ReadAhead
from pbserv.tftp.readers import Readers
from pbserv.tftp.scatter import IOVECS


class Streamed(ReadAhead):
    """A file that is not kept in memory; owns its descriptor."""

    __slots__ = ()

    def __init__(
        self, fd: int, identity: FileId, block_size: int, window: int, readers: Readers, rollover: int = 0
    ) -> None:
        super().__init__(fd, identity, identity.size, block_size, window, readers, rollover)

    def _fill(self, slot: int, block: int, count: int, flags: int) -> int:
        done = 0
        while done < count:
            part = min(count - done, IOVECS)
            offset = (block + done - 1) * self._block_size
            got = self._slots.read(self._fd, slot + done, part, offset, flags)
            if offset + got >= self._file_bytes:  # also in the last block, however short it is
                return min(count, self._final + 1 - block)
            whole = got // self._block_size
            done += whole
            if whole < part and flags:
                break
            if not whole:
                raise FileFault("the file became shorter while it was sent")
        return done

    def _seek(self, block: int) -> None:
        """Every block has its own place in the file."""
