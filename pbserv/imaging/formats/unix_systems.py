"""Superblocks of file systems of Unix: ext2/3/4, XFS, Btrfs, F2FS, HFS+. Pure."""

from __future__ import annotations

from pbserv.imaging.formats.model import Found, Head

_EXT4_INCOMPATIBLE = 0x40 | 0x80 | 0x200
"""Extents, 64 bit, flexible groups."""
_EXT4_READ_ONLY = 0x08 | 0x10 | 0x20 | 0x40 | 0x400
"""Huge files, group checksums, many links, large inodes, metadata checksums."""
_MAX_BLOCK = 1 << 20


def ext(data: bytes) -> Found | None:
    head = Head(data, "ext superblock")
    if not head.has(1080, b"\x53\xef"):
        return None
    size, at = head.little(1048, 4), 1024
    head.must(size <= 6, 1048, f"blocks of 2^{size + 10} bytes")
    block = 1024 << size
    incompatible, read_only = head.little(at + 96, 4), head.little(at + 100, 4)
    total, free = head.little(at + 4, 4), head.little(at + 12, 4)
    if incompatible & 0x80:
        total, free = total | head.little(at + 0x150, 4) << 32, free | head.little(at + 0x158, 4) << 32
    head.must(free <= total, at + 12, f"{free} free of {total} blocks")
    if incompatible & _EXT4_INCOMPATIBLE or read_only & _EXT4_READ_ONLY:
        name = "ext4"
    else:
        name = "ext3" if head.little(at + 92, 4) & 0x04 else "ext2"
    state = "" if head.little(at + 58, 2) & 1 and not incompatible & 0x04 else "not cleanly unmounted"
    sums = "crc32c" if read_only & 0x400 else "none"
    return _system(name, block, total, total - free, sums, head.text(at + 120, 16), (("State", state),))


def xfs(data: bytes) -> Found | None:
    if not data.startswith(b"XFSB"):
        return None
    head = Head(data, "XFS superblock")
    block, total, free = head.big(4, 4), head.big(8, 8), head.big(144, 8)
    head.must(512 <= block <= _MAX_BLOCK, 4, f"blocks of {block} bytes")
    sums = "crc32c" if head.big(100, 2) & 0xF == 5 else "none"
    return _system("xfs", block, total, max(0, total - free), sums, head.text(108, 12))


def btrfs(data: bytes) -> Found | None:
    at = 65536
    head = Head(data, "Btrfs superblock")
    if not head.has(at + 64, b"_BHRfS_M"):
        return None
    count = head.little(at + 136, 8)
    devices = f"one of {count}: not a whole file system" if count > 1 else ""
    name = {0: "crc32c", 1: "xxhash64", 2: "sha256", 3: "blake2b"}.get(head.little(at + 196, 2), "")
    return Found(
        "raw", "btrfs", head.little(at + 112, 8), head.little(at + 120, 8), head.little(at + 144, 4), name,
        label=head.text(at + 299, 256), facts=(("Devices", devices),),
    )  # fmt: skip


def f2fs(data: bytes) -> Found | None:
    head = Head(data, "F2FS superblock")
    if not head.has(1024, b"\x10\x20\xf5\xf2"):
        return None
    bits = head.little(1040, 4)
    head.must(9 <= bits <= 16, 1040, f"blocks of 2^{bits} bytes")
    return _system("f2fs", 1 << bits, head.little(1060, 8), 0, "none", "")


def hfs_plus(data: bytes) -> Found | None:
    head = Head(data, "HFS+ header")
    if not (head.has(1024, b"H+\0\4") or head.has(1024, b"HX\0\5")):
        return None
    block, total, free = head.big(1064, 4), head.big(1068, 4), head.big(1072, 4)
    head.must(512 <= block <= _MAX_BLOCK, 1064, f"blocks of {block} bytes")
    head.must(free <= total, 1072, f"{free} free of {total} blocks")
    return _system("hfsplus", block, total, total - free, "none", "")


def _system(
    name: str, block: int, total: int, used: int, checksum: str, label: str, facts: tuple[tuple[str, str], ...] = ()
) -> Found:
    return Found("raw", name, total * block, used * block, block, checksum, label=label, facts=facts)
