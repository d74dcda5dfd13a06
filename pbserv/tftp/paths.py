"""Opening files below one directory, and nothing outside it (openat2(2)).

One rule: the kernel resolves names with the directory as root, so there is no ``..``, no link and no race to check.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from pbserv.errors import StartError

_OPENAT2 = 437
_RESOLVE = 0x10 | 0x02  # RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_HOW = struct.Struct("=QQQ")
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY  # O_NONBLOCK: a FIFO must not stop the loop
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_RACE_RETRIES = 8
_LISTINGS_KEPT = 64
_LOOK_S = 0.005
_SETTLED_NS = 50_000_000
"""A directory changed less than this before it was listed may change again without a new time stamp."""

# Built once: converting arguments took longer than the kernel takes to open a file.
_HOWS = {flags: _HOW.pack(flags, 0, _RESOLVE) for flags in (_READ, _FOLDER)}
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long


def kernel_resolves() -> bool:
    """False where openat2 is missing (Linux before 5.6) or forbidden by a seccomp filter."""
    try:
        os.close(_openat2(os.open("/", os.O_PATH | os.O_CLOEXEC), b".", os.O_PATH | os.O_CLOEXEC, consume=True))
    except OSError:
        return False
    return True


def _openat2(root: int, name: bytes, flags: int, *, consume: bool = False) -> int:
    how = _HOWS.get(flags) or _HOW.pack(flags, 0, _RESOLVE)
    try:
        for _ in range(_RACE_RETRIES):  # EAGAIN: something was renamed while the kernel walked
            found: int = _syscall(_OPENAT2, root, name, how, _HOW.size)
            if found >= 0:
                return found
            code = ctypes.get_errno()
            if code != errno.EAGAIN:
                break
    finally:
        if consume:
            os.close(root)
    raise OSError(code, os.strerror(code))


def _walk(root: int, name: bytes, flags: int) -> int:
    """Hand over hand, for kernels without openat2; no symbolic link is followed at all."""
    held = [root]
    try:
        parts = [part for part in name.split(b"/") if part not in (b"", b".")] or [b"."]
        for part in parts[:-1]:
            if part != b"..":
                held.append(os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held[-1]))
            elif len(held) > 1:
                os.close(held.pop())
        if parts[-1] == b"..":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return os.open(parts[-1], flags | os.O_NOFOLLOW, dir_fd=held[-1])
    finally:
        for fd in held[1:]:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class _Listing:
    identity: tuple[int, int, int, int]
    settled: bool
    names: dict[str, bytes]


class Directory:
    """The directory that is served. A directory that takes its place on disk is noticed at the next request."""

    def __init__(self, path: Path, *, by_kernel: bool | None = None) -> None:
        """Raises StartError when ``path`` is not a directory that can be read."""
        self.path = path
        self._location = os.fspath(path)
        self._open = _openat2 if (kernel_resolves() if by_kernel is None else by_kernel) else _walk
        self._root, self._identity = self._open_root()
        self._listings: OrderedDict[bytes, _Listing] = OrderedDict()
        self._refreshed_at = 0.0

    def _open_root(self) -> tuple[int, tuple[int, int]]:
        try:
            root = os.open(self.path, _FOLDER)
        except OSError as fault:
            raise StartError(_directory_fault(self.path, fault)) from None
        facts = os.fstat(root)
        return root, (facts.st_dev, facts.st_ino)

    def refresh(self) -> None:
        """Follow the path again if another directory stands there now; asked often, it looks every 5 ms."""
        now = time.monotonic()
        if now < self._refreshed_at + _LOOK_S:
            return
        self._refreshed_at = now
        try:
            facts = os.stat(self._location)
            if (facts.st_dev, facts.st_ino) == self._identity or not stat.S_ISDIR(facts.st_mode):
                return
            root, identity = self._open_root()
        except (OSError, StartError):
            return  # nothing there at the moment: keep what we have
        os.close(self._root)
        self._root, self._identity = root, identity
        self._listings.clear()

    def open_file(self, name: bytes) -> tuple[int, os.stat_result]:
        """A descriptor and its facts; raises OSError. Everything but a regular file is "not found"."""
        fd = self._open(self._root, name, _READ)
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "not a regular file")
        return fd, facts

    def open_folder(self, name: bytes) -> int:
        """An O_PATH descriptor of a folder, for the ``dir_fd`` of others; raises OSError. Empty: the directory."""
        return self._open(self._root, name or b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def other_case(self, name: bytes) -> bytes | None:
        """The one name that differs from ``name`` in case only; an exact part wins over a similar one."""
        found: list[bytes] = []
        for part in name.split(b"/"):
            if part == b"..":
                return None
            listing = self._listing(b"/".join(found))
            actual = listing.get(os.fsdecode(part).casefold()) if listing else None
            if actual is None:
                return None
            exact = os.fsdecode(part)
            found.append(part if listing and f"/{exact}" in listing else actual)
        joined = b"/".join(found)
        return joined if joined != name else None

    def _listing(self, folder: bytes) -> dict[str, bytes] | None:
        """Names of one directory: ``casefolded -> actual`` and ``/exact -> actual``."""
        try:
            fd = self._open(self._root, folder or b".", _FOLDER)
        except OSError:
            return None
        try:
            facts = os.fstat(fd)
            identity = (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns)
            known = self._listings.get(folder)
            if known is not None and known.settled and known.identity == identity:
                self._listings.move_to_end(folder)
                return known.names
            names: dict[str, bytes] = {}
            for entry in sorted(os.listdir(fd)):
                actual = os.fsencode(entry)
                names.setdefault(entry.casefold(), actual)
                names[f"/{entry}"] = actual
        except OSError:
            return None
        finally:
            os.close(fd)
        settled = time.time_ns() - facts.st_mtime_ns > _SETTLED_NS
        self._listings[folder] = _Listing(identity, settled, names)
        if len(self._listings) > _LISTINGS_KEPT:
            self._listings.popitem(last=False)
        return names

    def close(self) -> None:
        os.close(self._root)


def _directory_fault(path: Path, fault: OSError) -> str:
    match fault.errno:
        case errno.ENOENT:
            return f"TFTPDirectory {path} does not exist; create it or change the key"
        case errno.ENOTDIR:
            return f"TFTPDirectory {path} is not a directory; change the key"
        case errno.EACCES | errno.EPERM:
            return f"TFTPDirectory {path} may not be read by this user; change its rights or the key"
        case _:
            return f"TFTPDirectory {path}: {fault.strerror}"
