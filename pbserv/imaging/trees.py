"""A directory as an add-on image: one tar archive of all below it, compressed, read while it is sent. Blocking.

One rule: the same files give the same bytes, on every host and in every order of the directory: an upload that broke
off goes on, and what did not change is known again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import IO, Final

import zstandard

from pbserv.imaging.import_plan import Plan, PlannedItem, proposal
from pbserv.imaging.inspection import InspectionError
from pbserv.imaging.manifest import DiskFacts

TREE: Final = "tree"
"""Name and kind of the one item of such an image."""
LEVEL: Final = 9
"""Of zstd: an add-on is packed once and laid over many systems."""
_CHUNK: Final = 1 << 20
_OPTIONS: Final = (
    "--create", "--file=-", "--format=posix", "--sort=name", "--numeric-owner", "--one-file-system", "--acls",
    "--xattrs", "--xattrs-include=*",
    # Names of extended headers have the number of the process in them otherwise, and times of reading change.
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
)  # fmt: skip


def plan_tree(path: Path) -> Plan:
    """The plan for all files below the directory ``path``, on its file system; raises InspectionError."""
    if not path.is_dir():
        raise InspectionError(f"{path}: a tree of files is made of a directory")
    label = path.absolute().name or "root"
    item = PlannedItem(
        TREE, TREE, 0, "zstd", stored_bytes=_size_of(path), source=label, facts=(("compressor", "zstd"),)
    )
    return Plan(proposal(label), label, TREE, DiskFacts(0, 512, "none", "bios"), (item,))


def pack_tree(path: Path, advance: Callable[[int], None] = lambda _count: None) -> Generator[bytes, None, None]:
    """All that is below ``path`` as a tar archive (POSIX.1-2001) in one zstd frame: owners as numbers, modes, times,
    hard and symbolic links, devices, extended attributes and ACLs; sockets are left out. The directory itself is not
    in it: whatever system it is laid over keeps its own root.

    ``advance`` hears of the bytes that were read. Raises InspectionError with tar's own words, also when a file changes
    meanwhile. Close it when it is given up.
    """
    program = shutil.which("tar")
    if program is None:
        raise InspectionError("trees of files need GNU tar: apt-get install tar")
    with tempfile.TemporaryFile() as names, tempfile.TemporaryFile() as said:
        names.write(b"".join(name + b"\0" for name in _top(path)))
        names.seek(0)
        running = subprocess.Popen(
            [program, *_OPTIONS, f"--directory={path.absolute()}", "--null", "--files-from=-"], stdin=names,
            stdout=subprocess.PIPE, stderr=said, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        with closing(_packed(_output(running), advance)) as pieces:
            try:
                yield from pieces
                if running.wait() != 0:
                    raise InspectionError(f"{path}: {_last(said, program)}")
            finally:
                running.kill()
                running.wait()


def _packed(output: IO[bytes], advance: Callable[[int], None]) -> Generator[bytes, None, None]:
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
    with output:
        while chunk := output.read(_CHUNK):
            advance(len(chunk))
            if packed := compressor.compress(chunk):
                yield packed
    yield compressor.flush()


def _top(path: Path) -> list[bytes]:
    """What lies in the directory itself, on its own file system, in an order that is the same everywhere."""
    try:
        device = path.stat().st_dev
        with os.scandir(os.fsencode(path)) as entries:
            found = [entry.name for entry in entries if entry.stat(follow_symlinks=False).st_dev == device]
    except OSError as fault:
        raise InspectionError(f"{path}: {fault.strerror or fault}") from fault
    return [b"./" + name for name in sorted(found)]


def _output(running: subprocess.Popen[bytes]) -> IO[bytes]:
    if running.stdout is None:
        raise InspectionError("tar has no output")
    return running.stdout


def _last(said: IO[bytes], program: str) -> str:
    """The line that says what is wrong; the one after it says that there was something."""
    said.seek(0)
    lines = [line for line in said.read(_CHUNK).decode("utf-8", "replace").splitlines() if line]
    telling = [line for line in lines if "Exiting with failure" not in line] or lines or ["tar gave no reason"]
    return "".join(c if c.isprintable() else "?" for c in telling[0].removeprefix(f"{program}: "))[:300]


def _size_of(path: Path) -> int:
    """Bytes of all files, for the progress bar; what cannot be read is said when it is packed."""
    total, waiting = 0, [str(path)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total
