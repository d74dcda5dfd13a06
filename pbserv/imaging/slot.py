"""The place of the backend: routes are made once, the backend comes and goes with the imaging service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pbserv.imaging.about import About, AboutChange
from pbserv.imaging.backend import ImageDraft, ImagingBackend, ItemSource, Session, VersionedBackend, is_versioned
from pbserv.imaging.faults import NotSupported, StoreClosed
from pbserv.imaging.frames.index import Header
from pbserv.imaging.frames.reader import OpenIndex
from pbserv.imaging.layout import Damage, StoredImage
from pbserv.imaging.manifest import Manifest
from pbserv.imaging.objects import ImageObject, StoreFacts
from pbserv.imaging.scrub import ScrubOrder
from pbserv.imaging.states import VersionState
from pbserv.imaging.stores import Stores, StoresSettings
from pbserv.imaging.tasks import Report
from pbserv.imaging.watch import Facts
from pbserv.service import Reload


class BackendSlot:
    """A ``VersionedBackend`` that passes everything on to the current one; StoreClosed while there is none.

    What an own backend cannot do is NotSupported.
    """

    def __init__(self) -> None:
        self._backend: ImagingBackend | None = None

    async def put(self, backend: ImagingBackend) -> None:
        """Start ``backend`` and serve from it; raises StartError."""
        await backend.start()
        self._backend = backend

    async def prepare(self, settings: StoresSettings) -> Reload | None:
        """First half of a reload of the built-in stores; None for an own backend. Raises StartError."""
        return await self._backend.prepare(settings) if isinstance(self._backend, Stores) else None

    async def start(self) -> None:
        """Nothing: :meth:`put` starts what is put."""

    async def close(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            await backend.close()

    @property
    def _now(self) -> ImagingBackend:
        if self._backend is None:
            raise StoreClosed("the imaging service is not running; start it with: pbserv start imaging")
        return self._backend

    @property
    def _versioned(self) -> VersionedBackend:
        backend = self._now
        if not is_versioned(backend):
            raise NotSupported("the backend that LIBRARY_NAME names keeps no states of images; the built-in one does")
        return backend

    @property
    def allow_overwrite(self) -> bool:
        return self._now.allow_overwrite

    @allow_overwrite.setter
    def allow_overwrite(self, allowed: bool) -> None:
        self._now.allow_overwrite = allowed

    @property
    def damages(self) -> tuple[Damage, ...]:
        """What the built-in store found and does not serve; another backend may have nothing of the kind."""
        found: tuple[Damage, ...] = getattr(self._now, "damages", ())
        return found

    @property
    def foreign(self) -> tuple[str, ...]:
        """Folders that the built-in store passed over, for they are no images."""
        found: tuple[str, ...] = getattr(self._now, "foreign", ())
        return found

    def list(self) -> tuple[StoredImage, ...]:
        return self._now.list()

    def versions(self, name: str) -> tuple[int, ...]:
        return self._now.versions(name)

    def info(self, name: str, version: int | None = None) -> StoredImage:
        return self._now.info(name, version)

    async def open(self, name: str, item: str, version: int | None = None) -> ItemSource:
        return await self._now.open(name, item, version)

    def begin(self, name: str, *, overwrite: bool | None = None, size_bytes: int = 0) -> ImageDraft:
        return self._now.begin(name, overwrite=overwrite, size_bytes=size_bytes)

    async def delete(self, name: str) -> None:
        await self._now.delete(name)

    def stores(self) -> tuple[StoreFacts, ...]:
        return self._versioned.stores()

    def all(self) -> tuple[ImageObject, ...]:
        return self._versioned.all()

    def object(self, name: str) -> ImageObject:
        return self._versioned.object(name)

    async def register(self, name: str, about: About, store: str = "") -> ImageObject:
        return await self._versioned.register(name, about, store)

    async def change(self, name: str, change: AboutChange, expected: str = "") -> ImageObject:
        return await self._versioned.change(name, change, expected)

    async def move(self, name: str, version: int, to: VersionState, by: str) -> ImageObject:
        return await self._versioned.move(name, version, to, by)

    async def rollback(self, name: str, to: int | None, by: str) -> ImageObject:
        return await self._versioned.rollback(name, to, by)

    async def purge(self, name: str, version: int | None = None) -> None:
        await self._versioned.purge(name, version)

    async def index(self, image: StoredImage, item: str) -> OpenIndex | None:
        return await self._versioned.index(image, item)

    async def index_header(self, image: StoredImage, item: str) -> Header | None:
        return await self._versioned.index_header(image, item)

    def open_session(
        self,
        name: str,
        *,
        store: str = "",
        overwrite: bool | None = None,
        size_bytes: int = 0,
        owner: str = "",
        asis: bool = False,
    ) -> Session:
        return self._versioned.open_session(
            name, store=store, overwrite=overwrite, size_bytes=size_bytes, owner=owner, asis=asis
        )

    def begin_next(self, name: str, *, size_bytes: int = 0, creator: str = "") -> Session:
        return self._versioned.begin_next(name, size_bytes=size_bytes, creator=creator)

    def sessions(self) -> tuple[Session, ...]:
        return self._versioned.sessions()

    def session(self, number: str) -> Session:
        return self._versioned.session(number)

    def session_of_job(self, job: int) -> Session | None:
        return self._versioned.session_of_job(job)

    def made_by_job(self, job: int) -> StoredImage | None:
        return self._versioned.made_by_job(job)

    async def scrub(self, order: ScrubOrder, report: Report, tell: Callable[[str], None]) -> str:
        return await self._versioned.scrub(order, report, tell)

    async def check(self, store: str, report: Report, tell: Callable[[str], None]) -> str:
        return await self._versioned.check(store, report, tell)

    async def take_file(
        self, store: str, file: Path, name: str, manifest: Manifest, index: bytes = b"", facts: Facts | None = None
    ) -> StoredImage:
        return await self._versioned.take_file(store, file, name, manifest, index, facts)

    async def verified(self, name: str, version: int, damage: str) -> None:
        await self._versioned.verified(name, version, damage)
