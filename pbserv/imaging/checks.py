"""What can be said of an order for a device before the device does it.

One rule: what could only fail on the device is refused here, with the reason and what to do.
"""

from __future__ import annotations

import re
from typing import Final

from pbserv.imaging.backend import ImagingBackend
from pbserv.imaging.faults import Forbidden, ImageExists, InvalidRequest, NotRestorable, UnknownImage
from pbserv.registry.records import BundleKind

_DISK: Final = re.compile(r"/dev/[\w./:-]{1,120}|(by-id|serial|model|size):[\w .:+/-]{1,120}", re.ASCII)


def check_order(store: ImagingBackend, kind: BundleKind, image: str, *, overwrite: bool) -> int | None:
    """The version that a restore gets, None for a capture. Raises an ImagingFault with the reason."""
    try:
        found = store.info(image)
    except UnknownImage:
        if kind is BundleKind.RESTORE:
            raise UnknownImage(f"no image {image}; see: pbserv image list") from None
        return None
    if kind is BundleKind.RESTORE:
        if any(item.kind == "file" for item in found.manifest.items):
            raise NotRestorable(f"image {image} is one opaque file, not a disk: no device can restore it")
        return found.version
    if not overwrite:
        raise ImageExists(f"image {image} exists; take another name, or make a new version with --overwrite")
    if not store.allow_overwrite:
        raise Forbidden(f"image {image} exists, and AllowImageOverwrite = NO in pbserv.conf")
    return None


def check_disk(text: str) -> None:
    """Empty, or one of the ways to name a disk (docs/wire/client.md). Raises InvalidRequest."""
    if text and not _DISK.fullmatch(text):
        raise InvalidRequest(f"{text[:64]!r} names no disk: /dev/X, by-id:NAME, serial:S, model:M or size:BYTES")
