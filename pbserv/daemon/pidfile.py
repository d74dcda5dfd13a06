"""The pid file: a file that is held by an flock for the life of the process. One rule: only the lock is believed.

The status codes are those of the LSB (Core 5.0, 22.2 "Init Script Actions").
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pbserv.errors import PbservError, StartError

PID_FILE_NAME = "pbserv.pid"

_ATTEMPTS = 50
_PAUSE_S = 0.02


class ServerStatus(enum.IntEnum):
    """What the pid file says; the value is the LSB exit code of ``status``."""

    RUNNING = 0
    DEAD = 1
    STOPPED = 3
    UNKNOWN = 4


@dataclass(frozen=True, slots=True)
class ServerState:
    """``pid`` is the running process, or the one that a dead file still names; ``reason`` explains UNKNOWN."""

    status: ServerStatus
    pid: int | None = None
    reason: str = ""

    @property
    def running(self) -> bool:
        return self.status is ServerStatus.RUNNING


class AlreadyRunningError(StartError):
    """Another process holds the pid file."""

    def __init__(self, path: Path, pid: int | None) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(f"pbserv is running already: {who} holds {path}")
        self.pid = pid


def read_state(path: Path) -> ServerState:
    """Ask without disturbing: the lock is only tested, in shared mode, for some microseconds.

    A process that holds the lock and has not written its id yet is waited for (at most a second).
    """
    for _ in range(_ATTEMPTS):
        state = _look(path)
        if state is not None:
            return state
        time.sleep(_PAUSE_S)
    return ServerState(ServerStatus.UNKNOWN, reason=f"{path} is locked, but not by the process that it names")


class PidFile:
    """The lock in our hands. Must be taken by the very process that serves: after the last fork."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._owner = os.getpid()

    @classmethod
    def acquire(cls, path: Path) -> PidFile:
        """Lock the file and write our id; raises AlreadyRunningError, or PbservError if it cannot be written."""
        for _ in range(_ATTEMPTS):
            try:
                descriptor = _open_locked(path)
            except OSError as error:
                raise PbservError(f"{path}: {error.strerror}: the pid file cannot be written") from error
            if descriptor is not None:
                return cls(path, descriptor)
            time.sleep(_PAUSE_S)
        raise PbservError(f"{path}: the pid file does not come free")

    def release(self) -> None:
        """Remove the file while the lock is still held, then let go. Idempotent; in a forked child only closes."""
        if self._descriptor < 0:
            return
        if self._owner == os.getpid() and _is_same_file(self._descriptor, self.path):
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> PidFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _open_locked(path: Path) -> int | None:
    """The locked descriptor with our id in it, or None: try again. Raises OSError and AlreadyRunningError."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    except PermissionError:
        # Left behind by another user (root, before a crash): it cannot be written, but replaced if it is stale.
        descriptor = os.open(path, os.O_RDONLY | flags)
    kept = False
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PbservError(f"{path} is not a regular file; remove it")
        if not _lock(descriptor, path):
            return None
        # Between our open and our lock its holder may have removed it: then we hold a file without a name.
        if not _is_same_file(descriptor, path):
            return None
        if os.fstat(descriptor).st_nlink > 1 or fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            path.unlink()
            return None
        text = f"{os.getpid()}\n".encode()
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))
        os.fchmod(descriptor, 0o644)
        kept = True
        return descriptor
    finally:
        if not kept:
            os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    """True when we got it, False when only readers are in the way; raises AlreadyRunningError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(path, read_state(path).pid) from None
        return False
    return True


def _look(path: Path) -> ServerState | None:
    """One look; None when the file was changing under our eyes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return ServerState(ServerStatus.STOPPED)
    except OSError as error:
        return ServerState(ServerStatus.UNKNOWN, reason=f"{path}: {error.strerror}")
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ServerState(ServerStatus.UNKNOWN, reason=f"{path} is not a regular file")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _recorded_pid(descriptor)
            if pid is not None and _may_hold(pid, descriptor):
                return ServerState(ServerStatus.RUNNING, pid)
            return None
        if not _is_same_file(descriptor, path):
            return None
        return ServerState(ServerStatus.DEAD, _recorded_pid(descriptor))
    finally:
        os.close(descriptor)


def _recorded_pid(descriptor: int) -> int | None:
    first_line = os.pread(descriptor, 32, 0).split(b"\n", 1)[0]
    return int(first_line) if first_line.isdigit() and int(first_line) > 0 else None


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        named = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(os.fstat(descriptor), named)


def _may_hold(pid: int, descriptor: int) -> bool:
    """Whether the kernel agrees that ``pid`` holds the lock.

    The run directory belongs to the service user, and root signals the process that the file names: so the id in the
    file is checked against /proc/locks. Where the kernel's list does not show this file (overlay file systems, other
    pid namespaces) a living process has to do.
    """
    holders = _kernel_holders(os.fstat(descriptor))
    if holders:
        return pid in holders
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _kernel_holders(facts: os.stat_result) -> set[int]:
    """Processes with an exclusive flock on this file, from lines ``1: FLOCK ADVISORY WRITE 812 08:01:7 0 EOF``."""
    wanted = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return set()
    rows = (line.split() for line in lines)
    return {int(row[4]) for row in rows if row[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and row[5] == wanted} - {0, -1}
