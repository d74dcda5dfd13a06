"""The index of a file that is kept as it came, in pieces of PIECE_BYTES. Pure: bytes in, an index out.

One rule: it is, byte for byte, the index that an upload of the same file would have got (``writer``).
"""

from __future__ import annotations

import hashlib

from pbserv.imaging.frames.cut import PIECE_BYTES, Piece, RawCutter
from pbserv.imaging.frames.index import Buffer, Header, Record, Stream, digest_of, encode_header, encode_record


def worth(size_bytes: int) -> bool:
    """Whether a file has an index at all: one of a single piece is told by its own digest."""
    return size_bytes > PIECE_BYTES


class PieceIndexer:
    """Takes a file's bytes in order, in chunks of any size; keeps 88 bytes of each MiB."""

    def __init__(self) -> None:
        self._cutter = RawCutter(PIECE_BYTES)
        self._records = bytearray()
        self._count = 0
        self._size = 0

    def feed(self, chunk: Buffer) -> None:
        """The next bytes."""
        for piece in self._cutter.feed(chunk):
            self._put(piece)

    def index(self, sha256: str) -> bytes:
        """The whole index, b'' where the file is not worth one; ``sha256`` (hexadecimal) is that of the file.

        Nothing can be fed afterwards.
        """
        for piece in self._cutter.finish():
            self._put(piece)
        if not worth(self._size):
            return b""
        size, records = self._size, bytes(self._records)
        header = Header(
            Stream.PIECES, PIECE_BYTES, PIECE_BYTES, 0, 0, 0, size, self._count, size, size, size, 0,
            bytes.fromhex(sha256), digest_of(records),
        )  # fmt: skip
        return encode_header(header) + records

    def _put(self, piece: Piece) -> None:
        digest, size = digest_of(piece.data), len(piece.data)
        self._records += encode_record(Record(piece.address, self._size, size, size, digest, digest))
        self._count += 1
        self._size += size


def facts_of(index: bytes) -> dict[str, str]:
    """What of it stands in the manifest, as for an upload."""
    if not index:
        return {}
    return {"extent_bytes": str(PIECE_BYTES), "index_sha256": hashlib.sha256(index).hexdigest()}
