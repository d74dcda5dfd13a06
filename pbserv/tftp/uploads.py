"""The room that uploads have: who may begin one, and where its bytes go.

One rule: everything that can be known about an upload is judged before the client hears of us: the flags of the
manual, the file that stands there, the announced size against TFTPMaxUploadSize, quota and free space.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from pbserv.tftp.catalogue import Overload, Refusal, Target
from pbserv.tftp.packet import ErrorCode
from pbserv.tftp.quota import Ledger, Rules, Usage, look_for_room, sweep
from pbserv.tftp.sink import Sink, inspect, refusal

UPLOADS_PER_ADDRESS = 16
"""Running uploads of one address: each holds a temporary file and may reserve what its request announced."""
DISK_THREADS = 4


class Settings(Protocol):
    """The keys that are looked at (config.TftpConf)."""

    @property
    def allow_writes(self) -> bool: ...
    @property
    def allow_overwrites(self) -> bool: ...
    @property
    def max_upload_mb(self) -> int | None: ...
    @property
    def quota_mb(self) -> int | None: ...
    @property
    def quota_files(self) -> int | None: ...
    @property
    def free_space_mb(self) -> int: ...


def rules_of(settings: Settings) -> Rules:
    return Rules(
        allow_writes=settings.allow_writes,
        # The manual: TFTPAllowWrites must be 1 in order for TFTPAllowOverwrites to be recognized.
        allow_overwrites=settings.allow_writes and settings.allow_overwrites,
        largest_bytes=_bytes(settings.max_upload_mb),
        quota_bytes=_bytes(settings.quota_mb),
        quota_files=settings.quota_files,
        free_bytes=settings.free_space_mb << 20,
    )


def _bytes(mb: int | None) -> int | None:
    return mb << 20 if mb is not None else None


class UploadRoom:
    """Made in the event loop. ``root`` is TFTPDirectory.

    What waits for the disk runs in threads of its own: an fsync of seconds must not keep boot files waiting.
    """

    def __init__(self, root: Path, rules: Rules) -> None:
        self.root = root
        self.rules = rules
        self._executor = ThreadPoolExecutor(DISK_THREADS, "tftp-upload")
        self._loop = asyncio.get_running_loop()
        self._running: dict[str, int] = {}
        self._ledger = self._settle()

    def adopt(self, root: Path, rules: Rules) -> None:
        """New settings; running uploads keep theirs."""
        moved = root != self.root
        self.root, self.rules = root, rules
        if moved:
            self._ledger = self._settle()
        elif rules.counted:
            self._ledger.count()

    def _settle(self) -> Ledger:
        """A directory that is new to us: what an earlier process left there goes, and the rest is counted."""
        ledger = Ledger(self.root, self._count)
        self._executor.submit(sweep, self.root)
        if self.rules.counted:
            ledger.count()
        return ledger

    def _count(self, work: Callable[[], Usage], done: Callable[[Usage | None], None]) -> None:
        def deliver(finished: Future[Usage]) -> None:
            failed = finished.cancelled() or finished.exception() is not None
            self._call(partial(done, None if failed else finished.result()))

        self._executor.submit(work).add_done_callback(deliver)

    def _call(self, work: Callable[[], None]) -> None:
        """From a thread into the loop."""
        with suppress(RuntimeError):  # the loop is closed: the process ends, and the next one sweeps
            self._loop.call_soon_threadsafe(work)

    def admit(self, target: Target, size_bytes: int | None, peer: str) -> Sink:
        """A place for a file of ``size_bytes`` (None: not announced). Takes the target's descriptor over.

        Raises Refusal or Overload.
        """
        try:
            sink = self._open(target, size_bytes, peer)
        except OSError as fault:
            os.close(target.folder_fd)
            raise refusal(fault) from None
        except BaseException:
            os.close(target.folder_fd)
            raise
        return sink

    def _open(self, target: Target, size_bytes: int | None, peer: str) -> Sink:
        rules = self.rules
        if not rules.allow_writes:
            raise Refusal(ErrorCode.ACCESS, "writes are not allowed")
        if self._running.get(peer, 0) >= UPLOADS_PER_ADDRESS:
            raise Overload("too many uploads of this client")
        old = inspect(target, rules)
        wanted = size_bytes or 0
        if rules.largest_bytes is not None and wanted > rules.largest_bytes:
            raise Refusal(ErrorCode.DISK_FULL, "larger than TFTPMaxUploadSize")
        look_for_room(rules, target.folder_fd, self._ledger.unwritten_bytes + wanted)
        asked = Usage(0, 1 if old is None else 0)
        # What was announced is looked at now and reserved with the first block: requests can be forged.
        self._ledger.check(rules, Usage(wanted, asked.files))
        self._ledger.reserve(rules, asked)
        try:
            sink = Sink(target, rules, self._ledger, asked, size_bytes or None, partial(self._closed, peer))
        except BaseException:
            self._ledger.release(asked, Usage())
            raise
        self._running[peer] = self._running.get(peer, 0) + 1
        return sink

    def _closed(self, peer: str, file: int) -> None:
        left = self._running.pop(peer) - 1
        if left:
            self._running[peer] = left
        try:
            self._executor.submit(os.close, file)
        except RuntimeError:  # shut down
            os.close(file)

    def commit(self, sink: Sink, done: Callable[[BaseException | None], None]) -> None:
        """Make it durable and visible; ``done`` is called in the loop, with the Refusal or fault if that failed."""
        sink.begin_commit()

        def settle(fault: BaseException | None) -> None:
            sink.close()
            done(fault)

        def deliver(finished: Future[None]) -> None:
            self._call(partial(settle, finished.exception()))

        self._executor.submit(sink.commit).add_done_callback(deliver)

    def close(self) -> None:
        """Commits that run come to their end; nothing new begins."""
        self._executor.shutdown(wait=False)
