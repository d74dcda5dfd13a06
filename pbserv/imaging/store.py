"""The built-in image store: an index in memory over the directory tree of ``layout``. Knows no web framework.

One rule: whoever calls it on the event loop never waits for the disk; answers that need the disk are awaited and come
from a bounded number of worker threads, reads and writes apart so that a slow fsync delays no download.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TypeVar

from pbserv.imaging.about import About, AboutChange, checked
from pbserv.imaging.changes import Signing, check_move, check_purge, rolled_back
from pbserv.imaging.draft import IDLE_TIMEOUT_S, Draft
from pbserv.imaging.durable import filesystem_faults
from pbserv.imaging.faults import (
    Changed,
    DamagedImage,
    Forbidden,
    ImageExists,
    InUse,
    StoreClosed,
    UnknownImage,
    UnknownStore,
    UploadRunning,
)
from pbserv.imaging.frames.reader import OpenIndex
from pbserv.imaging.layout import DEFAULT_FREE_FLOOR, Damage, Layout, StoredImage
from pbserv.imaging.locks import Locks
from pbserv.imaging.manifest import check_image_name, check_new_name
from pbserv.imaging.objects import ImageObject, ImageVersion, StoreFacts
from pbserv.imaging.opened import OpenItem
from pbserv.imaging.states import VersionState, served

T = TypeVar("T")
Users = Callable[[str, int | None], Awaitable[Sequence[str]]]
"""Who outside the store needs a version of an image; version None: any, and whoever will get the served one."""

DEFAULT_NAME = "main"
_WRITERS = 4
_READERS = 8


@dataclass(slots=True)
class StoreRules:
    """What pbserv.conf says of a store; may be changed while it runs. ``keep`` 0: all versions; quota 0: none."""

    allow_overwrite: bool = False
    auto_enable: bool = True
    keep: int = 0
    quota_bytes: int = 0
    floor_bytes: int = DEFAULT_FREE_FLOOR
    restores: int = 0
    captures: int = 0


async def nobody(_image: str, _version: int | None) -> Sequence[str]:
    """Nobody needs it: what a store believes until it is told better."""
    return ()


class Store:
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
    ) -> None:
        self.name = name
        self.root = root
        self.users: Users = nobody
        self.damages: tuple[Damage, ...] = ()
        self.locks = Locks()
        self._layout = Layout(root, free_floor_bytes, name=name, nested=nested)
        self._rules = rules or StoreRules(allow_overwrite=allow_overwrite, floor_bytes=free_floor_bytes)
        self._idle_timeout_s = idle_timeout_s
        self._images: dict[str, dict[int, StoredImage]] = {}
        self._broken: dict[tuple[str, int], str] = {}
        self._damaged_names: set[str] = set()
        self._drafts: dict[str, Draft] = {}
        self._deleting: set[str] = set()
        self._writers: ThreadPoolExecutor | None = None
        self._readers: ThreadPoolExecutor | None = None
        self.rules = self._rules

    @property
    def rules(self) -> StoreRules:
        return self._rules

    @rules.setter
    def rules(self, rules: StoreRules) -> None:
        self._rules = rules
        self._layout.quota_bytes, self._layout.floor_bytes = rules.quota_bytes, rules.floor_bytes

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
            await self._work(self._writers, self._layout.open)
            await self._work(self._writers, self._layout.remove_leftovers)
            missing = VersionState.ENABLED if self._rules.auto_enable else VersionState.VALIDATED
            found = await self._work(self._writers, partial(self._layout.scan, missing))
        except BaseException:
            await self.close()
            raise
        self._images = {}
        for image in found.images:
            self._images.setdefault(image.name, {})[image.version] = image
        self.damages = tuple(found.damages)
        self._damaged_names = {damage.path.partition("/")[0] for damage in found.damages}

    async def close(self) -> None:
        """Discard what is being uploaded, finish what the threads are doing, release the directory. Idempotent."""
        for draft in list(self._drafts.values()):
            await draft.discard()
        for pool in (self._writers, self._readers):
            if pool is not None:
                await asyncio.to_thread(pool.shutdown)
        self._writers = self._readers = None
        self._layout.close()

    def release(self) -> None:
        """Let go of the directory at once; who reads from an open item goes on. For a store that is not ``busy``."""
        if self._writers is not None:
            self._writers.shutdown(wait=False)
        self._writers = self._readers = None
        self._layout.close()

    @property
    def busy(self) -> str:
        """Who is at work in it right now, empty: nobody."""
        held = [f"image {name} is being uploaded" for name in sorted(self._drafts)]
        held += [f"image {hold.image} {hold.why}" for hold in self.locks.holds]
        return ", ".join(held[:5])

    def hide(self, name: str, reason: str) -> None:
        """Serve nothing of an image although it is there; ``damages`` tells why."""
        self._images.pop(name, None)
        if Damage(name, reason) not in self.damages:
            self.damages += (Damage(name, reason),)
        self._damaged_names.add(name)

    def list(self) -> tuple[StoredImage, ...]:
        """The served version of every image that has one, by name."""
        found = (self._served(name) for name in sorted(self._images))
        return tuple(image for image in found if image is not None)

    def all(self) -> tuple[ImageObject, ...]:
        """Every image with all its versions, by name; also those without any."""
        return tuple(self._object(name) for name in sorted(self.names))

    @property
    def names(self) -> frozenset[str]:
        """Every name that is taken here: by versions, by registration, by damage."""
        return frozenset(self._images.keys() | self._layout.abouts.keys() | self._damaged_names)

    def holds(self, name: str) -> bool:
        """Whether the name is taken here."""
        return name in self._images or name in self._layout.abouts or name in self._damaged_names

    def object(self, name: str) -> ImageObject:
        """An image with all its versions; raises InvalidName or UnknownImage."""
        if not self.holds(check_image_name(name)):
            raise UnknownImage(f"there is no image {name!r}")
        return self._object(name)

    def versions(self, name: str) -> tuple[int, ...]:
        """The versions of an image in whatever state, oldest first; empty when there is none."""
        return tuple(sorted(self._images.get(name, ())))

    def info(self, name: str, version: int | None = None) -> StoredImage:
        """A version of an image, the one that is served when none is given; raises InvalidName or UnknownImage."""
        versions = self._images.get(check_image_name(name), {})
        if not versions and self.holds(name) and name not in self._damaged_names:
            raise UnknownImage(f"image {name} is registered, but has no version yet")
        if not versions:
            raise UnknownImage(f"there is no image {name!r}{self._damage_of(name)}")
        if version is None:
            image = self._served(name)
            if image is None:
                states = ", ".join(f"version {one} is {state.value}" for one, state in self._states(name).items())
                raise UnknownImage(f"no version of image {name} is enabled: {states}{self._broken_of(name)}")
            return image
        if version not in versions:
            raise UnknownImage(f"image {name} has no version {version}, but {', '.join(map(str, sorted(versions)))}")
        return versions[version]

    async def open(self, name: str, item: str, version: int | None = None) -> OpenItem:
        """Open an item for reading; raises InvalidName, UnknownImage or DamagedImage."""
        image = self.info(name, version)
        if image.manifest.item(item) is None:
            raise UnknownImage(f"image {name} version {image.version} has no item {item[:80]!r}")
        readers = self._running(self._readers)
        opening = asyncio.get_running_loop().run_in_executor(readers, self._layout.open_item, image, item)
        try:
            file = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_result)
            raise
        return OpenItem(file, image, item, readers)

    async def index(self, image: StoredImage, item: str) -> OpenIndex | None:
        """The index of an item's frames, None when it has none (an older pbserv's). Raises DamagedImage."""
        return await self._work(self._running(self._readers), partial(self._open_index, image, item))

    def _open_index(self, image: StoredImage, item: str) -> OpenIndex | None:
        file = self._layout.open_index(image, item)
        if file is None:
            return None
        try:
            with file:
                return OpenIndex(file.fileno())
        except (OSError, ValueError, DamagedImage) as error:
            raise DamagedImage(f"image {image.name} version {image.version} item {item}: index: {error}") from error

    def begin(self, name: str, *, overwrite: bool | None = None, size_bytes: int = 0, creator: str = "") -> Draft:
        """Start an upload; refused at once when it could not be committed later.

        ``overwrite`` asks for a new version of an image that exists; None means as AllowImageOverwrite says.
        ``size_bytes`` is what will come, as far as it is known. ``creator``: see VersionFacts. Raises InvalidName,
        Forbidden, ImageExists, UploadRunning, StoreFull or StoreClosed.
        """
        check_image_name(name)
        writers = self._running(self._writers)
        if overwrite and not self.allow_overwrite:
            raise Forbidden(f"image {name}: overwriting is not allowed here; set AllowImageOverwrite = YES to allow it")
        if not self.holds(name):
            check_new_name(name)
        elif (self._images.get(name) or name in self._damaged_names) and not (overwrite or self._by_default(overwrite)):
            raise ImageExists(
                f"image {name} exists{self._damage_of(name)}; delete it, take another name, or ask to overwrite it "
                "where AllowImageOverwrite = YES"
            )
        if name in self._drafts:
            raise UploadRunning(f"image {name} is being uploaded by somebody else; wait, or take another name")
        if name in self._deleting:
            raise UploadRunning(f"image {name} is being deleted; try again when that is done")
        self._layout.check_space(size_bytes)
        draft = Draft(
            name,
            self._layout,
            writers,
            ended=partial(self._draft_ended, name),
            idle_timeout_s=self._idle_timeout_s,
            signing=self._signing(creator),
        )
        self._drafts[name] = draft
        return draft

    async def register(self, name: str, about: About, store: str = "") -> ImageObject:
        """Make an image without versions; raises InvalidName, InvalidRequest or ImageExists."""
        check_new_name(name)
        if store not in ("", self.name):
            raise UnknownStore(f"there is no image store {store[:64]!r}, but {self.name}")
        new = checked(about)

        def change(now: About) -> About:
            if name in self._layout.abouts or name in self._damaged_names:
                raise ImageExists(f"image {name} exists; change it, or take another name")
            return new

        await self._change(name, change)
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
        """Give a version another state; raises UnknownImage, WrongState, or InUse when it is the last one served."""
        self.object(name)
        states = self._states(name)
        if to is VersionState.RETIRED and served(states) == version and served({**states, version: to}) is None:
            self._refuse_users(name, None, await self.users(name, None))
        await self._change(name, lambda about: check_move(name, about, version, to).moved({version: to}, by, _now()))
        return self._object(name)

    async def rollback(self, name: str, to: int | None, by: str) -> ImageObject:
        """Serve version ``to`` again, default: the enabled one before that. Raises UnknownImage, WrongState."""
        self.object(name)
        await self._change(name, lambda about: about.moved(rolled_back(name, about, to), by, _now()))
        return self._object(name)

    async def verified(self, name: str, version: int, damage: str) -> None:
        """What a scrub found: an empty ``damage`` is a clean version, with any other it is not served any more."""
        if damage:
            self._broken[name, version] = damage
        else:
            self._broken.pop((name, version), None)
        await self._change(name, lambda about: about.with_verified(version, None if damage else _now()))

    async def purge(self, name: str, version: int | None = None) -> None:
        """Remove a retired version, or the image when all are; raises UnknownImage, WrongState, InUse."""
        found = self.object(name)
        damaged = {text.partition("/")[2] for text in (damage.path for damage in found.damages)}
        check_purge(name, found.about, version, {int(text) for text in damaged if text.isdigit()})
        self._refuse_users(name, version, await self.users(name, version))
        with self.locks.taken(name, version, "is being purged"):
            if version is None:
                await self._remove(name)
            else:
                await self._remove(name, version)

    async def delete(self, name: str) -> None:
        """Remove an image with all its versions at once; whoever reads it goes on. Raises UnknownImage, UploadRunning,
        InUse."""
        check_image_name(name)
        if not self.holds(name) or name in self._deleting:
            raise UnknownImage(f"there is no image {name!r}")
        if name in self._drafts:
            raise UploadRunning(f"image {name}: a new version is being uploaded; wait for it before deleting")
        self._refuse_users(name, None, await self.users(name, None))
        with self.locks.taken(name, None, "is being deleted"):
            await self._remove(name)

    def facts(self) -> StoreFacts:
        """The store as it is now."""
        rules = self._rules
        return StoreFacts(
            name=self.name,
            directory=self.root,
            quota_bytes=rules.quota_bytes,
            used_bytes=self._layout.used_bytes,
            free_bytes=self._layout.free_bytes,
            floor_bytes=rules.floor_bytes,
            keep=rules.keep,
            restores=rules.restores,
            captures=rules.captures,
            images=len(self.names),
            versions=sum(len(versions) for versions in self._images.values()),
            damages=self.damages,
        )

    def stores(self) -> tuple[StoreFacts, ...]:
        return (self.facts(),)

    def _object(self, name: str) -> ImageObject:
        about = self._layout.abouts.get(name, About())
        return ImageObject(
            name=name,
            store=self.name,
            about=about,
            versions=tuple(
                ImageVersion(image, about.version(number), self._broken.get((name, number), ""))
                for number, image in sorted(self._images.get(name, {}).items())
            ),
            damages=tuple(damage for damage in self.damages if damage.path.split("/")[0] == name),
        )

    def _states(self, name: str) -> dict[int, VersionState]:
        """Of the versions whose files are there and whole."""
        about = self._layout.abouts.get(name, About())
        return {number: about.version(number).state for number in sorted(self._images.get(name, ()))
                if (name, number) not in self._broken}  # fmt: skip

    def _served(self, name: str) -> StoredImage | None:
        number = served(self._states(name))
        return None if number is None else self._images[name][number]

    def _signing(self, creator: str) -> Signing:
        return Signing(creator, lambda: self._rules.auto_enable, self._keep_of)

    def _keep_of(self, about: About) -> int:
        return self._rules.keep if about.keep is None else about.keep

    async def _change(self, name: str, change: Callable[[About], About]) -> About:
        writers = self._running(self._writers)
        changing = asyncio.get_running_loop().run_in_executor(writers, self._layout.change_about, name, change)
        return await asyncio.shield(changing)

    def _refuse_users(self, name: str, version: int | None, users: Sequence[str]) -> None:
        held = (*users, *self.locks.users(name, version))
        if held:
            what = f"image {name}" + (f" version {version}" if version is not None else "")
            raise InUse(f"{what} is in use: {', '.join(held[:20])}{' and more' if len(held) > 20 else ''}")

    async def _remove(self, name: str, version: int | None = None) -> None:
        if name in self._drafts and version is None:
            raise UploadRunning(f"image {name}: a new version is being uploaded; wait for it before deleting")
        work = partial(self._remove_now, name, version)
        removing = asyncio.get_running_loop().run_in_executor(self._running(self._writers), work)
        self._deleting.add(name)
        removing.add_done_callback(lambda done: self._removed(name, version, done))
        await asyncio.shield(removing)

    def _remove_now(self, name: str, version: int | None) -> None:
        with filesystem_faults(f"image {name}: deleting it"):
            try:
                if version is None:
                    self._layout.delete(name)
                else:
                    self._layout.purge(name, version)
            except FileNotFoundError:
                raise UnknownImage(f"there is no image {name!r} any more") from None

    def _removed(self, name: str, version: int | None, done: asyncio.Future[None]) -> None:
        self._deleting.discard(name)
        if done.cancelled() or not (done.exception() is None or isinstance(done.exception(), UnknownImage)):
            return
        gone = f"{name}/{version}" if version is not None else ""
        left = self._images.get(name, {})
        for number in [version] if version is not None else list(left):
            left.pop(number, None)
            self._broken.pop((name, number), None)
        if not left:
            self._images.pop(name, None)
        self.damages = tuple(
            damage for damage in self.damages
            if damage.path != gone and (version is not None or damage.path.split("/")[0] != name)
        )  # fmt: skip
        self._damaged_names = {damage.path.partition("/")[0] for damage in self.damages}

    def _draft_ended(self, name: str, image: StoredImage | None) -> None:
        self._drafts.pop(name, None)
        if image is not None:
            self._images.setdefault(name, {})[image.version] = image

    def _by_default(self, overwrite: bool | None) -> bool:
        return overwrite is None and self.allow_overwrite

    def _damage_of(self, name: str) -> str:
        reasons = [f"{damage.path}: {damage.reason}" for damage in self.damages if damage.path.split("/")[0] == name]
        return f" (damaged: {'; '.join(reasons)})" if name in self._damaged_names else ""

    def _broken_of(self, name: str) -> str:
        found = [f"version {number}: {why}" for (image, number), why in sorted(self._broken.items()) if image == name]
        return f" (damaged: {'; '.join(found)})" if found else ""

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
