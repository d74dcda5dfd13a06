"""What the bench of frames counts, on streams whose figures are known."""

import json
from pathlib import Path

from bench.imaging.extents import measure, result, table, whole_stream
from bench.imaging.rootfs import Upgrade, capture, changed_bytes
from tests.imaging.making import partclone


def upgrade(folder: Path) -> Upgrade:
    """Blocks 0 to 999 of 4000; then block 16 has other bytes, and block 2000 is used too."""
    old, new = partclone(range(1000), 4000), partclone({*range(1000), 2000}, 4000, seeds={16: 1})
    for name, made in (("old", old), ("new", new)):
        (folder / name).write_bytes(made.plain)
    return Upgrade("ext4", "packages", capture(folder / "old"), capture(folder / "new"), ("openssl 1 2",))


def test_what_changed_is_counted_by_blocks(tmp_path: Path) -> None:
    assert changed_bytes(upgrade(tmp_path)) == 2 * 4096


def test_a_row_says_what_an_extent_size_costs(tmp_path: Path) -> None:
    found = upgrade(tmp_path)
    whole = whole_stream(found.new)
    rows = [measure(found, size, whole, changed_bytes(found), tmp_path) for size in (65536, 1 << 20)]
    small, large = rows
    assert (small.delta_bytes, large.delta_bytes) == (17 * 4096, 257 * 4096)
    assert (small.factor, large.factor) == (8.5, 128.5)
    assert small.index_bytes == 160 + 88 * (2 + 63 + 1)
    assert 0 < small.delta_stored_bytes < small.sent_bytes < small.item_bytes
    text = table(rows)
    assert "64 KiB" in text
    assert "1024 KiB" in text
    assert json.loads(json.dumps(result(rows, {"ext4": found.packages})))["packages"] == {"ext4": ["openssl 1 2"]}
