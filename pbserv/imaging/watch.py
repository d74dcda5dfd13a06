"""Files that appear in the directories of stores: noticed by inotify, handed on when they are complete.

One rule: a file that was renamed into place is complete; any other only when it stood still for long and nobody has it
open for writing. What inotify may have lost is found by looking again.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import signal
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import inotify_simple

from pbserv.errors import PbservError

STILL_S = 60.0
"""A file that was not renamed into place must be unchanged for so long."""
RESCAN_S = 600.0
RETRY_S = 60.0
"""After so long a file is tried again that could not be taken: somebody else works on it, or the disk was full."""
_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})(?:\.img|\.dsk|\.pgz)")
_MASK = (
    inotify_simple.flags.MOVED_TO
    | inotify_simple.flags.CLOSE_WRITE
    | inotify_simple.flags.CREATE
    | inotify_simple.flags.DELETE
    | inotify_simple.flags.MOVED_FROM
    | inotify_simple.flags.ONLYDIR
)
_GONE = inotify_simple.flags.DELETE | inotify_simple.flags.MOVED_FROM
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
Facts = tuple[int, int, int, int]
"""Device, inode, length, time of the last change: the same as long as it is the same file with the same bytes."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A complete file in a store's directory. ``renamed`` False: it was copied straight to its name."""

    store: str
    path: Path
    name: str
    renamed: bool = True


class Log(Protocol):
    """What is told of files."""

    def warning(self, event: str, /, **fields: object) -> None: ...


@dataclass(slots=True)
class _Candidate:
    store: str
    renamed: bool
    due: float
    facts: Facts | None = None


def image_name(file: str) -> str | None:
    """The image that a file of this name is: lab of lab.img; None where the name says that it is none.

    `.img.diff` is none: it is what differs from another image.
    """
    match = _NAME.fullmatch(file)
    return match[1] if match else None


def being_written(path: Path) -> bool:
    """True where somebody has the file open for writing; False also where that cannot be known (not our file)."""
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return False
    try:
        # Who opens it for writing meanwhile makes the kernel send a signal: this one does nothing unless it is caught.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as fault:
        return fault.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False


def facts_of(path: Path | str, folder_fd: int | None = None) -> Facts | None:
    """Of a plain file, in an open directory where one is given; None where there is none."""
    try:
        found = os.lstat(path, dir_fd=folder_fd)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


class Watcher:
    """Watches the directories of stores and awaits ``found`` for each complete file, one at a time.

    ``found`` may raise PbservError or OSError: the file is tried again every ``retry_s``, without a word after the
    first. A file is handed on once as long as it stays as it is; after a start every one is: ``found`` knows what it
    has already.
    """

    def __init__(
        self,
        found: Callable[[Dropped], Awaitable[None]],
        log: Log,
        *,
        still_s: float = STILL_S,
        rescan_s: float = RESCAN_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._found = found
        self._log = log
        self._still_s, self._rescan_s, self._retry_s = still_s, rescan_s, retry_s
        self._directories: dict[str, Path] = {}
        self._candidates: dict[Path, _Candidate] = {}
        self._handled: dict[Path, Facts] = {}
        self._complaints: dict[Path, str] = {}
        self._watches: dict[int, str] = {}
        self._inotify: inotify_simple.INotify | None = None
        self._wake = asyncio.Event()
        self._rescan_due = 0.0

    def watch(self, directories: Mapping[str, Path]) -> None:
        """Watch these from now on, by name of the store; files of others are forgotten. May be called at any time."""
        self._directories = dict(directories)
        self._candidates = {path: one for path, one in self._candidates.items() if one.store in directories}
        if self._inotify is not None:
            self._add_watches()
        self._rescan_due = 0.0
        self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled. Without inotify (none left on this host) it looks every ``rescan_s``, and says so."""
        loop = asyncio.get_running_loop()
        self._wake.clear()
        self._rescan_due = 0.0
        try:
            self._inotify = inotify_simple.INotify(nonblocking=True)
            loop.add_reader(self._inotify.fileno(), self._read)
            self._add_watches()
        except OSError as fault:
            self._log.warning("new files are noticed late", reason=f"inotify: {fault.strerror}", every_s=self._rescan_s)
        try:
            while True:
                await self._round()
        finally:
            inotify, self._inotify = self._inotify, None
            if inotify is not None:
                loop.remove_reader(inotify.fileno())
                inotify.close()

    async def _round(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._rescan_due:
            self._rescan_due = now + self._rescan_s
            await self._rescan()
        for path in [path for path, one in self._candidates.items() if one.due <= now]:
            await self._look(path)
        due = min((one.due for one in self._candidates.values()), default=self._rescan_due)
        wait = min(due, self._rescan_due) - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(0.0, wait)):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _look(self, path: Path) -> None:
        """One that is due: complete, still to be waited for, or gone."""
        one = self._candidates.get(path)
        if one is None:
            return  # gone while another one was taken
        facts = await asyncio.to_thread(facts_of, path)
        if self._candidates.get(path) is not one:
            return  # an event came meanwhile
        now = asyncio.get_running_loop().time()
        if facts is None or self._handled.get(path) == facts:
            del self._candidates[path]
        elif one.renamed or (facts == one.facts and not await asyncio.to_thread(being_written, path)):
            if self._candidates.get(path) is one:
                await self._hand_on(path, one, facts)
        else:
            one.facts, one.due = facts, now + self._still_s

    async def _hand_on(self, path: Path, one: _Candidate, facts: Facts) -> None:
        dropped = Dropped(one.store, path, image_name(path.name) or "", one.renamed)
        try:
            await self._found(dropped)
        except (PbservError, OSError) as fault:  # the disk may be full, or the file gone meanwhile
            if self._complaints.get(path) != str(fault):
                self._complaints[path] = str(fault)
                self._log.warning("file not taken", file=str(path), reason=str(fault))
            if self._candidates.get(path) is one:
                one.due = asyncio.get_running_loop().time() + self._retry_s
            return
        self._complaints.pop(path, None)
        self._handled[path] = facts
        if self._candidates.get(path) is one:
            del self._candidates[path]

    async def _rescan(self) -> None:
        """Files that nobody told of. Those that have stood still long enough are not waited for."""
        now = asyncio.get_running_loop().time()
        self._add_watches()
        for store, directory in list(self._directories.items()):
            for path, facts, age in await asyncio.to_thread(_files, directory):
                if self._handled.get(path) == facts or path in self._candidates:
                    continue
                still = age >= self._still_s
                due = now if still else now + self._still_s - max(0.0, age)
                self._candidates[path] = _Candidate(store, False, due, facts)
        for path in [path for path in self._handled if path.parent not in self._directories.values()]:
            del self._handled[path]

    def _add_watches(self) -> None:
        """Called again with every rescan: a directory may have come back."""
        if self._inotify is None:
            return
        for number, store in list(self._watches.items()):
            if store not in self._directories:
                del self._watches[number]
                try:
                    self._inotify.rm_watch(number)
                except OSError:
                    continue  # its directory went away
        for store, directory in self._directories.items():
            try:
                self._watches[self._inotify.add_watch(directory, _MASK)] = store
                self._complaints.pop(directory, None)
            except OSError as fault:
                if directory not in self._complaints:
                    self._complaints[directory] = reason = f"inotify: {fault.strerror}"
                    self._log.warning("new files are noticed late", directory=str(directory), reason=reason)

    def _read(self) -> None:
        if self._inotify is None:
            return
        try:
            events = list(self._inotify.read(timeout=0))
        except OSError:
            return
        for event in events:
            self._heard(event.wd, event.mask, event.name)
        self._wake.set()

    def _heard(self, watch: int, mask: int, name: str) -> None:
        if mask & inotify_simple.flags.Q_OVERFLOW:
            self._rescan_due = 0.0
            return
        store = self._watches.get(watch)
        if mask & inotify_simple.flags.IGNORED:
            self._watches.pop(watch, None)
            return
        if store is None or mask & inotify_simple.flags.ISDIR or image_name(name) is None:
            return
        path = self._directories[store] / name
        if mask & _GONE:
            self._candidates.pop(path, None)
            self._handled.pop(path, None)
            return
        renamed = bool(mask & inotify_simple.flags.MOVED_TO)
        now = asyncio.get_running_loop().time()
        before = self._candidates.get(path)
        if not renamed and before is not None and before.renamed:
            return  # it is taken as it is; what is written to it afterwards is found out then
        # Without facts the first look only notes them, and the file is waited for from then on.
        self._candidates[path] = _Candidate(store, renamed, now)


def _files(directory: Path) -> list[tuple[Path, Facts, float]]:
    """(path, facts, seconds since the last change) of all images by name."""
    found: list[tuple[Path, Facts, float]] = []
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if image_name(entry.name) is not None]
    except OSError:
        return found
    for name in sorted(names):
        facts = facts_of(directory / name)
        if facts is not None:
            found.append((directory / name, facts, _age(directory / name)))
    return found


def _age(path: Path) -> float:
    """Seconds since the file was written to or got this name; below 0 where its time lies ahead."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0.0
    return time.time() - max(found.st_mtime, found.st_ctime)
