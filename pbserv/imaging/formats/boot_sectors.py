"""File systems that begin with a boot sector: NTFS, exFAT, FAT12, FAT16, FAT32; and BitLocker. Pure."""

from __future__ import annotations

from pbserv.imaging.formats.model import Found, Head

_SECTORS = (512, 1024, 2048, 4096)


def ntfs(data: bytes) -> Found | None:
    head = Head(data, "NTFS boot sector")
    if not head.has(3, b"NTFS    "):
        return None
    sector, factor, count = head.little(11, 2), head.little(13, 1), head.little(40, 8)
    head.must(sector in _SECTORS, 11, f"sectors of {sector} bytes")
    cluster = sector * factor if factor <= 0x80 else sector << (256 - factor)
    head.must(0 < cluster <= 64 << 20, 13, f"clusters of {cluster} bytes")
    return Found("raw", "ntfs", (count + 1) * sector, block_bytes=cluster)


def bitlocker(data: bytes) -> Found | None:
    """Encrypted by Windows; only the volume's owner knows what is in it."""
    return Found("raw", "bitlocker") if data[3:11] == b"-FVE-FS-" else None


def exfat(data: bytes) -> Found | None:
    head = Head(data, "exFAT boot sector")
    if not head.has(3, b"EXFAT   "):
        return None
    sector, cluster = head.little(108, 1), head.little(109, 1)
    head.must(9 <= sector <= 12, 108, f"sectors of 2^{sector} bytes")
    head.must(cluster <= 25 - sector, 109, f"clusters of 2^{cluster} sectors")
    size, percent = head.little(72, 8) << sector, head.little(112, 1)
    used = size * percent // 100 if percent <= 100 else 0
    return Found("raw", "exfat", size, used, 1 << sector + cluster)


def fat(data: bytes) -> Found | None:
    """A FAT is told by what its boot sector says of the layout; the kind follows from the number of clusters alone."""
    head = Head(data, "FAT boot sector")
    if len(data) < 512 or not head.has(510, b"\x55\xaa") or data[0] not in (0xEB, 0xE9):
        return None
    sector, factor, reserved, tables = (head.little(11, 2), head.little(13, 1), head.little(14, 2), head.little(16, 1))
    roots, media = head.little(17, 2), head.little(21, 1)
    if sector not in _SECTORS or factor not in (1, 2, 4, 8, 16, 32, 64, 128) or not reserved or tables not in (1, 2):
        return None
    if media != 0xF0 and media < 0xF8:
        return None
    count = head.little(19, 2) or head.little(32, 4)
    per_table = head.little(22, 2) or head.little(36, 4)
    before = reserved + tables * per_table + -(-roots * 32 // sector)
    if not per_table or count <= before:
        return None
    clusters = (count - before) // factor
    name = "fat32" if not head.little(22, 2) else "fat12" if clusters < 4085 else "fat16"
    label = head.text(71 if name == "fat32" else 43, 11, "latin-1")
    return Found("raw", name, count * sector, block_bytes=sector * factor, label="" if label == "NO NAME" else label)
