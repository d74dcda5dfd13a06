"""Replaces a damaged frame by the same frame of another item, where a store, or another server, has it. Blocking.

One rule: bytes are written only after their digest was compared, and compared again after they were written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from typing import Protocol

from pbserv.imaging.faults import ImagingFault
from pbserv.imaging.frames.index import Record, digest_of
from pbserv.imaging.frames.pieces import worth
from pbserv.imaging.frames.reader import FrameDamage, OpenIndex, read_exactly
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.manifest import ManifestItem
from pbserv.imaging.opened import open_index
from pbserv.imaging.store import Store

_Place = tuple[Store, StoredImage, str]


class Copy(Protocol):
    """The same item somewhere else; ``str()``: where."""

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Exactly these bytes; raises OSError."""


class Elsewhere(Protocol):
    """Who finds the same item on other servers."""

    def copies(self, image: StoredImage, item: str, check: Callable[[], None]) -> Generator[Copy, None, None]:
        """One after the other; ``check`` raises when the work is to end."""


class Repairer:
    """For one damaged item; it looks for the same frames in all versions of ``stores``, then ``elsewhere``. ``check``
    raises when the work is to end."""

    def __init__(
        self, stores: Sequence[Store], store: Store, image: StoredImage, item: str, elsewhere: Elsewhere | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._stores = stores
        self._here: _Place = (store, image, item)
        self._elsewhere = elsewhere
        self._check = check

    def repair(self, damages: Sequence[FrameDamage]) -> list[tuple[FrameDamage, str]]:
        """Each frame that could be repaired, and from where: ``image NAME version N item X``. Raises what ``check``
        does; frames that were put back by then are."""
        store, image, item = self._here
        index = open_index(store.layout, image, item, whole=True)
        if index is None:
            return self._alone(damages[0])
        try:
            lost = {damage: index.index.record(damage.frame) for damage in damages
                    if damage.frame < index.index.header.frames}  # fmt: skip
            found: list[tuple[FrameDamage, str]] = []
            for place in self._places():
                for damage, source in self._from(place, lost):
                    del lost[damage]
                    found.append((damage, source))
                if not lost:
                    break
            found += self._fetched(lost)
            return sorted(found, key=lambda one: one[0].frame)
        finally:
            index.close()

    def _alone(self, damage: FrameDamage) -> list[tuple[FrameDamage, str]]:
        """An item of one piece has no index: the same whole item, by its SHA-256, takes its place."""
        _, image, item = self._here
        facts = image.manifest.item(item)
        if facts is None or worth(facts.stored_bytes):
            return []
        with closing(self._wholes(facts)) as wholes:
            for data, source in wholes:
                if hashlib.sha256(data).hexdigest() == facts.sha256:
                    same = digest_of(data)
                    with suppress(ImagingFault, OSError):
                        if self._write(data, Record(0, 0, len(data), len(data), same, same), size_bytes=len(data)):
                            return [(damage, source)]
        return []

    def _wholes(self, facts: ManifestItem) -> Generator[tuple[bytes, str], None, None]:
        """What may be the same small item, here and elsewhere, and where it is."""
        for store, image, item in self._places():
            other = image.manifest.item(item)
            if other is not None and (other.sha256, other.stored_bytes) == (facts.sha256, facts.stored_bytes):
                with suppress(ImagingFault, OSError), store.layout.open_item(image, item) as file:
                    where = f"image {image.name} version {image.version} item {item}"
                    yield read_exactly(file.fileno(), facts.stored_bytes, 0), where
        if self._elsewhere is None or not facts.stored_bytes:
            return
        _, image, item = self._here
        with closing(self._elsewhere.copies(image, item, self._check)) as copies:
            for copy in copies:
                with suppress(OSError):
                    yield copy.read(0, facts.stored_bytes), str(copy)

    def _places(self) -> Iterator[_Place]:
        """Other items with frames; those of the same name in the same image first, as they are most alike."""
        _, image, item = self._here
        every = [
            (store, version.image, other.name)
            for store in self._stores
            for one in store.all()
            for version in one.versions
            for other in version.image.manifest.items
            if (version.image.name, version.number, other.name) != (image.name, image.version, item)
        ]
        yield from sorted(every, key=lambda place: (place[1].name != image.name, place[2] != item, -place[1].version))

    def _from(self, place: _Place, lost: dict[FrameDamage, Record]) -> list[tuple[FrameDamage, str]]:
        store, image, item = place
        with suppress(ImagingFault, OSError):
            index = open_index(store.layout, image, item)
            if index is None:
                return []
            try:
                with store.layout.open_item(image, item) as file:
                    mended = [damage for damage, record in lost.items() if self._mend(index, file.fileno(), record)]
            finally:
                index.close()
            return [(damage, f"image {image.name} version {image.version} item {item}") for damage in mended]
        return []

    def _mend(self, index: OpenIndex, fd: int, lost: Record) -> bool:
        same = index.index.find(lost.identity)
        if same is None or same.digest != lost.digest or same.stored_bytes != lost.stored_bytes:
            return False
        with suppress(ImagingFault, OSError):
            data = read_exactly(fd, same.stored_bytes, same.offset)
            if digest_of(data) == lost.digest:
                return self._write(data, lost)
        return False

    def _fetched(self, lost: dict[FrameDamage, Record]) -> list[tuple[FrameDamage, str]]:
        """What other servers had of the frames that no store here has."""
        found: list[tuple[FrameDamage, str]] = []
        if not lost or self._elsewhere is None:
            return found
        _, image, item = self._here
        with closing(self._elsewhere.copies(image, item, self._check)) as copies:
            for copy in copies:
                with suppress(OSError):  # who found the copy says so
                    for damage, record in list(lost.items()):
                        if self._take(copy.read(record.offset, record.stored_bytes), record):
                            del lost[damage]
                            found.append((damage, str(copy)))
                if not lost:
                    break
        return found

    def _take(self, data: bytes, lost: Record) -> bool:
        with suppress(ImagingFault, OSError):
            return digest_of(data) == lost.digest and self._write(data, lost)
        return False

    def _write(self, data: bytes, lost: Record, size_bytes: int | None = None) -> bool:
        """``size_bytes``: the file ends there, whatever came behind."""
        store, image, item = self._here
        with store.layout.patch_item(image, item) as file:
            at = 0
            while at < len(data):
                at += os.pwrite(file.fileno(), data[at:], lost.offset + at)
            if size_bytes is not None:
                os.ftruncate(file.fileno(), size_bytes)
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return digest_of(read_exactly(file.fileno(), lost.stored_bytes, lost.offset)) == lost.digest
