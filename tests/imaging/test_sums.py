"""`.sum` and `.full.sum` are what OpenGnSys' own commands print, and locks of others are left alone."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging import sums
from pbserv.imaging.faults import StoreFault
from pbserv.imaging.sum_files import (
    OURS,
    FileChanged,
    Locked,
    locked,
    measure,
    read_sums,
    remove_own_lock,
    stale,
    write_sums,
)
from pbserv.imaging.sums import TAIL_BYTES, SumMaker

MIB = 1 << 20


def shell(command: str, path: Path) -> str:
    """The first word that a pipeline prints; ``$1`` is the file."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, "-", str(path)], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("size", [0, 1, 1000, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 17, 5 * MIB])
def test_the_same_as_tail_and_md5sum(tmp_path: Path, size: int) -> None:
    image = tmp_path / "lab.img"
    image.write_bytes(os.urandom(size))
    write_sums(image, measure(image))
    tail = shell('tail -c1M "$1" | md5sum -b | cut -f1 -d" "', image)
    full = shell('md5sum -b "$1" | cut -f1 -d" "', image)
    assert (tmp_path / "lab.img.sum").read_text() == tail
    assert (tmp_path / "lab.img.full.sum").read_text() == full
    assert read_sums(image) == (tail.strip(), full.strip())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["lab.img", "lab.img.full.sum", "lab.img.sum"]


@given(st.lists(st.integers(0, 3 * MIB // 2), max_size=6))
def test_chunks_of_any_size_make_the_same_sums(sizes: list[int]) -> None:
    whole = b"".join(bytes([number]) * size for number, size in enumerate(sizes))
    maker, at = SumMaker(), 0
    for size in sizes:
        maker.feed(whole[at : at + size])
        at += size
    made = maker.sums()
    assert made.size_bytes == len(whole)
    assert made.tail_md5 == hashlib.md5(whole[-TAIL_BYTES:]).hexdigest()
    assert made.full_md5 == hashlib.md5(whole).hexdigest()
    assert made.sha256 == hashlib.sha256(whole).hexdigest()


@given(st.binary(max_size=300))
def test_any_sidecar_is_a_checksum_or_none(data: bytes) -> None:
    found = sums.read(data)
    assert found is None or (len(found) == 32 and found.encode() in data.lower())


@pytest.mark.parametrize("data", [b"A" * 32, b"a" * 32 + b"\n", b"a" * 32 + b" *lab.img\n", b" " + b"a" * 32])
def test_what_others_write_into_a_sidecar_is_read(data: bytes) -> None:
    """ogClient leaves the newline out, md5sum itself adds the name."""
    assert sums.read(data) == "a" * 32
    assert sums.read(data[:20]) is None


def test_sums_are_stale_when_missing_damaged_or_older(tmp_path: Path) -> None:
    image = tmp_path / "lab.img"
    image.write_bytes(b"one")
    assert stale(image)
    write_sums(image, measure(image))
    assert not stale(image)
    later = (tmp_path / "lab.img.sum").stat().st_mtime_ns + 1_000_000
    os.utime(image, ns=(later, later))
    assert stale(image)
    write_sums(image, measure(image))
    os.utime(image, ns=(1, 1))
    (tmp_path / "lab.img.full.sum").write_text("nothing")
    assert stale(image)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "lab.img"
    image.write_bytes(bytes(3 * MIB))
    with pytest.raises(FileChanged, match="rename"):
        measure(image, advance=lambda _: _append(image))
    with pytest.raises(FileChanged):
        measure(image, advance=lambda _: _replace(image))


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.img")
    (tmp_path / "link.img").symlink_to("/etc/passwd")
    for name in ("pipe.img", "link.img", "missing.img"):
        with pytest.raises(StoreFault, match=name):
            measure(tmp_path / name)


def test_a_lock_stands_while_it_is_worked_and_others_are_respected(tmp_path: Path) -> None:
    image, lock = tmp_path / "lab.img", tmp_path / "lab.img.lock"
    image.write_bytes(b"one")
    with locked(image):
        assert lock.read_bytes() == OURS
    assert not lock.exists()
    lock.write_bytes(b"")  # OpenGnSys' own are empty
    with pytest.raises(Locked, match=r"lab\.img\.lock"), locked(image):
        pass
    assert lock.exists()
    assert not remove_own_lock(image)
    lock.write_bytes(OURS)  # of a server that was killed
    assert remove_own_lock(image)
    assert not lock.exists()


def test_a_lock_on_a_full_disk_is_no_lock_and_holds_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StoreFault, match=r"lab\.img\.lock: No space left"), locked(tmp_path / "lab.img"):
            pass
    assert (os.listdir(tmp_path), len(os.listdir("/proc/self/fd"))) == ([], len(before))


def _append(image: Path) -> None:
    with image.open("ab") as file:
        file.write(b"x")


def _replace(image: Path) -> None:
    other = image.with_name("other")
    other.write_bytes(bytes(3 * MIB))
    other.rename(image)
