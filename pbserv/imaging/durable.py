"""Files and directories below a directory descriptor, written so that a power cut leaves the old or the new. Blocking.

One rule: a name is one component that the caller checked, and no link is followed.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from typing import Final

from pbserv.imaging.faults import StoreFault, StoreFull

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK: a FIFO put there must not block us
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)


SHORTAGES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""Faults that say nothing of the file: this server has too much open, or too little memory."""


@contextmanager
def filesystem_faults(doing: str) -> Iterator[None]:
    """Turn an OSError into StoreFull or StoreFault that says what was being done."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull(f"{doing}: {error.strerror}; make room or delete images") from error
        raise StoreFault(f"{doing}: {error.strerror or error}") from error


@contextmanager
def opened_directory(name: str, parent_fd: int) -> Iterator[int]:
    """A descriptor of the directory ``name``; a link is not followed."""
    descriptor = os.open(name, DIRECTORY, dir_fd=parent_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def files_of(folder_fd: int) -> Iterator[os.stat_result]:
    """What is known of every regular file of a directory."""
    for name in os.listdir(folder_fd):
        facts = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        if stat.S_ISREG(facts.st_mode):
            yield facts


def open_file(name: str, parent_fd: int) -> FileIO:
    """A file for reading; a link is not followed, and a pipe does not block."""
    return FileIO(os.open(name, _READ, dir_fd=parent_fd), "rb")


def remove_entry(name: str, parent_fd: int) -> None:
    """Remove a file, or a directory with everything in it."""
    if stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
        shutil.rmtree(name, dir_fd=parent_fd)
    else:
        os.unlink(name, dir_fd=parent_fd)


def remove_links(name: str, parent_fd: int, other_fd: int, ends: Sequence[str]) -> None:
    """Remove what lies in the directory ``other_fd`` and is a file of the directory ``name`` or of one in that, too.

    What has its name with one of ``ends`` goes first: the file tells, after a crash, what else has to go.
    """
    linked: set[tuple[int, int]] = set()
    with suppress(NotADirectoryError), opened_directory(name, parent_fd) as folder_fd:
        for inside in (".", *os.listdir(folder_fd)):
            with suppress(NotADirectoryError), opened_directory(inside, folder_fd) as inside_fd:
                linked |= {(facts.st_dev, facts.st_ino) for facts in files_of(inside_fd) if facts.st_nlink > 1}
    for other in os.listdir(other_fd) if linked else ():
        with suppress(FileNotFoundError):
            facts = os.stat(other, dir_fd=other_fd, follow_symlinks=False)
            if (facts.st_dev, facts.st_ino) in linked:
                for end in (*ends, ""):
                    with suppress(FileNotFoundError):
                        os.unlink(other + end, dir_fd=other_fd)


def write_durably(name: str, data: bytes, parent_fd: int) -> None:
    """A new file with its bytes on the disk; an old one of that name goes first."""
    with suppress(FileNotFoundError):  # of a commit that failed half-way
        os.unlink(name, dir_fd=parent_fd)
    with FileIO(os.open(name, CREATE, 0o640, dir_fd=parent_fd), "wb") as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def replace_durably(name: str, data: bytes, parent_fd: int) -> None:
    """Replace a file in one step: whoever reads it, also after a power cut, finds the old bytes or the new ones."""
    write_durably(f"{name}.new", data, parent_fd)
    os.rename(f"{name}.new", name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
    os.fsync(parent_fd)


def newest(folder_fd: int, wanted: Callable[[str], bool]) -> datetime | None:
    """When one of these files of a directory was written for the last time; None: there is none. Raises OSError."""
    names = [name for name in os.listdir(folder_fd) if wanted(name)]
    times = [os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mtime for name in names]
    return datetime.fromtimestamp(max(times), UTC) if times else None
