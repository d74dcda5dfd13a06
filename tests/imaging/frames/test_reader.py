"""What the disk, or a full one, does to those who read frames: an error that is named, and nothing worse."""

import errno
import io
import os
from pathlib import Path

import pytest

from pbserv.imaging.faults import DamagedImage
from pbserv.imaging.frames import reader
from pbserv.imaging.frames.index import Buffer
from pbserv.imaging.frames.reader import OpenIndex
from tests.imaging.frames.test_files import EXTENT, MADE, Written


def test_an_index_that_the_disk_cannot_read_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte of it is read before it is mapped: a mapped page that cannot be read would end the process."""
    written = Written(tmp_path, raw=os.urandom(64 * EXTENT))
    size = os.fstat(written.pbx).st_size
    monkeypatch.setattr(reader, "_BATCH_BYTES", 1024)
    pread, bad = os.pread, size

    def failing(fd: int, count: int, offset: int) -> bytes:
        if fd == written.pbx and offset <= bad < offset + count:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, count, offset)

    monkeypatch.setattr(os, "pread", failing)
    OpenIndex(written.pbx).close()
    for bad in (0, 1023, 1024, size - 1):
        with pytest.raises(DamagedImage, match=f"frame index, byte {bad // 1024 * 1024}: it cannot be read: Input/out"):
            OpenIndex(written.pbx)


def test_a_temporary_file_that_takes_little_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(tmp_path, MADE)
    made = reader.tempfile.TemporaryFile

    def slow(*args: object, **options: object) -> io.FileIO:
        with made(buffering=0) as file:
            return _Slow(os.dup(file.fileno()), "r+b")

    monkeypatch.setattr(reader.tempfile, "TemporaryFile", slow)
    assert not written.damages(deep=True)


class _Slow(io.FileIO):
    def write(self, data: Buffer, /) -> int:
        return super().write(bytes(data)[:100])
