"""Items of the store that are open for reading, and the indexes of their frames.

One rule: what is open stays readable whatever becomes of its image; whoever opened it closes it.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from io import FileIO

from pbserv.imaging.durable import SHORTAGES
from pbserv.imaging.faults import DamagedImage, StoreClosed, UnknownImage
from pbserv.imaging.frames.index import HEADER_BYTES, Header, Stream, decode_header
from pbserv.imaging.frames.reader import OpenIndex
from pbserv.imaging.layout import Layout, StoredImage


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

    def fileno(self) -> int:
        """For ``os.sendfile``; valid until ``close``."""
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


def open_index(layout: Layout, image: StoredImage, item: str, *, whole: bool = False) -> OpenIndex | None:
    """The index of an item's frames, None when it has none: one piece, or none was made yet. Blocking; raises
    DamagedImage, also where it is the index of other bytes than the manifest's. ``whole``: its own digest is compared
    with the manifest's, too, and it is kept in memory: for a scrub or a repair, which take long; then OSError says that
    this server has no descriptor or memory for it."""
    file = layout.open_index(image, item)
    if file is None:
        return None
    try:
        with file:
            opened = OpenIndex(file.fileno(), copied=whole)
        try:
            _check(image, item, opened.index.header)
            if whole:
                _check_whole(image, item, opened)
        except DamagedImage:
            opened.close()
            raise
        return opened
    except (OSError, ValueError, DamagedImage) as error:
        if whole and isinstance(error, OSError) and error.errno in SHORTAGES:
            raise
        raise DamagedImage(f"image {image.name} version {image.version} item {item}: index: {error}") from error


def read_header(layout: Layout, image: StoredImage, item: str) -> Header | None:
    """The header of that index alone: an index may have a million records. Blocking; raises DamagedImage."""
    file = layout.open_index(image, item)
    if file is None:
        return None
    try:
        with file:
            header = decode_header(file.read(HEADER_BYTES) or b"")
        _check(image, item, header)
        return header
    except (OSError, DamagedImage) as error:
        raise DamagedImage(f"image {image.name} version {image.version} item {item}: index: {error}") from error


def _check(image: StoredImage, item: str, header: Header) -> None:
    """It is of the item's bytes. Raises DamagedImage."""
    facts = image.manifest.item(item)
    if facts is not None and (header.sha256.hex(), header.stored_bytes) != (facts.sha256, facts.stored_bytes):
        raise DamagedImage(
            f"it is of {header.stored_bytes} bytes with SHA-256 {header.sha256.hex()}, and the item is of "
            f"{facts.stored_bytes} with {facts.sha256}"
        )


def _check_whole(image: StoredImage, item: str, opened: OpenIndex) -> None:
    """It is the one that was committed. Raises DamagedImage."""
    said, found = image.manifest.fact(item, "index_sha256"), opened.sha256()
    if found == said or not said:
        return
    if opened.index.header.stream is Stream.PIECES and image.manifest.fact(item, "body_sha256"):
        return  # of a stream that was cut, and lost its index: a scrub made this one
    raise DamagedImage(f"its SHA-256 is {found}, and the manifest says {said}")
