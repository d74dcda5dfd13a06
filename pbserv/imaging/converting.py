"""An image of another system's tools becomes a native version: uncompressed on the server, cut into frames, committed.

One rule: the version that is read stays as it is, and the new one is visible when all of it is there and was checked:
what was read must be what was committed once, and the new one is served where the old one is.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any, Final, Protocol, TypeVar  # Any: what a thread is at does not matter

import zstandard

from pbserv.imaging.backend import ItemSource, Session
from pbserv.imaging.convert import plain_limit, refusal
from pbserv.imaging.draft import StoredItem
from pbserv.imaging.faults import DamagedImage, NotSupported, WrongState
from pbserv.imaging.formats.detect import detect
from pbserv.imaging.formats.model import HEAD_BYTES, FormatError, Found
from pbserv.imaging.import_plan import ENDINGS
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.manifest import Fact, Manifest, ManifestItem, print_manifest
from pbserv.imaging.objects import ImageObject
from pbserv.imaging.states import VersionState
from pbserv.imaging.unpack import MAX_PLAIN_BYTES, unpacked

T = TypeVar("T")
PART_BYTES: Final = 64 << 20
_READ: Final = 1 << 20
_LEVEL: Final = 1
"""Between here and the frames, which are compressed as ImageCompression says."""
_STREAMS: Final = ("raw", "partimage", "ntfsclone", "fsarchiver")
_OF_THE_BYTES: Final = ("compressor", "device_bytes", "used_bytes", "kept", "index_sha256", "extent_bytes")


class Report(Protocol):
    """How far it is, in bytes that were read; ``total`` of them in all."""

    total: int

    def add(self, count: int) -> None: ...


class ConvertingStore(Protocol):
    """The part of the image stores that is needed here."""

    def info(self, name: str, version: int | None = None) -> StoredImage: ...
    def object(self, name: str) -> ImageObject: ...
    async def open(self, name: str, item: str, version: int | None = None) -> ItemSource: ...
    def begin_next(self, name: str, *, size_bytes: int = 0, creator: str = "") -> Session: ...


def _nobody(_image: StoredImage) -> None: ...


async def convert(
    stores: ConvertingStore,
    name: str,
    version: int | None,
    owner: str,
    report: Report,
    committed: Callable[[StoredImage], None] = _nobody,
) -> str:
    """Make the next version of ``name`` of one whose items are kept as they came, tell ``committed`` of it; a sentence
    on what was done.

    ``version`` None: the one that is served. The new one is enabled by itself only where that is the one that it was
    made of. Raises WrongState where nothing is to be converted or cannot be, with the reason, DamagedImage where the
    bytes are not those of the manifest any more, and what uploads raise.
    """
    image = stores.info(name, version)
    what = f"image {image.name} version {image.version}"
    if damage := stores.object(name).version(image.version).damage:
        raise DamagedImage(f"{what} is damaged and not converted: {damage}")
    foreign = [item for item in image.manifest.items if _is_foreign(image.manifest, item)]
    if not foreign:
        raise WrongState(f"{what} is made of frames already, or of nothing that could be")
    report.total = sum(item.stored_bytes for item in image.manifest.items)
    founds = {item.name: await _looked_at(stores, image, item, what) for item in foreign}
    session = stores.begin_next(name, size_bytes=image.manifest.stored_bytes, creator=owner)
    try:
        items: list[ManifestItem] = []
        for item in image.manifest.items:
            items.append(await _one(stores, image, item, founds.get(item.name), session, report))
        manifest = Manifest(image.manifest.disk, tuple(items), _facts(image.manifest, items))
        made = await session.commit(print_manifest(manifest), made_of=image.version)
    except FormatError as fault:
        raise WrongState(f"{what}: {fault}") from fault
    finally:
        await session.discard()  # after a commit it does nothing
    committed(made)
    state = stores.object(name).version(made.version).state
    said = "" if state is VersionState.ENABLED else f", which is {state.value} and not served by itself"
    return f"{what} is version {made.version} now, in frames{said}"


def _is_foreign(manifest: Manifest, item: ManifestItem) -> bool:
    native = manifest.fact(item.name, "body_sha256")  # of a stream that was cut; pieces of a file have none
    return not native and (item.kind in _STREAMS or item.kind.startswith("partclone."))


async def _looked_at(stores: ConvertingStore, image: StoredImage, item: ManifestItem, what: str) -> Found:
    """What the item's bytes are; raises WrongState where they cannot be cut."""
    opened = await stores.open(image.name, item.name, image.version)
    try:
        found = await asyncio.to_thread(_found, _descriptor(opened), _compressor(image.manifest, item))
    except FormatError as fault:
        raise WrongState(f"{what} item {item.name}: {fault}") from fault
    finally:
        opened.close()
    if why := refusal(found):
        raise WrongState(f"{what} item {item.name} cannot be converted: {why}; it is served as it is")
    return found


def _found(descriptor: int, compressor: str) -> Found:
    head = b""
    with closing(unpacked(_Source(descriptor).chunks(), compressor)) as pieces:
        for piece in pieces:
            head += piece
            if len(head) >= HEAD_BYTES:
                break
    return detect(head[:HEAD_BYTES])


def _compressor(manifest: Manifest, item: ManifestItem) -> str:
    """Without a word it is zstd, as older imaging clients left it."""
    return manifest.fact(item.name, "compressor") or "zstd"


async def _one(
    stores: ConvertingStore,
    image: StoredImage,
    item: ManifestItem,
    found: Found | None,
    session: Session,
    report: Report,
) -> ManifestItem:
    opened = await stores.open(image.name, item.name, image.version)
    try:
        source = _Source(_descriptor(opened), report.add)
        if found is None:
            return await _copied(item, source.chunks(), session)
        plain = unpacked(source.chunks(), _compressor(image.manifest, item), plain_limit(found, MAX_PLAIN_BYTES))
        pieces = _Pieces(_compared(plain, source, item, f"image {image.name} version {image.version}"))
        try:
            return await _reframed(item, pieces, session)
        finally:
            await pieces.close()
    finally:
        opened.close()


async def _copied(item: ManifestItem, stored: Generator[bytes, None, None], session: Session) -> ManifestItem:
    pieces = _Pieces(stored)
    try:
        sent = await session.receive(item.name, pieces.all(), size_bytes=item.stored_bytes, sha256=item.sha256)
    finally:
        await pieces.close()
    return _item(item, item.name, sent, item.uncompressed_bytes)


async def _reframed(item: ManifestItem, pieces: _Pieces, session: Session) -> ManifestItem:
    name = _native_name(item.name)
    number = 0
    while number == 0 or await pieces.more():
        number += 1
        await session.part(name, item.kind, number, pieces.part(), None)
    return _item(item, name, await session.complete(name, number, pieces.taken), pieces.taken)


def _item(item: ManifestItem, name: str, sent: StoredItem, plain: int) -> ManifestItem:
    return ManifestItem(name, item.kind, item.partition, sent.size_bytes, sent.sha256, plain)


def _native_name(name: str) -> str:
    """p1.ext4.zst of p1.ext4.gz."""
    stem, _, ending = name.rpartition(".")
    return f"{(stem if stem and ending in ENDINGS.values() else name)[:60]}.zst"


def _facts(manifest: Manifest, items: list[ManifestItem]) -> tuple[Fact, ...]:
    """What is known of the items still; what only held for the bytes as they were stored is not."""
    names = {before.name: after.name for before, after in zip(manifest.items, items, strict=True)}
    kept = (fact for fact in manifest.facts if names.get(fact.item) == fact.item or fact.key not in _OF_THE_BYTES)
    return tuple(Fact(names.get(fact.item, ""), fact.key, fact.value) for fact in kept)


def _descriptor(opened: ItemSource) -> int:
    fileno = getattr(opened, "fileno", None)
    if fileno is None:
        raise NotSupported("this image store has no files that could be converted")
    return int(fileno())


class _Source:
    """The bytes of an open item and their digest. Blocking; ``advance`` is called in the thread that reads."""

    def __init__(self, descriptor: int, advance: Callable[[int], None] = lambda _count: None) -> None:
        self.sha256 = hashlib.sha256()
        self._descriptor = descriptor
        self._advance = advance
        self._at = 0

    def chunks(self) -> Generator[bytes, None, None]:
        """What was not read yet, to the end of the file."""
        while chunk := os.pread(self._descriptor, _READ, self._at):
            self._at += len(chunk)
            self.sha256.update(chunk)
            self._advance(len(chunk))
            yield chunk


def _compared(
    plain: Generator[bytes, None, None], source: _Source, item: ManifestItem, what: str
) -> Generator[bytes, None, None]:
    """The same, and at their end DamagedImage where ``source``, read to its end, is not what the manifest says."""
    with closing(plain):
        yield from plain
    for _ in source.chunks():
        pass  # what a stream's end leaves unread, too
    found = source.sha256.hexdigest()
    if found != item.sha256:
        raise DamagedImage(
            f"{what} item {item.name}: it is damaged in the store (its SHA-256 is {found}, not {item.sha256}); no "
            "version was made of it: take another one"
        )


class _Pieces:
    """A generator that blocks, taken from the event loop: every step of it is one in a worker thread."""

    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        self._pieces = pieces
        self._rest = b""
        self._running: asyncio.Future[Any] | None = None
        self.taken = 0

    async def more(self) -> bool:
        """Whether there is at least one byte."""
        while not self._rest:
            piece = await self._work(partial(_next, self._pieces))
            if piece is None:
                return False
            self._rest = piece
        return True

    async def all(self) -> AsyncIterator[bytes]:
        """All of them."""
        while await self.more():
            piece, self._rest = self._rest, b""
            self.taken += len(piece)
            yield piece

    async def part(self) -> AsyncIterator[bytes]:
        """The next PART_BYTES as one zstd frame: so its first bytes are never taken for those of one."""
        packer = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
        room = PART_BYTES
        while room and await self.more():
            piece, self._rest = self._rest[:room], self._rest[room:]
            room -= len(piece)
            self.taken += len(piece)
            if packed := await self._work(partial(packer.compress, piece)):
                yield packed
        yield await self._work(packer.flush) or b""

    async def close(self) -> None:
        """Nothing runs any more afterwards, no thread and no program."""
        if self._running is not None:
            await asyncio.wait([self._running])
        await asyncio.to_thread(self._pieces.close)

    async def _work(self, work: Callable[[], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(None, work)
        self._running = running
        return await asyncio.shield(running)


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)
