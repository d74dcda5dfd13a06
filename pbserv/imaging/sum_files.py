"""`NAME.img.sum`, `NAME.img.full.sum` and `NAME.img.lock` beside an image file. Blocking; for worker threads.

One rule: a sidecar appears whole, by rename; a lock that somebody else made is never touched, and nothing is removed
whose name and kind are not those of our own half-made files.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pbserv.imaging import sums
from pbserv.imaging.faults import ImagingFault, StoreFault, UploadRunning
from pbserv.imaging.sums import SumMaker, Sums
from pbserv.imaging.watch import image_name

OURS = b"pbserv\n"
"""Content of a lock that this server made; after a crash it is known by it."""
_BLOCK = 1 << 20
_LONGEST = 256
"""More bytes no sidecar has that is read, and none that is written."""
_HALF_MADE = re.compile(r"\.(.+?)(\.sum|\.full\.sum)?\.[0-9a-f]{8}\.new")
_making: set[str] = set()
"""The names that :func:`beside` has given and that are in use right now."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FileChanged(ImagingFault):
    """The file was written to while it was read."""


class Locked(UploadRunning):
    """Somebody else holds `NAME.img.lock`."""


def _nothing(_count: object) -> None: ...


def measure(
    path: Path,
    *,
    rate_bytes: int = 0,
    advance: Callable[[int], None] = _nothing,
    also: Callable[[bytes], None] = _nothing,
) -> Sums:
    """Read ``path`` once; at most ``rate_bytes`` a second (0: no limit). ``advance`` hears of every block, and ``also``
    gets it.

    Raises FileChanged where the file is another one, or was written to, at the end; StoreFault where it cannot be read.
    """
    try:
        descriptor = os.open(path, _READ)
    except OSError as fault:
        raise StoreFault(f"{path}: {fault.strerror}") from fault
    try:
        before = _identity(os.fstat(descriptor))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreFault(f"{path}: not a plain file")
        made = _read_all(descriptor, before[2], rate_bytes, advance, also)
        if _identity(os.fstat(descriptor)) != before or _identity(os.stat(path)) != before:
            raise FileChanged(f"{path}: was written to while it was read; copy under another name and rename it then")
        return made
    except OSError as fault:
        raise StoreFault(f"{path}: {fault.strerror}") from fault
    finally:
        os.close(descriptor)


def _read_all(
    descriptor: int, size: int, rate_bytes: int, advance: Callable[[int], None], also: Callable[[bytes], None]
) -> Sums:
    """What is appended meanwhile is not followed: it could go on for ever."""
    maker = SumMaker()
    began, done = time.monotonic(), 0
    while done < size and (block := os.read(descriptor, min(_BLOCK, size - done))):
        maker.feed(block)
        also(block)
        done += len(block)
        os.posix_fadvise(descriptor, done - len(block), len(block), os.POSIX_FADV_DONTNEED)
        advance(len(block))
        if rate_bytes and (ahead := done / rate_bytes - (time.monotonic() - began)) > 0:
            time.sleep(ahead)
    return maker.sums()


def _identity(facts: os.stat_result) -> tuple[int, int, int, int]:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def write_sums(image: Path, made: Sums) -> None:
    """Both sidecars beside ``image``, durable when this returns; raises StoreFault."""
    try:
        _place(image.with_name(image.name + sums.SUM), sums.text(made.tail_md5))
        _place(image.with_name(image.name + sums.FULL_SUM), sums.text(made.full_md5))
    except OSError as fault:
        raise StoreFault(f"{image}: its checksums cannot be written: {fault.strerror}") from fault


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A hidden name beside ``path``, for what is renamed to it when it is whole; what has that name at the end goes.

    What is left of it when the server is killed :func:`half_made` finds.
    """
    # The ending is none of an image, and hidden files are no image either.
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    _making.add(new.name)
    try:
        yield new
    finally:
        with contextlib.suppress(OSError):
            os.unlink(new)
        _making.discard(new.name)


def half_made(folder_fd: int) -> list[str]:
    """The files of an open directory that :func:`beside` named and that a killed server left. Raises OSError.

    Files of images alone: a checksum is short, and any other is a second name of a version, so no bytes go with it.
    """
    found = []
    for name in sorted(os.listdir(folder_fd)):
        match = _HALF_MADE.fullmatch(name)
        if match is None or image_name(match[1]) is None or name in _making:
            continue
        with contextlib.suppress(FileNotFoundError):
            facts = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
            ours = facts.st_size <= _LONGEST if match[2] else facts.st_nlink > 1
            if ours and stat.S_ISREG(facts.st_mode):
                found.append(name)
    return found


def _place(path: Path, content: bytes) -> None:
    with beside(path) as new:
        descriptor = os.open(new, _CREATE, 0o644)
        try:
            os.write(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(new, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_sums(image: Path) -> tuple[str | None, str | None]:
    """(MD5 of the tail, MD5 of all) as the sidecars say; None for one that is missing or holds no MD5."""
    return _read(image, sums.SUM), _read(image, sums.FULL_SUM)


def stale(image: Path) -> bool:
    """True where a sidecar is missing, older than the image or holds no checksum; raises OSError without an image."""
    changed = os.stat(image).st_mtime_ns
    for ending in (sums.SUM, sums.FULL_SUM):
        try:
            if os.stat(image.with_name(image.name + ending)).st_mtime_ns < changed:
                return True
        except FileNotFoundError:
            return True
    return None in read_sums(image)


def _read(image: Path, ending: str) -> str | None:
    try:
        descriptor = os.open(image.with_name(image.name + ending), _READ)
    except OSError:
        return None
    try:
        return sums.read(os.read(descriptor, _LONGEST))
    except OSError:
        return None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(image: Path) -> Iterator[None]:
    """Holds `NAME.img.lock`; raises Locked where somebody else does, StoreFault where it cannot be made."""
    path = image.with_name(image.name + sums.LOCK)
    try:
        descriptor = os.open(path, _CREATE, 0o644)
    except FileExistsError:
        raise Locked(f"{path} exists: another program works on the image; it is looked at again later") from None
    except OSError as fault:
        raise StoreFault(f"{path}: {fault.strerror}; the service needs to write into this directory") from fault
    try:
        _mark(path, descriptor)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _mark(lock: Path, descriptor: int) -> None:
    try:
        os.write(descriptor, OURS)
    except OSError as fault:
        raise StoreFault(f"{lock}: {fault.strerror}") from fault
    finally:
        os.close(descriptor)


def remove_own_lock(image: Path) -> bool:
    """Remove a lock that this server left when it was killed; True where there was one. Foreign ones stay.

    To be called at the start only: nobody works on the image then.
    """
    path = image.with_name(image.name + sums.LOCK)
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return False
    try:
        ours = os.read(descriptor, len(OURS) + 1) == OURS
    except OSError:
        return False
    finally:
        os.close(descriptor)
    if ours:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return ours
