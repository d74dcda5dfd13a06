"""Head, checksums and cutting: properties over any bitmap, block size and way of arriving."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.imaging.faults import ChecksumMismatch, ShortBody
from pbserv.imaging.formats.model import FormatError
from pbserv.imaging.frames.cut import PartcloneCutter, Piece, RawCutter, effective_extent, extents, used_block
from pbserv.imaging.frames.head import HeadReader, NotNative, parse_header, plain_header
from pbserv.imaging.frames.strip import Stripper, StripPoint
from tests.imaging.making import Made, complement, crc, foreign_header, partclone

EXTENT = 4096


def steps(data: bytes, sizes: list[int]) -> list[bytes]:
    """``data`` in pieces of these sizes, in turn."""
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


@st.composite
def streams(draw: st.DrawFn) -> Made:
    blocks = draw(st.integers(0, 300))
    used = draw(st.sets(st.integers(0, blocks - 1), max_size=80)) if blocks else set()
    if used and draw(st.booleans()):
        used |= set(range(min(used), max(used) + 1))
    block = draw(st.sampled_from([64, 512, 1024, 4096, 8192, 3000]))
    per = draw(st.one_of(st.none(), st.integers(1, 40)))
    device = blocks * block + draw(st.integers(0, 2 * block))
    return partclone(
        used, blocks, block_bytes=block, per_checksum=per, reseed=draw(st.booleans()), device_bytes=device,
        stray=draw(st.booleans()),
    )  # fmt: skip


SIZES = st.lists(st.one_of(st.integers(1, 9), st.integers(100, 20000)), min_size=1, max_size=6)


def read_head(data: bytes, sizes: list[int]) -> tuple[HeadReader, bytes, bytes]:
    """The reader, what it kept, and what came after the head."""
    kept, rest = bytearray(), bytearray()
    reader = HeadReader(kept.extend)
    for piece in steps(data, sizes):
        if reader.complete:
            rest += piece
        elif (left := reader.feed(piece)) is not None:
            rest += left
    return reader, bytes(kept), bytes(rest)


@given(streams(), SIZES)
def test_the_head_is_kept_and_the_rest_handed_on(made: Made, sizes: list[int]) -> None:
    reader, kept, rest = read_head(made.stream, sizes)
    head = reader.head
    assert head is not None
    assert reader.complete
    assert kept == made.head
    assert kept + rest == made.stream
    assert (head.blocks, head.used, head.block_bytes) == (made.blocks, len(made.used), made.block_bytes)
    assert head.head_bytes + head.body_bytes + head.checksums_bytes == len(made.stream)
    assert plain_header(head) == made.plain[:110]


@given(streams(), SIZES, SIZES)
def test_checksums_are_taken_out_wherever_the_stream_is_broken(made: Made, sizes: list[int], others: list[int]) -> None:
    head = parse_header(made.header)
    body = made.stream[len(made.head) :]
    stripper, plain = Stripper(head, lambda n: n), bytearray()
    for piece in steps(body, sizes):
        for data in stripper.feed(piece):
            plain += data
        stripper = Stripper(head, lambda n: n, stripper.checkpoint())  # as after every part
    stripper.finish()
    assert bytes(plain) == b"".join(made.contents)
    with pytest.raises(FormatError, match="after the last"):
        stripper.feed(b"x")


@given(streams(), st.data())
def test_a_changed_byte_of_the_body_is_found_and_named(made: Made, data: st.DataObject) -> None:
    body = bytearray(made.stream[len(made.head) :])
    if not made.per_checksum or not body:
        return
    group = made.per_checksum * made.block_bytes + 4
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    stripper = Stripper(parse_header(made.header), lambda n: made.used[n] * made.block_bytes)
    first = at // group * made.per_checksum
    last = min(first + made.per_checksum, len(made.used)) - 1
    address = made.used[first] * made.block_bytes
    with pytest.raises(ChecksumMismatch, match=f"blocks {first} to {last} .device addresses {address:#x} to"):
        stripper.feed(body)


@given(streams(), st.data())
def test_a_short_body_is_found(made: Made, data: st.DataObject) -> None:
    body = made.stream[len(made.head) :]
    if not body:
        return
    stripper = Stripper(parse_header(made.header), lambda n: made.used[n] * made.block_bytes)
    stripper.feed(body[: data.draw(st.integers(0, len(body) - 1))])
    with pytest.raises(ShortBody, match="the capture did not finish"):
        stripper.finish()


@given(streams(), st.sampled_from([512, 4096, 10000, 65536]))
def test_extents_are_the_used_blocks_by_address(made: Made, extent: int) -> None:
    size = effective_extent(extent, made.block_bytes)
    assert size % made.block_bytes == 0
    assert extent <= size < extent + made.block_bytes
    expected: dict[int, int] = {}
    for number in made.used:
        address = number * made.block_bytes // size * size
        expected[address] = expected.get(address, 0) + made.block_bytes
    found = list(extents(made.bitmap, made.block_bytes, made.blocks, size))
    assert found == sorted(expected.items())
    for at, (address, _) in enumerate(found):
        assert list(extents(made.bitmap, made.block_bytes, made.blocks, size, address)) == found[at:]


@given(streams())
def test_the_nth_used_block_is_found(made: Made) -> None:
    assert tuple(used_block(made.bitmap, n) for n in range(len(made.used))) == made.used
    assert used_block(made.bitmap, len(made.used)) >= made.blocks


def test_large_empty_areas_are_passed_over() -> None:
    used = (0, 5_000_000, 9_999_999)
    made = partclone(used, 10_000_000, block_bytes=512)
    found = list(extents(made.bitmap, 512, made.blocks, 65536))
    assert found == [(number * 512 // 65536 * 65536, 512) for number in used]
    assert tuple(used_block(made.bitmap, n) for n in range(3)) == used


def check_pieces(made: Made, pieces: list[Piece], extent: int) -> None:
    """Each piece holds exactly the used blocks of its extent of the device."""
    device = made.device()
    for piece in pieces:
        assert piece.address % extent == 0
        inside = [n for n in made.used if piece.address <= n * made.block_bytes < piece.address + extent]
        blocks = (device[n * made.block_bytes : (n + 1) * made.block_bytes] for n in inside)
        assert piece.data == b"".join(blocks)
    assert [piece.address for piece in pieces] == sorted({piece.address for piece in pieces})


@given(streams(), SIZES)
@settings(deadline=None)
def test_pieces_joined_are_the_stream(made: Made, sizes: list[int]) -> None:
    head = parse_header(made.header)
    cutter = PartcloneCutter(head, made.bitmap, EXTENT)
    pieces = list(cutter.head_pieces())
    first = len(pieces)
    body = b"".join(made.contents)
    for data in steps(body, sizes):
        pieces += cutter.feed(data)
        cutter = PartcloneCutter(
            head, made.bitmap, EXTENT, first=max(cutter.address, 0), position=cutter.position, tail=cutter.tail
        ) if cutter.address >= 0 else cutter  # fmt: skip
    pieces += cutter.finish()
    assert b"".join(piece.data for piece in pieces) == made.plain
    assert cutter.position == len(body)
    assert [piece.section for piece in pieces[:first]] == ["header"] + ["bitmap"] * (first - 1)
    check_pieces(made, pieces[first:], cutter.extent)
    with pytest.raises(FormatError, match="after the end"):
        list(cutter.feed(b"x"))


def test_a_bitmap_is_cut_into_pieces_too() -> None:
    made = partclone({1, 70_000}, 80_000, block_bytes=512)
    pieces = list(PartcloneCutter(parse_header(made.header), made.bitmap, 4096).head_pieces())
    assert [(piece.section, piece.address) for piece in pieces] == [
        ("header", 0), ("bitmap", 0), ("bitmap", 4096), ("bitmap", 8192)
    ]  # fmt: skip
    assert b"".join(piece.data for piece in pieces) == made.head


def test_other_blocks_move_no_piece() -> None:
    """A block that is used anew changes its own extent, whatever comes after it."""
    old = partclone(range(0, 1000, 3), 1000)
    new = partclone({*range(0, 1000, 3), 100}, 1000)
    cut = {}
    for made in (old, new):
        cutter = PartcloneCutter(parse_header(made.header), made.bitmap, 65536)
        cut[made] = {(piece.address, piece.data) for piece in cutter.feed(b"".join(made.contents))}
    assert [address for address, _ in cut[new] - cut[old]] == [100 // 16 * 65536]


def test_a_stream_that_ends_early_is_named() -> None:
    made = partclone({3, 4, 40}, 64)
    cutter = PartcloneCutter(parse_header(made.header), made.bitmap, 65536)
    list(cutter.feed(made.contents[0]))
    with pytest.raises(ShortBody, match="4096 bytes before the end of the extent at device address 0x0"):
        list(cutter.finish())


@given(st.binary(max_size=30000), SIZES)
def test_raw_pieces_joined_are_the_device(data: bytes, sizes: list[int]) -> None:
    cutter, pieces = RawCutter(EXTENT), []
    for part in steps(data, sizes):
        pieces += cutter.feed(part)
        cutter = RawCutter(EXTENT, position=cutter.position, tail=cutter.tail)
    pieces += cutter.finish()
    assert b"".join(piece.data for piece in pieces) == data
    assert [piece.address for piece in pieces] == list(range(0, max(len(data), 1), EXTENT))
    assert {len(piece.data) for piece in pieces[:-1]} <= {EXTENT}
    assert cutter.position == len(data)


@given(st.binary(max_size=400), SIZES)
def test_any_bytes_as_a_head_are_a_clear_error(data: bytes, sizes: list[int]) -> None:
    if len(data) < 110:
        assert not read_head(data, sizes)[0].complete
    else:
        with pytest.raises(FormatError, match="partclone"):
            read_head(data, sizes)


@given(st.integers(0, 109), st.integers(1, 255))
def test_a_damaged_header_is_a_clear_error(at: int, change: int) -> None:
    header = bytearray(partclone({1}, 8).header)
    header[at] ^= change
    with pytest.raises((FormatError, NotNative)):
        parse_header(header)


def test_what_is_not_cut_here_says_why() -> None:
    with pytest.raises(NotNative, match="xxh64"):
        parse_header(foreign_header(mode=0x30, size=8))
    with pytest.raises(NotNative, match="bitmap"):
        parse_header(foreign_header(bitmap_mode=8))
    first = b"partclone-image".ljust(30, b"\0") + b"0001" + bytes(2) + struct.pack("<iQQQ", 4096, 8 * 4096, 8, 1)
    with pytest.raises(NotNative, match="0001"):
        parse_header(first.ljust(110, b"\0"))
    with pytest.raises(FormatError, match="no partclone stream: it begins with 1f 8b"):
        parse_header(b"\x1f\x8b".ljust(110, b"\0"))


def test_a_bitmap_that_is_wrong_is_refused() -> None:
    made = partclone({1, 2}, 12)
    wrong = made.head[:-4] + bytes(4)
    with pytest.raises(FormatError, match="checksum does not fit"):
        read_head(wrong, [1000])
    for bitmap, used in ((b"\x01\x00", 1), (b"\x02\xf0", 1), (b"\xff\x0f", 12)):
        with pytest.raises(FormatError, match=f"{used} blocks are used, the header says 2"):
            read_head(made.header + bitmap + complement(crc(bitmap)), [7])


def test_a_strip_point_is_a_value() -> None:
    assert StripPoint() == StripPoint(0, 0, False, b"")
