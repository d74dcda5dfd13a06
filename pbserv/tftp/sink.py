"""One file that is being uploaded: a temporary name in the directory where it will stand, until it is whole.

One rule: under its own name a file appears complete, durable and at once, or not at all. A file that stands there
already is replaced when that is allowed, and only if it is a plain file; nothing is ever truncated or written into.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

from pbserv.tftp.catalogue import Overload, Refusal, Target
from pbserv.tftp.packet import ErrorCode
from pbserv.tftp.quota import Ledger, Rules, Usage, look_for_room, temporary_name

LOOK_BYTES = 1 << 20
"""The free space is looked at whenever so much was written; a reservation of unknown size grows in such steps."""
FILE_MODE = 0o644
_IOVECS = 1024  # IOV_MAX
_RENAME_NOREPLACE = 1
_RACES = 8
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

_libc = ctypes.CDLL(None, use_errno=True)


def refusal(fault: OSError) -> Refusal | Overload:
    """What a client is told about a fault of the file system (RFC 1350 appendix I)."""
    code = fault.errno or 0
    if code in _FULL:
        return Refusal(ErrorCode.DISK_FULL, "disk full or quota exceeded")
    if code in _NOT_ALLOWED:
        return Refusal(ErrorCode.ACCESS, "the directory may not be written")
    if code == errno.ENAMETOOLONG:
        return Refusal(ErrorCode.ILLEGAL, "file name too long")
    if code == errno.ENOENT:
        return Refusal(ErrorCode.NOT_FOUND, "directory not found")
    if code in _NO_DESCRIPTOR:
        return Overload("no file descriptor left")
    return Refusal(ErrorCode.UNDEFINED, "file cannot be written")


def inspect(target: Target, rules: Rules) -> os.stat_result | None:
    """The file that stands there; None: there is none. Raises Refusal when it may not be replaced, and OSError."""
    try:
        facts = os.stat(target.name, dir_fd=target.folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not rules.allow_overwrites:
        raise Refusal(ErrorCode.EXISTS, "file exists already")
    if not stat.S_ISREG(facts.st_mode):
        raise Refusal(ErrorCode.ACCESS, "not a regular file")
    if facts.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise Refusal(ErrorCode.ACCESS, "files that run with the rights of others are not replaced")
    if not os.access(target.name, os.W_OK, dir_fd=target.folder_fd, effective_ids=True):
        raise Refusal(ErrorCode.ACCESS, "file may not be written")
    return facts


class Sink:
    """Write, then either :meth:`commit` (in a thread) and :meth:`close`, or :meth:`abandon`.

    Takes the target's descriptor over when it could be made. ``size_bytes`` is what was written. ``on_closed`` gets
    the file's descriptor, to close it where that may take a while: a large file's blocks are freed then.
    """

    def __init__(
        self,
        target: Target,
        rules: Rules,
        ledger: Ledger,
        asked: Usage,
        announced: int | None,
        on_closed: Callable[[int], None],
    ) -> None:
        """``asked`` is reserved in the ledger already; ``announced`` bytes are reserved with the first of them. Raises
        OSError or Overload."""
        self._target = target
        self._rules = rules
        self._ledger = ledger
        self._reserved = asked
        self._on_closed = on_closed
        self._announced = announced
        self._next_look = LOOK_BYTES
        self._committing = self._unwanted = self._closed = False
        self._added: Usage | None = None
        self.size_bytes = 0
        self._name = temporary_name(target.name)
        self._file = os.open(self._name, _NEW, 0o600, dir_fd=target.folder_fd)
        if not _keep_from_sweep(self._file):
            os.close(self._file)
            raise Overload("left-over uploads are being removed")
        ledger.unwritten_bytes += asked.size_bytes

    # -- bytes ----------------------------------------------------------------------------------------------------

    def write(self, parts: Sequence[bytes]) -> None:
        """Append; raises Refusal. After that nothing but :meth:`abandon` may follow."""
        more = sum(map(len, parts))
        if not more:
            return
        self._pay(self.size_bytes + more)
        try:
            for start in range(0, len(parts), _IOVECS):
                self._append(parts[start : start + _IOVECS])
        except OSError as fault:
            raise _told(fault) from None
        before, self.size_bytes = self.size_bytes, self.size_bytes + more
        reserved = self._reserved.size_bytes
        self._ledger.unwritten_bytes -= min(self.size_bytes, reserved) - min(before, reserved)

    def _append(self, parts: Sequence[bytes]) -> None:
        wanted = sum(map(len, parts))
        done = os.writev(self._file, parts)
        if done < wanted:  # the disk is nearly full, or a signal came: the rest in one piece, until it fails
            rest = memoryview(b"".join(parts))[done:]
            while rest:
                rest = rest[os.write(self._file, rest) :]

    def _pay(self, total: int) -> None:
        """Whether the file may become ``total`` bytes long."""
        rules = self._rules
        if self._announced is not None and total > self._announced:
            raise Refusal(ErrorCode.UNDEFINED, "more bytes than the request announced (tsize)")
        if rules.largest_bytes is not None and total > rules.largest_bytes:
            raise Refusal(ErrorCode.DISK_FULL, "larger than TFTPMaxUploadSize")
        if total > self._reserved.size_bytes:
            self._reserve(total)
        if total >= self._next_look:
            look_for_room(rules, self._target.folder_fd, self._ledger.unwritten_bytes)
            self._next_look = total + LOOK_BYTES

    def _reserve(self, total: int) -> None:
        """A step more than is needed now, or just as much where a whole step is not to be had."""
        missing = total - self._reserved.size_bytes
        try:
            self._grow(missing + LOOK_BYTES if self._announced is None else self._announced - self._reserved.size_bytes)
        except Refusal:
            self._grow(missing)

    def _grow(self, size_bytes: int) -> None:
        look_for_room(self._rules, self._target.folder_fd, self._ledger.unwritten_bytes + size_bytes)
        grown = Usage(size_bytes, 0)
        self._ledger.reserve(self._rules, grown)
        self._reserved += grown
        self._ledger.unwritten_bytes += size_bytes

    # -- the end --------------------------------------------------------------------------------------------------

    def begin_commit(self) -> None:
        """From here on the file belongs to the thread that runs :meth:`commit`."""
        self._committing = True

    def commit(self) -> None:
        """Durable first, visible then; blocks as long as the disk needs. Raises Refusal."""
        try:
            old = inspect(self._target, self._rules)
            self._dress(old)
            os.fsync(self._file)
            for _ in range(_RACES):
                if self._unwanted:
                    raise Refusal(ErrorCode.UNDEFINED, "given up")
                if self._take_place():
                    return
            raise Refusal(ErrorCode.ACCESS, "name is changing")
        except OSError as fault:
            raise _told(fault) from None

    def _take_place(self) -> bool:
        """False: another file came or went in the same moment."""
        folder, name = self._target.folder_fd, self._target.name
        old = inspect(self._target, self._rules)
        if old is None:
            try:
                rename_new(folder, self._name, name)
            except FileExistsError:
                return False
        else:
            os.rename(self._name, name, src_dir_fd=folder, dst_dir_fd=folder)
        replaced = Usage(-old.st_size, -1) if old is not None else Usage()
        self._added = Usage(self.size_bytes, 1) + replaced
        _sync_folder(folder)
        return True

    def _dress(self, old: os.stat_result | None) -> None:
        """The mode and owner of the file that is replaced, where this user may give them away."""
        if old is not None:
            with suppress(OSError):
                os.fchown(self._file, old.st_uid, old.st_gid)
        os.fchmod(self._file, stat.S_IMODE(old.st_mode) & 0o777 if old is not None else FILE_MODE)

    def close(self) -> None:
        """After the commit, in the loop."""
        self._committing = False
        self.abandon()

    def abandon(self) -> None:
        """Leave nothing behind; a commit that is under way does that itself, or comes too late to be stopped."""
        self._unwanted = True
        if self._committing or self._closed:
            return
        self._closed = True
        if self._added is None:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._target.folder_fd)
        os.close(self._target.folder_fd)
        self._on_closed(self._file)
        self._ledger.unwritten_bytes -= max(0, self._reserved.size_bytes - self.size_bytes)
        self._ledger.release(self._reserved, self._added or Usage())


def _keep_from_sweep(file: int) -> bool:
    """Lock it (quota.sweep leaves locked files alone); False: it was removed in the same moment."""
    with suppress(OSError):  # it is being removed, or the file system knows no locks: then it is not swept
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return os.fstat(file).st_nlink > 0


def rename_new(folder: int, old: bytes, new: bytes) -> None:
    """rename(2) that never replaces: FileExistsError instead."""
    if _renameat2(folder, old, new) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(code, os.strerror(code))
    os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    with suppress(OSError):  # the file is there; a second name that stays is swept
        os.unlink(old, dir_fd=folder)


def _renameat2(folder: int, old: bytes, new: bytes) -> int:
    if not hasattr(_libc, "renameat2"):  # glibc before 2.28
        ctypes.set_errno(errno.ENOSYS)
        return -1
    done: int = _libc.renameat2(
        ctypes.c_int(folder), ctypes.c_char_p(old), ctypes.c_int(folder), ctypes.c_char_p(new),
        ctypes.c_uint(_RENAME_NOREPLACE),
    )  # fmt: skip
    return done


def _sync_folder(folder: int) -> None:
    """The name is durable too. A directory that may be written but not read cannot be asked, and some file systems
    know no fsync of directories; that is no failure."""
    try:
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return
    try:
        os.fsync(readable)
    except OSError as fault:
        if fault.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(readable)


def _told(fault: OSError) -> Refusal:
    """A running upload cannot be asked to come again later."""
    told = refusal(fault)
    return told if isinstance(told, Refusal) else Refusal(ErrorCode.UNDEFINED, str(told))
