"""Headers of partimage 0.6 images (FORMAT in partimage's documentation, and images that 0.6.9 wrote). Pure."""

from __future__ import annotations

from pbserv.imaging.formats.model import FormatError, Found, Head

MAGIC = b"PaRtImAgE-VoLuMe"
_MAIN = 512
"""The main header follows the volume's."""
_LOCAL = b"MAGIC-BEGIN-LOCALHEADER"
_TAIL = b"MAGIC-BEGIN-TAIL"
"""16 KiB before the end of the last volume."""
_AGAIN = "restore it by partimage and save it again in one file, with -V0"


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


def check_next(data: bytes) -> None:
    """``data`` is the beginning of a file that follows the first one; raises FormatError where partimage split it.

    Each of its own volumes has a header, so that the volumes one after the other are no image.
    """
    if data.startswith(MAGIC):
        raise FormatError(f"volumes of partimage, which it alone can join: {_AGAIN}")


def check_end(tail: bytes) -> None:
    """``tail`` is the end of the uncompressed image (all of it, or 64 KiB); raises FormatError where more follows."""
    if _TAIL not in tail:
        raise FormatError(
            f"an image of partimage without its end: it is cut off (copy it again), or more volumes follow ({_AGAIN})"
        )
