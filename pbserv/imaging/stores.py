"""Several image stores as one backend: every image belongs to one of them, and its name is taken in all.

One rule: which store an image is in is found out by asking the stores, in the order in which they are configured; no
second list could disagree with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pbserv.conf.places import StorePlace
from pbserv.errors import StartError
from pbserv.imaging import retiring
from pbserv.imaging.about import About, AboutChange
from pbserv.imaging.changes import retired_before
from pbserv.imaging.draft import IDLE_TIMEOUT_S, Draft
from pbserv.imaging.faults import (
    DraftGone,
    Forbidden,
    ImageExists,
    InUse,
    StoreClosed,
    UnknownImage,
    UnknownStore,
    UploadRunning,
    WrongState,
)
from pbserv.imaging.frames.index import Header
from pbserv.imaging.frames.reader import OpenIndex
from pbserv.imaging.fsck import Inform, abandoned, check
from pbserv.imaging.layout import Damage, StoredImage
from pbserv.imaging.manifest import Manifest, check_image_name
from pbserv.imaging.objects import ImageObject, StoreFacts
from pbserv.imaging.opened import OpenItem
from pbserv.imaging.reconcile import Remove, Tell
from pbserv.imaging.reframe import DEFAULT_LEVEL, Reframer
from pbserv.imaging.repair import Elsewhere
from pbserv.imaging.scrub import ScrubOrder, scrub
from pbserv.imaging.states import VersionState
from pbserv.imaging.store import Store
from pbserv.imaging.store_rules import (
    DEFAULT_FREE_FLOOR,
    AtWork,
    RunningJobs,
    StoreRules,
    Users,
    no_jobs,
    nobody,
    nobody_at_work,
)
from pbserv.imaging.tasks import Report
from pbserv.imaging.uploads import session_of_job
from pbserv.imaging.watch import Facts


@dataclass(frozen=True, slots=True)
class StoresSettings:
    """What the configuration says of all stores; ``places`` has at least one. ``level``: of zstd, for new frames;
    ``workers``: threads that cut and compress, 0: one for each core."""

    places: tuple[StorePlace, ...]
    allow_overwrite: bool = False
    auto_enable: bool = True
    upload_directories: tuple[Path, ...] = ()
    level: int = DEFAULT_LEVEL
    workers: int = 0
    free_floor_bytes: int = DEFAULT_FREE_FLOOR

    def rules(self, place: StorePlace) -> StoreRules:
        """Those of one store."""
        return StoreRules(
            allow_overwrite=self.allow_overwrite,
            auto_enable=self.auto_enable,
            keep=place.keep,
            quota_bytes=place.quota,
            floor_bytes=self.free_floor_bytes if place.floor is None else place.floor,
            restores=place.restores,
            captures=place.captures,
        )

    def store(self, place: StorePlace, reframer: Reframer) -> Store:
        """Not started yet. Stores inside its directory are none of its images."""
        inside = [other.directory for other in self.places if other.directory != place.directory]
        nested = [path.relative_to(place.directory).parts[0] for path in inside if path.is_relative_to(place.directory)]
        return Store(
            place.directory, name=place.name, rules=self.rules(place), nested=nested, reframer=reframer,
            free_floor_bytes=self.rules(place).floor_bytes,
        )  # fmt: skip


class Stores:
    """A ``VersionedBackend``. ``start`` it before use; ``users`` may be set at any time."""

    def __init__(self, settings: StoresSettings, idle_timeout_s: float = IDLE_TIMEOUT_S) -> None:
        """Nothing is opened before ``start``."""
        self._settings = settings
        self._idle_timeout_s = idle_timeout_s
        self._users: Users = nobody
        self._jobs: RunningJobs = no_jobs
        self.at_work: AtWork = nobody_at_work
        self._reframer: Reframer | None = None
        self._stores: tuple[Store, ...] = ()
        self.inform: Inform = _nobody_informed
        self.retired: retiring.Tell = retiring.to_nobody
        self.elsewhere: Elsewhere | None = None  # who finds what is damaged here on other servers

    @property
    def users(self) -> Users:
        """Who outside the stores needs an image."""
        return self._users

    @users.setter
    def users(self, users: Users) -> None:
        self._users = users
        for store in self._stores:
            store.users = users

    @property
    def jobs(self) -> RunningJobs:
        """The jobs that run; asked for at the start."""
        return self._jobs

    @jobs.setter
    def jobs(self, jobs: RunningJobs) -> None:
        self._jobs = jobs

    @property
    def leftovers(self) -> tuple[Remove, ...]:
        """What the start removed, and why."""
        return tuple(action for store in self._stores for action in store.leftovers)

    @property
    def untold(self) -> tuple[Tell, ...]:
        """What the registry did not know at the start: versions that running jobs had committed."""
        return tuple(action for store in self._stores for action in store.untold)

    @property
    def allow_overwrite(self) -> bool:
        return self._settings.allow_overwrite

    @allow_overwrite.setter
    def allow_overwrite(self, allowed: bool) -> None:
        for store in self._stores:
            store.allow_overwrite = allowed

    @property
    def damages(self) -> tuple[Damage, ...]:
        """What is not served, and why; with the store's name before the path where there are several stores."""
        if len(self._stores) == 1:
            return self._stores[0].damages
        return tuple(Damage(f"{store.name}:{damage.path}", damage.reason)
                     for store in self._stores for damage in store.damages)  # fmt: skip

    @property
    def foreign(self) -> tuple[str, ...]:
        """Folders that are no images; see :class:`Store`."""
        return tuple(folder for store in self._stores for folder in store.foreign)

    async def start(self) -> None:
        """Start all stores; raises StartError and leaves none of them open."""
        settings = self._settings
        self._reframer = Reframer(settings.workers, settings.level, idle_timeout_s=self._idle_timeout_s)
        try:
            for place in settings.places:
                store = settings.store(place, self._reframer)
                self._wire(store)
                self._stores += (store,)
                await store.start()
        except BaseException:
            await self.close()
            raise
        self._hide_doubles()

    def _wire(self, store: Store) -> None:
        store.users, store.jobs = self._users, self._jobs
        store.retirements.tell = lambda image, version, by: self.retired(image, version, by)
        store.freed = self._hide_doubles

    async def close(self) -> None:
        """Close all stores. Idempotent."""
        stores, self._stores = self._stores, ()
        for store in stores:
            await store.close()
        if self._reframer is not None:
            await self._reframer.close()
        self._reframer = None

    async def prepare(self, settings: StoresSettings) -> StoresReload:
        """First half of a reload: open what is new, and let nothing begin in what goes. Raises StartError and changes
        nothing."""
        wanted = {place.directory for place in settings.places}
        leaving = tuple(store for store in self._stores if store.root not in wanted)
        opened: list[Store] = []
        try:
            for store in leaving:
                await self._leave(store)
            stores = await self._places(settings, opened)
            self._check_takeover(stores)
        except BaseException:
            for store in leaving:
                store.leaving = False
            for store in opened:
                await store.close()
            raise
        return StoresReload(self, settings, stores, tuple(opened), leaving)

    async def _leave(self, store: Store) -> None:
        """Nothing begins in the store any more; raises StartError when it is needed."""
        store.leaving = True
        jobs = await self.at_work(store.name, {name for name in store.names if self._holding(name) is store})
        busy = ", ".join(filter(None, (store.busy, *jobs[:10])))
        if busy:
            raise StartError(f"ImageStores: store {store.name} cannot be taken away: {busy}; wait, or cancel that")

    def leaving(self, name: str) -> str:
        """Why nothing begins in a store just now: a reload takes it away; '': it may begin."""
        return next((store.locks.closed for store in self._stores if store.name == name and store.leaving), "")

    async def _places(self, settings: StoresSettings, opened: list[Store]) -> tuple[Store, ...]:
        """The stores of ``settings``; those that are new are started and put into ``opened``. Raises StartError."""
        here = {store.root: store for store in self._stores}
        stores: list[Store] = []
        for place in settings.places:
            known = here.get(place.directory)
            if known is not None and known.name != place.name:
                raise StartError(f"ImageStores: {place.directory} is store {known.name}; names change with a restart")
            if known is None:
                known = settings.store(place, self._running)
                self._wire(known)
                await known.start()
                opened.append(known)
            stores.append(known)
        return tuple(stores)

    def adopt(self, settings: StoresSettings, stores: tuple[Store, ...]) -> None:
        """Second half: serve from ``stores``; those that are not among them are given up."""
        gone = [store for store in self._stores if store not in stores]
        self._settings, self._stores = settings, stores
        self._running.level = settings.level
        rules = {place.name: settings.rules(place) for place in settings.places}
        for store in stores:
            store.rules = rules[store.name]
        for store in gone:
            store.release()
        self._hide_doubles()

    def list(self) -> tuple[StoredImage, ...]:
        """The served version of every image that has one, by name."""
        found = [image for store in self._stores for image in store.list()]
        return tuple(sorted(found, key=lambda image: image.name))

    def all(self) -> tuple[ImageObject, ...]:
        """Every image of every store, by name."""
        found = [image for store in self._stores for image in store.all()]
        return tuple(sorted(found, key=lambda image: image.name))

    def object(self, name: str) -> ImageObject:
        return self._of(name).object(name)

    def versions(self, name: str) -> tuple[int, ...]:
        return self._of(name).versions(name)

    def info(self, name: str, version: int | None = None) -> StoredImage:
        return self._of(name).info(name, version)

    async def open(self, name: str, item: str, version: int | None = None) -> OpenItem:
        return await self._of(name).open(name, item, version)

    async def index(self, image: StoredImage, item: str) -> OpenIndex | None:
        return await self._of(image.name).index(image, item)

    async def index_header(self, image: StoredImage, item: str) -> Header | None:
        return await self._of(image.name).index_header(image, item)

    def begin(
        self, name: str, *, overwrite: bool | None = None, size_bytes: int = 0, creator: str = "", asis: bool = True,
        store: str = "",
    ) -> Draft:  # fmt: skip
        """Start an upload in the store that the image is in, else in the named one or the first that may take it; see
        ``Store.begin``."""
        place = self._place(check_image_name(name), store)
        return place.begin(name, overwrite=overwrite, size_bytes=size_bytes, creator=creator, asis=asis)

    def open_session(
        self, name: str, *, store: str = "", overwrite: bool | None = None, size_bytes: int = 0, owner: str = "",
        asis: bool = False,
    ) -> Draft:  # fmt: skip
        """As ``begin``, and it can go on after a restart of the server."""
        place = self._place(check_image_name(name), store)
        return place.open_session(name, overwrite=overwrite, size_bytes=size_bytes, owner=owner, asis=asis)

    def begin_next(self, name: str, *, size_bytes: int = 0, creator: str = "") -> Draft:
        return self._of(check_image_name(name)).begin_next(name, size_bytes=size_bytes, creator=creator)

    def sessions(self) -> tuple[Draft, ...]:
        """All uploads under way."""
        return tuple(draft for store in self._stores for draft in store.sessions())

    def session(self, number: str) -> Draft:
        """An upload by its number; raises DraftGone."""
        found = next((draft for draft in self.sessions() if draft.number == number), None)
        if found is None:
            raise DraftGone(f"there is no upload {number[:64]!r}: it was committed or given up, or was never begun")
        return found

    def session_of_job(self, job: int) -> Draft | None:
        """The upload of a device's job, None when there is none."""
        return session_of_job(self.sessions(), job)

    def made_by_job(self, job: int) -> StoredImage | None:
        """The version that a job committed, as the disk tells."""
        found = next((made for store in self._stores if (made := store.made_by_jobs().get(job)) is not None), None)
        return None if found is None else self.info(*found)

    async def register(self, name: str, about: About, store: str = "") -> ImageObject:
        if self._holding(check_image_name(name)) is not None:
            raise ImageExists(f"image {name} exists; change it, or take another name")
        return await self._place(name, store).register(name, about)

    async def change(self, name: str, change: AboutChange, expected: str = "") -> ImageObject:
        return await self._of(name).change(name, change, expected)

    async def move(self, name: str, version: int, to: VersionState, by: str) -> ImageObject:
        return await self._of(name).move(name, version, to, by)

    async def rollback(self, name: str, to: int | None, by: str) -> ImageObject:
        return await self._of(name).rollback(name, to, by)

    async def purge(self, name: str, version: int | None = None) -> None:
        await self._of(name).purge(name, version)

    async def sweep(self, before: datetime) -> tuple[str, ...]:
        """Purge what was retired before ``before`` and is not in use; what went, as ``image NAME version N``."""
        gone: list[str] = []
        for image in self.all():
            for number in retired_before(image.about, before):
                with suppress(InUse, UnknownImage, UploadRunning, WrongState):  # it was restored meanwhile
                    await self.purge(image.name, number)
                    gone.append(f"image {image.name} version {number}")
        return tuple(gone)

    def abandoned(self) -> tuple[Remove, ...]:
        """Give up the uploads that nobody goes on with; what went. See ``fsck.abandoned``."""
        return tuple(gone for store in self._stores for gone in abandoned(store))

    async def delete(self, name: str) -> None:
        await self._of(name).delete(name)

    async def take_file(
        self, store: str, file: Path, name: str, manifest: Manifest, index: bytes = b"", facts: Facts | None = None
    ) -> StoredImage:
        """A file in a store's directory becomes the next version of an image; raises ImageExists, UploadRunning."""
        here, holding = self.store(store), self._holding(name)
        if holding not in (None, here):
            raise ImageExists(f"image {name} is in another store; give the file another name, or move it there")
        self._check_claims(name, here)
        return await here.take_file(file, name, manifest, index, facts)

    async def verified(self, name: str, version: int, damage: str) -> None:
        """A version was read and is clean, or with ``damage`` is not served any more."""
        await self._of(name).verified(name, version, damage)

    def stores(self) -> tuple[StoreFacts, ...]:
        """All stores as they are now, in the order of the configuration."""
        return tuple(store.facts() for store in self._stores)

    async def scrub(self, order: ScrubOrder, report: Report, tell: Callable[[str], None]) -> str:
        """Verify what is stored and repair what can be; the sentence of the result. See ``scrub.scrub``."""
        if order.store:
            self.store(order.store)
        return await scrub(self._stores, order, report, tell, self.elsewhere)

    async def check(self, store: str, report: Report, tell: Callable[[str], None]) -> str:
        """What a start does with what it finds, now; the sentence of the result. See ``fsck.check``."""
        return await check(self.store(store), report, tell, self.inform)

    def store(self, name: str) -> Store:
        """One store; raises UnknownStore."""
        found = next((store for store in self._stores if store.name == name), None)
        if found is None:
            known = ", ".join(store.name for store in self._stores)
            raise UnknownStore(f"there is no image store {name[:64]!r}, but {known}")
        return found

    def _holding(self, name: str) -> Store | None:
        return next((store for store in self._stores if store.holds(name)), None)

    def _of(self, name: str) -> Store:
        """The store that the image is in; one that is nowhere is asked of the first, which says so."""
        return self._holding(name) or self._first

    @property
    def _running(self) -> Reframer:
        if self._reframer is None:
            raise StoreClosed("the image store is not running")
        return self._reframer

    @property
    def _first(self) -> Store:
        if not self._stores:
            raise StoreClosed("there is no image store")
        return self._stores[0]

    def _place(self, name: str, wanted: str) -> Store:
        """Where bytes of this image go. Raises UnknownStore, Forbidden, ImageExists."""
        chosen = self.store(wanted) if wanted else None
        holding = self._holding(name)
        if holding is not None and chosen not in (None, holding):
            raise ImageExists(f"image {name} is in store {holding.name}; it cannot be in store {wanted} too")
        store = holding or chosen
        if store is None:
            store = next((each for each in self._stores if self._may_take(each)), self._first)
        if not self._may_take(store):
            raise Forbidden(f"image {name}: nothing is uploaded to store {store.name}: UploadDirectories leaves it out")
        self._check_claims(name, store)
        return store

    def _check_claims(self, name: str, here: Store) -> None:
        """Raises UploadRunning where the name is about to be taken in another store than ``here``."""
        for store in self._stores:
            why = store.claims(name) if store is not here else ""
            if why:
                raise UploadRunning(
                    f"image {name} {why} in store {store.name}; it cannot be in store {here.name} too: wait until that "
                    "is done, or take another name"
                )

    def _may_take(self, store: Store) -> bool:
        allowed = self._settings.upload_directories
        return not allowed or any(store.root.is_relative_to(directory) for directory in allowed)

    def _check_takeover(self, stores: Sequence[Store]) -> None:
        """Raises StartError where an image that is served would give way to another of its name, of a store before."""
        for place, store in enumerate(stores):
            for other in stores[place + 1 :]:
                names = sorted(name for name in store.names & other.names if self._holding(name) is other)
                if names:
                    raise StartError(
                        f"ImageStores: store {store.name} has images of the same names as store {other.name}, which "
                        f"serves them: {', '.join(names[:10])}{' and more' if names[10:] else ''}; name store "
                        f"{store.name} after store {other.name}, or remove these images from one of them"
                    )

    def _hide_doubles(self) -> None:
        for store in self._stores:
            store.unhide()
        taken: dict[str, str] = {}
        for store in self._stores:
            for name in sorted(store.names):
                if name in taken:
                    store.hide(name, f"store {taken[name]} has an image of this name too, and that one is served")
                else:
                    taken[name] = store.name


class StoresReload:
    """A prepared change of the stores: ``pbserv.service.Reload``."""

    def __init__(
        self,
        stores: Stores,
        settings: StoresSettings,
        new: tuple[Store, ...],
        opened: tuple[Store, ...],
        leaving: tuple[Store, ...],
    ) -> None:
        self._stores, self._settings, self._new = stores, settings, new
        self._opened, self._leaving = opened, leaving

    def commit(self) -> None:
        self._stores.adopt(self._settings, self._new)

    def abort(self) -> None:
        for store in self._leaving:
            store.leaving = False
        for store in self._opened:
            store.release()


async def _nobody_informed(_told: Tell) -> None:
    """There is no registry: what the stores believe until they are told better."""
