"""How far a transfer or a task is: a bar on a terminal, a line now and then elsewhere. All on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from pbserv.commands.tables import console, plain, size

_EVERY_S: Final = 15.0
"""Between two lines where there is no terminal."""


class Bar:
    """``with Bar(title, total) as bar: bar.add(n)``; bytes. ``total`` may be given later, 0: it is not known."""

    def __init__(self, title: str, total: int = 0, done: int = 0) -> None:
        self._title = plain(title)
        self._total, self._done = total, done
        self._said = time.monotonic()
        self._progress: Progress | None = None
        screen = console(stderr=True)
        if screen.is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=True),
                       TransferSpeedColumn(), TimeRemainingColumn())  # fmt: skip
            self._progress = Progress(*columns, console=screen, transient=True)
            self._task = self._progress.add_task(self._title, total=total or None, completed=done)

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def add(self, count: int) -> None:
        self.at(self._done + count)

    def at(self, done: int, total: int | None = None) -> None:
        """``done`` bytes of ``total`` in all; a total of None is the one that was given before."""
        self._done, self._total = done, self._total if total is None else total
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=self._total or None)
        elif time.monotonic() - self._said >= _EVERY_S:
            self._said = time.monotonic()
            of = f" of {size(self._total)}, {100 * done // self._total} %" if self._total else ""
            print(f"{self._title}: {size(done)}{of}", file=sys.stderr, flush=True)
