"""An upload on its way into the store: items come whole or in parts and become an image in one step.

One rule: the loop never waits for the disk or a hash; whatever ends an item early (short body, wrong checksum, full
disk, disconnect, cancellation) leaves it as it was before, and nothing of it is visible until the commit.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import ParamSpec, TypeVar

from pbserv.imaging.changes import Signing
from pbserv.imaging.draft_folder import DraftFolder
from pbserv.imaging.faults import (
    ChecksumMismatch,
    DamagedImage,
    DraftGone,
    ImagingFault,
    InvalidName,
    InvalidRequest,
    ManifestMismatch,
    ShortBody,
    StoreClosed,
    UploadRunning,
    WrongPart,
)
from pbserv.imaging.frames import checkpoint
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.manifest import MAX_ITEMS, Fact, Manifest, ManifestItem, check_item_name, parse
from pbserv.imaging.reframe import IDLE_TIMEOUT_S, ItemUpload, PartDone, Reframer, Reuse, kept, working_files
from pbserv.imaging.session_file import SESSION_FILE, SessionFacts
from pbserv.imaging.version_facts import Received, VersionFacts, with_origin

__all__ = ["IDLE_TIMEOUT_S", "Draft", "ItemProgress", "PartDone", "StoredItem"]

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE = 16
"""So many bodies of one upload arrive at once: nobody holds all connections, slots and buffers."""
INCOMPLETE = 32
"""So many items of one upload have begun and are not complete: each holds files open."""
_SENT = ("tool", "fs", "fs_bytes")
"""Facts that the sender knows better than the bytes do."""


@dataclass(frozen=True, slots=True)
class StoredItem:
    """What arrived under an item's name. ``sha256``: of the body, or of its parts' digests one after the other."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ItemProgress:
    """How far an item has come; ``next_part`` is the part to send, from 1."""

    kind: str
    next_part: int
    received_bytes: int
    complete: bool


class _State(enum.Enum):
    OPEN = "open"
    COMMITTING = "being committed"
    COMMITTED = "committed already"
    DISCARDED = "discarded"
    CLOSED = "interrupted: the image store is stopping"


class Draft:
    """One upload of one image; made by ``Store.begin`` and ``Store.open_session``. Not visible before ``commit``; call
    ``discard`` otherwise. ``number`` names it for whoever goes on with it."""

    def __init__(
        self,
        facts: SessionFacts,
        folder: DraftFolder,
        reframer: Reframer,
        workers: Executor,
        *,
        ended: Callable[[StoredImage | None], None],
        signing: Signing,
        store: str = "",
        durable: bool = False,
        reuse: Callable[[str], Reuse | None] = lambda _item: None,
    ) -> None:
        self.image = facts.image
        self.number = folder.name.rpartition(".")[2]
        self.store = store
        self.owner = facts.creator
        self.created: datetime = facts.created
        self.touched: datetime = facts.created
        """When something of it arrived for the last time."""
        self._facts = facts
        self._folder = folder
        self._reframer = reframer
        self._workers = workers
        self._ended = ended
        self._signing = signing
        self._durable = durable
        self._reuse = reuse
        self._state = _State.OPEN
        self._arriving: dict[str, int] = {}
        self._uploads: set[ItemUpload] = set()
        self._parts: dict[str, ItemUpload] = {}
        self._items: dict[str, checkpoint.StoredItem] = {}
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._removal: asyncio.Future[None] | None = None
        self._publishing: asyncio.Future[StoredImage] | None = None
        self._given_up = False
        self._opening = asyncio.Lock()

    @property
    def items(self) -> tuple[StoredItem, ...]:
        """The items that have arrived completely."""
        return tuple(_told(item) for item in self._items.values())

    @property
    def idle(self) -> bool:
        """Nothing arrives just now, and it is not being committed."""
        return self._state is _State.OPEN and not self._arriving

    def progress(self) -> Mapping[str, ItemProgress]:
        """Every item that something arrived of."""
        found = {name: ItemProgress(upload.kind, upload.next_part, upload.received_bytes, complete=name in self._items)
                 for name, upload in self._parts.items()}  # fmt: skip
        for name, item in self._items.items():
            found.setdefault(name, ItemProgress(item.kind, 1, item.received.size_bytes, complete=True))
        return found

    def next_part(self, item: str) -> int:
        """The number of the part of ``item`` to send, from 1."""
        upload = self._parts.get(item)
        return 1 if upload is None else upload.next_part

    def blocking_resume(self) -> None:
        """Take over what a server before left; blocking, before anything else.

        Raises DamagedImage where nobody can go on with it, and OSError, which says nothing of what is there.
        """
        facts = self._folder.resume()
        self._facts, self.owner, self.created = facts, facts.creator, facts.created
        names = set(self._folder.names())
        for name, item in facts.items.items():
            if self._folder.size_of(name) == item.size_bytes:
                self._items[name] = item
        with_state = {name.removesuffix(".state") for name in names if name.endswith(".state")} - self._items.keys()
        known = {SESSION_FILE}
        for name in sorted(with_state):
            with suppress(DamagedImage, InvalidName, FileNotFoundError):
                upload = self._reframer.resumed(self._folder.opened(), name, charge=self._folder.charge)
                self._parts[name] = upload
                if upload.stored is not None:
                    self._items[name] = upload.stored
                known |= set(working_files(name))
        for name in self._items.keys() | self._parts.keys():
            known |= {name, f"{name}.pbx"}
        self._folder.forget(sorted(names - known))
        self._folder.recount()

    async def receive(
        self, name: str, chunks: AsyncIterable[bytes], *, size_bytes: int | None = None, sha256: str | None = None
    ) -> StoredItem:
        """Store one item from its bytes; a second one of the same name replaces the first when it is complete.

        ``size_bytes`` and ``sha256`` are what the sender announced, if it did. Raises an ImagingFault, or whatever
        ``chunks`` raises, and leaves nothing of the item behind.
        """
        check_item_name(name)
        async with self._arrival(name):
            upload = await self._new(name, "", size_bytes or 0)
            try:
                await upload.whole(chunks)
                self._check_open()
                _compare(f"image {self.image} item {name}", upload.arrived, size_bytes, sha256)
                item = await upload.complete()
                self._check_open()
            except BaseException:
                self._uploads.discard(upload)
                await asyncio.shield(upload.abandon())
                raise
            try:  # until it is noted there is no commit: the name is of the new file, and what is known of the old one
                await upload.close()
                before = self._parts.pop(name, None)
                if before is not None:
                    await before.close()
                replaced = self._items.get(name)
                if replaced is not None:
                    self._folder.charge(-replaced.size_bytes)
                self._items[name] = item
            finally:
                self._uploads.discard(upload)
            await self._note(name)
        return _told(item)

    async def part(
        self, item: str, kind: str, number: int, chunks: AsyncIterable[bytes], sha256: str | None
    ) -> PartDone:
        """Store part ``number`` (from 1) of an item; the same part again is answered as before.

        ``kind`` is that of the manifest. Raises WrongPart, ChecksumMismatch, and what ``ItemUpload.part`` raises; the
        item is as before then.
        """
        check_item_name(item)
        async with self._arrival(item):
            upload = await self._of_parts(item, kind, number)
            try:
                return await upload.part(number, chunks, sha256)
            except Exception:  # who is cancelled may have sent all of it: then it counts
                await self._forget_empty(item, upload)
                raise

    async def _of_parts(self, item: str, kind: str, number: int) -> ItemUpload:
        """The item that a part is of; made by its first part."""
        async with self._opening:
            upload = self._parts.get(item)
            if upload is None:
                if item in self._items:
                    raise WrongPart(f"image {self.image} item {item} arrived already, in one body")
                if number != 1:
                    raise WrongPart(f"image {self.image} item {item}: part {number} came, part 1 is next", 1)
                upload = self._parts[item] = await self._new(item, kind, 0)
        if upload.kind != kind:
            raise InvalidRequest(f"image {self.image} item {item}: it was of kind {upload.kind!r}, now {kind[:40]!r}")
        return upload

    async def _forget_empty(self, item: str, upload: ItemUpload) -> None:
        """An item whose first part was refused is none, unless somebody else is sending that part."""
        async with self._opening:
            alone = self._arriving[item] == 1 and self._parts.get(item) is upload
            if alone and upload.next_part == 1 and self._state is _State.OPEN:
                del self._parts[item]
                await asyncio.shield(upload.abandon())

    async def complete(self, item: str, parts: int | None, plain_bytes: int | None) -> StoredItem:
        """All parts of an item are there; ``parts`` and ``plain_bytes`` (uncompressed) are what the sender counted."""
        self._check_open()
        upload = self._parts.get(check_item_name(item))
        if upload is None:
            raise ManifestMismatch(f"image {self.image}: no part of item {item} has arrived")
        async with self._arrival(item):
            stored = await upload.complete(parts, plain_bytes)
            self._items[item] = stored
        return _told(stored)

    async def commit(self, manifest_text: str, *, made_of: int | None = None, mac: str = "") -> StoredImage:
        """Make the image visible when the manifest and the items agree; returns the new version. ``made_of``: see
        Signing. ``mac``: the device that was captured, where it is known. Items that are not complete are given up,
        also when it fails after that.

        Raises ManifestError or ManifestMismatch and changes nothing when they do not: the sender may correct it. Who
        asks again while it is committed, since the answer was lost, waits for the same end. A part of an item that is
        complete may still be on its way, on a dead connection: the item has all of it.
        """
        if self._state is _State.COMMITTING and self._publishing is not None:
            return await asyncio.shield(self._publishing)
        self._check_open()
        late = self._arriving.keys() - self._items.keys() | {upload.name for upload in self._uploads}
        if late:
            raise UploadRunning(f"image {self.image}: item {min(late)} is still arriving")
        manifest = self._kept(parse(manifest_text))
        sizes = {name: item.size_bytes for name, item in self._items.items()}
        signing = replace(self._signing, made_of=made_of)
        facts = with_origin(self._version_facts(), manifest, mac)
        published = self._submit(self._publish, manifest, facts, signing, sizes)
        self._state, self._publishing = _State.COMMITTING, published
        published.add_done_callback(self._published)  # also when the caller is cancelled meanwhile
        return await asyncio.shield(published)

    def discard(self) -> Awaitable[None]:
        """Give the upload up and free its name at once; await the result to know that its files are gone.

        After a commit, or a second time, it does nothing; during one it waits for the case that the commit fails.
        """
        self._given_up = True
        if self._state is _State.OPEN:
            self._state = _State.DISCARDED
            self._ended(None)
            for upload in (*self._uploads, *self._parts.values()):
                upload.stop()
        if self._state is not _State.DISCARDED:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        if self._quiet.is_set():
            return self._settle_soon(self._remove_all)
        if self._removal is None:  # the last item that arrives removes everything
            self._removal = asyncio.get_running_loop().create_future()
        return asyncio.shield(self._removal)

    async def close(self) -> None:
        """The store stops: what can be resumed stays as it is, everything else goes."""
        if self._publishing is not None:
            await asyncio.wait([self._publishing])  # where it fails, what arrived is still there
        if self._state is not _State.OPEN or not self._durable:
            await self.discard()
            return
        self._state = _State.CLOSED
        for upload in (*self._uploads, *self._parts.values()):
            upload.stop()
        await self._quiet.wait()
        for upload in self._parts.values():
            await upload.close()
        self._folder.let_go()

    def release(self) -> None:
        """Let go of it as it is, at once; only where nothing arrives."""
        self._state = _State.CLOSED
        self._close_parts()
        self._folder.let_go()

    def _publish(
        self, manifest: Manifest, facts: VersionFacts, signing: Signing, sizes: Mapping[str, int]
    ) -> StoredImage:
        for name, upload in tuple(self._parts.items()):
            if name not in sizes:
                upload.blocking_close()
        image = self._folder.publish(manifest, facts, signing, sizes)
        self._close_parts()
        return image

    def _close_parts(self) -> None:
        for upload in self._parts.values():
            upload.blocking_close()

    def _remove_all(self) -> None:
        """Room is free when nobody has the files open any more."""
        self._close_parts()
        self._folder.remove()

    def _remove(self) -> None:
        removing = self._settle_soon(self._remove_all)
        if self._removal is not None:
            removal = self._removal
            removing.add_done_callback(lambda _done: None if removal.done() else removal.set_result(None))

    @asynccontextmanager
    async def _arrival(self, name: str) -> AsyncGenerator[None, None]:
        self._check_open()
        if sum(self._arriving.values()) >= AT_ONCE:
            raise UploadRunning(f"image {self.image}: {AT_ONCE} parts arrive already; wait until one of them is there")
        self._arriving[name] = self._arriving.get(name, 0) + 1
        self._quiet.clear()
        try:
            yield
        finally:
            self.touched = datetime.now(UTC)
            self._arriving[name] -= 1
            if not self._arriving[name]:
                del self._arriving[name]
            if not self._arriving:
                self._quiet.set()
                if self._state is _State.DISCARDED:
                    self._remove()

    async def _new(self, name: str, kind: str, expected_bytes: int) -> ItemUpload:
        known = self._items.keys() | self._parts.keys() | self._arriving.keys()
        if len(known) > MAX_ITEMS:
            raise InvalidRequest(f"image {self.image} item {name}: an image has no more than {MAX_ITEMS} items")
        if len(self._parts.keys() - self._items.keys()) >= INCOMPLETE:
            raise UploadRunning(f"image {self.image}: {INCOMPLETE} items have begun; complete one of them first")
        facts = self._facts if self._durable else None
        folder_fd = await self._submit(self._folder.open, expected_bytes, facts)
        reuse = None if self._facts.asis else await kept(self._submit(self._reuse, name), _close_reuse)
        try:
            self._check_open()
            upload = self._reframer.item(
                folder_fd, name, kind, reuse=reuse, charge=self._folder.charge, asis=self._facts.asis
            )
        except BaseException:
            _close_reuse(reuse)
            raise
        if not kind:
            self._uploads.add(upload)
        return upload

    async def _note(self, name: str) -> None:
        """An item that came in one body has no checkpoint of its own."""
        if self._durable:
            whole = {known: item for known, item in self._items.items() if known not in self._parts}
            self._facts = replace(self._facts, items=whole)
            await self._submit(self._folder.forget, working_files(name))
            await self._submit(self._folder.note, self._facts)

    def _published(self, published: asyncio.Future[StoredImage]) -> None:
        self._parts = {name: upload for name, upload in self._parts.items() if name in self._items}
        if published.cancelled() or published.exception() is not None:
            self._state, self._publishing = _State.OPEN, None
            if self._given_up:
                self.discard()
        else:
            self._state = _State.COMMITTED
            self._ended(published.result())
            for upload in self._parts.values():
                upload.stop()

    def _kept(self, manifest: Manifest) -> Manifest:
        """The manifest with what is stored in place of what was sent. Raises ManifestMismatch."""
        for item in manifest.items:
            stored = self._items.get(item.name)
            if stored is None:
                raise ManifestMismatch(f"image {self.image}: item {item.name} is in the manifest, but never arrived")
            received = stored.received
            if (received.size_bytes, received.sha256) != (item.stored_bytes, item.sha256):
                raise ManifestMismatch(
                    f"image {self.image} item {item.name}: the manifest says {item.stored_bytes} bytes with SHA-256 "
                    f"{item.sha256}, but {received.size_bytes} with {received.sha256} arrived"
                )
            if stored.stream == "partclone" and not item.kind.startswith("partclone."):
                raise ManifestMismatch(
                    f"image {self.image} item {item.name}: the manifest says {item.kind}, but it is a partclone stream"
                )
        surplus = self._items.keys() - {item.name for item in manifest.items}
        if surplus:
            raise ManifestMismatch(f"image {self.image}: item {min(surplus)} arrived, but is not in the manifest")
        items = tuple(_stored(item, self._items[item.name]) for item in manifest.items)
        facts = [Fact(item.name, key, value) for item in self._items.values() for key, value in item.facts.items()
                 if not (key in _SENT and manifest.fact(item.name, key))]  # fmt: skip
        return replace(manifest, items=items).with_facts(facts)

    def _version_facts(self) -> VersionFacts:
        received = {item.name: Received(item.received.size_bytes, item.received.sha256)
                    for item in self._items.values()}  # fmt: skip
        return VersionFacts(creator=self.owner, job=job_of(self.owner), received=received)

    def _check_open(self) -> None:
        if self._state is _State.CLOSED:
            raise StoreClosed("the image store is stopping")
        if self._state is not _State.OPEN:
            raise DraftGone(f"image {self.image}: the upload is {self._state.value}")

    def _submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        try:
            future = asyncio.get_running_loop().run_in_executor(self._workers, partial(work, *args, **kwargs))
        except RuntimeError:
            raise StoreClosed("the image store is stopping") from None
        future.add_done_callback(_retrieve)
        return future

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


def job_of(creator: str) -> int | None:
    """The number in ``job:17``, else None."""
    kind, _, number = creator.partition(":")
    return int(number) if kind == "job" and number.isascii() and number.isdigit() and len(number) < 19 else None


def _told(item: checkpoint.StoredItem) -> StoredItem:
    return StoredItem(item.name, item.received.size_bytes, item.received.sha256)


def _stored(item: ManifestItem, stored: checkpoint.StoredItem) -> ManifestItem:
    plain = item.uncompressed_bytes if stored.stream == "pieces" else stored.plain_bytes
    return replace(item, stored_bytes=stored.size_bytes, sha256=stored.sha256, uncompressed_bytes=plain)


def _compare(what: str, arrived: tuple[int, str], size_bytes: int | None, sha256: str | None) -> None:
    size, digest = arrived
    if size_bytes is not None and size != size_bytes:
        raise ShortBody(f"{what}: {size} bytes arrived, {size_bytes} were announced")
    if sha256 is not None and digest != sha256:
        raise ChecksumMismatch(f"{what}: the SHA-256 of what arrived is {digest}, not {sha256}")


def _close_reuse(reuse: Reuse | None) -> None:
    if reuse is not None:
        reuse.close()


def _clean(work: Callable[[], None]) -> None:
    with suppress(ImagingFault, OSError):
        work()


def _retrieve(future: asyncio.Future[T]) -> None:
    """Look at the result so that asyncio does not complain about one that nobody waited for."""
    if not future.cancelled():
        future.exception()
