"""The uncompressed bytes of an image, counted while its stored bytes are read once for other ends. Blocking.

One rule: whoever feeds is never held up by a stream that ended early: what is left is taken and dropped.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from pbserv.imaging.convert import plain_limit
from pbserv.imaging.formats.model import FormatError, Found
from pbserv.imaging.unpack import MAX_PLAIN_BYTES, unpacked
from pbserv.imaging.verifying import Plain

_WAITING = 4
"""Blocks between who reads and the thread that uncompresses."""


class PlainCounter:
    """Feed it all stored bytes in order, then :meth:`end` it, also when they are given up."""

    def __init__(self, found: Found, compressor: str) -> None:
        self._found = found
        self._compressor = compressor
        self._plain = Plain()
        self._fault: Exception | None = None
        self._blocks: queue.Queue[bytes] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._count, name="pbserv-plain-size", daemon=True)
        self._thread.start()

    def feed(self, block: bytes) -> None:
        """Waits while the thread is behind. Blocks are not empty."""
        self._blocks.put(block)

    def end(self) -> None:
        """No more comes; the thread has ended afterwards."""
        self._blocks.put(b"")
        self._thread.join()

    def size(self) -> int:
        """After :meth:`end`; raises FormatError where the stream is damaged, ends early or cannot be read here."""
        if self._fault is not None:
            raise self._fault
        self._plain.check(self._found, self._compressor)
        return self._plain.size_bytes

    def _count(self) -> None:
        fed = self._fed()
        try:
            for piece in unpacked(fed, self._compressor, plain_limit(self._found, MAX_PLAIN_BYTES)):
                self._plain.feed(piece)
        except FormatError as fault:
            self._fault = fault
        except Exception as fault:  # the program that uncompresses cannot be started, or there is no memory
            self._fault = FormatError(f"it cannot be uncompressed: {getattr(fault, 'strerror', None) or repr(fault)}")
        finally:
            for _ in fed:
                pass

    def _fed(self) -> Iterator[bytes]:
        return iter(self._blocks.get, b"")
