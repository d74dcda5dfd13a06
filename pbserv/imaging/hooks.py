"""Programs of the administrator that are told of events, or asked before something happens (HookDirectory).

One rule: a program is started by its path, without a shell, only when nobody but root or the server's user could have
written it; what it says, how long it takes and how long it is waited for is bounded. A guard that cannot be asked
refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from pbserv.imaging.faults import ImagingFault
from pbserv.log import ServiceLog

TOLD: Final = ("job-started", "job-done", "job-failed", "image-committed", "image-retired")
"""Events after which a program of that name is started; how it ends changes nothing."""
ASKED: Final = ("before-job", "before-commit")
"""Events before which a program of that name is asked; only its exit code 0 lets it happen."""
LIMIT_S: Final = 20.0
"""With ``PLACE_S`` less than the two minutes for which a device that asks for work waits."""
AT_ONCE: Final = 4
PLACE_S: Final = 60.0
"""So long a question waits until fewer than ``AT_ONCE`` programs run."""
WAITING: Final = 1_000
"""Events that wait to be told; more are left out."""
_MOST: Final = 64 * 1024
"""Bytes that are read of what a program says."""
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

Facts = Mapping[str, str]


class Crowded(ImagingFault):
    """As many programs run as may; ``waiting``: so many questions wait. Whoever asks is to ask again."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, event: str, waiting: int) -> None:
        super().__init__(f"{event}: {AT_ONCE} programs run, as many as may at once; ask again")
        self.waiting = waiting


@dataclass(frozen=True, slots=True)
class _Ended:
    """``code`` None: it did not run, or was ended; ``said``: the first line of its stderr, or why."""

    code: int | None
    said: str


class Hooks:
    """Used from the event loop only; :meth:`run` is the owned task that tells events."""

    def __init__(self, log: ServiceLog) -> None:
        self._log = log
        self._directory: Path | None = None
        self._waiting: asyncio.Queue[tuple[str, dict[str, str]]] = asyncio.Queue(WAITING)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._questions = 0

    def adopt(self, directory: Path | None) -> None:
        """None: nobody is told or asked."""
        self._directory = directory

    async def ask(self, event: str, facts: Facts, patience_s: float | None = None) -> str:
        """Empty: it may happen, or there is no program of that name; else why not. Raises Crowded where no place
        becomes free within ``patience_s``, else PLACE_S."""
        path = self._program(event)
        if path is None:
            return ""
        await self._place(event, PLACE_S if patience_s is None else patience_s)
        try:
            ended = await _run(path, event, facts)
        finally:
            self._places.release()
        if ended.code == 0:
            return ""
        reason = ended.said or f"it ended with {ended.code}"
        self._log.warning("hook refused", hook=event, reason=reason, **facts)
        return f"{event}: {reason}"

    async def _place(self, event: str, patience_s: float) -> None:
        """Wait until one more program may run."""
        self._questions += 1
        try:
            async with asyncio.timeout(patience_s):
                await self._places.acquire()
        except TimeoutError:
            raise Crowded(event, self._questions) from None
        finally:
            self._questions -= 1

    def tell(self, event: str, facts: Facts) -> None:
        """Soon; nothing waits for it."""
        if self._program(event) is None:
            return
        try:
            self._waiting.put_nowait((event, dict(facts)))
        except asyncio.QueueFull:
            self._log.warning("hook left out", hook=event, reason=f"{WAITING} wait already", **facts)

    def retired(self, image: str, version: int, by: str) -> None:
        """Nobody gets this version any more; ``by``: who retired it, or ``keep``: newer ones took its place."""
        self.tell("image-retired", {"image": image, "version": str(version), "source": by})

    async def run(self) -> None:
        """Tell what waits, a few at a time, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._telling())

    async def _telling(self) -> None:
        while True:
            event, facts = await self._waiting.get()
            path = self._program(event)
            if path is None:
                continue
            async with self._places:
                ended = await _run(path, event, facts)
            if ended.code != 0:
                reason = ended.said or f"it ended with {ended.code}"
                self._log.warning("hook failed", hook=event, reason=reason, **facts)

    def _program(self, event: str) -> Path | None:
        """None where there is none of that name. One that cannot be looked at is there: :func:`unsafe` says why not."""
        if self._directory is None:
            return None
        path = self._directory / event
        try:
            return path if path.exists() else None
        except OSError:
            return path


def unsafe(path: Path) -> str:
    """Why a program is not started: others than root and the server's user could have written it, or nobody may start
    it. Empty: it may be."""
    for place in (path.parent, path):
        try:
            found = place.stat()
        except OSError as fault:
            return f"{place}: {fault.strerror}"
        if found.st_uid not in (0, os.geteuid()):
            return f"{place} belongs to user {found.st_uid}: it has to be root's"
        if found.st_mode & _OTHERS_WRITE:
            return f"{place} can be written by others than its owner: chmod go-w {place}"
    if not stat.S_ISREG(path.stat().st_mode) or not os.access(path, os.X_OK):
        return f"{path} is no program that the server may start: chmod +x {path}"
    return ""


async def _run(path: Path, event: str, facts: Facts) -> _Ended:
    why = unsafe(path)
    if why:
        return _Ended(None, why)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "PB_EVENT": event}
    environment |= {f"PB_{name.upper()}": value.replace("\0", "") for name, value in facts.items()}
    try:
        process = await asyncio.create_subprocess_exec(
            path, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            cwd="/", env=environment, start_new_session=True,
        )  # fmt: skip
    except OSError as fault:
        return _Ended(None, f"{path} cannot be started: {fault.strerror}")
    try:
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            said = group.create_task(_listen(process.stderr))
            group.create_task(_tell(process.stdin, json.dumps({"event": event, **facts}).encode()))
            await _exited(process.pid)
            _end(process)  # what it left running would keep its stderr open
            code = await process.wait()
        return _Ended(code, said.result())
    except TimeoutError:
        return _Ended(None, f"{path} took longer than {LIMIT_S:.0f} s and was ended")
    finally:
        if process.returncode is None:
            _end(process)
            await process.wait()


async def _exited(pid: int) -> None:
    """The program itself has ended. ``Process.wait`` waits, by the kind of loop, for all that has its stderr, too."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(watched, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(watched)
        os.close(watched)


def _end(process: asyncio.subprocess.Process) -> None:
    """With all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _tell(stdin: asyncio.StreamWriter | None, text: bytes) -> None:
    if stdin is None:
        return
    with contextlib.suppress(ConnectionError):  # it does not read
        stdin.write(text)
        await stdin.drain()
    stdin.close()


async def _listen(stderr: asyncio.StreamReader | None) -> str:
    """The first line that it says."""
    said = bytearray()
    while stderr is not None and (block := await stderr.read(_MOST)):
        said += block[: _MOST - len(said)]
    lines = said.decode("utf-8", "replace").splitlines()
    line = next((each.strip() for each in lines if each.strip()), "")
    return "".join(each if each.isprintable() else "?" for each in line)[:500]
