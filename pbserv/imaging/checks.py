"""What can be said of an order for a device before the device does it.

One rule: what could only fail on the device is refused here, with the reason and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from pbserv.imaging.backend import ImagingBackend, is_versioned
from pbserv.imaging.faults import Forbidden, ImageExists, InvalidRequest, NotRestorable, NotSupported, UnknownImage
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.manifest import Manifest, check_new_name
from pbserv.imaging.queue import Limits, StoreLimit
from pbserv.registry.options import NO_OPTIONS, WorkOptions
from pbserv.registry.records import FETCHES, BundleKind

_DISK: Final = re.compile(r"/dev/[\w./:-]{1,120}|(by-id|serial|model|size):[\w .:+/-]{1,120}", re.ASCII)
_NO_CONTENT: Final = ("sfdisk", "boot", "swap")
"""Items that hold no file system."""
ONE_STORE: Final = "main"
"""What the only store of a backend is called that knows of no others."""


def _here(_image: str) -> str:
    return ""


def check_order(
    store: ImagingBackend, kind: BundleKind, image: str, *, overwrite: bool, options: WorkOptions = NO_OPTIONS,
    owner: Callable[[str], str] = _here,
) -> int | None:  # fmt: skip
    """The version that a restore gets, None for a capture. Raises an ImagingFault with the reason.

    ``owner``: the store of another server that an image belongs to, empty: it is here. Add-ons of another server are
    not looked at.
    """
    if options.unreadable:
        raise InvalidRequest(options.unreadable)
    if kind in FETCHES:
        return _check_restore(store, image, options, owner)
    _check_store(store, options.store)
    try:
        store.info(image)
    except UnknownImage:
        _check_name(store, image)
        return None
    if not overwrite:
        raise ImageExists(f"image {image} exists; take another name, or make a new version with --overwrite")
    if not store.allow_overwrite:
        raise Forbidden(f"image {image} exists, and AllowImageOverwrite = NO in pbserv.conf")
    return None


def check_disk(text: str) -> None:
    """Empty, or one of the ways to name a disk (docs/wire/client.md). Raises InvalidRequest."""
    if text and not _DISK.fullmatch(text):
        raise InvalidRequest(f"{text[:64]!r} names no disk: /dev/X, by-id:NAME, serial:S, model:M or size:BYTES")


def check_found(found: StoredImage, options: WorkOptions) -> int:
    """The version, when a device can do with it what is asked for; raises NotRestorable."""
    if any(item.kind == "file" for item in found.manifest.items):
        raise NotRestorable(f"image {found.name} is one opaque file, not a disk: no device can restore it")
    _check_partitions(found.name, found.manifest, options)
    return found.version


def check_addon(found: StoredImage) -> None:
    """Raises NotRestorable for an image that is no tree of files."""
    if {item.kind for item in found.manifest.items} != {"tree"}:
        raise NotRestorable(f"image {found.name} is no file tree: it cannot be laid over a restored system")


def _check_restore(store: ImagingBackend, image: str, options: WorkOptions, owner: Callable[[str], str]) -> int:
    try:
        found = store.info(image, options.version or None)
    except UnknownImage as fault:
        if options.version:
            raise UnknownImage(f"{fault}; see: pbserv image list") from None
        raise UnknownImage(f"no image {image}; see: pbserv image list") from None
    check_found(found, options)
    for name in options.addons:
        if not owner(name):
            _check_addon(store, name)
    return found.version


def _check_partitions(image: str, manifest: Manifest, options: WorkOptions) -> None:
    there = sorted({item.partition for item in manifest.items if item.partition})
    missing = [number for number in options.partitions if number not in there]
    if missing:
        has = ", ".join(map(str, there)) or "none"
        raise NotRestorable(f"image {image} has no partition {missing[0]}; it has: {has}")
    systems = [item for item in manifest.items if item.kind not in _NO_CONTENT]
    if options.target_partition and not options.partitions and len(systems) != 1:
        raise NotRestorable(
            f"image {image} holds {len(systems)} file systems: name the partition that goes into the target partition"
        )


def _check_addon(store: ImagingBackend, name: str) -> None:
    try:
        found = store.info(name)
    except UnknownImage:
        raise UnknownImage(f"no add-on image {name}; see: pbserv image list") from None
    check_addon(found)


def _check_name(store: ImagingBackend, image: str) -> None:
    """As an upload does: a name that no image has yet must be one that new images may have. Raises InvalidName.

    An own backend has rules of its own, which it tells when the upload begins.
    """
    try:
        if is_versioned(store):
            store.object(image)
    except UnknownImage:
        check_new_name(image)
    except NotSupported:
        pass


def _check_store(store: ImagingBackend, name: str) -> None:
    if name and name not in (known := sorted(limits_of(store).stores)):
        raise InvalidRequest(f"there is no image store {name}; there are: {', '.join(known)}")


def store_of(store: ImagingBackend, image: str, wanted: str) -> str:
    """The name of the store that an image is in, or that a new one goes into where ``wanted`` is asked for."""
    try:
        return store.object(image).store if is_versioned(store) else ONE_STORE
    except UnknownImage:
        return wanted or next(iter(limits_of(store).stores), ONE_STORE)
    except NotSupported:
        return ONE_STORE


def limits_of(store: ImagingBackend) -> Limits:
    """How many devices may restore from and capture to each store; the first is the one that new images go into."""
    try:
        found = store.stores() if is_versioned(store) else ()
    except NotSupported:
        found = ()
    return Limits({each.name: StoreLimit(each.restores, each.captures) for each in found} or {ONE_STORE: StoreLimit()})
