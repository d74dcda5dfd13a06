"""The index of an item's frames, ``ITEM.pbx``: a header of 160 bytes and 88 bytes for each frame. Pure.

One rule: an index that decodes agrees with itself (lengths, addresses, checksums), and no more of it is made into
objects than is asked for: it may have a million records.
"""

from __future__ import annotations

import enum
import hashlib
import struct
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from pbserv.imaging.faults import DamagedImage

MAGIC: Final = b"PBFRAME1"
HEADER_BYTES: Final = 160
RECORD_BYTES: Final = 88
DIGEST_BYTES: Final = 32

_HEADER: Final = struct.Struct("<8s8I6Q32s32sI")
_RECORD: Final = struct.Struct("<QQII32s32s")
_MAX_FRAMES: Final = 1 << 31

Section = Literal["header", "bitmap", "device"]
Buffer = bytes | bytearray | memoryview


class Stream(enum.IntEnum):
    """What the frames of an item are."""

    PARTCLONE = 1  # header, bitmap and the used blocks of each extent
    RAW = 2  # a device, every byte of it
    PIECES = 3  # the stored file as it came; it is not compressed by us


@dataclass(frozen=True, slots=True)
class Record:
    """One frame. ``address`` is a byte of the device, or of the bitmap for its pieces; ``offset`` is in the item.

    ``identity`` is the SHA-512/256 of the uncompressed bytes, ``digest`` that of the frame as it is stored.
    """

    address: int
    offset: int
    stored_bytes: int
    plain_bytes: int
    identity: bytes
    digest: bytes

    @classmethod
    def unpack(cls, data: Buffer) -> Record:
        """From its 88 bytes."""
        return cls(*_RECORD.unpack(data))


@dataclass(frozen=True, slots=True)
class Header:
    """What holds for the whole item; all sizes in bytes. ``records_digest`` is the SHA-512/256 of all records.

    ``extent_bytes`` is what was configured, ``effective_bytes`` the multiple of the block size that was used.
    """

    stream: Stream
    extent_bytes: int
    effective_bytes: int
    block_bytes: int
    level: int
    head_frames: int
    device_bytes: int
    frames: int
    stored_bytes: int
    stream_bytes: int
    used_bytes: int
    head_bytes: int
    sha256: bytes
    records_digest: bytes


def digest_of(data: Buffer) -> bytes:
    """SHA-512/256, the digest of identities and stored frames (that of desync's chunks)."""
    return hashlib.new("sha512_256", data).digest()


def encode_header(header: Header) -> bytes:
    """The 160 bytes that stand before the records."""
    start = _HEADER.pack(
        MAGIC, HEADER_BYTES, RECORD_BYTES, header.stream, header.extent_bytes, header.effective_bytes,
        header.block_bytes, header.level, header.head_frames, header.device_bytes, header.frames,
        header.stored_bytes, header.stream_bytes, header.used_bytes, header.head_bytes,
        header.sha256, header.records_digest, 0,
    )  # fmt: skip
    return start + zlib.crc32(start).to_bytes(4, "little")


def encode_record(record: Record) -> bytes:
    """The 88 bytes of one frame."""
    return _RECORD.pack(
        record.address, record.offset, record.stored_bytes, record.plain_bytes, record.identity, record.digest
    )


def decode_header(data: Buffer) -> Header:
    """Read the first 160 bytes; raises DamagedImage."""
    if len(data) < HEADER_BYTES:
        raise _damage(len(data), f"the index ends here, its header has {HEADER_BYTES} bytes")
    start = bytes(data[:HEADER_BYTES])
    (
        magic, header_bytes, record_bytes, stream, extent, effective, block, level, head_frames,
        device, frames, stored, plain, used, head_bytes, sha256, records_digest, zero,
    ) = _HEADER.unpack_from(start)  # fmt: skip
    if magic != MAGIC:
        raise _damage(0, "this is no index of frames, or its upload was never completed")
    if int.from_bytes(start[156:], "little") != zlib.crc32(start[:156]):
        raise _damage(156, "the checksum of the header does not fit")
    if (header_bytes, record_bytes, zero) != (HEADER_BYTES, RECORD_BYTES, 0) or stream not in tuple(Stream):
        raise _damage(8, "a layout that this version does not know; a newer pbserv wrote it")
    if head_frames > frames or frames > _MAX_FRAMES or effective == 0:
        raise _damage(24, f"{frames} frames, {head_frames} of them of the head, extents of {effective} bytes")
    return Header(
        Stream(stream), extent, effective, block, level, head_frames,
        device, frames, stored, plain, used, head_bytes, sha256, records_digest,
    )  # fmt: skip


class Index:
    """A decoded index over the bytes it was given; they must stay as they are while it is used."""

    def __init__(self, header: Header, records: memoryview) -> None:
        self.header = header
        self._records = records
        self._places: array[int] | None = None

    def __len__(self) -> int:
        return self.header.frames

    def close(self) -> None:
        """Let go of the bytes; nothing can be asked afterwards."""
        self._records.release()

    def record(self, number: int) -> Record:
        """The frame of that number, counted from 0; raises IndexError."""
        if not 0 <= number < self.header.frames:
            raise IndexError(f"frame {number} of {self.header.frames}")
        return Record(*_RECORD.unpack_from(self._records, number * RECORD_BYTES))

    def section(self, number: int) -> Section:
        """What the frame of that number is a piece of."""
        if number >= self.header.head_frames:
            return "device"
        return "header" if number == 0 else "bitmap"

    def frames(self) -> Iterator[Record]:
        """All frames in the order of the item."""
        for fields in _RECORD.iter_unpack(self._records):
            yield Record(*fields)

    def find(self, identity: bytes) -> Record | None:
        """A frame of that identity, whatever its address. The first call makes a table of 8 to 16 bytes a frame."""
        places = self._places if self._places is not None else self._table()
        mask = len(places) - 1
        slot = int.from_bytes(identity[:8], "little") & mask
        while (place := places[slot]) >= 0:
            record = self.record(place)
            if record.identity == identity:
                return record
            slot = (slot + 1) & mask
        return None

    def at(self, section: Section, address: int) -> Record | None:
        """The frame of that section at exactly that address."""
        head = self.header.head_frames
        if section == "header":
            return self.record(0) if head and address == 0 else None
        low, high = (head, self.header.frames) if section == "device" else (min(1, head), head)
        while low < high:
            middle = (low + high) // 2
            if self._address(middle) < address:
                low = middle + 1
            else:
                high = middle
        end = self.header.frames if section == "device" else head
        return self.record(low) if low < end and self._address(low) == address else None

    def _address(self, number: int) -> int:
        start = number * RECORD_BYTES
        return int.from_bytes(self._records[start : start + 8], "little")

    def _table(self) -> array[int]:
        size = 8
        while size < 2 * self.header.frames:
            size *= 2
        places = array("i", [-1]) * size
        mask = size - 1
        for number, fields in enumerate(_RECORD.iter_unpack(self._records)):
            slot = int.from_bytes(fields[4][:8], "little") & mask
            while places[slot] >= 0:
                slot = (slot + 1) & mask
            places[slot] = number
        self._places = places
        return places


def decode(data: Buffer) -> Index:
    """Read a whole index and check that it agrees with itself; raises DamagedImage with the byte that is wrong."""
    view = memoryview(data).toreadonly()
    header = decode_header(view)
    expected = HEADER_BYTES + header.frames * RECORD_BYTES
    if len(view) != expected:
        raise _damage(min(len(view), expected), f"{len(view)} bytes; {header.frames} frames make {expected}")
    records = view[HEADER_BYTES:]
    if digest_of(records) != header.records_digest:
        raise _damage(120, "the digest over the records does not fit them")
    _check_records(header, records)
    return Index(header, records)


def _check_records(header: Header, records: memoryview) -> None:
    offset, plain, before = 0, 0, -1
    for number, fields in enumerate(_RECORD.iter_unpack(records)):
        address, start, stored, uncompressed = fields[:4]
        if start != offset:
            raise _damage(_at(number), f"frame {number} begins at {start}, the one before ends at {offset}")
        if number in (0, 1, header.head_frames) and number <= header.head_frames:
            before = -1  # header, bitmap and device count their addresses each for themselves
        if address <= before:
            raise _damage(_at(number), f"frame {number} at address {address} comes after one at {before}")
        before, offset, plain = address, offset + stored, plain + uncompressed
    if offset != header.stored_bytes or plain != header.stream_bytes:
        raise _damage(56, f"the frames are {offset} bytes and {plain} uncompressed; the header says otherwise")


def _at(number: int) -> int:
    return HEADER_BYTES + number * RECORD_BYTES


def _damage(offset: int, why: str) -> DamagedImage:
    return DamagedImage(f"frame index, byte {offset}: {why}")
