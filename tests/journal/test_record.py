"""What the registry keeps of a session is read back as it was."""

from __future__ import annotations

import zlib

import pytest

from pbserv.journal.record import pack, unpack
from tests.journal.samples import acknowledged, event, lines, offered, refused

STEPS = lines(offered(), refused("policy_silent", "öß"), event("tftp", "x: completed, 9 bytes"), acknowledged(3))


@pytest.mark.parametrize("packets", [0, 1, 32])
def test_there_and_back(packets: int) -> None:
    kept = lines(offered(), refused("u_boot", "öß"), event("tftp", "x: completed"), acknowledged(3), packets=packets)
    assert unpack(pack(kept, 7)) == (kept, 7)


def test_a_record_is_small() -> None:
    boot = lines(*(offered(n, secs=n) for n in range(4)), acknowledged(5))
    assert len(pack(boot, 0)) < 1500


def test_damage_counts_as_empty() -> None:
    good = pack(STEPS, 0)
    for bad in (b"", good[:20], zlib.compress(b"[1]"), zlib.compress(b'{"lost": 1, "steps": [[1, 2]]}'), b"\0" * 99):
        assert unpack(bad) == ([], 0)
