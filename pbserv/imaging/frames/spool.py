"""A body on its way: a file without a name that ends with the process. Blocking, for worker threads.

One rule: a part is looked at only when all of it is there and its digest is known; until then it costs no memory.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable

from pbserv.imaging.durable import CREATE, filesystem_faults
from pbserv.imaging.frames.reader import read_exactly
from pbserv.imaging.frames.writer import write_all


class Spool:
    """In the directory of the upload, so that it is charged to the same store; ``reserve`` as FrameWriter's charge."""

    def __init__(self, folder_fd: int, reserve: Callable[[int], None]) -> None:
        name = f".part.{secrets.token_hex(8)}"
        self._reserve = reserve
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0
        with filesystem_faults("making a file for a part"):
            self._fd = os.open(name, CREATE & ~os.O_WRONLY | os.O_RDWR, 0o600, dir_fd=folder_fd)
            os.unlink(name, dir_fd=folder_fd)

    def write(self, block: bytes | bytearray) -> None:
        """Append; raises StoreFull, StoreFault."""
        self._reserve(len(block))
        self.size_bytes += len(block)
        with filesystem_faults("writing a part"):
            write_all(self._fd, block, self.size_bytes - len(block))
        self.sha256.update(block)

    def read(self, offset: int, size: int) -> bytes:
        """These bytes, or as many as there are."""
        return read_exactly(self._fd, max(0, min(size, self.size_bytes - offset)), offset)

    def close(self) -> None:
        """The bytes are gone. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._reserve(-self.size_bytes)
