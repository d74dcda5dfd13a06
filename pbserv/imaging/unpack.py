"""Streams that other tools compressed, uncompressed piece by piece. Blocking; for commands and worker threads.

One rule: whatever goes in, at most PIECE_BYTES come out at a time and nothing else is kept, and a stream that is cut
off, damaged or longer than it may be ends in a FormatError, never in fewer bytes.
"""

from __future__ import annotations

import bz2
import lzma
import shutil
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from typing import IO, Protocol

from pbserv.imaging.formats.compressors import compressor
from pbserv.imaging.formats.model import FormatError

PIECE_BYTES = 1 << 20
MAX_PLAIN_BYTES = 16 << 40
"""No disk is larger; a stream that goes on behind it is a trap."""
_XZ_MEMORY = 256 << 20
_MAGIC_BYTES = 6
PROGRAMS = {"lzop": ("lzop", ("-dc",)), "lz4": ("lz4", ("-dc",)), "zstd": ("zstd", ("-dc", "-q", "-M128MB"))}
"""Compressor: Debian package and program, arguments. zstd -M: what a frame may ask for; --long=27 is within it."""
_WARNED = 2
"""lzop ends so where several archives follow each other, or padding; it has made all of it then."""


def unpacked(stored: Iterable[bytes], kind: str, limit: int = MAX_PLAIN_BYTES) -> Generator[bytes, None, None]:
    """The uncompressed bytes of ``stored``, at most ``limit``; close it when it is given up.

    ``kind`` is what formats.compressors names. Raises FormatError, and whatever ``stored`` raises.
    """
    made = 0
    pieces = _pieces(stored, kind)
    try:
        for piece in pieces:
            made += len(piece)
            if made > limit:
                raise FormatError(f"uncompressed it has more than {limit} bytes, which is more than its image can have")
            yield piece
    finally:
        pieces.close()


def _pieces(stored: Iterable[bytes], kind: str) -> Generator[bytes, None, None]:
    if kind == "none":
        for chunk in stored:
            for at in range(0, len(chunk), PIECE_BYTES):
                yield chunk[at : at + PIECE_BYTES]
    elif kind in PROGRAMS:
        yield from _by_program(stored, kind)
    elif kind in ("gzip", "bzip2", "xz"):
        yield from _by_library(stored, kind)
    else:
        raise FormatError(f"compressed by {kind!r}, which is not known here")


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the manners of the others: input that is left is kept inside."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _decompressor(kind: str) -> _Decompressor:
    if kind == "gzip":
        return _Gzip()
    return bz2.BZ2Decompressor() if kind == "bzip2" else lzma.LZMADecompressor(memlimit=_XZ_MEMORY)


def _by_library(stored: Iterable[bytes], kind: str) -> Generator[bytes, None, None]:
    """Members that follow each other are one stream; zeros behind the last one are padding."""
    chunks = iter(stored)
    rest = next(chunks, b"")
    try:
        while rest:
            maker = _decompressor(kind)
            yield from _member(maker, rest, chunks, kind)
            rest = maker.unused_data
            while len(rest) < _MAGIC_BYTES and (more := next(chunks, b"")):
                rest += more
            if rest and compressor(rest) != kind:
                return _only_zeros(rest, chunks, kind)
    except (zlib.error, lzma.LZMAError, EOFError, OSError) as fault:
        if isinstance(fault, OSError) and fault.errno is not None:
            raise
        raise FormatError(f"{kind} cannot read it ({fault}); the file is damaged: copy it again") from fault


def _member(maker: _Decompressor, first: bytes, chunks: Iterator[bytes], kind: str) -> Generator[bytes, None, None]:
    data = first
    while not maker.eof:
        piece = maker.decompress(data, PIECE_BYTES)
        data = b""
        if piece:
            yield piece
        elif not maker.eof:
            data = next(chunks, b"")
            if not data:
                raise FormatError(f"{kind}: the stream ends too early; the file is not complete: copy it again")


def _only_zeros(rest: bytes, chunks: Iterator[bytes], kind: str) -> None:
    while rest:
        if rest.strip(b"\0"):
            raise FormatError(f"{kind}: something else follows the stream; the file is damaged: copy it again")
        rest = next(chunks, b"")


def _by_program(stored: Iterable[bytes], kind: str) -> Generator[bytes, None, None]:
    name, arguments = PROGRAMS[kind]
    path = shutil.which(name)
    if path is None:
        raise FormatError(f"compressed by {kind}, and {name} is not installed: apt-get install {name}")
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [path, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, bufsize=0
        ) as running,
    ):
        feeder = _Feeder(running, stored)
        feeder.start()
        try:
            while running.stdout and (piece := running.stdout.read(PIECE_BYTES)):
                yield piece
            feeder.join()
            if feeder.fault is not None:
                raise feeder.fault
            if running.wait() not in (0, _WARNED if kind == "lzop" else 0):
                raise FormatError(f"{name} cannot read it ({_last(said)}); the file is damaged: copy it again")
        finally:
            running.kill()
            feeder.join()


class _Feeder(threading.Thread):
    """Writes the stored bytes to the program; ends with it. What reading them raised stands in ``fault``."""

    def __init__(self, running: subprocess.Popen[bytes], stored: Iterable[bytes]) -> None:
        super().__init__(daemon=True, name="unpack")
        self._running = running
        self._stored = stored
        self.fault: Exception | None = None

    def run(self) -> None:
        pipe = self._running.stdin
        if pipe is None:
            return
        try:
            for chunk in self._stored:
                try:
                    _write(pipe, chunk)
                except BrokenPipeError:
                    return
        except Exception as fault:  # whatever reading raised is raised where the pieces are taken
            self.fault = fault
            self._running.kill()
        finally:
            with suppress(OSError):
                pipe.close()


def _write(pipe: IO[bytes], chunk: bytes) -> None:
    with memoryview(chunk) as view:
        at = 0
        while at < len(view):
            at += pipe.write(view[at:])


def _last(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read(4096).decode("utf-8", "replace").strip().splitlines()
    return "".join(c if c.isprintable() else "?" for c in lines[-1])[:200] if lines else "no reason given"
