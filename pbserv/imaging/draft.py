"""An upload on its way into the store: items are hashed while they arrive and become an image in one step.

One rule: the loop never waits for the disk or a hash, at most two blocks per upload are in memory, and whatever ends
an item early (short body, wrong checksum, full disk, disconnect, cancellation) leaves no file behind.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from concurrent.futures import Executor, Future
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import ParamSpec, TypeVar

from pbserv.imaging.changes import Signing
from pbserv.imaging.durable import CREATE, filesystem_faults
from pbserv.imaging.faults import (
    ChecksumMismatch,
    DraftGone,
    ImagingFault,
    ManifestMismatch,
    ShortBody,
    StoreClosed,
    UploadRunning,
    UploadStalled,
)
from pbserv.imaging.layout import Layout, StoredImage
from pbserv.imaging.manifest import Manifest, check_item_name, parse, print_manifest
from pbserv.imaging.version_facts import Received, VersionFacts

BLOCK_BYTES = 1024 * 1024
IDLE_TIMEOUT_S = 900.0  # partclone reads the bitmap of a huge, slow disk before it sends a byte

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredItem:
    """What arrived under an item's name and lies on the disk."""

    name: str
    size_bytes: int
    sha256: str


class _State(enum.Enum):
    OPEN = "open"
    COMMITTING = "being committed"
    COMMITTED = "committed already"
    DISCARDED = "discarded"


class _Folder:
    """The directory of one draft, made with its first item. Blocking; its lock orders the worker threads."""

    def __init__(self, layout: Layout, image: str) -> None:
        self.layout = layout
        self.image = image
        self.lock = threading.Lock()
        self.name = ""
        self.descriptor = -1
        self._gone = False
        self._parts = 0
        self._charged = 0

    def charge(self, size_bytes: int) -> None:
        """Count bytes before they are written; raises StoreFull."""
        self.layout.charge(size_bytes)
        with self.lock:
            self._charged += size_bytes

    def uncharge(self, size_bytes: int) -> None:
        """Bytes that were counted and are gone."""
        with self.lock:
            size_bytes = min(size_bytes, self._charged)
            self._charged -= size_bytes
        self.layout.count(-size_bytes)

    def create_part(self) -> tuple[str, int]:
        """A new hidden file: its name and descriptor."""
        with self.lock:
            if self._gone:
                raise DraftGone(f"image {self.image}: the upload was discarded")
            if self.descriptor < 0:
                self.name, self.descriptor = self.layout.make_incoming(self.image)
            self._parts += 1
            part = f".part.{self._parts}"
            with filesystem_faults(f"image {self.image}: making a file"):
                return part, os.open(part, CREATE, 0o640, dir_fd=self.descriptor)

    def rename_part(self, part: str, name: str) -> None:
        with self.lock:
            if self._gone:
                raise DraftGone(f"image {self.image}: the upload was discarded")
            os.rename(part, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def remove_part(self, part: str) -> None:
        with self.lock:
            if not self._gone:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=self.descriptor)

    def publish(self, manifest: Manifest, facts: VersionFacts, signing: Signing) -> StoredImage:
        digest = hashlib.sha256(print_manifest(manifest).encode()).hexdigest()
        at = datetime.now(UTC)
        with self.lock:
            if self._gone:
                raise DraftGone(f"image {self.image}: the upload was discarded")
            image = self.layout.publish(
                self.name,
                self.descriptor,
                self.image,
                manifest,
                replace(facts, created=at),
                lambda about, number: signing.signed(about, number, digest, at),
            )
            self.layout.count(self.layout.size_of(self.image, image.version) - self._charged)
            self._close()
            return image

    def remove(self) -> None:
        """Remove everything; the draft accepts nothing any more. Idempotent."""
        with self.lock:
            if self._gone:
                return
            made = self.descriptor >= 0
            self._close()
            self.layout.count(-self._charged)
            if made:
                self.layout.remove_incoming(self.name)

    def _close(self) -> None:
        self._gone = True
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class _Part:
    """One item while it arrives: hashes and writes. Blocking; used by one worker thread at a time."""

    def __init__(self, folder: _Folder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._file = ""
        self._descriptor = -1
        self._ended = False
        self.size_bytes = 0

    def open(self, expected_bytes: int) -> None:
        """Make the file; raises StoreFull when what is announced cannot fit."""
        with self._lock:
            self._folder.layout.check_space(expected_bytes)
            if not self._ended:
                self._file, self._descriptor = self._folder.create_part()

    def write(self, block: bytearray) -> None:
        with self._lock:
            if self._ended:
                return
            self._folder.charge(len(block))
            self._hash.update(block)
            with filesystem_faults(f"image {self._folder.image} item {self._name}"), memoryview(block) as whole:
                written = 0
                while written < len(block):
                    written += os.write(self._descriptor, whole[written:])
            self.size_bytes += len(block)

    def finish(self, expected_bytes: int | None, expected_sha256: str | None) -> StoredItem:
        """Check, make durable and give the file its name."""
        with self._lock:
            if self._ended:
                raise DraftGone(f"image {self._folder.image}: the upload was discarded")
            what = f"image {self._folder.image} item {self._name}"
            sha256 = self._hash.hexdigest()
            if expected_bytes is not None and self.size_bytes != expected_bytes:
                raise ShortBody(f"{what}: {self.size_bytes} bytes arrived, {expected_bytes} were announced")
            if expected_sha256 is not None and sha256 != expected_sha256:
                raise ChecksumMismatch(f"{what}: the SHA-256 of what arrived is {sha256}, not {expected_sha256}")
            with filesystem_faults(what):
                os.fsync(self._descriptor)
                self._folder.rename_part(self._file, self._name)
            self._close()
            return StoredItem(self._name, self.size_bytes, sha256)

    def abandon(self) -> None:
        """Forget the item and remove its file. Idempotent; after ``finish`` it does nothing."""
        with self._lock:
            opened = self._descriptor >= 0
            self._close()
            if opened:
                self._folder.remove_part(self._file)
                self._folder.uncharge(self.size_bytes)

    def _close(self) -> None:
        self._ended = True
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Draft:
    """One upload of one image; made by ``Store.begin``. Not visible before ``commit``; call ``discard`` otherwise."""

    def __init__(
        self,
        image: str,
        layout: Layout,
        workers: Executor,
        *,
        ended: Callable[[StoredImage | None], None],
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        signing: Signing,
    ) -> None:
        self.image = image
        self._signing = signing
        self._workers = workers
        self._ended = ended
        self._idle_timeout_s = idle_timeout_s
        self._folder = _Folder(layout, image)
        self._state = _State.OPEN
        self._arriving: dict[str, int] = {}
        self._items: dict[str, StoredItem] = {}
        self._patience: set[asyncio.Timeout] = set()

    @property
    def items(self) -> tuple[StoredItem, ...]:
        """The items that have arrived completely."""
        return tuple(self._items.values())

    async def receive(
        self, name: str, chunks: AsyncIterable[bytes], *, size_bytes: int | None = None, sha256: str | None = None
    ) -> StoredItem:
        """Store one item from its bytes; a second one of the same name replaces the first when it is complete.

        ``size_bytes`` and ``sha256`` are what the sender announced, if it did. Raises an ImagingFault, or whatever
        ``chunks`` raises, and leaves nothing of the item behind.
        """
        check_item_name(name)
        self._check_open()
        part = _Part(self._folder, name)
        self._arriving[name] = self._arriving.get(name, 0) + 1
        try:
            await self._run(part.open, size_bytes or 0)
            await self._fill(part, chunks)
            self._check_open()
            item = await self._run(part.finish, size_bytes, sha256)
        except BaseException:
            await self._settle(part.abandon)
            raise
        finally:
            self._arriving[name] -= 1
            if not self._arriving[name]:
                del self._arriving[name]
        self._items[name] = item
        return item

    async def commit(self, manifest_text: str) -> StoredImage:
        """Make the image visible when the manifest and the items agree; returns the new version.

        Raises ManifestError or ManifestMismatch and changes nothing when they do not: the sender may correct it.
        """
        self._check_open()
        if self._arriving:
            raise UploadRunning(f"image {self.image}: item {min(self._arriving)} is still arriving")
        manifest = parse(manifest_text)
        self._compare(manifest)
        self._state = _State.COMMITTING
        published = self._submit(self._folder.publish, manifest, self._facts(), self._signing)
        published.add_done_callback(self._published)  # also when the caller is cancelled meanwhile
        return await asyncio.shield(published)

    def _facts(self) -> VersionFacts:
        received = {item.name: Received(item.size_bytes, item.sha256) for item in self._items.values()}
        kind, _, number = self._signing.creator.partition(":")
        job = int(number) if kind == "job" and number.isdigit() else None
        return VersionFacts(creator=self._signing.creator, job=job, received=received)

    def discard(self) -> Awaitable[None]:
        """Give the upload up and free its name at once; await the result to know that its files are gone.

        After a commit, or a second time, it does nothing.
        """
        if self._state is _State.OPEN:
            self._state = _State.DISCARDED
            self._ended(None)
            for patience in self._patience:
                patience.reschedule(asyncio.get_running_loop().time())  # whoever waits for bytes waits in vain
        if self._state is not _State.DISCARDED:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        return self._settle_soon(self._folder.remove)

    def _published(self, published: asyncio.Future[StoredImage]) -> None:
        if published.cancelled() or published.exception() is not None:
            self._state = _State.OPEN
        else:
            self._state = _State.COMMITTED
            self._ended(published.result())

    def _compare(self, manifest: Manifest) -> None:
        for item in manifest.items:
            stored = self._items.get(item.name)
            if stored is None:
                raise ManifestMismatch(f"image {self.image}: item {item.name} is in the manifest, but never arrived")
            if (stored.size_bytes, stored.sha256) != (item.stored_bytes, item.sha256):
                raise ManifestMismatch(
                    f"image {self.image} item {item.name}: the manifest says {item.stored_bytes} bytes with SHA-256 "
                    f"{item.sha256}, but {stored.size_bytes} with {stored.sha256} arrived"
                )
        surplus = self._items.keys() - {item.name for item in manifest.items}
        if surplus:
            raise ManifestMismatch(f"image {self.image}: item {min(surplus)} arrived, but is not in the manifest")

    async def _fill(self, part: _Part, chunks: AsyncIterable[bytes]) -> None:
        """Collect blocks while the previous one is being hashed and written."""
        writing: asyncio.Future[None] | None = None
        async with aclosing(self._blocks(chunks)) as blocks:
            async for block in blocks:
                if writing is not None:
                    await writing
                self._check_open()
                writing = self._submit(part.write, block)
        if writing is not None:
            await writing

    async def _blocks(self, chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytearray, None]:
        block = bytearray()
        iterator = aiter(chunks)
        while True:
            try:
                async with asyncio.timeout(self._idle_timeout_s) as patience:
                    self._patience.add(patience)
                    try:
                        chunk = await anext(iterator, None)
                    finally:
                        self._patience.discard(patience)
            except TimeoutError:
                self._check_open()
                raise UploadStalled(
                    f"image {self.image}: nothing arrived for {self._idle_timeout_s:.0f} seconds"
                ) from None
            if chunk is None:
                break
            block += chunk
            if len(block) >= BLOCK_BYTES:
                yield block
                block = bytearray()
        if block:
            yield block

    def _check_open(self) -> None:
        if self._state is not _State.OPEN:
            raise DraftGone(f"image {self.image}: the upload is {self._state.value}")

    def _submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        try:
            future = asyncio.get_running_loop().run_in_executor(self._workers, partial(work, *args, **kwargs))
        except RuntimeError:
            raise StoreClosed("the image store is stopping") from None
        future.add_done_callback(_retrieve)
        return future

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._submit(work, *args, **kwargs)

    def _settle_soon(self, work: Callable[[], None]) -> asyncio.Future[None]:
        """Clean up in a worker thread; here when the workers have gone. Its failure is left to the next start."""
        cleanup = partial(_clean, work)
        try:
            waiting: Future[None] = self._workers.submit(cleanup)
        except RuntimeError:
            cleanup()
            waiting = Future()
            waiting.set_result(None)
        return asyncio.wrap_future(waiting)

    async def _settle(self, work: Callable[[], None]) -> None:
        await asyncio.shield(self._settle_soon(work))


def _clean(work: Callable[[], None]) -> None:
    with suppress(ImagingFault, OSError):
        work()


def _retrieve(future: asyncio.Future[T]) -> None:
    """Look at the result so that asyncio does not complain about one that nobody waited for."""
    if not future.cancelled():
        future.exception()
