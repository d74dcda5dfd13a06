"""Long work on images that a person ordered: scrub, convert, adopt. How far it is, and how it ended.

One rule: a task ends with a sentence, done, failed or cancelled; nothing that it raises gets lost, and nothing runs
after the service.
"""

from __future__ import annotations

import asyncio
import enum
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from pbserv.errors import PbservError
from pbserv.imaging.faults import StoreClosed, UnknownTask

_KEPT: Final = 100


class TaskState(enum.StrEnum):
    """Of a task."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Cancelled(PbservError):
    """Somebody cancelled the task; raised in its threads."""


class TaskLog(Protocol):
    """Where the end of a task is written."""

    def transaction(self, event: str, /, **fields: object) -> None: ...

    def warning(self, event: str, /, **fields: object) -> None: ...


class Report:
    """What the work tells of itself; may be used from any thread. ``total`` and ``done`` in bytes, as a rule."""

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self._lock = threading.Lock()
        self._cancelled = threading.Event()

    def add(self, done: int) -> None:
        """So much more is done. Raises Cancelled when somebody cancelled the task."""
        with self._lock:
            self.done += done
        self.check()

    @property
    def cancelled(self) -> bool:
        """Whether the work is to end soon."""
        return self._cancelled.is_set()

    def check(self) -> None:
        """Raise Cancelled when the work is to end."""
        if self._cancelled.is_set():
            raise Cancelled("cancelled")

    def wait(self, seconds: float) -> None:
        """In a thread: wait, but not longer than until the task is cancelled. Raises Cancelled."""
        self._cancelled.wait(seconds)
        self.check()

    def cancel(self) -> None:
        """Ask the work to end."""
        self._cancelled.set()


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it is now. ``rate`` per second; ``eta_s`` None: not known; ``result`` is a sentence at the end."""

    number: int
    kind: str
    what: str
    state: TaskState
    done: int
    total: int
    rate: int
    eta_s: int | None
    result: str
    started: datetime
    finished: datetime | None


class _Running:
    def __init__(self, number: int, kind: str, what: str) -> None:
        self.number, self.kind, self.what = number, kind, what
        self.report = Report()
        self.state = TaskState.RUNNING
        self.result = ""
        self.started = datetime.now(UTC)
        self.finished: datetime | None = None
        self.ended = asyncio.Event()
        self._began = time.monotonic()
        self._took = 0.0

    def end(self, state: TaskState, result: str) -> None:
        self.state, self.result = state, result
        self.finished = datetime.now(UTC)
        self._took = time.monotonic() - self._began
        self.ended.set()

    def view(self) -> Task:
        report = self.report
        seconds = self._took or time.monotonic() - self._began
        rate = int(report.done / seconds) if seconds > 0.1 else 0
        left = max(0, report.total - report.done)
        eta = left // rate if rate and report.total and self.finished is None else None
        return Task(self.number, self.kind, self.what, self.state, report.done, report.total, rate, eta, self.result,
                    self.started, self.finished)  # fmt: skip


class Tasks:
    """All tasks of the imaging service; the last hundred that ended are remembered. Used from the event loop."""

    def __init__(self, log: TaskLog) -> None:
        self._log = log
        self._tasks: dict[int, _Running] = {}
        self._last = 0
        self._group: asyncio.TaskGroup | None = None

    async def own(self) -> None:
        """The owned loop of the tasks, until it is cancelled: it ends with them."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.Event().wait()
        finally:
            self._group = None

    def run(self, kind: str, what: str, work: Callable[[Report], Awaitable[str]]) -> Task:
        """Start ``work``, which answers with the sentence of its success. Raises StoreClosed before the start."""
        if self._group is None:
            raise StoreClosed("the imaging service is not running; start it with: pbserv start imaging")
        self._last += 1
        running = self._tasks[self._last] = _Running(self._last, kind, what)
        self._group.create_task(self._work(running, work), name=f"{kind} {what}")
        for number in [number for number, task in self._tasks.items() if task.finished is not None][:-_KEPT]:
            del self._tasks[number]
        return running.view()

    def all(self) -> tuple[Task, ...]:
        """Every task that runs or ended not long ago, the newest first."""
        return tuple(task.view() for _, task in sorted(self._tasks.items(), reverse=True))

    def one(self, number: int) -> Task:
        """Raises UnknownTask."""
        return self._find(number).view()

    def cancel(self, number: int) -> Task:
        """Ask a task to end; one that ended already stays as it is. Raises UnknownTask."""
        found = self._find(number)
        found.report.cancel()
        return found.view()

    def cancel_all(self) -> None:
        """The service stops."""
        for task in self._tasks.values():
            task.report.cancel()

    async def wait(self, number: int) -> Task:
        """Until a task has ended. Raises UnknownTask."""
        found = self._find(number)
        await found.ended.wait()
        return found.view()

    def _find(self, number: int) -> _Running:
        found = self._tasks.get(number)
        if found is None:
            raise UnknownTask(f"there is no task {number}; see: pbserv store tasks")
        return found

    async def _work(self, running: _Running, work: Callable[[Report], Awaitable[str]]) -> None:
        try:
            running.end(TaskState.DONE, await work(running.report))
        except Cancelled:
            running.end(TaskState.CANCELLED, "cancelled")
        except asyncio.CancelledError:
            running.report.cancel()
            running.end(TaskState.CANCELLED, "the server stopped")
            raise
        except Exception as error:
            known = isinstance(error, PbservError)
            running.end(TaskState.FAILED, str(error) if known else f"{type(error).__name__}: {error}")
        tell = self._log.transaction if running.state is TaskState.DONE else self._log.warning
        result = "ok" if running.state is TaskState.DONE else running.state.value
        tell("task ended", kind=running.kind, what=running.what, reason=running.result, result=result)


def counted(number: int, what: str) -> str:
    """For a result: ``1 version``, ``2 versions``."""
    return f"{number} {what}" + ("" if number == 1 else "s")
