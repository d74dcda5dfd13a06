"""The log of one service: the manual's levels 0 to 4, one line per event, a file that is capped in size.

One rule: below its level a call compares one integer and formats nothing. Values that came from the network are
escaped, so that no client can write a line of its own. JSON and faults are structlog's, without its global state.

In the event loop completed transactions may be written a moment later, many with one write: answers go first.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import structlog

CRITICAL, WARNING, TRANSACTION, REQUEST, DEBUG = range(5)
LEVEL_NAMES: Final = ("critical", "warning", "transaction", "request", "debug")
_OWN: Final = frozenset(("time", "level", "service", "event"))
_SIMPLE: Final = frozenset((str, int, bool, float))
DEFERRED_S: Final = 0.02
SOON_S: Final = 0.01
AT_ONCE: Final = 16
MOST_WAITING: Final = 10_000
_BARE: Final = re.compile(r'[^ "=]+')


Later = Callable[[float, Callable[[], None]], object]
_Waiting = tuple[str, Mapping[str, object], float]


class ServiceLog:
    """``log.transaction("sent", client=peer, result="ok", seconds=0.12)``; fields that are None are left out.

    Until :meth:`configure` gives it a file, only critical events are written, to the standard error output. Configure
    it after the process has taken on its unprivileged user, so that the file belongs to that user.
    """

    __slots__ = ("_echo", "_file", "_later", "_lock", "_pipe", "_quiet", "_waiting", "level", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.level = CRITICAL
        self._file: CappedFile | None = None
        self._pipe = _Pipe(name, "text")
        self._quiet = False
        self._echo = False
        self._lock = threading.Lock()
        self._later: Later | None = None
        self._waiting: list[_Waiting] = []

    def defer(self, later: Later | None) -> None:
        """Write completed transactions a moment later from now on, by ``later(seconds, call)``; None: at once again."""
        self.flush()
        self._later = later

    def flush(self) -> None:
        """Write what waits."""
        while self._waiting:
            some, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
            self._put("".join([self._pipe.render(TRANSACTION, *one) for one in some]), TRANSACTION)

    def _write_some(self) -> None:
        """A few of the lines that wait, so that packets that come meanwhile do not; the others soon."""
        self._write_lot()
        if self._waiting and self._later is not None:
            self._later(SOON_S, self._write_some)

    def _write_lot(self) -> None:
        rest, self._waiting = self._waiting[AT_ONCE:], self._waiting[:AT_ONCE]
        self.flush()
        self._waiting = rest

    def configure(
        self,
        level: int,
        path: Path | None,
        size_mb: int,
        format: Literal["text", "json"] = "text",
        *,
        quiet: bool = False,
        echo: bool = False,
    ) -> None:
        """Take new settings and open the file again, which also lets go of a file that was moved away. Never fails.

        ``path`` None: no file. ``quiet``: critical events do not go to the standard error output. ``echo``: every line
        does (foreground). Where lines have no place to go, ``level`` becomes 0 and they cost nothing.
        """
        self.flush()
        with self._lock:
            if self._file:
                self._file.close()
            self._file = CappedFile(path, size_mb << 20) if path else None
            self._pipe = _Pipe(self.name, format)
            self._quiet, self._echo = quiet, echo
            self.level = level if path or echo else CRITICAL

    def close(self) -> None:
        """Let go of the file; a later line opens it again."""
        self.flush()
        with self._lock:
            if self._file:
                self._file.close()

    def critical(self, event: str, /, **fields: object) -> None:
        """0: start, stop and critical events. ``exc_info=fault`` adds the traceback, on the same line."""
        self._write(CRITICAL, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """1: warnings, failed transactions."""
        if self.level >= WARNING:
            self._write(WARNING, event, fields)

    def transaction(self, event: str, /, **fields: object) -> None:
        """2: completed transactions."""
        if self.level < TRANSACTION:
            return
        if self._later is None:
            self._write(TRANSACTION, event, fields)
            return
        if not self._waiting:
            self._later(DEFERRED_S, self._write_some)
        self._waiting.append((event, fields, time.time()))
        if len(self._waiting) >= MOST_WAITING:
            self._write_lot()

    def request(self, event: str, /, **fields: object) -> None:
        """3: each request, and each ignored one with its reason."""
        if self.level >= REQUEST:
            self._write(REQUEST, event, fields)

    def debug(self, event: str, /, **fields: object) -> None:
        """4: decoded packets and everything else."""
        if self.level >= DEBUG:
            self._write(DEBUG, event, fields)

    def _write(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        if self._waiting:  # lines keep their order
            self.flush()
        self._put(self._pipe.render(level, event, fields), level)

    def _put(self, line: str, level: int) -> None:
        with self._lock:
            lost = self._file is not None and not self._to_file(self._file, line)
        if lost or self._echo or (level == CRITICAL and not self._quiet):
            _to_stderr(line)

    def _to_file(self, file: CappedFile, line: str) -> bool:
        """False when the file did not take the line; the first time in a row the reason goes before it."""
        data = _encode(line)
        try:
            if file.over(len(data)):
                reason = f"the file reached {file.limit_bytes >> 20} MB and was deleted"
                file.restart(_encode(self._pipe.render(CRITICAL, "log restarted", {"reason": reason})))
            file.append(data)
        except (OSError, ValueError) as fault:  # ValueError: a path that cannot be one
            if not file.failing:
                why = (fault.strerror if isinstance(fault, OSError) else None) or str(fault)
                fields = {"path": file.path, "reason": why, "result": "lines go to stderr"}
                _to_stderr(self._pipe.render(CRITICAL, "log file cannot be written", fields))
            file.failing = True
            return False
        file.failing = False
        return True


class CappedFile:
    """A file that is only ever appended to, and is deleted and begun anew when it would exceed its limit.

    Before each line the path is looked at again: size and identity are the file system's, so a file that was moved,
    deleted, cut or filled by someone else needs no signal. Devices and pipes are written to and never deleted.
    """

    __slots__ = ("_fd", "_identity", "failing", "limit_bytes", "path")

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.failing = False
        self._fd = -1
        self._identity = (0, 0)

    def over(self, more_bytes: int) -> bool:
        """Whether ``more_bytes`` would not fit. Opens the file when needed; raises OSError."""
        there = self._look()
        if self._fd >= 0 and there is not None and self._identity != (there.st_dev, there.st_ino):
            self.close()
        if self._fd < 0 or there is None:
            self.close()
            self._open()
            there = os.fstat(self._fd)
        return stat.S_ISREG(there.st_mode) and there.st_size > 0 and there.st_size + more_bytes > self.limit_bytes

    def restart(self, first_line: bytes) -> None:
        """Delete the file (empty it where its directory does not allow that) and begin anew with ``first_line``."""
        try:
            os.unlink(self.path)
            self.close()
            self._open()
        except FileNotFoundError:  # another log with the same path was faster
            self.close()
            self._open()
        except PermissionError:
            os.ftruncate(self._fd, 0)
        self.append(first_line)

    def append(self, line: bytes) -> None:
        """Write a whole line; raises OSError."""
        while line:
            line = line[os.write(self._fd, line) :]

    def _look(self) -> os.stat_result | None:
        """What stands at the path now; None when nothing does. A path that may not be looked at any more (the
        process gave up its rights) is still the file that is open."""
        try:
            return os.stat(self.path)
        except FileNotFoundError:
            return None
        except PermissionError:
            if self._fd < 0:
                raise
            return os.fstat(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        # O_NONBLOCK: a FIFO without a reader must not hold up a service
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        self._fd = os.open(self.path, flags, 0o640)
        here = os.fstat(self._fd)
        self._identity = here.st_dev, here.st_ino


class _Pipe(structlog.BoundLoggerBase):
    """structlog's processor chain for one service and one format; returns the line instead of writing it."""

    def __init__(self, service: str, format: Literal["text", "json"]) -> None:
        chain: Any = [structlog.processors.format_exc_info, _plain_values, _head, structlog.processors.JSONRenderer()]
        super().__init__(None, chain if format == "json" else chain[:1], {})
        self._service = service
        self._text = format == "text"

    def render(self, level: int, event: str, fields: Mapping[str, object], moment: float | None = None) -> str:
        """One line; ``moment`` None: now."""
        if not _OWN.isdisjoint(fields):
            fields = {k + "_" * (k in _OWN): v for k, v in fields.items()}
        if self._text:
            if "exc_info" in fields:
                fields = structlog.processors.format_exc_info(None, "", dict(fields))
            return _text(self._service, level, event, fields, time.time() if moment is None else moment)
        shown = dict(fields)
        shown["service"] = self._service
        shown["time"] = time.time() if moment is None else moment
        (line,), _ = self._process_event(LEVEL_NAMES[level], event, shown)
        return f"{line}\n"


def _plain_values(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> dict[str, Any]:
    """Addresses, paths, enumerations and the like become text; None is left out; numbers are cut to microseconds."""
    return {name: _plain(value) for name, value in fields.items() if value is not None}


def _plain(value: Any) -> Any:
    if type(value) is float:
        return round(value, 6)
    if type(value) in (list, tuple):
        return [_plain(each) for each in value]
    return value if type(value) in _SIMPLE else str(value)


def _head(_logger: object, method: str, fields: MutableMapping[str, Any]) -> dict[str, Any]:
    """Put time, level, service and event first; time is local with its offset, to the millisecond."""
    now, service, event = _stamp(fields.pop("time")), fields.pop("service"), fields.pop("event")
    return {"time": now, "level": method, "service": service, "event": event, **fields}


def _stamp(moment: float) -> str:
    whole = int(moment)
    before, offset = _second(whole)
    return f"{before}.{int((moment - whole) * 1000):03d}{offset}"


@lru_cache(maxsize=1)
def _second(moment: int) -> tuple[str, str]:
    """Date and time, and the offset of the zone that counts then."""
    text = datetime.fromtimestamp(moment).astimezone().isoformat(timespec="seconds")
    return text[:19], text[19:]


def _text(service: str, level: int, event: str, fields: Mapping[str, Any], moment: float) -> str:
    """``TIME service level: event key=value ...``. In one go: every file that is sent writes a line."""
    parts = [f"{_stamp(moment)} {service} {LEVEL_NAMES[level]}: {escape(event)}"]
    for name, value in fields.items():
        if type(value) is str:
            parts.append(f"{escape(name)}={_quoted(value)}")
        elif type(value) is int:
            parts.append(f"{escape(name)}={value}")
        elif value is not None:
            parts.append(f"{escape(name)}={quote(_plain(value))}")
    return f"{' '.join(parts)}\n"


def _encode(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace")


def quote(value: Any) -> str:
    """A value as it stands in a text line: bare where that is unambiguous, else in double quotes and escaped."""
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return _quoted(str(value))


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    """The same words come again and again."""
    if text.isprintable() and _BARE.fullmatch(text):
        return text
    return '"' + escape(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def escape(text: str) -> str:
    r"""Control, format and undefined characters as ``\n``, ``\x1b``, ``\u202e``; the rest as it is."""
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode("ascii") for mark in text)


def _to_stderr(line: str) -> None:
    """Nobody can be told when this fails, and a service must not stop because a terminal went away."""
    try:
        sys.stderr.write(line)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return
