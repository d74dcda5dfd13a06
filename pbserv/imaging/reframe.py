"""Uploads become frames while they arrive: worker threads, turns, backpressure. The shell of ``frames``.

One rule: the loop only passes blocks on. Memory does not grow with the number of uploads: a part lies in a file until
all of it is there, and as many are worked on at once as there are workers; everybody else's sender waits.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Final, ParamSpec, TypeVar

from pbserv.imaging.faults import (
    ChecksumMismatch,
    DraftGone,
    ImagingFault,
    StoreClosed,
    UploadRunning,
    UploadStalled,
    WrongPart,
)
from pbserv.imaging.frames.checkpoint import Checkpoint, Received, StoredItem
from pbserv.imaging.frames.index import Stream
from pbserv.imaging.frames.intake import Charge, Intake, PartDone
from pbserv.imaging.frames.sidecars import check_free_name, read_state, working_files
from pbserv.imaging.frames.spool import Spool
from pbserv.imaging.frames.writer import Reuse

__all__ = [
    "EXTENT_BYTES",
    "Charge",
    "ItemUpload",
    "PartDone",
    "Received",
    "Reframer",
    "Reuse",
    "StoredItem",
    "kept",
    "working_files",
]

EXTENT_BYTES: Final = 64 * 1024
"""By measurement: docs/adr/0016-extent-size.md."""
DEFAULT_LEVEL: Final = 3
IDLE_TIMEOUT_S: Final = 900.0  # partclone reads the bitmap of a huge, slow disk before it sends a byte

_PART_BLOCK_BYTES: Final = 256 * 1024
_WHOLE_BLOCK_BYTES: Final = 1 << 20
_RECEIVING: Final = 128
"""So many parts are received at once; the others' senders wait."""
_WHOLES: Final = 16
"""So many bodies that are not small are worked on at once: each has zstd's window, 2 MiB as a rule."""
_SMALL_BYTES: Final = 64 * 1024
_PART_TIMES: Final = 8
"""So many idle times all of a part may take: two hours for 64 MiB, whatever the line."""
_NICE: Final = 10

P = ParamSpec("P")
T = TypeVar("T")


class Reframer:
    """Threads and limits that all uploads of a server share. ``workers`` 0 is one for each core."""

    def __init__(
        self,
        workers: int = 0,
        level: int = DEFAULT_LEVEL,
        extent_bytes: int = EXTENT_BYTES,
        *,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        self.level = level
        self.extent_bytes = extent_bytes
        self.idle_timeout_s = idle_timeout_s
        self.receiving = asyncio.Semaphore(_RECEIVING)
        self.wholes = asyncio.Semaphore(_WHOLES)
        self._stopping = threading.Event()
        count = workers or len(os.sched_getaffinity(0))
        self._workers = ThreadPoolExecutor(count, "reframe", initializer=_be_nice)
        self._files = ThreadPoolExecutor(2, "receive")

    def item(
        self, folder_fd: int, name: str, kind: str, *, reuse: Reuse | None = None, charge: Charge, asis: bool = False
    ) -> ItemUpload:
        """A new item ``name`` in an open directory; nothing is on the disk before its first byte.

        ``kind`` is the manifest's: ``partclone.*`` and ``raw`` are cut into frames, others kept as they come; '' is
        not known, the content decides. ``asis`` keeps everything as it comes. ``charge`` is called in worker threads,
        with the bytes that are about to be written (it raises StoreFull) and, negative, those that are given back.
        Raises InvalidName.
        """
        point = Checkpoint(kind, Stream.PIECES if asis else None, extent_bytes=self.extent_bytes, level=self.level)
        return self._upload(folder_fd, check_free_name(name), point, reuse, charge)

    def resumed(self, folder_fd: int, name: str, *, reuse: Reuse | None = None, charge: Charge) -> ItemUpload:
        """An item whose upload was interrupted, as of its last complete part. Blocking: for a worker thread.

        Nothing is charged for what is there. Raises FileNotFoundError without a checkpoint, and DamagedImage.
        """
        return self._upload(folder_fd, name, read_state(folder_fd, check_free_name(name)), reuse, charge)

    async def close(self) -> None:
        """Work ends at its next block; the files stay as of the last complete part."""
        self._stopping.set()
        await asyncio.get_running_loop().run_in_executor(None, self._shut_down)

    def work(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """In a worker thread: what costs computing time."""
        return _submit(self._workers, partial(work, *args, **kwargs))

    def file(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """In a thread for small writes."""
        return _submit(self._files, partial(work, *args, **kwargs))

    def _upload(self, folder_fd: int, name: str, point: Checkpoint, reuse: Reuse | None, charge: Charge) -> ItemUpload:
        folder = os.dup(folder_fd)
        return ItemUpload(self, Intake(folder, name, point, reuse=reuse, charge=charge, stopped=self._stopping.is_set))

    def _shut_down(self) -> None:
        for pool in (self._files, self._workers):
            pool.shutdown(wait=True)  # what waits there sees that we are stopping


class ItemUpload:
    """One item on its way; made by ``Reframer``. For tasks of one event loop."""

    def __init__(self, reframer: Reframer, intake: Intake) -> None:
        self._reframer = reframer
        self._intake = intake
        self._coming: Counter[int] = Counter()
        self._waiting: set[asyncio.Event] = set()
        self._patience: set[asyncio.Timeout] = set()
        self._completing: tuple[int | None, int | None, asyncio.Future[StoredItem]] | None = None

    @property
    def name(self) -> str:
        return self._intake.name

    @property
    def kind(self) -> str:
        return self._intake.point.kind

    @property
    def next_part(self) -> int:
        """The number of the part to send next, from 1."""
        return self._intake.point.part + 1

    @property
    def received_bytes(self) -> int:
        """Bytes of the bodies of all parts that were accepted."""
        return self._intake.point.received_bytes

    @property
    def stored(self) -> StoredItem | None:
        """The item once it is complete."""
        return self._intake.point.complete

    async def part(
        self, number: int, chunks: AsyncIterable[bytes], sha256: str | None = None, *, compressed: bool | None = None
    ) -> PartDone:
        """Take one part: zstd frames or bytes as they are (``compressed`` None: as they begin).

        A part that came before is compared and answered as before; the next but one waits for its turn. When it
        fails the item is as it was. Raises WrongPart, ChecksumMismatch, BadStream, ShortBody, StoreFull, StoreFault,
        UploadStalled, DraftGone, StoreClosed, and whatever ``chunks`` raises.
        """
        if number < self.next_part:
            return await self._reframer.work(self._intake.again, number, await self._digest(number, chunks, sha256))
        if number > self.next_part and not self._coming[number - 1]:
            raise WrongPart(f"item {self.name}: part {number} came, part {self.next_part} is next", self.next_part)
        self._coming[number] += 1
        try:
            spool = await self._spooled(number, chunks, sha256)
            try:
                await self._in_turn(number)
                done = self._reframer.work(_use, spool, self._intake, number, compressed)
            except BaseException:
                await self._settle(spool.close)
                raise
            return await asyncio.shield(done)  # also when the caller goes away: the part is complete, so it counts
        finally:
            self._coming[number] -= 1
            if not self._coming[number]:
                del self._coming[number]
            for waiter in self._waiting:
                waiter.set()

    async def whole(self, chunks: AsyncIterable[bytes], compressed: bool | None = None) -> None:
        """Take the item in one body; ``complete`` makes it one. Call ``abandon`` when this raises."""
        intake, reframer = self._intake, self._reframer
        await reframer.file(intake.begin_whole)
        working: asyncio.Future[None] | None = None
        blocks = self._blocks(chunks, _WHOLE_BLOCK_BYTES, first=_SMALL_BYTES, part=False)
        async with aclosing(blocks), _Slot(reframer.wholes) as slot:
            async for block in blocks:
                if len(block) >= _SMALL_BYTES:
                    await self._place(slot)
                if working is not None:
                    await working
                working = reframer.work(intake.block, block, compressed)
        if working is not None:
            await working

    async def complete(self, parts: int | None = None, plain_bytes: int | None = None) -> StoredItem:
        """The item is all there. ``parts`` and ``plain_bytes`` (uncompressed) are what the sender counted.

        Raises ShortBody where that is not what arrived, BadStream, StoreFull. May be repeated: who asks again while it
        is worked on waits for the same end, and keeps no other thread.
        """
        going = self._completing
        if going is None or going[:2] != (parts, plain_bytes) or going[2].done():
            going = parts, plain_bytes, self._reframer.work(self._intake.complete, parts, plain_bytes)
            self._completing = going
        return await asyncio.shield(going[2])

    async def abandon(self) -> None:
        """Give the item up and remove its files, unless it is complete. Idempotent."""
        self.stop()
        await self._settle(self._intake.abandon)

    def stop(self) -> None:
        """Whoever sends it fails with DraftGone at once; the files stay until ``abandon`` or ``close``."""
        self._intake.gone = True
        for patience in self._patience:
            if not patience.expired():
                patience.reschedule(asyncio.get_running_loop().time())  # whoever waits waits in vain

    @property
    def arrived(self) -> tuple[int, str]:
        """Bytes and SHA-256 of the one body that ``whole`` took."""
        return self._intake.arrived

    async def close(self) -> None:
        """Let go of the files as they are: the upload can be resumed from its checkpoint."""
        self._intake.gone = True
        await self._settle(self._intake.close)

    def blocking_close(self) -> None:
        """As ``close``, in the caller's thread; waits for a part that is worked on."""
        self._intake.gone = True
        _clean(self._intake.close)

    async def _in_turn(self, number: int) -> None:
        """Wait for the parts before that are still on their way. One that came already is not waited for: its sender
        may hang on a dead connection."""
        while any(self.next_part <= before < number for before in self._coming):
            waiter = asyncio.Event()
            self._waiting.add(waiter)
            try:
                async with self._patient(None):
                    await waiter.wait()
            finally:
                self._waiting.discard(waiter)

    async def _place(self, slot: _Slot) -> None:
        """A place among the whole bodies. Raises UploadRunning where none becomes free for long."""
        longest_s = _PART_TIMES * self._reframer.idle_timeout_s
        try:
            async with self._patient(asyncio.get_running_loop().time() + longest_s):
                await slot.take()
        except TimeoutError:
            raise UploadRunning(
                f"item {self.name}: {_WHOLES} items arrive in one body each, and none of them came to its end in "
                f"{longest_s:.0f} seconds; try again later, or send it in parts"
            ) from None

    @asynccontextmanager
    async def _patient(self, until: float | None) -> AsyncGenerator[None, None]:
        """What is waited for inside is waited for until then; raises TimeoutError, and DraftGone after :meth:`stop`."""
        try:
            async with asyncio.timeout_at(until) as patience:
                self._check_open()
                self._patience.add(patience)
                try:
                    yield
                finally:
                    self._patience.discard(patience)
        except TimeoutError:
            self._check_open()
            raise

    async def _digest(self, number: int, chunks: AsyncIterable[bytes], sha256: str | None) -> bytes:
        running = hashlib.sha256()
        async with aclosing(self._blocks(chunks, _PART_BLOCK_BYTES)) as blocks:
            async for block in blocks:
                await self._reframer.file(running.update, block)
        self._compare(number, running.hexdigest(), sha256)
        return running.digest()

    async def _spooled(self, number: int, chunks: AsyncIterable[bytes], sha256: str | None) -> Spool:
        async with _Slot(self._reframer.receiving) as slot:
            async with self._patient(None):
                await slot.take()
            spool = await kept(self._reframer.file(self._intake.spool), Spool.close)
            try:
                async with aclosing(self._blocks(chunks, _PART_BLOCK_BYTES)) as blocks:
                    async for block in blocks:
                        await self._reframer.file(spool.write, block)
                self._compare(number, spool.sha256.hexdigest(), sha256)
            except BaseException:
                await self._settle(spool.close)
                raise
        return spool

    def _compare(self, number: int, found: str, expected: str | None) -> None:
        if expected is not None and found != expected:
            raise ChecksumMismatch(
                f"item {self.name} part {number}: the SHA-256 of what arrived is {found}, not {expected}"
            )

    async def _blocks(
        self, chunks: AsyncIterable[bytes], size: int, first: int | None = None, *, part: bool = True
    ) -> AsyncGenerator[bytearray, None]:
        """Blocks of about ``size`` bytes; the first one of ``first`` where that is given.

        Who sends a byte now and then is given up as who sends nothing: every _SMALL_BYTES have the idle time to come,
        and where all of it is at most a part, all of it has _PART_TIMES that.
        """
        enough = size if first is None else first
        block, progress = bytearray(), 0
        iterator, loop, idle_s = aiter(chunks), asyncio.get_running_loop(), self._reframer.idle_timeout_s
        end = loop.time() + _PART_TIMES * idle_s if part else math.inf
        until = min(end, loop.time() + idle_s)
        while True:
            try:
                async with self._patient(until):
                    chunk = await anext(iterator, None)
            except TimeoutError:
                raise UploadStalled(
                    f"item {self.name}: the part took longer than {_PART_TIMES * idle_s:.0f} seconds"
                    if until == end
                    else f"item {self.name}: no more than {progress} bytes arrived in {idle_s:.0f} seconds"
                ) from None
            self._check_open()
            if chunk is None:
                break
            block += chunk
            progress += len(chunk)
            if progress >= _SMALL_BYTES:
                progress, until = 0, min(end, loop.time() + idle_s)
            if len(block) >= enough:
                yield block
                block, enough = bytearray(), size
                progress, until = 0, min(end, loop.time() + idle_s)
        if block:
            yield block

    def _check_open(self) -> None:
        if self._intake.gone:
            raise DraftGone(f"item {self.name}: the upload was discarded")

    async def _settle(self, work: Callable[[], None]) -> None:
        """Clean up in a thread, or here when the threads have gone; its failure is left to the next start."""
        cleanup = partial(_clean, work)
        try:
            done: Awaitable[None] = self._reframer.file(cleanup)
        except StoreClosed:
            cleanup()
            return
        await asyncio.shield(done)


class _Slot:
    """A place of a semaphore that is taken when it turns out to be needed."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._taken = False

    async def __aenter__(self) -> _Slot:
        return self

    async def take(self) -> None:
        if not self._taken:
            await self._places.acquire()
            self._taken = True

    async def __aexit__(self, *_: object) -> None:
        if self._taken:
            self._places.release()


async def kept(coming: asyncio.Future[T], close: Callable[[T], None]) -> T:
    """What a thread opens; it is closed when it comes and who waited for it was cancelled meanwhile."""
    try:
        return await asyncio.shield(coming)
    except asyncio.CancelledError:
        coming.add_done_callback(partial(_close_late, close))
        raise


def _close_late(close: Callable[[T], None], done: asyncio.Future[T]) -> None:
    if not done.cancelled() and done.exception() is None:
        close(done.result())


def _use(spool: Spool, intake: Intake, number: int, compressed: bool | None) -> PartDone:
    try:
        return intake.part(number, spool, compressed)
    finally:
        spool.close()


def _be_nice() -> None:
    """Threads that compute give way to the loop: a device that boots is served first."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _clean(work: Callable[[], None]) -> None:
    with suppress(ImagingFault, OSError):
        work()


def _submit(pool: Executor, work: Callable[[], T]) -> asyncio.Future[T]:
    try:
        future = asyncio.get_running_loop().run_in_executor(pool, work)
    except RuntimeError:
        raise StoreClosed("the image store is stopping") from None
    future.add_done_callback(_retrieve)
    return future


def _retrieve(future: asyncio.Future[T]) -> None:
    """Look at the result so that asyncio does not complain about one that nobody waited for."""
    if not future.cancelled():
        future.exception()
