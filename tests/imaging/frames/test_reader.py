"""What the disk, or a full one, does to those who read frames: an error that is named, and nothing worse."""

import errno
import io
import os
import subprocess
import sys
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
        for copied in (False, True):
            with pytest.raises(
                DamagedImage, match=f"index, byte {bad // 1024 * 1024}: it cannot be read: Input/output"
            ):
                OpenIndex(written.pbx, copied=copied)


_AFTERWARDS = """
import os, sys
from pbserv.imaging.frames.reader import OpenIndex
fd = os.open(sys.argv[1], os.O_RDWR)
opened = OpenIndex(fd, copied=True)
os.ftruncate(fd, 0)  # as a page that cannot be read any more does, it kills whoever looks at it by a mapping
print(sum(record.plain_bytes for record in opened.index.frames()))
opened.close()
"""


def test_what_was_copied_is_read_from_the_disk_once(tmp_path: Path) -> None:
    Written(tmp_path, raw=os.urandom(64 * EXTENT))
    done = subprocess.run([sys.executable, "-c", _AFTERWARDS, tmp_path / "item.pbx"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{64 * EXTENT}\n")


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
