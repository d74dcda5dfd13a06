"""Looking at an image file: its volumes, its first bytes uncompressed, and what they say. The shell of `formats`.

One rule: HEAD_BYTES of the uncompressed image are enough, and no more is made of any file; programs that uncompress
have seconds.
"""

from __future__ import annotations

import bz2
import lzma
import os
import re
import shutil
import subprocess
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pbserv.errors import PbservError
from pbserv.imaging.formats import fsarchiver, partimage
from pbserv.imaging.formats.compressors import compressor
from pbserv.imaging.formats.detect import detect, line
from pbserv.imaging.formats.model import HEAD_BYTES, FormatError, Found
from pbserv.imaging.formats.volumes import Streams, streams, system_of, together

_CHUNK = 256 * 1024
_MAX_STORED = 16 << 20
"""So much of a compressed file is read at most; bzip2 needs a whole block of 900 kB before there is any output."""
_TAIL_BYTES = 64 * 1024
_XZ_MEMORY = 256 << 20
_SECONDS = 20
_PROGRAMS = {"lzop": ("lzop", "lzop"), "lz4": ("lz4", "lz4"), "zstd": ("zstd", "zstd")}
"""Compressor: program, Debian package."""
_BY_DD = re.compile(r"\.dd(?:-ptcl)?-img(?:\.[a-z0-9]{2,6})?$")


class InspectionError(PbservError):
    """A file that cannot be looked at, or is no image; the message names it."""


@dataclass(frozen=True, slots=True)
class Report:
    """One image. ``line`` is OpenGnSys'; ``system`` where names and neighbours tell it, else ''."""

    path: Path
    line: str
    compressor: str
    found: Found
    stored_bytes: int
    volumes: tuple[str, ...]
    missing: tuple[str, ...]
    system: str


def inspect(path: Path) -> list[Report]:
    """The image at ``path``, or all images of the directory of Clonezilla or FOG that it is; raises InspectionError."""
    try:
        if path.is_dir():
            return _inspect_directory(path)
        beside = _names(path.absolute().parent)
        return [_inspect(path.parent, together(path.name, beside), system_of(path.name, beside))]
    except OSError as fault:
        raise InspectionError(f"{fault.filename or path}: {fault.strerror or fault}") from fault


def _inspect_directory(path: Path) -> list[Report]:
    system, images = streams(_names(path))
    if images:
        return [_inspect(path, image, system) for image in images]
    if system:
        raise InspectionError(f"{path}: a directory of {system} without an image of a partition: copy it again, whole")
    raise InspectionError(f"{path}: a directory that is none of Clonezilla's or FOG's; name a file in it")


def _names(directory: Path) -> frozenset[str]:
    try:
        return frozenset(entry.name for entry in os.scandir(directory) if entry.is_file())
    except PermissionError:
        return frozenset()  # a file in it can be readable all the same


def _inspect(directory: Path, image: Streams, system: str) -> Report:
    path = directory / image.name
    if image.missing and image.missing[0].endswith((".aa", ".000")):
        raise InspectionError(f"{path}: its first volume {image.missing[0]} is missing; put it beside the others")
    files = [directory / name for name in image.volumes]
    for file in files:
        if not file.is_file():
            why = "not a plain file" if file.exists() else "no such file; images of the server: pbserv image list"
            raise InspectionError(f"{file}: {why}")
    try:
        kind, head = _head(files)
        found = _detected(head, image.name, system)
        if not image.missing:
            _check_volumes(found.tool, kind, files)
    except FormatError as fault:
        raise InspectionError(f"{path}: {fault}") from fault
    stored = sum(file.stat().st_size for file in files)
    if found.tool == "raw" and not found.device_bytes and kind == "none" and not image.missing:
        found = replace(found, device_bytes=stored)  # LUKS has no size in its header
    return Report(path, line(found, kind), kind, found, stored, image.volumes, image.missing, system)


def _detected(head: bytes, name: str, system: str) -> Found:
    """What dd saved for Clonezilla may be anything, such as the zeros of Microsoft's reserved partition."""
    try:
        return detect(head)
    except FormatError:
        if head and system == "Clonezilla" and _BY_DD.search(name):
            return Found("raw", "unknown")
        raise


def _check_volumes(tool: str, kind: str, files: list[Path]) -> None:
    """Volumes that the program itself made are more than the bytes of one image in several files; raises FormatError.

    What the end of a compressed image says is not known here; its neighbours' names are.
    """
    if tool == "partimage":
        if len(files) > 1:
            partimage.check_next(_begins(files[1]))
        if kind == "none":
            partimage.check_end(_tail(files))
    elif tool == "fsarchiver":
        if kind == "none":
            fsarchiver.check_end(_tail(files))
        else:
            fsarchiver.check_names(files[0].name, _names(files[0].absolute().parent))


def _begins(file: Path) -> bytes:
    """Uncompressed where it is a whole stream, else as it is."""
    try:
        return _head([file])[1]
    except FormatError:
        return b""


def _tail(files: list[Path]) -> bytes:
    """The last bytes of the volumes together, _TAIL_BYTES at most."""
    made = b""
    for path in reversed(files):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - (_TAIL_BYTES - len(made))))
            made = file.read(_TAIL_BYTES - len(made)) + made
        if len(made) >= _TAIL_BYTES:
            break
    return made


def _head(files: list[Path]) -> tuple[str, bytes]:
    """(compressor, first uncompressed bytes); raises FormatError, OSError."""
    first = b"".join(_stored(files, HEAD_BYTES))[:HEAD_BYTES]
    kind = compressor(first)
    if kind == "none":
        return kind, first
    if kind in _PROGRAMS:
        return kind, _by_program(kind, files)
    try:
        return kind, _by_library(kind, files)
    except (zlib.error, OSError, lzma.LZMAError, EOFError) as fault:
        if isinstance(fault, OSError) and fault.errno is not None:
            raise
        raise FormatError(f"{kind} cannot read it ({fault}); the file is damaged: copy it again") from fault


def _stored(files: list[Path], limit: int = _MAX_STORED) -> Iterator[bytes]:
    """The volumes one after the other, ``limit`` bytes at most."""
    for path in files:
        with path.open("rb") as file:
            while limit > 0 and (chunk := file.read(min(_CHUNK, limit))):
                limit -= len(chunk)
                yield chunk


class _Decompressor(Protocol):
    """What zlib, bz2 and lzma have in common here."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _decompressor(kind: str) -> _Decompressor:
    if kind == "gzip":
        return zlib.decompressobj(wbits=31)
    return bz2.BZ2Decompressor() if kind == "bzip2" else lzma.LZMADecompressor(memlimit=_XZ_MEMORY)


def _by_library(kind: str, files: list[Path]) -> bytes:
    """Members that follow each other are one stream, as gzip, bzip2 and xz read them."""
    made = b""
    maker = _decompressor(kind)
    for stored in _stored(files):
        chunk = stored
        while chunk and len(made) < HEAD_BYTES:
            made += maker.decompress(chunk, HEAD_BYTES - len(made))
            chunk = maker.unused_data if maker.eof else b""
            if maker.eof:
                if compressor(chunk) != kind:
                    return made  # padding of tapes and of old tools
                maker = _decompressor(kind)
        if len(made) >= HEAD_BYTES:
            break
    if not made:
        raise FormatError(f"{kind} makes nothing of its first {_MAX_STORED >> 20} MiB: copy the file again")
    return made


def _by_program(kind: str, files: list[Path]) -> bytes:
    program, package = _PROGRAMS[kind]
    path = shutil.which(program)
    if path is None:
        raise FormatError(f"compressed by {kind}, and {program} is not installed: apt-get install {package}")
    with subprocess.Popen(
        [path, "-dc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as running:
        alarm = threading.Timer(_SECONDS, running.kill)
        feeder = threading.Thread(target=_feed, args=(running, files), daemon=True)
        alarm.start()
        feeder.start()
        try:
            made = running.stdout.read(HEAD_BYTES) if running.stdout else b""
        finally:
            running.kill()
            alarm.cancel()
            feeder.join()
    if not made:
        raise FormatError(f"{program} makes nothing of it: the file is damaged, copy it again")
    return made


def _feed(running: subprocess.Popen[bytes], files: list[Path]) -> None:
    """Ends with the program, which is killed when enough is read."""
    if running.stdin is None:
        return
    try:
        with running.stdin as pipe:
            for chunk in _stored(files):
                pipe.write(chunk)
    except OSError:
        return
