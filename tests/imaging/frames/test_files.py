"""Frames on the disk: what is written is a zstd file, is found again, and every damage is named."""

import io
import os
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.imaging.faults import BadStream, DamagedImage
from pbserv.imaging.frames.cut import PartcloneCutter, Piece, RawCutter
from pbserv.imaging.frames.delta import missing, unshared
from pbserv.imaging.frames.head import parse_header
from pbserv.imaging.frames.index import RECORD_BYTES, Stream
from pbserv.imaging.frames.reader import FrameDamage, OpenIndex, plain, verify
from pbserv.imaging.frames.uncompress import Uncompressor, compression_of
from pbserv.imaging.frames.writer import FrameWriter, Point, Reuse, Shape
from tests.imaging.making import Made, partclone

EXTENT = 65536


class Written:
    """An item and its index in a directory."""

    def __init__(
        self, folder: Path, made: Made | None = None, raw: bytes = b"", older: "Written | None" = None
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.item = os.open(folder / "item", os.O_RDWR | os.O_CREAT)
        self.pbx = os.open(folder / "item.pbx", os.O_RDWR | os.O_CREAT)
        self.charged = 0
        reuse = Reuse(older.index(), older.item, lambda: None) if older else None
        stream = Stream.PARTCLONE if made else Stream.RAW
        self.writer = FrameWriter(self.item, self.pbx, stream, 3, charge=self._charge, reuse=reuse)
        if made:
            head = parse_header(made.header)
            cutter = PartcloneCutter(head, made.bitmap, EXTENT)
            for piece in cutter.head_pieces():
                self.writer.put(piece)
            shape = Shape(EXTENT, cutter.extent, head.block_bytes, head.device_bytes)
            data = b"".join(made.contents)
        else:
            cutter, shape, data = RawCutter(EXTENT), Shape(EXTENT, EXTENT), raw
        for piece in [*cutter.feed(data), *cutter.finish()]:
            self.writer.put(piece)
        self.facts = self.writer.close(shape)

    def _charge(self, size: int) -> None:
        self.charged += size

    def index(self):
        return OpenIndex(self.pbx).index

    def bytes(self) -> bytes:
        return (self.folder / "item").read_bytes()

    def damages(self, deep: bool = False) -> list[FrameDamage]:
        return [found for found in verify(self.item, self.index(), deep=deep) if isinstance(found, FrameDamage)]


def unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).readall()


MADE = partclone({*range(5, 90), 200, 203, 999}, 1000, per_checksum=7)


def test_an_item_is_an_ordinary_zstd_file(tmp_path: Path) -> None:
    written = Written(tmp_path, MADE)
    index = written.index()
    assert unzstd(written.bytes()) == MADE.plain
    assert index.header == written.facts.header
    assert index.header.stream_bytes == len(MADE.plain)
    assert index.header.used_bytes == 88 * 4096
    assert index.header.head_bytes == len(MADE.head)
    assert written.charged == len(written.bytes()) + (tmp_path / "item.pbx").stat().st_size
    device = MADE.device()
    for number, record in enumerate(index.frames()):
        data = plain(written.item, record, Stream.PARTCLONE)
        if index.section(number) == "device":
            assert data[:4096] in device[record.address : record.address + EXTENT]
    assert not written.damages(deep=True)


def test_raw_and_nothing_at_all(tmp_path: Path) -> None:
    raw = os.urandom(100_000) + bytes(200_000)
    written = Written(tmp_path / "raw", raw=raw)
    assert unzstd(written.bytes()) == raw
    assert [record.address for record in written.index().frames()] == list(range(0, 300_000, EXTENT))
    assert not written.damages(deep=True)
    empty = Written(tmp_path / "empty")
    assert unzstd(empty.bytes()) == b""
    assert not empty.damages(deep=True)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_a_damaged_byte_is_named_by_its_frame(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    written = Written(tmp_path_factory.mktemp("item"), MADE)
    index = written.index()
    at = data.draw(st.integers(0, index.header.stored_bytes - 1))
    byte = os.pread(written.item, 1, at)[0]
    os.pwrite(written.item, bytes([byte ^ data.draw(st.integers(1, 255))]), at)
    expected = next(n for n, r in enumerate(index.frames()) if r.offset <= at < r.offset + r.stored_bytes)
    for deep in (False, True):
        (damage,) = written.damages(deep)
        record = index.record(expected)
        assert (damage.frame, damage.offset, damage.address) == (expected, record.offset, record.address)
        assert f"frame {expected} at byte {record.offset}, " in str(damage)
    if index.section(expected) == "device":
        assert f"device address {record.address:#x}: its stored bytes" in str(damage)


def test_a_file_that_is_too_short_or_too_long(tmp_path: Path) -> None:
    written = Written(tmp_path, MADE)
    size = written.index().header.stored_bytes
    os.pwrite(written.item, b"more", size)
    (damage,) = written.damages()
    assert "4 bytes after the last frame" in str(damage)
    os.ftruncate(written.item, size - 1)
    (damage,) = written.damages(deep=True)
    assert damage.frame == len(written.index()) - 1
    assert f"the file ends at byte {size - 1}" in str(damage)
    with pytest.raises(DamagedImage, match="the file ends at byte"):
        plain(written.item, written.index().record(damage.frame), Stream.PARTCLONE)


def test_a_frame_of_other_bytes_is_found_when_looked_at_deeply(tmp_path: Path) -> None:
    """The stored digest is right, the identity is not: only uncompressing tells."""
    written = Written(tmp_path / "one", raw=b"a" * EXTENT)
    other = Written(tmp_path / "two", raw=b"b" * EXTENT)
    record = written.index().record(0)
    forged = type(record)(0, 0, record.stored_bytes, EXTENT, record.identity, other.index().record(0).digest)
    index = written.index()
    index._records = memoryview(b"".join([forged.address.to_bytes(8, "little"), bytes(8)]) + _rest(forged))
    assert not [found for found in verify(other.item, index) if isinstance(found, FrameDamage)]
    (damage,) = [found for found in verify(other.item, index, deep=True) if isinstance(found, FrameDamage)]
    assert "uncompressed bytes" in str(damage)


def _rest(record) -> bytes:
    sizes = record.stored_bytes.to_bytes(4, "little") + record.plain_bytes.to_bytes(4, "little")
    return sizes + record.identity + record.digest


def test_the_pace_is_asked_before_reading(tmp_path: Path) -> None:
    written = Written(tmp_path, raw=os.urandom(5 << 20))
    asked: list[int] = []
    read = [found for found in verify(written.item, written.index(), pace=asked.append) if isinstance(found, int)]
    assert asked == read
    assert sum(read) == written.index().header.stored_bytes
    assert len(read) > 3


def test_frames_of_an_older_version_are_taken_over(tmp_path: Path) -> None:
    old = Written(tmp_path / "old", MADE)
    changed = partclone(MADE.used, 1000, seeds={50: 7})
    new = Written(tmp_path / "new", changed, older=old)
    assert unzstd(new.bytes()) == changed.plain
    assert new.writer.reused_frames == len(new.index()) - 1
    assert not new.damages(deep=True)
    difference = unshared(new.index(), old.index())
    assert (difference.frames, difference.plain_bytes) == (1, 16 * 4096)
    assert unshared(old.index(), old.index()).frames == 0


def test_a_damaged_older_version_does_not_spoil_the_new_one(tmp_path: Path) -> None:
    old = Written(tmp_path / "old", MADE)
    for record in list(old.index().frames())[::2]:
        os.pwrite(old.item, b"XX", record.offset + 9)
    new = Written(tmp_path / "new", MADE, older=old)
    assert unzstd(new.bytes()) == MADE.plain
    assert not new.damages(deep=True)
    assert 0 < new.writer.reused_frames < len(new.index())
    os.ftruncate(old.item, 10)
    assert unzstd(Written(tmp_path / "third", MADE, older=old).bytes()) == MADE.plain


@given(st.sets(st.integers(0, 999), max_size=30), st.sets(st.integers(0, 999), max_size=30))
@settings(deadline=None, max_examples=40)
def test_a_recipe_makes_the_target(tmp_path_factory: pytest.TempPathFactory, more: set[int], changed: set[int]) -> None:
    folder = tmp_path_factory.mktemp("delta")
    old = Written(folder / "old", MADE)
    used = {*MADE.used, *more}
    target = partclone(used, 1000, seeds={n: 5 for n in changed & used})
    new = Written(folder / "new", target, older=old)
    recipe = missing(new.index(), old.index())
    sent = b"".join(new.bytes()[at : at + size] for at, size in recipe.sends())
    assert len(sent) == recipe.sent_bytes
    assert follow(recipe.text(), old.bytes(), sent) == new.bytes()
    assert missing(old.index(), old.index()).sends() == []


def follow(text: str, base: bytes, sent: bytes) -> bytes:
    """What a client does with a recipe."""
    first, *lines = text.splitlines()
    made, at = b"", 0
    for line in lines:
        match line.split():
            case ["copy", offset, size]:
                made += base[int(offset) : int(offset) + int(size)]
            case ["send", size]:
                made += sent[at : at + int(size)]
                at += int(size)
    word, version, size, _, _ = first.split()
    assert (word, version, int(size)) == ("pbserv-delta", "1", len(made))
    assert at == len(sent)
    return made


def test_a_writer_goes_back_and_goes_on(tmp_path: Path) -> None:
    """Rolled back, and made anew from its point: the same file each time."""
    pieces = [Piece("device", n * EXTENT, os.urandom(1000) * 65 + b"x" * 536) for n in range(40)]
    item = os.open(tmp_path / "item", os.O_RDWR | os.O_CREAT)
    index = os.open(tmp_path / "item.pbx", os.O_RDWR | os.O_CREAT)
    charged: list[int] = []
    writer = FrameWriter(item, index, Stream.RAW, 3, charge=charged.append)
    for piece in pieces[:20]:
        writer.put(piece)
    writer.sync()
    writer.keep()
    point = writer.point
    assert sum(charged) == point.stored_bytes + 20 * RECORD_BYTES
    for piece in pieces[30:]:
        writer.put(piece)
    writer.flush()
    writer.rollback()
    assert sum(charged) == point.stored_bytes + 20 * RECORD_BYTES
    assert os.fstat(item).st_size == point.stored_bytes
    again = FrameWriter(item, index, Stream.RAW, 3, charge=charged.append, at=point)
    for piece in pieces[20:]:
        writer.put(piece)
    facts = writer.close(Shape(EXTENT, EXTENT))
    whole = (tmp_path / "item").read_bytes()
    assert unzstd(whole) == b"".join(piece.data for piece in pieces)
    os.ftruncate(item, point.stored_bytes)
    for piece in pieces[20:]:
        again.put(piece)
    assert again.close(Shape(EXTENT, EXTENT)) == facts
    assert (tmp_path / "item").read_bytes() == whole
    assert Point() == Point(0, 0, 0, 0, 0)


def zstd(data: bytes, level: int = 1) -> bytes:
    return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(data)


@given(st.lists(st.binary(max_size=3000), max_size=4), st.lists(st.integers(1, 5000), min_size=1, max_size=4))
def test_frames_are_uncompressed_wherever_they_are_broken(contents: list[bytes], sizes: list[int]) -> None:
    skipped = b"\x53\x2a\x4d\x18\x03\x00\x00\x00abc"
    data = b"".join(zstd(content) + skipped for content in contents)
    maker, made, turn = Uncompressor("zstd"), b"", 0
    while data:
        size = sizes[turn % len(sizes)]
        made += b"".join(bytes(piece) for piece in maker.feed(data[:size]))
        data, turn = data[size:], turn + 1
    maker.finish()
    assert made == b"".join(contents)


@given(st.binary(min_size=1, max_size=3000))
def test_any_bytes_are_frames_or_a_clear_error(data: bytes) -> None:
    maker = Uncompressor("zstd")
    try:
        list(maker.feed(data))
        maker.finish()
    except BadStream as fault:
        message = str(fault)
    else:
        message = ""
    assert not message or "zstd" in message


def test_an_end_inside_a_frame_is_found() -> None:
    data = zstd(os.urandom(5000))
    maker = Uncompressor("zstd")
    list(maker.feed(data[:-1]))
    with pytest.raises(BadStream, match="ends inside a zstd frame"):
        maker.finish()


def test_a_damaged_frame_is_found() -> None:
    data = bytearray(zstd(os.urandom(5000)))
    data[2000] ^= 1
    with pytest.raises(BadStream, match="zstd cannot read the body near byte"):
        list(Uncompressor("zstd").feed(data))


def test_a_bomb_comes_in_bounded_pieces() -> None:
    bomb = zstd(bytes(1 << 30))
    largest = max(len(piece) for piece in Uncompressor("zstd").feed(bomb))
    assert largest <= 33 << 20


def test_compression_is_told_by_the_first_bytes() -> None:
    assert compression_of(zstd(b"")) == "zstd"
    assert compression_of(b"\x5f\x2a\x4d\x18") == "zstd"
    assert compression_of(b"partclone-image") == "none"
    assert compression_of(b"") == "none"
