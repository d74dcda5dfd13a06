import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.faults import DamagedImage
from pbserv.imaging.frames.index import (
    HEADER_BYTES,
    RECORD_BYTES,
    Header,
    Index,
    Record,
    Stream,
    decode,
    digest_of,
    encode_header,
    encode_record,
)


def index_of(head: list[int], device: list[int], lengths: list[int]) -> bytes:
    """An index with frames at these addresses; the lengths are used in turn."""
    records, offset = [], 0
    for number, address in enumerate(head + device):
        length = lengths[number % len(lengths)]
        name = digest_of(f"{number}/{address}".encode())
        records.append(Record(address, offset, length, 2 * length, name, digest_of(name)))
        offset += length
    body = b"".join(map(encode_record, records))
    header = Header(
        Stream.PARTCLONE if head else Stream.RAW, 65536, 65536, 4096, 3, len(head), 1 << 40, len(records),
        offset, 2 * offset, 0, 110, bytes(32), digest_of(body),
    )  # fmt: skip
    return encode_header(header) + body


def addresses() -> st.SearchStrategy[list[int]]:
    return st.sets(st.integers(0, 2**40), max_size=30).map(sorted)


@given(addresses(), addresses(), st.lists(st.integers(1, 70000), min_size=1, max_size=5))
def test_what_is_written_is_read(bitmap: list[int], device: list[int], lengths: list[int]) -> None:
    head = [0, *bitmap] if bitmap else []
    data = index_of(head, device, lengths)
    index = decode(data)
    frames = list(index.frames())
    assert len(frames) == len(index) == len(head) + len(device)
    assert encode_header(index.header) + b"".join(map(encode_record, frames)) == data
    for number, frame in enumerate(frames):
        assert index.record(number) == frame
        assert index.find(frame.identity) == frame
        assert index.at(index.section(number), frame.address) == frame
    assert index.find(bytes(32)) is None
    for address in (0, 1, 2**41):
        if address not in device:
            assert index.at("device", address) is None
        if address not in bitmap:
            assert index.at("bitmap", address) is None


def test_the_numbers_of_frames_end() -> None:
    index = decode(index_of([0, 0], [0, 65536], [10]))
    assert [index.section(number) for number in range(4)] == ["header", "bitmap", "device", "device"]
    for number in (-1, 4):
        with pytest.raises(IndexError):
            index.record(number)


@given(st.binary(max_size=600))
def test_any_bytes_are_an_index_or_damage(data: bytes) -> None:
    with pytest.raises(DamagedImage, match="frame index, byte"):
        decode(data)


@given(st.data())
def test_every_changed_byte_is_found(data: st.DataObject) -> None:
    whole = bytearray(index_of([0, 0], [0, 65536, 131072], [10, 20]))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedImage):
        decode(whole)


@pytest.mark.parametrize("size", [0, 8, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + RECORD_BYTES, -1])
def test_a_cut_index_is_damage(size: int) -> None:
    with pytest.raises(DamagedImage):
        decode(index_of([0, 0], [0, 65536], [10])[:size])


def test_an_index_that_was_never_completed_is_damage() -> None:
    with pytest.raises(DamagedImage, match="never completed"):
        decode(bytes(HEADER_BYTES) + os.urandom(RECORD_BYTES))


def test_records_that_do_not_follow_each_other_are_damage() -> None:
    for device, why in (([65536, 0], "comes after"), ([0, 0], "comes after")):
        with pytest.raises(DamagedImage, match=why):
            decode(index_of([], device, [10]))
    body = encode_record(Record(0, 5, 10, 10, bytes(32), bytes(32)))
    header = Header(Stream.RAW, 65536, 65536, 0, 3, 0, 0, 1, 15, 10, 0, 0, bytes(32), digest_of(body))
    with pytest.raises(DamagedImage, match="begins at 5"):
        decode(encode_header(header) + body)
    body = encode_record(Record(0, 0, 10, 10, bytes(32), bytes(32)))
    header = Header(Stream.RAW, 65536, 65536, 0, 3, 0, 0, 1, 15, 10, 0, 0, bytes(32), digest_of(body))
    with pytest.raises(DamagedImage, match="the header says otherwise"):
        decode(encode_header(header) + body)


def test_an_index_over_a_view() -> None:
    data = index_of([0, 0], [0], [10])
    index = decode(memoryview(bytearray(data)))
    assert isinstance(index, Index)
    assert index.header.stream is Stream.PARTCLONE
