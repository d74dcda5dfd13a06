"""One item of an upload on the disk: its files, its parts, its checkpoint. Blocking, for worker threads.

One rule: whatever ends a part early (damage, full disk, kill -9), the item is as it was after the part before.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

from pbserv.imaging.durable import filesystem_faults
from pbserv.imaging.faults import (
    BadStream,
    DamagedImage,
    DraftGone,
    ShortBody,
    StoreClosed,
    WrongPart,
)
from pbserv.imaging.formats.partclone import HEADER_BYTES
from pbserv.imaging.frames.checkpoint import Checkpoint, Received, StoredItem
from pbserv.imaging.frames.cut import PIECE_BYTES
from pbserv.imaging.frames.index import HEADER_BYTES as INDEX_HEADER_BYTES
from pbserv.imaging.frames.index import RECORD_BYTES, Stream
from pbserv.imaging.frames.pipeline import Answer, Pipeline, facts_of, stream_of
from pbserv.imaging.frames.sidecars import (
    HEAD,
    INDEX,
    STATE,
    open_file,
    read_part,
    unlink,
    working_files,
    write_part,
    write_state,
)
from pbserv.imaging.frames.spool import Spool
from pbserv.imaging.frames.uncompress import Uncompressor, compression_of
from pbserv.imaging.frames.writer import FrameWriter, Point, Reuse

_BLOCK_BYTES: Final = 1 << 20

Charge = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class PartDone:
    """A part that is on the disk; ``received_bytes`` counts the bodies of all parts so far."""

    number: int
    next_part: int
    size_bytes: int
    sha256: str
    received_bytes: int


class Intake:
    """The item ``name`` in an open directory. Used by one thread at a time (its lock sees to that) until the end.

    ``folder_fd`` belongs to it from now on. ``stopped`` says that the server stops: work ends at the next block.
    """

    def __init__(
        self,
        folder_fd: int,
        name: str,
        point: Checkpoint,
        *,
        reuse: Reuse | None,
        charge: Charge,
        stopped: Callable[[], bool],
    ) -> None:
        self.name = name
        self.gone = False
        self._folder_fd = folder_fd
        self._point = point
        self._reuse = reuse
        self._ask = charge
        self._spent = point.stored_bytes + point.frames * RECORD_BYTES
        self._stopped = stopped
        self._lock = threading.Lock()  # held while the item is worked on
        self._moment = threading.Lock()  # held for moments: sums, and the end of the folder's descriptor
        self._base = name
        self._fds: list[int] = []
        self._writer: FrameWriter | None = None
        self._pipeline: Pipeline | None = None
        self._whole: _Whole | None = None

    @property
    def point(self) -> Checkpoint:
        """Where the item stands on the disk."""
        return self._point

    def reserve(self, size: int) -> None:
        """Ask for room; a negative number gives it back."""
        self._ask(size)
        with self._moment:
            self._spent += size

    def spool(self) -> Spool:
        """A place for a body on its way; made while the part before may still be worked on."""
        with self._moment:
            self._check()
            return Spool(self._folder_fd, self._ask)

    def part(self, number: int, body: Spool, compressed: bool | None) -> PartDone:
        """Take a part whose bytes are all there; the answer of before where it came already."""
        with self._lock:
            self._check()
            if self._point.complete or number <= self._point.part:
                return self._again(number, body.sha256.digest())
            if number != self._point.part + 1:
                raise WrongPart(
                    f"item {self.name}: part {number} came, part {self._point.part + 1} is next", self._point.part + 1
                )
            with self._or_back():
                self._take(body, compressed)
                self._commit(number, body)
            return self._done(number, body.size_bytes, body.sha256.hexdigest())

    def again(self, number: int, digest: bytes) -> PartDone:
        """A part that came before; raises WrongPart where the bytes are others."""
        with self._lock:
            self._check()
            return self._again(number, digest)

    def begin_whole(self) -> None:
        """The item comes in one body; what there is under its name stays until that is complete."""
        with self._lock:
            self._check()
            if self._whole is not None or self._point.part or self._point.complete:
                raise DraftGone(f"item {self.name}: it arrives or arrived already")
            self._whole = _Whole()
            self._base = f".part.{secrets.token_hex(8)}"

    def block(self, data: bytes | bytearray, compressed: bool | None) -> None:
        """The next bytes of the one body."""
        with self._lock:
            self._check()
            whole = self._of_whole()
            whole.broken = True  # unless this goes well
            with filesystem_faults(f"item {self.name}"):
                whole.add(data)
                if self._pipeline is None:
                    data = bytes(whole.first) + bytes(data)
                    whole.first = bytearray(data)
                    if self._decide(data, compressed, whole):
                        whole.first.clear()
                        self._feed(data, whole.uncompressor)
                else:
                    self._feed(data, whole.uncompressor)
            whole.broken = False

    @property
    def arrived(self) -> tuple[int, str]:
        """Bytes and SHA-256 of the one body, when all of it is there."""
        whole = self._whole
        return (0, "") if whole is None else (whole.size_bytes, whole.sha256.hexdigest())

    def complete(self, parts: int | None, plain_bytes: int | None) -> StoredItem:
        """Everything has arrived: make index and item durable, give them their names. Repeatable."""
        with self._lock:
            self._check()
            if self._point.complete is not None:
                self._count(parts)
                return self._point.complete
            with filesystem_faults(f"item {self.name}"):
                if self._whole is not None:
                    whole = self._of_whole()
                    whole.broken = True  # there is no second try
                    self._end_whole(whole)
                else:
                    self._count(parts)
                    self._resume()
                try:
                    item = self._complete(plain_bytes)
                except BaseException:
                    self._roll_back()
                    raise
            self._let_go()
            return item

    def abandon(self) -> None:
        """Remove the item unless it is complete. Idempotent."""
        self.gone = True
        with self._lock:
            if self._folder_fd < 0:
                return
            self._let_go()
            if self._point.complete is None:
                self._remove_working()
                for name in (self._base, self._base + INDEX):
                    unlink(self._folder_fd, name)
                self._ask(-self._spent)
            self._close_folder()

    def close(self) -> None:
        """Let go of all files as they are; the upload can be resumed later."""
        self.gone = True
        with self._lock:
            self._let_go()
            self._close_folder()

    def _check(self) -> None:
        if self.gone:
            raise DraftGone(f"item {self.name}: the upload was discarded")
        if self._stopped():
            raise StoreClosed("the image store is stopping")

    def _of_whole(self) -> _Whole:
        if self._whole is None or self._whole.broken:
            raise DraftGone(f"item {self.name}: its upload has failed or never begun")
        return self._whole

    @contextmanager
    def _or_back(self) -> Iterator[None]:
        try:
            with filesystem_faults(f"item {self.name}"):
                yield
        except BaseException:
            self._roll_back()
            raise

    # parts

    def _take(self, body: Spool, compressed: bool | None) -> None:
        first = body.read(0, _BLOCK_BYTES)
        zstd = compression_of(first) == "zstd" if compressed is None else compressed
        if self._pipeline is None and self._point.stream is None:
            answer = self._answer(first, zstd)
            if answer is None:
                raise BadStream(
                    f"item {self.name}: the first part holds less than the {HEADER_BYTES} bytes of partclone's header"
                )
            self._point = replace(self._point, stream=answer[0], kept=answer[1])
        self._resume()
        uncompressor = Uncompressor("zstd" if zstd and self._point.stream is not Stream.PIECES else "none")
        for at in range(0, body.size_bytes, _BLOCK_BYTES):
            self._check()
            self._feed(body.read(at, min(_BLOCK_BYTES, body.size_bytes - at)), uncompressor)
        uncompressor.finish()

    def _commit(self, number: int, body: Spool) -> None:
        """The order matters: what the checkpoint counts is on the disk before the checkpoint is; until that is there,
        too, the part can be taken back."""
        writer, pipeline = self._open_pipeline()
        writer.sync()
        pipeline.sync()
        write_part(self._folder_fd, self._base, number, body.sha256.digest(), body.size_bytes)
        point = replace(pipeline.point(self._point), part=number)
        point = replace(point, received_bytes=self._point.received_bytes + body.size_bytes)
        try:
            write_state(self._folder_fd, self._base, point)
        except OSError:  # it may be there all the same, and counts what is taken back now
            if self._point.part:
                with suppress(OSError):
                    write_state(self._folder_fd, self._base, self._point)
            raise
        writer.keep()
        self._point = point

    def _again(self, number: int, digest: bytes) -> PartDone:
        following = self._point.part + 1
        if not 1 <= number <= self._point.part:
            raise WrongPart(f"item {self.name}: part {number} came, part {following} is next", following)
        with filesystem_faults(f"item {self.name}"):
            stored, size = read_part(self._folder_fd, self._base, number)
        if stored != digest:
            raise WrongPart(
                f"item {self.name}: part {number} arrived before with other bytes; part {following} is next", following
            )
        return self._done(number, size, digest.hex())

    def _done(self, number: int, size: int, sha256: str) -> PartDone:
        return PartDone(number, self._point.part + 1, size, sha256, self._point.received_bytes)

    def _count(self, parts: int | None) -> None:
        if parts is not None and parts != self._point.part:
            raise ShortBody(f"item {self.name}: {self._point.part} parts arrived, {parts} were sent")

    # both

    def _answer(self, first: bytes, zstd: bool) -> Answer | None:
        """How to cut it, by what it is said to be and its first bytes."""
        if self._point.stream is not None:
            return self._point.stream, self._point.kept
        plain = first
        if zstd and self._point.kind != "raw":
            try:
                plain = b"".join(_first(Uncompressor("zstd"), first))
            except BadStream:
                if self._point.kind:
                    raise
                return Stream.PIECES, ""  # it only began like zstd
        return stream_of(self._point.kind, self.name, plain, zstd)

    def _decide(self, first: bytes, compressed: bool | None, whole: _Whole) -> bool:
        """Open the pipeline as soon as the first bytes say which."""
        zstd = compression_of(first) == "zstd" if compressed is None else compressed
        answer = self._answer(first, zstd)
        if answer is None and len(first) < _BLOCK_BYTES:
            return False
        stream, kept = answer or (Stream.PIECES, "")
        self._point = replace(self._point, stream=stream, kept=kept)
        whole.uncompressor = Uncompressor("zstd" if zstd and stream is not Stream.PIECES else "none")
        self._resume()
        return True

    def _feed(self, data: bytes | bytearray, uncompressor: Uncompressor) -> None:
        _, pipeline = self._open_pipeline()
        for plain in uncompressor.feed(data):
            self._check()
            pipeline.feed(plain)

    def _open_pipeline(self) -> tuple[FrameWriter, Pipeline]:
        self._resume()
        if self._writer is None or self._pipeline is None:
            raise StoreClosed("the image store is stopping")
        return self._writer, self._pipeline

    def _resume(self) -> None:
        """Open what there is at the checkpoint, which is nothing for a new item."""
        if self._pipeline is not None:
            return
        point = self._point
        at = Point(point.stored_bytes, point.frames, point.head_frames, point.head_bytes, point.used_bytes)
        if self._writer is None:
            if not point.part:
                self._remove_working()
            item, index = open_file(self._folder_fd, self._base), open_file(self._folder_fd, self._base + INDEX)
            self._fds += [item, index]
            if os.fstat(item).st_size < point.stored_bytes or (
                point.frames and os.fstat(index).st_size < INDEX_HEADER_BYTES + point.frames * RECORD_BYTES
            ):
                self._close_files()
                raise DamagedImage(f"item {self.name}: its files are shorter than its checkpoint; send the item anew")
            os.ftruncate(item, point.stored_bytes)
            os.ftruncate(index, INDEX_HEADER_BYTES + point.frames * RECORD_BYTES)
            stream = point.stream or Stream.PIECES
            self._writer = FrameWriter(
                item, index, stream, point.level,
                charge=self.reserve, reuse=self._reuse, at=at, go_on=self._check,
            )  # fmt: skip
        self._pipeline = Pipeline(
            point, self._writer, lambda: open_file(self._folder_fd, self._base + HEAD), self.reserve
        )

    def _roll_back(self) -> None:
        """To the checkpoint. What cannot be rolled back now is, when the files are opened the next time."""
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None
        try:
            if self._writer is not None:
                self._writer.rollback()
        except OSError:
            self._close_files()
        if not self._point.part:
            self._point = replace(self._point, stream=None)
            self._close_files()
            with suppress(OSError):
                self._remove_working()

    def _complete(self, plain_bytes: int | None) -> StoredItem:
        writer, pipeline = self._open_pipeline()
        stream = self._point.stream or Stream.PIECES
        sent = pipeline.position
        if plain_bytes is not None and stream is not Stream.PIECES and sent != plain_bytes:
            raise ShortBody(f"item {self.name}: {sent} uncompressed bytes arrived, {plain_bytes} were sent")
        shape, head = pipeline.finish()
        facts = writer.close(shape)
        header = facts.header
        item = StoredItem(
            self.name, header.stored_bytes, header.sha256.hex(), self._point.kind, stream.name.lower(),
            header.stream_bytes, self._received(sent), facts_of(stream, self._point.kept, facts, head),
        )  # fmt: skip
        if stream is Stream.PIECES and header.stored_bytes <= PIECE_BYTES:
            item = replace(item, facts={key: value for key, value in item.facts.items() if key == "kept"})
        point = replace(pipeline.point(self._point), complete=item)
        if self._whole is None:
            write_state(self._folder_fd, self._base, point)
        else:
            self._rename()
        if "index_sha256" not in item.facts:  # not before: what is not complete needs it to go on
            unlink(self._folder_fd, self.name + INDEX)
        self._point = point
        return item

    def _received(self, plain: int) -> Received:
        point = self._point
        if self._whole is not None:
            return Received(self._whole.size_bytes, self._whole.sha256.hexdigest(), plain)
        digests = hashlib.sha256()
        for number in range(1, point.part + 1):
            digests.update(read_part(self._folder_fd, self._base, number)[0].hex().encode())
        return Received(point.received_bytes, digests.hexdigest(), plain)

    # the one body

    def _end_whole(self, whole: _Whole) -> None:
        if self._pipeline is None:  # so short that nothing was decided
            first = bytes(whole.first)
            stream, kept = self._answer(first, compression_of(first) == "zstd") or (Stream.PIECES, "")
            if self._point.kind.startswith("partclone."):
                raise BadStream(f"item {self.name}: {len(first)} bytes are no partclone stream")
            self._point = replace(self._point, stream=stream, kept=kept)
            self._feed(first, whole.uncompressor)
        whole.uncompressor.finish()

    def _rename(self) -> None:
        """The item first: with another size than was noted it is not taken for the old one after a crash."""
        folder = self._folder_fd
        os.rename(self._base, self.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.rename(self._base + INDEX, self.name + INDEX, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)

    # files

    def _remove_working(self) -> None:
        """A checkpoint of before must not speak for what comes now."""
        self._remove_head()
        for name in (*working_files(self._base), self._base + STATE + ".new"):
            unlink(self._folder_fd, name)

    def _close_folder(self) -> None:
        with self._moment:
            if self._folder_fd >= 0:
                os.close(self._folder_fd)
            self._folder_fd = -1

    def _remove_head(self) -> None:
        with suppress(FileNotFoundError):
            size = os.stat(self._base + HEAD, dir_fd=self._folder_fd, follow_symlinks=False).st_size
            os.unlink(self._base + HEAD, dir_fd=self._folder_fd)
            self.reserve(-size)

    def _close_files(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self._writer = None

    def _let_go(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None
        self._close_files()
        if self._point.complete is not None and self._folder_fd >= 0:
            self._remove_head()
        if self._reuse is not None:
            self._reuse.close()
            self._reuse = None


class _Whole:
    """A body that comes at once: what of it came before it was clear what it is, and its digest."""

    def __init__(self) -> None:
        self.first = bytearray()
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0
        self.broken = False
        self.uncompressor = Uncompressor("none")

    def add(self, data: bytes | bytearray) -> None:
        self.sha256.update(data)
        self.size_bytes += len(data)


def _first(uncompressor: Uncompressor, data: bytes) -> Iterator[bytes]:
    """So much that every header is in it."""
    size = 0
    for piece in uncompressor.feed(data):
        yield bytes(piece[:HEADER_BYTES])
        size += len(piece)
        if size >= HEADER_BYTES:
            return
