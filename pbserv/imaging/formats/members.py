"""What fills a partition and is no file system: swap, LVM2, LUKS. Pure."""

from __future__ import annotations

from pbserv.imaging.formats.model import Found, Head

_PAGES = (4096, 8192, 16384, 65536)


def swap(data: bytes) -> Found | None:
    head = Head(data, "swap header")
    page = next((size for size in _PAGES if head.has(size - 10, b"SWAPSPACE2")), 0)
    if not page:
        return None
    return Found("raw", "swap", (head.little(1028, 4) + 1) * page, block_bytes=page, label=head.text(1052, 16))


def lvm2(data: bytes) -> Found | None:
    head = Head(data, "LVM2 label")
    for at in range(0, 2048, 512):
        if head.has(at, b"LABELONE") and head.has(at + 24, b"LVM2 001"):
            offset = at + head.little(at + 20, 4)
            return Found("raw", "lvm2", head.little(offset + 32, 8), facts=(("Volume", head.text(offset, 32)),))
    return None


def luks(data: bytes) -> Found | None:
    if not data.startswith(b"LUKS\xba\xbe"):
        return None
    head = Head(data, "LUKS header")
    version = head.big(6, 2)
    head.must(version in (1, 2), 6, f"version {version} is not known")
    label = head.text(24, 48) if version == 2 else ""
    cipher = f"{head.text(8, 32)}-{head.text(40, 32)}" if version == 1 else ""
    return Found("raw", "luks", version=str(version), label=label, facts=(("Cipher", cipher),))
