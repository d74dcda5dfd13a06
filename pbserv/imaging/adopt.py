"""Files that were dropped into a store become images by themselves, and get OpenGnSys' checksums beside them.

One rule: nothing is visible before all of the file was read once and is of a known format; `NAME.img.lock` stands while
it is worked on, and who else holds that lock is waited for.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from pbserv.imaging.durable import SHORTAGES
from pbserv.imaging.faults import Changed, DamagedImage, StoreClosed, StoreFault, UnknownImage
from pbserv.imaging.formats.model import FormatError
from pbserv.imaging.frames import pieces
from pbserv.imaging.import_plan import VIRTUAL, PlannedItem, whole_disk
from pbserv.imaging.importing import survey
from pbserv.imaging.inspection import InspectionError, inspect
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.linking import exchange
from pbserv.imaging.manifest import DiskFacts, Fact, Manifest, ManifestItem
from pbserv.imaging.objects import ImageObject, ImageVersion, StoreFacts
from pbserv.imaging.plain_size import PlainCounter
from pbserv.imaging.states import VersionState
from pbserv.imaging.sum_files import FileChanged, locked, measure, read_sums, remove_own_lock, stale, write_sums
from pbserv.imaging.sums import LOCK, Sums
from pbserv.imaging.watch import Dropped, Facts, facts_of, image_name

T = TypeVar("T")
_MEGABYTE = 1_000_000
_MOST_DAMAGED = 1000
"""Files are forgotten when more are known: then one is read once more than needed."""


class DropStore(Protocol):
    """The part of the image stores that is needed here."""

    def object(self, name: str) -> ImageObject: ...
    def stores(self) -> tuple[StoreFacts, ...]: ...
    async def take_file(
        self, store: str, file: Path, name: str, manifest: Manifest, index: bytes = b"", facts: Facts | None = None
    ) -> StoredImage:
        """``file`` of that store's directory becomes the next version of the image; see ``linking.link_in``."""
        ...

    async def verified(self, name: str, version: int, damage: str) -> None:
        """A version is not served any more where ``damage`` says why."""
        ...


class Log(Protocol):
    """What is told of files."""

    def transaction(self, event: str, /, **fields: object) -> None: ...
    def warning(self, event: str, /, **fields: object) -> None: ...


def _nobody(_image: StoredImage) -> None: ...


@dataclass(frozen=True, slots=True)
class _Read:
    """A file that was read to its end; ``fault``: why its bytes are no whole image."""

    sums: Sums
    plain_bytes: int
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store has of the image already."""

    version: ImageVersion | None = None
    linked: bool = False


class Adopter:
    """Takes what a Watcher hands on. ``rate_mb`` is asked for each file: so many MB a second are read at most;
    ``taken`` is told of each new version."""

    def __init__(
        self, stores: DropStore, log: Log, rate_mb: Callable[[], int], taken: Callable[[StoredImage], None] = _nobody
    ) -> None:
        self._stores = stores
        self._log = log
        self._rate_mb = rate_mb
        self._taken = taken
        self._damaged: dict[Path, tuple[Facts, str]] = {}

    async def __call__(self, dropped: Dropped) -> None:
        """Take one file in. Raises PbservError where it must be tried again or is no image."""
        facts = await asyncio.to_thread(facts_of, dropped.path)
        if facts is None:
            return  # gone already
        if (seen := self._damaged.get(dropped.path)) is not None and seen[0] == facts:
            raise InspectionError(seen[1])  # without reading all of it every minute
        known = await asyncio.to_thread(_known, dropped, self._versions(dropped))
        fresh = not await asyncio.to_thread(stale, dropped.path)
        if known.linked and fresh:
            return
        item, disk = await asyncio.to_thread(_planned, dropped.path)
        with locked(dropped.path):
            read, index = await self._measured(dropped.path, item)
            made = read.sums
            item, disk = _sized(item, disk, read.plain_bytes)
            if fresh:
                _compare(dropped.path, made)
            manifest = manifest_of(item, disk, made).with_facts(
                Fact(item.name, key, value) for key, value in pieces.facts_of(index).items()
            )
            if read.fault and not known.linked:
                if len(self._damaged) >= _MOST_DAMAGED:
                    self._damaged.clear()
                self._damaged[dropped.path] = facts, f"{dropped.path}: {read.fault}"
            again = await self._take(dropped, facts, known, manifest, read, index)
            await asyncio.to_thread(write_sums, dropped.path, made)
            if again is not None:  # after its checksums, which are right before that and afterwards
                await self._join(dropped, again, facts)
        if not dropped.renamed and known.version is None:  # not before: what is not taken is tried every minute
            self._log.warning(
                "copied straight to its name",
                file=str(dropped.path),
                remedy="copy under another name and rename it then",
            )

    async def _measured(self, path: Path, item: PlannedItem) -> tuple[_Read, bytes]:
        """With the index of its pieces."""
        indexer, rate = pieces.PieceIndexer(), self._rate_mb() * _MEGABYTE
        read = await _to_the_end(path, lambda go_on: _read(path, item, rate, go_on, indexer.feed))
        return read, indexer.index(read.sums.sha256)

    async def _take(
        self, dropped: Dropped, facts: Facts, known: _Known, manifest: Manifest, read: _Read, index: bytes
    ) -> ImageVersion | None:
        """The version that has these bytes in a file of its own already; None: the file is one itself now."""
        version, made = known.version, read.sums
        same = version is not None and version.image.manifest.items[0].sha256 == made.sha256
        if version is not None and same and known.linked:
            return None  # the checksums alone were missing
        if version is not None and same and _wanted(dropped, version) and await self._whole(dropped, version):
            return version
        if version is not None and known.linked:
            damage = (
                f"{dropped.path.name} was written to in place, and it is this version; drop the file again, renamed"
            )
            await self._stores.verified(dropped.name, version.number, damage)
            raise DamagedImage(f"image {dropped.name} version {version.number}: {damage}")
        if read.fault:
            raise InspectionError(f"{dropped.path}: {read.fault}")
        self._damaged.pop(dropped.path, None)
        image = await self._stores.take_file(dropped.store, dropped.path, dropped.name, manifest, index, facts)
        self._log.transaction(
            "image appeared", file=str(dropped.path), image=image.name, version=image.version, bytes=made.size_bytes
        )
        self._taken(image)
        return None

    async def _whole(self, dropped: Dropped, version: ImageVersion) -> bool:
        """Whether the version still has the bytes of its manifest: else those of the file are the only ones."""
        path, rate = _item_path(dropped, version), self._rate_mb() * _MEGABYTE
        damage = f"item {path.name}: its stored bytes are not those that the manifest names"
        try:
            found = await _to_the_end(path, lambda go_on: measure(path, rate_bytes=rate, advance=go_on))
        except StoreFault as fault:
            shortage = isinstance(fault.__cause__, OSError) and fault.__cause__.errno in SHORTAGES
            if shortage or isinstance(fault, FileChanged):
                raise
            if not await asyncio.to_thread(path.parent.is_dir):
                raise Changed(f"{path.parent}: was removed meanwhile; the file is looked at again") from None
            damage = f"item {path.name}: {fault}"
        else:
            if found.sha256 == version.image.manifest.items[0].sha256:
                return True
        await self._stores.verified(dropped.name, version.number, damage)
        self._log.warning("version damaged", image=dropped.name, version=version.number, reason=damage)
        return False

    async def _join(self, dropped: Dropped, version: ImageVersion, facts: Facts) -> None:
        """The bytes came a second time: the file becomes a second name of the version, and goes when that goes."""
        item = _item_path(dropped, version)
        try:
            await asyncio.to_thread(exchange, dropped.path, item, facts)
        except FileNotFoundError:
            pass  # one of the two is gone
        except OSError as fault:
            self._log.warning(
                "file has the bytes of a version and is not its second name",
                file=str(dropped.path),
                image=dropped.name,
                version=version.number,
                reason=fault.strerror,
                remedy="remove the file yourself when the version is purged",
            )
        if await asyncio.to_thread(_inode, dropped, version) is None:
            raise Changed(
                f"{dropped.path}: version {version.number} of image {dropped.name}, which has its bytes, was removed"
                " meanwhile; the file is looked at again"
            )

    def _versions(self, dropped: Dropped) -> tuple[ImageVersion, ...]:
        """Of this image in this store; one of another store has nothing to do with the file."""
        try:
            image = self._stores.object(dropped.name)
        except UnknownImage:
            return ()
        return image.versions if image.store == dropped.store else ()


async def _to_the_end(path: Path, read: Callable[[Callable[[int], None]], T]) -> T:
    """Read in a thread, which ends soon when nobody waits for it any more: the file may be of any size. ``read`` gets
    what it has to call now and then."""
    given_up = threading.Event()

    def go_on(_count: int) -> None:
        if given_up.is_set():
            raise StoreClosed(f"{path}: not read to its end: the image store is stopping")

    try:
        return await asyncio.to_thread(read, go_on)
    finally:
        given_up.set()


def _read(
    path: Path, item: PlannedItem, rate: int, advance: Callable[[int], None], also: Callable[[bytes], None]
) -> _Read:
    """Blocking."""
    if item.found is None:
        return _Read(measure(path, rate_bytes=rate, advance=advance, also=also), item.plain_bytes)
    counter = PlainCounter(item.found, item.compressor)

    def feed(block: bytes) -> None:
        also(block)
        counter.feed(block)

    try:
        made = measure(path, rate_bytes=rate, advance=advance, also=feed)
    finally:
        counter.end()
    try:
        return _Read(made, counter.size())
    except FormatError as fault:
        return _Read(made, 0, str(fault))


def _sized(item: PlannedItem, disk: DiskFacts, plain_bytes: int) -> tuple[PlannedItem, DiskFacts]:
    """With the size that was counted. A table of DOS does not say how large its disk was: the bytes of it do."""
    if item.found is not None and whole_disk(item.found):
        disk = replace(disk, size_bytes=max(disk.size_bytes, plain_bytes))
    exact = any(check.plain for check in item.checks)
    return (item if exact or not plain_bytes else replace(item, plain_bytes=plain_bytes)), disk


def _known(dropped: Dropped, versions: tuple[ImageVersion, ...]) -> _Known:
    """The newest version that is this file, else the newest of one item. Blocking."""
    file = os.stat(dropped.path, follow_symlinks=False)
    single = [version for version in reversed(versions) if len(version.image.manifest.items) == 1]
    for version in single:
        if _inode(dropped, version) == (file.st_dev, file.st_ino):
            return _Known(version, linked=True)
    return _Known(single[0] if single else None)


def _item_path(dropped: Dropped, version: ImageVersion) -> Path:
    return dropped.path.parent / dropped.name / str(version.number) / version.image.manifest.items[0].name


def _wanted(dropped: Dropped, version: ImageVersion) -> bool:
    """Whether a file with its bytes may become its second name: not where the version is damaged, or where it was
    retired and somebody drops the file to have it back."""
    back = dropped.renamed and version.about.state is VersionState.RETIRED
    return not version.damage and not back


def _inode(dropped: Dropped, version: ImageVersion) -> tuple[int, int] | None:
    try:
        found = os.lstat(_item_path(dropped, version))
    except OSError:
        return None
    return found.st_dev, found.st_ino


def manifest_of(item: PlannedItem, disk: DiskFacts, made: Sums) -> Manifest:
    """Of the one file that was measured."""
    stored = ManifestItem(item.name, item.kind, item.partition, made.size_bytes, made.sha256, item.plain_bytes)
    return Manifest(disk, (stored,), tuple(Fact(item.name, key, value) for key, value in item.facts))


def remove_own_locks(directory: Path) -> list[str]:
    """Remove the locks that this server left in a store's directory when it was killed; their names. At start only."""
    removed = []
    for name in sorted(os.listdir(directory)):
        image = name.removesuffix(LOCK)
        if image != name and image_name(image) is not None and remove_own_lock(directory / image):
            removed.append(name)
    return removed


def _planned(path: Path) -> tuple[PlannedItem, DiskFacts]:
    """What the file is, by its content; raises InspectionError. Blocking."""
    tool = inspect(path)[0].found.tool
    if tool in VIRTUAL:  # and no program is started for what anybody may have dropped
        raise InspectionError(f"{path}: a disk of a virtual machine ({tool}): pbserv image import takes it")
    (plan,) = survey(path).plans
    (item,) = plan.items
    if len(item.volumes) > 1:
        raise InspectionError(f"{path}: in volumes: pbserv image import joins them")
    return item, plan.disk


def _compare(path: Path, made: Sums) -> None:
    """Checksums that came along, newer than the file, must be its own; raises DamagedImage."""
    tail, full = read_sums(path)
    if tail not in (None, made.tail_md5) or full not in (None, made.full_md5):
        raise DamagedImage(
            f"{path}: its checksums beside it are of other bytes; the file is damaged: copy it again, or remove"
            f" {path.name}.sum and {path.name}.full.sum"
        )
