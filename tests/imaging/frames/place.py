"""A directory for uploads, and what is sent into it."""

import hashlib
import io
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import zstandard

from pbserv.imaging.faults import (
    StoreFull,
)
from pbserv.imaging.frames.reader import FrameDamage, OpenIndex, verify
from pbserv.imaging.reframe import ItemUpload, Reframer, StoredItem
from tests.imaging.making import partclone

MADE = partclone({*range(3, 700), *range(2000, 2400), 4000}, 4096, per_checksum=64)
PART = 1 << 20


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(data)


def unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).readall()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def parts_of(data: bytes, size: int = PART) -> list[bytes]:
    return [data[at : at + size] for at in range(0, max(len(data), 1), size)]


async def chunks_of(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


class Account:
    """What a store does with charges: a sum, and a limit."""

    def __init__(self, limit: int = 1 << 60) -> None:
        self.sum = 0
        self.limit = limit
        self.lock = threading.Lock()

    def __call__(self, size: int) -> None:
        with self.lock:
            if size > 0 and self.sum + size > self.limit:
                raise StoreFull("the quota is reached")
            self.sum += size


class Place:
    """A directory for uploads, with what is needed to upload into it."""

    def __init__(self, path: Path, reframer: Reframer) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.reframer = reframer
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.account = Account()

    def item(self, name: str, kind: str, **options) -> ItemUpload:
        return self.reframer.item(self.fd, name, kind, **{"charge": self.account, **options})

    def resumed(self, name: str) -> ItemUpload:
        return self.reframer.resumed(self.fd, name, charge=self.account)

    def files(self) -> set[str]:
        return set(os.listdir(self.path))

    def bytes(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def check(self, item: StoredItem) -> None:
        """File, digest and index agree, and every frame is sound."""
        data = self.bytes(item.name)
        assert (len(data), sha256(data)) == (item.size_bytes, item.sha256)
        fd = os.open(self.path / (item.name + ".pbx"), os.O_RDONLY)
        opened = OpenIndex(fd)
        os.close(fd)
        with (self.path / item.name).open("rb") as file:
            assert not [x for x in verify(file.fileno(), opened.index, deep=True) if isinstance(x, FrameDamage)]
        assert sha256(self.bytes(item.name + ".pbx")) == item.facts["index_sha256"]
        opened.close()


@asynccontextmanager
async def placed(path: Path, **options) -> AsyncIterator[Place]:
    reframer = Reframer(**{"workers": 2, "extent_bytes": 65536, **options})
    place = Place(path, reframer)
    try:
        yield place
    finally:
        await reframer.close()
        os.close(place.fd)


async def send(upload: ItemUpload, stream: bytes, size: int = PART) -> StoredItem:
    """All parts of a stream from where the upload stands, and its end."""
    parts = parts_of(stream, size)
    for number in range(upload.next_part, len(parts) + 1):
        body = zstd(parts[number - 1])
        done = await upload.part(number, chunks_of(body), sha256(body))
        assert (done.number, done.next_part, done.sha256) == (number, number + 1, sha256(body))
    return await upload.complete(len(parts), len(stream))
