"""Headers of partimage 0.6 images (FORMAT in partimage's documentation, and images that 0.6.9 wrote). Pure."""

from __future__ import annotations

from pbserv.imaging.formats.model import Found, Head

MAGIC = b"PaRtImAgE-VoLuMe"
_MAIN = 512
"""The main header follows the volume's."""
_LOCAL = b"MAGIC-BEGIN-LOCALHEADER"


def read(data: bytes) -> Found | None:
    """The header, None where this is no partimage image; raises FormatError."""
    if not data.startswith(MAGIC):
        return None
    head = Head(data, "partimage header")
    volume = head.little(96, 4)
    head.must(volume == 0, 96, f"this is volume {volume}, not the first")
    device = head.little(_MAIN + 9592, 8)
    head.must(device > 0, _MAIN + 9592, "a partition of 0 bytes")
    name = head.text(_MAIN, 512)
    facts = (("Taken from", head.text(_MAIN + 4608, 512)),)
    version = head.text(32, 64)
    at = data.find(_LOCAL, _MAIN)
    if at < 0:
        return Found("partimage", name, device, version=version, facts=facts)
    at += len(_LOCAL)
    block, used = head.little(at, 8), head.little(at + 8, 8)
    head.must(0 < block <= 1 << 20, at, f"a block size of {block} bytes")
    return Found("partimage", name, device, used * block, block, "crc", version, head.text(at + 40, 64), facts)
