"""The index of a file that is kept as it came."""

from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.imaging.frames.cut import PIECE_BYTES
from pbserv.imaging.frames.index import Stream, decode, digest_of
from pbserv.imaging.frames.pieces import PieceIndexer, facts_of, worth


@given(
    st.integers(PIECE_BYTES - 1, 3 * PIECE_BYTES + 1) | st.sampled_from([0, 1, PIECE_BYTES, 2 * PIECE_BYTES]),
    st.integers(1000, 2 * PIECE_BYTES),
)
@settings(deadline=None, max_examples=30)
def test_every_piece_has_its_place_and_its_digest(size: int, chunk: int) -> None:
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    indexer = PieceIndexer()
    for at in range(0, size, chunk):
        indexer.feed(content[at : at + chunk])
    sha256 = hashlib.sha256(content).hexdigest()
    made = indexer.index(sha256)
    assert bool(made) == worth(size)
    if not made:
        assert facts_of(made) == {}
        return
    index = decode(made)
    header = index.header
    assert (header.stream, header.stored_bytes, header.sha256.hex()) == (Stream.PIECES, size, sha256)
    for record in index.frames():
        piece = content[record.offset : record.offset + PIECE_BYTES]
        assert (record.stored_bytes, record.digest, record.identity) == (len(piece), digest_of(piece), digest_of(piece))
    assert facts_of(made)["index_sha256"] == hashlib.sha256(made).hexdigest()
