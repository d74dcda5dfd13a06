"""Which streams of other tools can be cut into frames at device addresses, and which cannot. Pure.

One rule: what cannot be cut is refused with the reason; it stays as it is and is served so.
"""

from __future__ import annotations

from pbserv.imaging.formats.model import Found

_ITSELF = {
    "partimage": "only partimage itself reads its blocks",
    "ntfsclone": "only ntfsclone itself reads its clusters",
    "fsarchiver": "an archive of files has no device addresses",
}
_DISKS = ("qcow2", "qcow", "vmdk", "vdi", "vhdx")


def refusal(found: Found) -> str:
    """Why an image of this kind cannot be converted to frames; '' where it can."""
    if found.tool in ("raw", *_DISKS):
        return ""
    if found.tool != "partclone":
        return _ITSELF.get(found.tool, f"{found.tool} is not known as a stream of blocks")
    facts = dict(found.facts)
    if facts.get("Format") != "0002":
        return "partclone's format 0001 has checksums that prove nothing"
    if found.checksum not in ("none", "crc32"):
        return f"its checksums are {found.checksum.upper()}, which are not read here"
    if facts.get("Bitmap") != "bit":
        return "it has no bitmap of its blocks"
    return ""


def plain_limit(found: Found, most: int) -> int:
    """So many uncompressed bytes an image can have; ``most`` where its header does not tell.

    partclone: head, bitmap, all blocks of the device and a checksum after every one at most. A raw image may be longer
    than the file system in it.
    """
    if found.tool == "partclone" and found.block_bytes:
        blocks = found.device_bytes // found.block_bytes + 1
        return min(most, 4096 + 8192 + blocks + found.used_bytes + found.block_bytes + 16 * (blocks + 1))
    return most
