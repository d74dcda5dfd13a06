"""The uncompressed size is counted beside the reader, who is never held up by what goes wrong there."""

from __future__ import annotations

import gzip
import subprocess
import threading
import zlib
from typing import NoReturn

import pytest

from pbserv.imaging.formats.model import FormatError, Found
from pbserv.imaging.plain_size import PlainCounter

PLAIN = bytes(100_000)
RAW = Found("dd", "raw")
BLOCKS = 50
"""Many more than wait between the two."""


def read(stored: bytes, kind: str) -> PlainCounter:
    """All of it fed and ended, in a thread: who hangs there fails."""
    counter = PlainCounter(RAW, kind)
    step = len(stored) // BLOCKS + 1

    def feed() -> None:
        for at in range(0, len(stored), step):
            counter.feed(stored[at : at + step])
        counter.end()

    reader = threading.Thread(target=feed, daemon=True)
    reader.start()
    reader.join(60)
    assert not reader.is_alive(), "the reader is held up"
    return counter


def zstd(plain: bytes) -> bytes:
    return subprocess.run(["zstd", "-c"], input=plain, capture_output=True, check=True).stdout * BLOCKS


def test_what_is_whole_is_counted() -> None:
    assert read(gzip.compress(PLAIN), "gzip").size() == len(PLAIN)
    assert read(zstd(PLAIN), "zstd").size() == BLOCKS * len(PLAIN)


def test_a_stream_that_is_no_stream_holds_nobody_up() -> None:
    with pytest.raises(FormatError):
        read(bytes(100_000), "gzip").size()


def test_nor_does_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: int) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(zlib, "decompressobj", none)
    with pytest.raises(FormatError, match=r"cannot be uncompressed: MemoryError"):
        read(gzip.compress(PLAIN) * BLOCKS, "gzip").size()


def test_nor_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    stored = zstd(PLAIN)

    def scarce(thread: threading.Thread) -> None:
        if thread.name == "unpack":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    with pytest.raises(FormatError, match="can't start new thread"):
        read(stored, "zstd").size()
