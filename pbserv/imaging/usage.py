"""How much a store holds and may hold: a running number, so that no upload has to count files. Blocking for a moment.

One rule: room is asked for before bytes are written, and what was asked for and not used is given back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from pbserv.imaging.faults import StoreClosed, StoreFull


class Usage:
    """``quota_bytes`` 0: no quota. May be used from any thread; ``root`` gives a descriptor, below 0: closed."""

    def __init__(self, store: str, floor_bytes: int, root: Callable[[], int]) -> None:
        self.store = store
        self.floor_bytes = floor_bytes
        self.quota_bytes = 0
        self._root = root
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Stored bytes of all versions and of the uploads under way."""
        return self._used

    @used_bytes.setter
    def used_bytes(self, used: int) -> None:
        with self._lock:
            self._used = used

    @property
    def free_bytes(self) -> int:
        """Of the file system, for this user. Raises StoreClosed."""
        root_fd = self._root()
        if root_fd < 0:
            raise StoreClosed("the image store is not running")
        facts = os.fstatvfs(root_fd)
        return facts.f_bavail * facts.f_frsize

    def check(self, needed_bytes: int = 0) -> None:
        """Raise StoreFull when ``needed_bytes`` more would cross the floor of free space, or the store's quota."""
        self._check_free(needed_bytes)
        self._check_quota(needed_bytes)

    def charge(self, size_bytes: int) -> None:
        """Count bytes that are about to be written; raises StoreFull, then they are not counted."""
        self._check_free(size_bytes)  # not under the lock, which the event loop takes too: the disk is asked
        with self._lock:
            self._check_quota(size_bytes)
            self._used += size_bytes

    def count(self, size_bytes: int) -> None:
        """Bytes that came (or went, below 0) whatever the limits say."""
        with self._lock:
            self._used = max(0, self._used + size_bytes)

    def _check_free(self, needed_bytes: int) -> None:
        free = self.free_bytes
        if free - needed_bytes < self.floor_bytes:
            raise StoreFull(
                f"the image store {self.store} has {_mib(free)} MiB free; {_mib(needed_bytes)} MiB more would leave "
                f"less than the {_mib(self.floor_bytes)} MiB that stay free; make room or delete images"
            )

    def _check_quota(self, needed_bytes: int) -> None:
        if self.quota_bytes and self._used + needed_bytes > self.quota_bytes:
            raise StoreFull(
                f"the image store {self.store} has a quota of {_mib(self.quota_bytes)} MiB and uses "
                f"{_mib(self._used)} MiB; {_mib(needed_bytes)} MiB more do not fit; purge versions or raise the quota"
            )


def _mib(size_bytes: int) -> int:
    return size_bytes // (1024 * 1024)
