"""Disks of virtual machines: qcow2, VMDK, VDI, VHDX. Pure."""

from __future__ import annotations

import re

from pbserv.imaging.formats.model import Found, Head

_EXTENT = re.compile(r"^(?:RW|RDONLY|NOACCESS) +([0-9]{1,18}) +[A-Z]", re.M)
_SECTOR = 512


def read(data: bytes) -> Found | None:
    """The header, None where this is none of them; raises FormatError."""
    if data.startswith(b"QFI\xfb"):
        return _qcow2(Head(data, "qcow2 header"))
    if data.startswith(b"KDMV"):
        return _sparse_vmdk(Head(data, "VMDK header"))
    if data.startswith(b"# Disk DescriptorFile"):
        text = data.decode("latin-1")
        sectors = sum(int(size) for size in _EXTENT.findall(text))
        return Found("vmdk", "disk", sectors * _SECTOR, facts=(("Kind", "descriptor; the extents are other files"),))
    if data[64:68] == b"\x7f\x10\xda\xbe":
        head = Head(data, "VDI header")
        return Found("vdi", "disk", head.little(368, 8), block_bytes=head.little(376, 4))
    if data.startswith(b"vhdxfile"):
        return Found("vhdx", "disk")
    return None


def _qcow2(head: Head) -> Found:
    version, bits = head.big(4, 4), head.big(20, 4)
    head.must(version in (1, 2, 3), 4, f"version {version} is not known")
    facts = (
        ("Backing file", "yes" if head.big(8, 8) else ""),
        ("Encrypted", "yes" if version > 1 and head.big(32, 4) else ""),
    )
    if version == 1:
        return Found("qcow", "disk", head.big(24, 8), version="1", facts=facts)
    head.must(9 <= bits <= 21, 20, f"clusters of 2^{bits} bytes")
    return Found("qcow2", "disk", head.big(24, 8), block_bytes=1 << bits, version=str(version), facts=facts)


def _sparse_vmdk(head: Head) -> Found:
    grain = head.little(20, 8)
    head.must(0 < grain <= 1 << 20, 20, f"grains of {grain} sectors")
    return Found(
        "vmdk", "disk", head.little(12, 8) * _SECTOR, block_bytes=grain * _SECTOR, version=str(head.little(4, 4))
    )
