"""The built-in image store: an index in memory over the directory tree of ``layout``. Knows no web framework.

One rule: whoever calls it on the event loop never waits for the disk; answers that need the disk are awaited and come
from a bounded number of worker threads, reads and writes apart so that a slow fsync delays no download.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TypeVar

from pbserv.errors import StartError
from pbserv.imaging.about import About, AboutChange, checked
from pbserv.imaging.catalog import Catalog
from pbserv.imaging.changes import Signing, check_move, check_purge, refuse_users, rolled_back
from pbserv.imaging.draft import IDLE_TIMEOUT_S, Draft
from pbserv.imaging.durable import filesystem_faults
from pbserv.imaging.faults import (
    Changed,
    DamagedImage,
    Forbidden,
    ImageExists,
    StoreClosed,
    UnknownImage,
    UnknownStore,
    UploadRunning,
)
from pbserv.imaging.frames.index import Header
from pbserv.imaging.frames.reader import OpenIndex
from pbserv.imaging.layout import Check, Layout, StoredImage
from pbserv.imaging.linking import link_in
from pbserv.imaging.locks import Locks
from pbserv.imaging.manifest import Manifest, check_image_name, check_new_name
from pbserv.imaging.objects import ImageObject, StoreFacts
from pbserv.imaging.opened import OpenItem, open_index, read_header
from pbserv.imaging.reconcile import Keep, Remove, Tell, plan
from pbserv.imaging.reframe import Reframer
from pbserv.imaging.retiring import Retirements
from pbserv.imaging.states import VersionState, served
from pbserv.imaging.store_rules import DEFAULT_FREE_FLOOR, RunningJobs, StoreRules, Users, no_jobs, nobody
from pbserv.imaging.uploads import Uploads
from pbserv.imaging.watch import Facts

T = TypeVar("T")

DEFAULT_NAME = "main"
_WRITERS = 4
_READERS = 8


class Store(Catalog):
    """All images of one directory. ``start`` it before use; ``rules`` and ``users`` may be changed while it runs."""

    def __init__(
        self,
        root: Path,
        *,
        allow_overwrite: bool = False,
        free_floor_bytes: int = DEFAULT_FREE_FLOOR,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        name: str = DEFAULT_NAME,
        rules: StoreRules | None = None,
        nested: Sequence[str] = (),
        reframer: Reframer | None = None,
    ) -> None:
        """``reframer`` is shared by all stores of a server; None: one of its own, with ``idle_timeout_s``."""
        self.layout = Layout(root, free_floor_bytes, name=name, nested=nested)
        super().__init__(name, self.layout.abouts)
        self.root = root
        self.users: Users = nobody
        self.jobs: RunningJobs = no_jobs
        self.leftovers: tuple[Remove, ...] = ()
        self.untold: tuple[Tell, ...] = ()
        self.locks = Locks()
        self.retirements = Retirements(self.layout.abouts)
        self.freed: Callable[[], None] = lambda: None  # called when a name is not taken here any more
        self._rules = rules or StoreRules(allow_overwrite=allow_overwrite, floor_bytes=free_floor_bytes)
        self._idle_timeout_s = idle_timeout_s
        self._shared = reframer
        self._reframer: Reframer | None = None
        self._uploads: Uploads | None = None
        self._deleting: list[str] = []  # a name is in it once for each of its versions that is being purged
        self._leaving = ""
        self._writers: ThreadPoolExecutor | None = None
        self._readers: ThreadPoolExecutor | None = None
        self.rules = self._rules

    @property
    def rules(self) -> StoreRules:
        return self._rules

    @rules.setter
    def rules(self, rules: StoreRules) -> None:
        self._rules = rules
        self.layout.usage.quota_bytes, self.layout.usage.floor_bytes = rules.quota_bytes, rules.floor_bytes

    @property
    def foreign(self) -> tuple[str, ...]:
        """Folders in its directory, as paths, that the start passed over: they are no images."""
        return tuple(str(self.root / name) for name in self.layout.foreign)

    @property
    def allow_overwrite(self) -> bool:
        return self._rules.allow_overwrite

    @allow_overwrite.setter
    def allow_overwrite(self, allowed: bool) -> None:
        self._rules.allow_overwrite = allowed

    async def start(self) -> None:
        """Lock the directory, remove leftovers, read what is there; ``damages`` tells what is not served.

        Raises StartError.
        """
        self._writers = ThreadPoolExecutor(_WRITERS, "pbserv-image-writer")
        self._readers = ThreadPoolExecutor(_READERS, "pbserv-image-reader")
        try:
            await self._work(self._writers, self.layout.open)
            missing = VersionState.ENABLED if self._rules.auto_enable else VersionState.VALIDATED
            found = await self._work(self._writers, partial(self.layout.scan, missing))
            self._fill(found.images, found.damages)
            self.retirements.start()
            self._reframer = self._shared or Reframer(idle_timeout_s=self._idle_timeout_s)
            self._uploads = Uploads(
                self.name, self.layout, self._reframer, self._writers,
                newest=self._newest, signing=self._signing, committed=self._committed,
            )  # fmt: skip
            await self._reconcile(self._writers, self._uploads)
        except BaseException:
            await self.close()
            raise

    async def _reconcile(self, writers: ThreadPoolExecutor, uploads: Uploads) -> None:
        """Remove what a crash left, go on with the uploads of jobs that still run and of people."""
        with self._unread("its uploads"):
            incoming = await self._work(writers, self.layout.incoming)
        actions = plan(incoming, self.made_by_jobs(), await self.jobs(), _now())
        keep = [action.name for action in actions if isinstance(action, Keep)]
        self.leftovers = tuple(action for action in actions if isinstance(action, Remove))
        self.untold = tuple(action for action in actions if isinstance(action, Tell))
        try:
            await self._work(writers, partial(self.layout.remove_leftovers, keep))
        except OSError as error:
            raise StartError(f"image store {self.root}: cannot remove leftovers: {error.strerror}") from error
        sessions = {one.name: (one.session, one.touched) for one in incoming if one.session is not None}
        for name in keep:
            facts, touched = sessions[name]
            draft = uploads.resumed(facts, name, touched)
            try:
                with self._unread(f"upload {name}"):
                    await self._work(writers, draft.blocking_resume)
            except DamagedImage as error:
                self.leftovers += (Remove(name, str(error)),)
                await draft.discard()

    @contextmanager
    def _unread(self, what: str) -> Iterator[None]:
        """An error that says nothing of what is on the disk: nothing is removed for it."""
        try:
            yield
        except OSError as error:
            raise StartError(
                f"image store {self.root}: {what} cannot be read: {error}; nothing of it was removed: mend that, then "
                "start imaging again"
            ) from error

    async def close(self) -> None:
        """Interrupt what is being uploaded, finish what the threads are doing, release the directory. Idempotent."""
        if self._uploads is not None:
            await self._uploads.close()
        self._uploads = None
        if self._reframer is not None and self._reframer is not self._shared:
            await self._reframer.close()
        self._reframer = None
        for pool in (self._writers, self._readers):
            if pool is not None:
                await asyncio.to_thread(pool.shutdown)
        self._writers = self._readers = None
        self.layout.close()

    def release(self) -> None:
        """Let go of the directory at once; who reads from an open item goes on. For a store that is not ``busy``, or
        that nobody was shown yet: its uploads stay as they are."""
        for draft in self.sessions():
            draft.release()
        if self._writers is not None:
            self._writers.shutdown(wait=False)
        self._writers = self._readers = self._uploads = self._reframer = None
        self.layout.close()

    @property
    def leaving(self) -> bool:
        """Whether a reload is about to take it away: it serves, but nothing begins in it and nothing is changed."""
        return bool(self._leaving)

    @leaving.setter
    def leaving(self, leaving: bool) -> None:
        self._leaving = self.locks.closed = f"store {self.name} is being taken away by a reload" if leaving else ""

    @property
    def busy(self) -> str:
        """Who is at work in it right now, empty: nobody."""
        held = [f"image {draft.image} is being uploaded" for draft in self.sessions()]
        held += [f"image {hold.image} {hold.why}" if hold.image else hold.why for hold in self.locks.holds]
        return ", ".join(held[:5])

    async def open(self, name: str, item: str, version: int | None = None) -> OpenItem:
        """Open an item for reading; raises InvalidName, UnknownImage or DamagedImage."""
        image = self.info(name, version)
        if image.manifest.item(item) is None:
            raise UnknownImage(f"image {name} version {image.version} has no item {item[:80]!r}")
        readers = self._running(self._readers)
        opening = asyncio.get_running_loop().run_in_executor(readers, self.layout.open_item, image, item)
        try:
            file = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_result)
            raise
        return OpenItem(file, image, item, readers)

    async def index(self, image: StoredImage, item: str) -> OpenIndex | None:
        """The index of an item's frames, None when it has none (an older pbserv's). Raises DamagedImage."""
        return await self._work(self._running(self._readers), partial(open_index, self.layout, image, item))

    async def index_header(self, image: StoredImage, item: str) -> Header | None:
        """The figures of an item's frames, None when it has none. Raises DamagedImage."""
        return await self._work(self._running(self._readers), partial(read_header, self.layout, image, item))

    def begin(
        self, name: str, *, overwrite: bool | None = None, size_bytes: int = 0, creator: str = "", asis: bool = True
    ) -> Draft:
        """Start an upload that ends with this process; refused at once when it could not be committed later.

        ``overwrite`` asks for a new version of an image that exists; None means as AllowImageOverwrite says.
        ``size_bytes`` is what will come, as far as it is known. ``creator``: see VersionFacts. ``asis``: nothing is
        cut into frames. Raises InvalidName, Forbidden, ImageExists, UploadRunning, StoreFull or StoreClosed.
        """
        uploads = self._check_begin(name, overwrite=overwrite, size_bytes=size_bytes)
        return uploads.begin(name, creator, asis=asis, durable=False)

    def open_session(
        self, name: str, *, overwrite: bool | None = None, size_bytes: int = 0, owner: str = "", asis: bool = False
    ) -> Draft:
        """Start an upload that can go on after a restart of the server; else as ``begin``. ``owner``: its creator."""
        uploads = self._check_begin(name, overwrite=overwrite, size_bytes=size_bytes)
        return uploads.begin(name, owner, asis=asis, durable=True)

    def begin_next(self, name: str, *, size_bytes: int = 0, creator: str = "") -> Draft:
        """Start a version that is made of one before, whatever AllowImageOverwrite says; else as ``begin``."""
        self.info(name, max(self.versions(name), default=None))
        return self._check_room(name, size_bytes).begin(name, creator, asis=False, durable=False)

    def sessions(self) -> tuple[Draft, ...]:
        """The uploads under way, by image."""
        return self._uploads.all() if self._uploads is not None else ()

    def _check_begin(self, name: str, *, overwrite: bool | None, size_bytes: int) -> Uploads:
        check_image_name(name)
        if overwrite and not self.allow_overwrite:
            raise Forbidden(f"image {name}: overwriting is not allowed here; set AllowImageOverwrite = YES to allow it")
        if not self.holds(name):
            check_new_name(name)
            if name in self.layout.foreign:
                self.layout.check_free(name)
        elif (self._images.get(name) or name in self._damaged_names) and not (overwrite or self._by_default(overwrite)):
            raise ImageExists(
                f"image {name} exists{self._damage_of(name)}; delete it, take another name, or ask to overwrite it "
                "where AllowImageOverwrite = YES"
            )
        return self._check_room(name, size_bytes)

    def _check_room(self, name: str, size_bytes: int) -> Uploads:
        if self._uploads is None:
            raise StoreClosed("the image store is not running")
        self._check_staying(name)
        if name in self._deleting:
            raise UploadRunning(f"image {name} is being deleted; try again when that is done")
        self.layout.usage.check(size_bytes)
        return self._uploads

    async def register(self, name: str, about: About, store: str = "") -> ImageObject:
        """Make an image without versions; raises InvalidName, InvalidRequest or ImageExists."""
        check_new_name(name)
        if store not in ("", self.name):
            raise UnknownStore(f"there is no image store {store[:64]!r}, but {self.name}")
        new = checked(about)

        def change(now: About) -> About:
            if name in self.layout.abouts or name in self._damaged_names:
                raise ImageExists(f"image {name} exists; change it, or take another name")
            return new

        self._check_staying(name)
        with self.locks.shared(name, None, "is being registered"):
            await self._change(name, change, make=True)
        return self._object(name)

    async def change(self, name: str, change: AboutChange, expected: str = "") -> ImageObject:
        """Change what is said of an image; ``expected``: the etag that it must have. Raises UnknownImage, Changed."""
        self.object(name)

        def changed(now: About) -> About:
            if expected and now.etag != expected:
                raise Changed(f"image {name} was changed meanwhile; look at it again")
            return change.of(now)

        await self._change(name, changed)
        return self._object(name)

    async def move(self, name: str, version: int, to: VersionState, by: str) -> ImageObject:
        """Give a version another state; raises UnknownImage, WrongState, or InUse: one that somebody needs, or the last
        one served of an image that somebody needs, is not retired."""
        self.object(name)
        states = self._states(name)
        if to is VersionState.RETIRED:
            last = served(states) == version and served({**states, version: to}) is None
            held = self.locks.users(name, None) if last else ()
            needed = None if last else version
            refuse_users(name, needed, (*await self.users(name, needed), *held))
        await self._change(name, lambda about: check_move(name, about, version, to).moved({version: to}, by, _now()))
        return self._object(name)

    async def rollback(self, name: str, to: int | None, by: str) -> ImageObject:
        """Serve version ``to`` again, default: the enabled one before that. Raises UnknownImage, WrongState."""
        self.object(name)
        await self._change(name, lambda about: about.moved(rolled_back(name, about, to), by, _now()))
        return self._object(name)

    async def take_file(
        self, file: Path, name: str, manifest: Manifest, index: bytes = b"", facts: Facts | None = None
    ) -> StoredImage:
        """A file of this directory becomes the next version of an image; see ``linking.link_in``. Raises UploadRunning,
        StoreFull, StoreFault."""
        if not self.holds(name):
            check_new_name(name)
        if self.uploading(name) or name in self._deleting:
            raise UploadRunning(f"image {name} is being uploaded or deleted; the file is taken when that is done")
        work = partial(link_in, self.layout, file, name, manifest, self._signing("drop"), index, facts)
        with self.locks.taken(name, None, "is being made of a file"):
            made = await asyncio.shield(self._work(self._running(self._writers), work))
            self._committed(made)
        return made

    async def verified(self, name: str, version: int, damage: str) -> None:
        """What a scrub found: an empty ``damage`` is a clean version, with any other it is not served any more."""
        if damage:
            self._broken[name, version] = damage
        else:
            self._broken.pop((name, version), None)
        await self._change(name, lambda about: about.with_verified(version, _now(), damage))

    async def purge(self, name: str, version: int | None = None) -> None:
        """Remove a retired version, or the image when all are; raises UnknownImage, WrongState, InUse."""
        found = self.object(name)
        damaged = {text.partition("/")[2] for text in (damage.path for damage in found.damages)}
        numbers = {int(text) for text in damaged if text.isdigit()}
        check_purge(name, found.about, version, numbers)
        refuse_users(name, version, (*await self.users(name, version), *self.locks.users(name, version)))

        def check(about: About, whole: bool) -> None:
            check_purge(name, about, version, numbers)
            if whole and self.uploading(name):
                raise UploadRunning(
                    f"image {name}: version {version} is its last one, and a new one is being uploaded; purge it when "
                    "that is done"
                )

        with self.locks.taken(name, version, "is being purged"):
            await self._remove(name, version, check)

    async def delete(self, name: str) -> None:
        """Remove an image with all its versions at once; whoever reads it goes on. Raises UnknownImage, UploadRunning,
        InUse."""
        check_image_name(name)
        if not self.holds(name) or name in self._deleting:
            raise UnknownImage(f"there is no image {name!r}")
        if self.uploading(name):
            raise UploadRunning(f"image {name}: a new version is being uploaded; wait for it before deleting")
        refuse_users(name, None, (*await self.users(name, None), *self.locks.users(name, None)))
        with self.locks.taken(name, None, "is being deleted"):
            await self._remove(name, None, lambda _about, _whole: None)

    def facts(self) -> StoreFacts:
        """The store as it is now."""
        rules = self._rules
        return StoreFacts(
            name=self.name,
            directory=self.root,
            quota_bytes=rules.quota_bytes,
            used_bytes=self.layout.usage.used_bytes,
            free_bytes=self.layout.usage.free_bytes,
            floor_bytes=rules.floor_bytes,
            keep=rules.keep,
            restores=rules.restores,
            captures=rules.captures,
            images=len(self.names),
            versions=self.count,
            damages=self.damages,
        )

    def stores(self) -> tuple[StoreFacts, ...]:
        return (self.facts(),)

    def _signing(self, creator: str) -> Signing:
        return Signing(creator, lambda: self._rules.auto_enable, self._keep_of)

    def _keep_of(self, about: About) -> int:
        return self._rules.keep if about.keep is None else about.keep

    def _check_staying(self, name: str) -> None:
        if self._leaving:
            raise StoreClosed(f"image {name}: {self._leaving}; try again when that is done")

    async def _change(self, name: str, change: Callable[[About], About], *, make: bool = False) -> None:
        self._check_staying(name)
        work = partial(self.layout.change_about, name, change, make=make)
        await asyncio.shield(self._work(self._running(self._writers), work))
        self.retirements.look(name)

    def _committed(self, made: StoredImage) -> None:
        self._add(made)
        self.retirements.look(made.name)

    async def _remove(self, name: str, version: int | None, check: Check) -> None:
        """What may have changed while this waits for a writer is asked again then: users, and by ``check`` the rest."""
        if self.uploading(name) and version is None:
            raise UploadRunning(f"image {name}: a new version is being uploaded; wait for it before deleting")
        loop = asyncio.get_running_loop()
        work = partial(self._remove_now, name, version, check, loop)
        removing = loop.run_in_executor(self._running(self._writers), work)
        self._deleting.append(name)
        removing.add_done_callback(lambda done: self._removed(name, version, done))
        await asyncio.shield(removing)

    def _remove_now(self, name: str, version: int | None, check: Check, loop: asyncio.AbstractEventLoop) -> None:
        refuse_users(name, version, asyncio.run_coroutine_threadsafe(self._needed_by(name, version), loop).result())

        def gone() -> None:
            with suppress(RuntimeError):  # the loop has ended, and nobody asks the index any more
                loop.call_soon_threadsafe(self._gone, name, version)

        with filesystem_faults(f"image {name}: deleting it"):
            try:
                if version is None:
                    self.layout.delete(name, check, gone)
                else:
                    self.layout.purge(name, version, check, gone)
            except FileNotFoundError:
                raise UnknownImage(f"there is no image {name!r} any more") from None

    async def _needed_by(self, name: str, version: int | None) -> Sequence[str]:
        return await self.users(name, version)

    def _removed(self, name: str, version: int | None, done: asyncio.Future[None]) -> None:
        self._deleting.remove(name)
        if not done.cancelled() and isinstance(done.exception(), UnknownImage):
            self._gone(name, version)

    def _gone(self, name: str, version: int | None) -> None:
        self._forget(name, version)
        self.retirements.look(name)
        if not self.holds(name):
            self.freed()

    def uploading(self, name: str) -> bool:
        """Whether a version of the image is on its way; may be asked from any thread."""
        uploads = self._uploads
        return uploads is not None and name in uploads

    def claims(self, name: str) -> str:
        """What may take the name here before long, as a phrase: an upload, a file, a registration; '': nothing."""
        held = () if self.holds(name) else self.locks.users(name, None)
        return "is being uploaded" if self.uploading(name) else ", ".join(held[:1])

    def _by_default(self, overwrite: bool | None) -> bool:
        return overwrite is None and self.allow_overwrite

    @staticmethod
    async def _work(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    @staticmethod
    def _running(pool: ThreadPoolExecutor | None) -> ThreadPoolExecutor:
        if pool is None:
            raise StoreClosed("the image store is not running")
        return pool


def _close_result(opening: asyncio.Future[FileIO]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _now() -> datetime:
    return datetime.now(UTC)
