"""The place of the backend: routes are made once, the backend comes and goes with the imaging service."""

from __future__ import annotations

from pbserv.imaging.backend import ImageDraft, ImagingBackend, ItemSource
from pbserv.imaging.faults import StoreClosed
from pbserv.imaging.layout import Damage, StoredImage


class BackendSlot:
    """An ``ImagingBackend`` that passes everything on to the current one; StoreClosed while there is none."""

    def __init__(self) -> None:
        self._backend: ImagingBackend | None = None

    async def put(self, backend: ImagingBackend) -> None:
        """Start ``backend`` and serve from it; raises StartError."""
        await backend.start()
        self._backend = backend

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
