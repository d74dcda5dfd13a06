"""Images as lines of text for people at a device's console."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from pbserv.imaging.layout import StoredImage

NOWHERE: Final[Mapping[str, str]] = MappingProxyType({})
_MEGABYTE: Final = 10**6


def image_list(images: Iterable[StoredImage], elsewhere: Mapping[str, str] = NOWHERE) -> str:
    """One line each, by name; ``elsewhere``: images of other servers with the store there."""
    lines = {
        image.name: f"{image.name}  version {image.version}  {image.created:%Y-%m-%d %H:%M}  "
        f"{_megabytes(image.manifest.stored_bytes)}\n"
        for image in images
    }
    lines |= {name: f"{name}  in store {store} of another server\n" for name, store in elsewhere.items()}
    return "".join(line for _, line in sorted(lines.items()))


def image_report(image: StoredImage) -> str:
    """The image, the disk that it came from, and its items."""
    manifest, disk = image.manifest, image.manifest.disk
    lines = [
        f"image        {image.name}, version {image.version}",
        f"taken        {image.created:%Y-%m-%d %H:%M} UTC",
        f"disk         {_megabytes(disk.size_bytes)}, sectors of {disk.sector_bytes} bytes, table {disk.table}, "
        f"{disk.firmware}",
        f"stored       {_megabytes(manifest.stored_bytes)} of {_megabytes(manifest.uncompressed_bytes)}",
    ]
    for item in manifest.items:
        where = f"partition {item.partition}" if item.partition else "disk"
        lines.append(f"{item.name:<24} {item.kind:<16} {where:<13} {_megabytes(item.uncompressed_bytes)}")
    return "\n".join(lines) + "\n"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / _MEGABYTE:.1f} MB"
