"""What TFTPDirectory holds, what running uploads may still add to it, and what the rules say about that.

One rule: every byte is paid for before it is written. The tree is counted in a thread, now and then; in between the
number is kept by what uploads add.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pbserv.tftp.catalogue import Overload, Refusal
from pbserv.tftp.names import is_reserved
from pbserv.tftp.packet import ErrorCode

RECOUNT_S = 60.0
"""Files come and go without us, too."""
_LEFTOVER = re.compile(rb"\..+\.([0-9a-f]{8})[0-9a-f]{8}\.part", re.DOTALL)
_LONGEST_STEM = 200
_OURS = secrets.token_hex(4).encode()
"""In the name of every temporary file of this process: they are no leftovers."""


def temporary_name(name: bytes) -> bytes:
    return b".%s.%s%s.part" % (name[:_LONGEST_STEM], _OURS, secrets.token_hex(4).encode())


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that uploads are judged by; each keeps those it began with. None: no limit."""

    allow_writes: bool = False
    allow_overwrites: bool = False
    largest_bytes: int | None = None
    quota_bytes: int | None = None
    quota_files: int | None = None
    free_bytes: int = 0

    @property
    def counted(self) -> bool:
        return self.quota_bytes is not None or self.quota_files is not None


@dataclass(frozen=True, slots=True)
class Usage:
    """Regular files of a tree; those of uploads that are under way are left out."""

    size_bytes: int = 0
    files: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.size_bytes + other.size_bytes, self.files + other.files)


def _folders(root: Path) -> Iterator[tuple[list[bytes], int]]:
    """The names of what is no directory, and a descriptor of the folder, for every folder of the tree. Links are not
    followed, whatever happens to the tree meanwhile."""
    with suppress(OSError):
        for _path, _inner, names, fd in os.fwalk(os.fsencode(root), follow_symlinks=False):
            yield names, fd


def measure(root: Path) -> Usage:
    """Walks the tree; what cannot be read or vanishes meanwhile counts nothing."""
    size_bytes = files = 0
    for names, fd in _folders(root):
        for name in names:
            try:
                facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISREG(facts.st_mode) and not is_reserved(name):
                size_bytes += facts.st_size
                files += 1
    return Usage(size_bytes, files)


def sweep(root: Path) -> int:
    """Remove what uploads of an earlier process left behind; returns how many files. A server that runs beside us
    holds locks on its own."""
    removed = 0
    for names, fd in _folders(root):
        for name in names:
            found = _LEFTOVER.fullmatch(name)
            if found is None or found[1] == _OURS:
                continue
            try:
                removed += _remove_unlocked(name, fd)
            except OSError:
                continue  # in use, or not ours to remove
    return removed


def _remove_unlocked(name: bytes, folder: int) -> bool:
    file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=folder)
        return True
    finally:
        os.close(file)


InThread = Callable[[Callable[[], Usage], Callable[[Usage | None], None]], None]
"""Run the first in a thread, hand its result to the second in the loop (None: it failed)."""


class Ledger:
    """The account of one directory. ``unwritten_bytes`` is promised to running uploads and not on the disk yet."""

    def __init__(self, root: Path, in_thread: InThread) -> None:
        self._root = root
        self._in_thread = in_thread
        self._counted: Usage | None = None
        self._counted_at = 0.0
        self._counting = False
        self._since = Usage()  # what uploads added since the count that is known began
        self._meanwhile = Usage()  # ... since the one began that is under way
        self._reserved = Usage()
        self.unwritten_bytes = 0

    def count(self) -> None:
        """Begin to count the tree, if that is not under way."""
        if not self._counting:
            self._counting, self._meanwhile = True, Usage()
            self._in_thread(lambda: measure(self._root), self._have_counted)

    def _have_counted(self, usage: Usage | None) -> None:
        self._counting = False
        if usage is not None:
            self._counted, self._counted_at = usage, time.monotonic()
            self._since = self._meanwhile

    def reserve(self, rules: Rules, asked: Usage) -> None:
        """Raises Refusal when the quota does not allow it, Overload when that is not known yet."""
        self.check(rules, asked)
        self._reserved += asked

    def check(self, rules: Rules, asked: Usage) -> None:
        """As :meth:`reserve`, without reserving anything."""
        if rules.counted:
            self._within_quota(rules, asked)

    def _within_quota(self, rules: Rules, asked: Usage) -> None:
        if self._counted is None or time.monotonic() - self._counted_at > RECOUNT_S:
            self.count()
        if self._counted is None:
            raise Overload("TFTPDirectory is being counted")
        then = self._counted + self._since + self._reserved + asked
        if rules.quota_bytes is not None and then.size_bytes > rules.quota_bytes:
            raise Refusal(ErrorCode.DISK_FULL, "quota exceeded: TFTPQuota is used up")
        if rules.quota_files is not None and asked.files > 0 and then.files > rules.quota_files:
            raise Refusal(ErrorCode.DISK_FULL, "quota exceeded: TFTPQuotaFiles is used up")

    def release(self, reserved: Usage, added: Usage) -> None:
        """An upload is over: its reservation goes, and what it ``added`` to the directory stays."""
        self._reserved += Usage(-reserved.size_bytes, -reserved.files)
        self._since += added
        self._meanwhile += added


def look_for_room(rules: Rules, folder: int, wanted_bytes: int) -> None:
    """Raises Refusal when ``wanted_bytes`` more would leave less than TFTPFreeSpace on the file system."""
    facts = os.fstatvfs(folder)
    if facts.f_bavail * facts.f_frsize - wanted_bytes < rules.free_bytes:
        raise Refusal(ErrorCode.DISK_FULL, "disk full: TFTPFreeSpace is kept free")
    if facts.f_files and not facts.f_favail:
        raise Refusal(ErrorCode.DISK_FULL, "disk full: no inode left")
