"""Headers of ntfsclone's special images, as ntfs-3g writes them. Pure."""

from __future__ import annotations

from pbserv.imaging.formats.model import Found, Head

MAGIC = b"\0ntfsclone-image"
_ENDIAN_SAFE = 10
"""From this major version on all numbers are little-endian."""


def read(data: bytes) -> Found | None:
    """The header, None where this is no ntfsclone image; raises FormatError."""
    if not data.startswith(MAGIC):
        return None
    head = Head(data, "ntfsclone header")
    major, minor = head.little(16, 1), head.little(17, 1)
    head.must(major <= _ENDIAN_SAFE, 16, f"version {major}.{minor} is not known")
    cluster, device = head.little(18, 4), head.little(22, 8)
    count, used = head.little(30, 8), head.little(38, 8)
    head.must(0 < cluster <= 64 << 20, 18, f"clusters of {cluster} bytes")
    head.must(used <= count and count * cluster <= device, 30, f"{used} used of {count} clusters on {device} bytes")
    return Found("ntfsclone", "ntfs", device, used * cluster, cluster, version=f"{major}.{minor}")
