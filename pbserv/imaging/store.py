"""The built-in image store: an index in memory over the directory tree of ``layout``. Knows no web framework.

One rule: whoever calls it on the event loop never waits for the disk; answers that need the disk are awaited and come
from a bounded number of worker threads, reads and writes apart so that a slow fsync delays no download.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TypeVar

from pbserv.imaging.draft import IDLE_TIMEOUT_S, Draft
from pbserv.imaging.faults import Forbidden, ImageExists, StoreClosed, UnknownImage, UploadRunning
from pbserv.imaging.layout import DEFAULT_FREE_FLOOR, Damage, Layout, StoredImage, filesystem_faults
from pbserv.imaging.manifest import check_image_name

T = TypeVar("T")

_WRITERS = 4
_READERS = 8


class OpenItem:
    """An item opened for reading. It stays readable after the image was deleted; ``close`` it."""

    def __init__(self, file: FileIO, image: StoredImage, item: str, readers: ThreadPoolExecutor) -> None:
        facts = image.manifest.item(item)
        if facts is None:
            raise UnknownImage(f"image {image.name} version {image.version} has no item {item!r}")
        self.size_bytes = facts.stored_bytes
        self.sha256 = facts.sha256
        self._file = file
        self._readers = readers

    async def read(self, offset: int, size_bytes: int) -> bytes:
        """Up to ``size_bytes`` bytes from ``offset``; empty only at the end. Raises OSError or StoreClosed."""
        loop = asyncio.get_running_loop()
        try:
            reading = loop.run_in_executor(self._readers, os.pread, self._file.fileno(), size_bytes, offset)
        except RuntimeError:
            raise StoreClosed("the image store is stopping") from None
        return await reading

    def close(self) -> None:
        self._file.close()


class Store:
    """All images of one directory. ``start`` it before use; ``allow_overwrite`` may be changed while it runs."""

    def __init__(
        self,
        root: Path,
        *,
        allow_overwrite: bool = False,
        free_floor_bytes: int = DEFAULT_FREE_FLOOR,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        self.allow_overwrite = allow_overwrite
        self.damages: tuple[Damage, ...] = ()
        self._layout = Layout(root, free_floor_bytes)
        self._idle_timeout_s = idle_timeout_s
        self._images: dict[str, dict[int, StoredImage]] = {}
        self._damaged_names: set[str] = set()
        self._drafts: dict[str, Draft] = {}
        self._deleting: set[str] = set()
        self._writers: ThreadPoolExecutor | None = None
        self._readers: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Lock the directory, remove leftovers, read what is there; ``damages`` tells what is not served.

        Raises StartError.
        """
        self._writers = ThreadPoolExecutor(_WRITERS, "pbserv-image-writer")
        self._readers = ThreadPoolExecutor(_READERS, "pbserv-image-reader")
        try:
            await self._work(self._writers, self._layout.open)
            images, damages = await self._work(self._writers, self._layout.scan)
        except BaseException:
            await self.close()
            raise
        self._images = {}
        for image in images:
            self._images.setdefault(image.name, {})[image.version] = image
        self.damages = tuple(damages)
        self._damaged_names = {damage.path.partition("/")[0] for damage in damages}

    async def close(self) -> None:
        """Discard what is being uploaded, finish what the threads are doing, release the directory. Idempotent."""
        for draft in list(self._drafts.values()):
            await draft.discard()
        for pool in (self._writers, self._readers):
            if pool is not None:
                await asyncio.to_thread(pool.shutdown)
        self._writers = self._readers = None
        self._layout.close()

    def list(self) -> tuple[StoredImage, ...]:
        """The newest version of every image, by name."""
        return tuple(versions[max(versions)] for _, versions in sorted(self._images.items()))

    def versions(self, name: str) -> tuple[int, ...]:
        """The versions of an image, oldest first; empty when there is none."""
        return tuple(sorted(self._images.get(name, ())))

    def info(self, name: str, version: int | None = None) -> StoredImage:
        """A version of an image, the newest when none is given; raises InvalidName or UnknownImage."""
        versions = self._images.get(check_image_name(name))
        if not versions:
            raise UnknownImage(f"there is no image {name!r}{self._damage_of(name)}")
        image = versions.get(max(versions) if version is None else version)
        if image is None:
            raise UnknownImage(f"image {name} has no version {version}, but {', '.join(map(str, sorted(versions)))}")
        return image

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

    def begin(self, name: str, *, overwrite: bool | None = None, size_bytes: int = 0) -> Draft:
        """Start an upload; refused at once when it could not be committed later.

        ``overwrite`` asks for a new version of an image that exists; None means as AllowImageOverwrite says.
        ``size_bytes`` is what will come, as far as it is known. Raises InvalidName, Forbidden, ImageExists,
        UploadRunning, StoreFull or StoreClosed.
        """
        check_image_name(name)
        writers = self._running(self._writers)
        if overwrite and not self.allow_overwrite:
            raise Forbidden(f"image {name}: overwriting is not allowed here; set AllowImageOverwrite = YES to allow it")
        if (name in self._images or name in self._damaged_names) and not (overwrite or self._by_default(overwrite)):
            raise ImageExists(
                f"image {name} exists{self._damage_of(name)}; delete it, take another name, or ask to overwrite it "
                "where AllowImageOverwrite = YES"
            )
        if name in self._drafts:
            raise UploadRunning(f"image {name} is being uploaded by somebody else; wait, or take another name")
        if name in self._deleting:
            raise UploadRunning(f"image {name} is being deleted; try again when that is done")
        self._layout.check_space(size_bytes)
        ended = partial(self._draft_ended, name)
        draft = Draft(name, self._layout, writers, ended=ended, idle_timeout_s=self._idle_timeout_s)
        self._drafts[name] = draft
        return draft

    async def delete(self, name: str) -> None:
        """Remove an image with all its versions; whoever reads it goes on. Raises UnknownImage, UploadRunning."""
        check_image_name(name)
        if (name not in self._images and name not in self._damaged_names) or name in self._deleting:
            raise UnknownImage(f"there is no image {name!r}")
        if name in self._drafts:
            raise UploadRunning(f"image {name}: a new version is being uploaded; wait for it before deleting")
        deleting = asyncio.get_running_loop().run_in_executor(self._running(self._writers), self._delete, name)
        self._deleting.add(name)
        deleting.add_done_callback(lambda done: self._deleted(name, done))
        await asyncio.shield(deleting)

    def _delete(self, name: str) -> None:
        with filesystem_faults(f"image {name}: deleting it"):
            try:
                self._layout.delete(name)
            except FileNotFoundError:
                raise UnknownImage(f"there is no image {name!r} any more") from None

    def _deleted(self, name: str, done: asyncio.Future[None]) -> None:
        self._deleting.discard(name)
        if not done.cancelled() and (done.exception() is None or isinstance(done.exception(), UnknownImage)):
            self._images.pop(name, None)
            self._damaged_names.discard(name)

    def _draft_ended(self, name: str, image: StoredImage | None) -> None:
        self._drafts.pop(name, None)
        if image is not None:
            self._images.setdefault(name, {})[image.version] = image

    def _by_default(self, overwrite: bool | None) -> bool:
        return overwrite is None and self.allow_overwrite

    def _damage_of(self, name: str) -> str:
        reasons = [f"{damage.path}: {damage.reason}" for damage in self.damages if damage.path.split("/")[0] == name]
        return f" (damaged: {'; '.join(reasons)})" if name in self._damaged_names else ""

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
