"""Compressed streams come out whole or end in an error, in bounded pieces, whatever goes in."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import random
import subprocess
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.imaging.formats.model import FormatError
from pbserv.imaging.unpack import PIECE_BYTES, unpacked

KINDS = ("none", "gzip", "bzip2", "xz", "lzop", "lz4", "zstd")
OWN = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "none": bytes}


def packed(data: bytes, kind: str) -> bytes:
    if kind in OWN:
        return OWN[kind](data)
    return subprocess.run([kind, "-c"], input=data, capture_output=True, check=True).stdout


def in_chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def some_bytes(size: int) -> bytes:
    """Half of it compresses well."""
    return random.Random(size).randbytes(size // 2) + bytes(size - size // 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [7, 65536, 1 << 22])
def test_what_was_packed_comes_out(kind: str, chunk: int) -> None:
    data = some_bytes(3_000_001 if chunk > 7 else 20_001)
    pieces = list(unpacked(in_chunks(packed(data, kind), chunk), kind))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= PIECE_BYTES


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "lzop", "lz4", "zstd"])
def test_members_one_after_the_other_are_one_stream(kind: str) -> None:
    data = packed(b"one" * 1000, kind) + packed(b"two" * 1000, kind)
    for size in (11, len(data)):
        assert b"".join(unpacked(in_chunks(data, size), kind)) == b"one" * 1000 + b"two" * 1000


def test_zeros_behind_the_last_member_are_padding() -> None:
    for kind in ("gzip", "bzip2", "xz"):
        assert b"".join(unpacked([packed(b"data", kind), bytes(512), bytes(512)], kind)) == b"data"
        with pytest.raises(FormatError, match="something else follows"):
            list(unpacked([packed(b"data", kind), bytes(512), b"x"], kind))


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "lzop", "lz4", "zstd"])
@pytest.mark.parametrize("keep", [0.3, 0.99])
def test_a_stream_that_is_cut_off_is_an_error(kind: str, keep: float) -> None:
    whole = packed(some_bytes(400_000), kind)
    with pytest.raises(FormatError, match="copy it again"):
        list(unpacked(in_chunks(whole[: int(len(whole) * keep)], 4096), kind))


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "lzop", "lz4", "zstd"])
def test_a_damaged_stream_is_an_error(kind: str) -> None:
    whole = bytearray(packed(some_bytes(400_000), kind))
    whole[len(whole) // 2] ^= 0x55
    with pytest.raises(FormatError, match="copy it again"):
        list(unpacked([bytes(whole)], kind))


@pytest.mark.parametrize("kind", ["gzip", "xz", "zstd"])
def test_a_bomb_ends_at_the_limit(kind: str) -> None:
    bomb = packed(bytes(64 << 20), kind)
    made: list[int] = []
    with pytest.raises(FormatError, match="more than 5000000 bytes"):
        made.extend(len(piece) for piece in unpacked([bomb], kind, 5_000_000))
    assert sum(made) <= 5_000_000


@pytest.mark.parametrize("kind", ["zstd", "lz4", "lzop"])
def test_who_gives_up_leaves_no_program_and_no_thread(kind: str) -> None:
    pieces = unpacked(in_chunks(packed(some_bytes(8 << 20), kind), 65536), kind)
    next(pieces)
    pieces.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "unpack"]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
def test_what_reading_raises_is_raised(kind: str) -> None:
    def broken() -> Iterator[bytes]:
        yield packed(some_bytes(2 << 20), kind)[: 1 << 20]
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        list(unpacked(broken(), kind))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["gzip", "bzip2", "xz"]), st.lists(st.binary(max_size=200), max_size=5), st.booleans())
def test_any_bytes_are_uncompressed_or_refused(kind: str, chunks: list[bytes], begun: bool) -> None:
    start = [packed(b"begin", kind)[:9]] if begun else []
    with contextlib.suppress(FormatError):
        assert isinstance(b"".join(unpacked([*start, *chunks], kind)), bytes)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(["lzop", "lz4", "zstd"]), st.binary(min_size=1, max_size=200))
def test_any_bytes_for_the_programs(kind: str, data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert isinstance(b"".join(unpacked([packed(b"begin", kind)[:9] + data], kind)), bytes)


def test_a_compressor_that_is_not_known_and_a_program_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FormatError, match="not known"):
        list(unpacked([b"x"], "lrzip"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FormatError, match="apt-get install lzop"):
        list(unpacked([b"x"], "lzop"))
