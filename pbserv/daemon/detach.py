"""Start in the background: double fork, own session, and a pipe on which the server says when it is ready.

The rule: the caller learns the truth. It returns when every service has said how its start went, when the server
has ended before that, or after a time limit, and then with what the server wrote to its standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from pbserv.daemon.process import wait_for_end
from pbserv.errors import PbservError

START_TIMEOUT_S = 60.0
_CRASHED = 70
_OUTPUT_LIMIT_BYTES = 64 * 1024
_REPORT_LIMIT_BYTES = 1024 * 1024
_STOP_GRACE_S = 10.0


class Readiness(Protocol):
    """What the server tells while it starts; the same for a pipe to the parent and for a terminal."""

    def line(self, text: str) -> None:
        """One line for the person who started it."""

    def service(self, name: str, ready: bool, reason: str = "") -> None:
        """How the start of one service went."""

    def done(self, exit_code: int = 0) -> None:
        """The start is over; whoever waits may go. Idempotent."""


@dataclass(frozen=True, slots=True)
class ServiceVerdict:
    name: str
    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StartReport:
    """``lines`` are to be printed in order; ``output`` is what the server wrote to stdout and stderr meanwhile."""

    exit_code: int
    lines: tuple[str, ...]
    services: tuple[ServiceVerdict, ...] = ()
    pid: int | None = None
    output: str = ""


class ReadyPipe:
    """The server's end. JSON lines; a parent that has gone away disturbs nobody."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def finished(self) -> bool:
        return self._descriptor < 0

    def line(self, text: str) -> None:
        self._send({"line": text})

    def service(self, name: str, ready: bool, reason: str = "") -> None:
        self._send({"service": name, "ready": ready, "reason": reason})

    def started_as(self, pid: int) -> None:
        self._send({"pid": pid})

    def done(self, exit_code: int = 0) -> None:
        """Release the parent; from now on standard output and standard error lead to /dev/null."""
        if self.finished:
            return
        self._send({"done": exit_code})
        os.close(self._descriptor)
        self._descriptor = -1
        _point_at_null(1, 2)

    def _send(self, message: dict[str, str | int | bool]) -> None:
        if self.finished:
            return
        data = json.dumps(message).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(self._descriptor, data) :]


class TerminalReady:
    """The same words in the foreground: printed as they come."""

    def line(self, text: str) -> None:
        print(text, flush=True)

    def service(self, name: str, ready: bool, reason: str = "") -> None:
        if not ready:
            print(_failure(ServiceVerdict(name, ready, reason)), file=sys.stderr, flush=True)

    def done(self, exit_code: int = 0) -> None:
        return


def daemonize(
    run: Callable[[ReadyPipe], int], timeout_s: float = START_TIMEOUT_S, keep: Collection[int] = ()
) -> StartReport:
    """Call ``run`` in a background process and wait for its ``done``; only the caller's process returns.

    Call it before threads and event loops exist. In the background process the working directory is ``/`` (make
    paths absolute first), the umask 027, and every inherited descriptor except ``keep`` is closed; the process ends
    with what ``run`` returns. One that is not ready after ``timeout_s`` is ended.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    output = os.memfd_create("pbserv-start", os.MFD_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    middle = os.fork()
    if middle == 0:
        _middle(run, write_end, output, keep)
    try:
        os.close(write_end)
        os.waitpid(middle, 0)
        report = _Report()
        try:
            in_time = report.collect(read_end, time.monotonic() + timeout_s)
        except BaseException:
            report.end_server()
            raise
        if not in_time:
            report.end_server()
            report.lines.append(
                f"pbserv was not ready after {timeout_s:g} s and was ended; its log says how far it came"
            )
        return report.finish(os.pread(output, _OUTPUT_LIMIT_BYTES, 0).decode("utf-8", "replace"), in_time)
    finally:
        os.close(read_end)
        os.close(output)


@dataclass(slots=True)
class _Report:
    """The parent's side: what has arrived so far."""

    lines: list[str] = field(default_factory=list)
    services: list[ServiceVerdict] = field(default_factory=list)
    pid: int | None = None
    exit_code: int | None = None

    def collect(self, descriptor: int, deadline: float) -> bool:
        """Read until ``done`` or the end of the pipe; False when the deadline came first."""
        pending = b""
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        while self.exit_code is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not poller.poll(left_s * 1000):
                return False
            data = os.read(descriptor, 65536)
            if not data or len(pending) > _REPORT_LIMIT_BYTES:
                return True
            *complete, pending = (pending + data).split(b"\n")
            for text in complete:
                self._take(json.loads(text))
        return True

    def _take(self, message: dict[str, str | int | bool]) -> None:
        match message:
            case {"line": str(text)}:
                self.lines.append(text)
            case {"service": str(name), "ready": bool(ready), "reason": str(reason)}:
                self.services.append(ServiceVerdict(name, ready, reason))
                if not ready:
                    self.lines.append(_failure(self.services[-1]))
            case {"pid": int(pid)}:
                self.pid = pid
            case {"done": int(code)}:
                self.exit_code = code

    def end_server(self) -> None:
        """SIGTERM, a grace, SIGKILL."""
        if self.pid is None:
            return
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            return
        try:
            for signum in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(pidfd, signum)
                if wait_for_end(pidfd, _STOP_GRACE_S):
                    return
        except OSError:
            return
        finally:
            os.close(pidfd)

    def finish(self, output: str, in_time: bool) -> StartReport:
        if self.exit_code is None:
            if in_time:
                self.lines.append("pbserv ended before it was ready")
            self.lines += output.rstrip().splitlines()
        failed = any(not service.ready for service in self.services)
        code = 1 if self.exit_code is None else self.exit_code or int(failed)
        return StartReport(code, tuple(self.lines), tuple(self.services), self.pid, output)


def _failure(verdict: ServiceVerdict) -> str:
    return f"{verdict.name}: not started: {verdict.reason or 'no reason given'}"


def _middle(run: Callable[[ReadyPipe], int], write_end: int, output: int, keep: Collection[int]) -> NoReturn:
    """The process in between: it only leads a new session, so that the next one can never get a terminal."""
    code = _CRASHED
    try:
        os.setsid()
        if os.fork() > 0:
            os._exit(0)
        code = _background(run, write_end, output, keep)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _background(run: Callable[[ReadyPipe], int], write_end: int, output: int, keep: Collection[int]) -> int:
    os.chdir("/")
    os.umask(0o027)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _point_at_null(0)
    _close_all_but({0, 1, 2, write_end, *keep})
    pipe = ReadyPipe(write_end)
    pipe.started_as(os.getpid())
    try:
        code = run(pipe)
    except PbservError as error:
        pipe.line(str(error))
        code = 1
    except Exception as error:
        pipe.line(f"pbserv crashed while it started: {type(error).__name__}: {error}")
        for text in traceback.format_exc().rstrip().splitlines():
            pipe.line(text)
        code = _CRASHED
    else:
        if not pipe.finished:
            pipe.line("pbserv ended before it was ready")
    sys.stderr.flush()
    pipe.done(code or 1)
    return code


def _point_at_null(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    if null not in descriptors:
        os.close(null)


def _close_all_but(kept: Collection[int]) -> None:
    for descriptor in [int(name) for name in os.listdir("/proc/self/fd")]:
        if descriptor not in kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)
