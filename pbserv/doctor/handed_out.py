"""The boot files that keys, devices and bundles name, looked for in TFTPDirectory.

One rule: what is made when it is asked for, and what is a URL, is nobody's to put there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pbserv.doctor.facts import Lacking, Loader
from pbserv.doctor.places import places
from pbserv.policy.documents import PolicyError, decode
from pbserv.policy.model import Bundle
from pbserv.policy.rendering.plan import MEMTEST_BIOS, MEMTEST_EFI, WIMBOOT
from pbserv.proxydhcp.settings import boot_files
from pbserv.registry.records import BundleKind, Document
from pbserv.settings import CLIENT_FILES, LOADER_ALIASES, Settings, is_virtual

HEAD_BYTES: Final = 8192
COMPANIONS: Final = {
    "shimx64.efi": "grubx64.efi", "shimaa64.efi": "grubaa64.efi", "pxelinux.0": "ldlinux.c32",
    "lpxelinux.0": "ldlinux.c32", "snponly-shim.efi": "snponly.efi",
}  # fmt: skip
"""What a loader asks for by name before it asks for anything else, in its own directory."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What the registry names: boot files of devices, and the bundles."""

    loaders: tuple[str, ...] = ()
    bundles: tuple[Bundle, ...] = ()


def stock_of(loaders: Iterable[str], documents: Iterable[Document]) -> Stock:
    """An object that a newer pbserv wrote is left out."""
    found = []
    for document in documents:
        with contextlib.suppress(PolicyError):
            found.append(decode(document))
    return Stock(tuple(loaders), tuple(each for each in found if isinstance(each, Bundle)))


def loaders(settings: Settings, stock: Stock = Stock()) -> Iterator[Loader]:
    """Boot files that exist, each with what it loads next, which has its key: it is for the same firmware."""
    for named, name in _named(settings, stock):
        path = find(settings, name)
        if path is None:
            continue
        yield _loader(named, name, path)
        beside = COMPANIONS.get(path.name)
        if beside is not None and (path.parent / beside).is_file():
            yield _loader(named, beside, path.parent / beside)


def lacking(settings: Settings, stock: Stock = Stock()) -> Iterator[Lacking]:
    """What does not; but for the files that keys name themselves, which `hostcheck` tells."""
    if not settings.tftp.directory.is_dir():
        return
    keys = boot_files(settings.proxydhcp)
    for named, name in _named(settings, stock):
        path = find(settings, name)
        if path is None and named not in keys:
            yield Lacking(named, name)
        beside = None if path is None else COMPANIONS.get(path.name)
        if path is not None and beside is not None and not (path.parent / beside).is_file():
            yield Lacking(named, beside, name)
    for bundle in stock.bundles:
        for name in _files_of(bundle):
            if not _is_ours(name) and find(settings, name) is None:
                yield Lacking(f"bundle {bundle.name}", name)


def find(settings: Settings, name: str) -> Path | None:
    """The file that TFTP sends for ``name``."""
    for candidate in (name, LOADER_ALIASES.get(name, name)):
        path = settings.tftp.directory / candidate.lstrip("/")
        if path.is_file():
            return path
    return None


def _named(settings: Settings, stock: Stock) -> Iterator[tuple[str, str]]:
    """Who names which boot file. What iPXE gets has no architecture."""
    yield from ((key, name) for key, name in boot_files(settings.proxydhcp).items() if name and not _is_ours(name))
    yield from (("the loader of a device", name) for name in stock.loaders if not _is_ours(name))


def _is_ours(name: str) -> bool:
    return "://" in name or is_virtual(name) or name.removeprefix("client/") in CLIENT_FILES


def _files_of(bundle: Bundle) -> tuple[str, ...]:
    """What its kind loads from TFTPDirectory, or from a URL."""
    match bundle.kind:
        case BundleKind.LINUX | BundleKind.INSTALL:
            return (bundle.kernel, *bundle.initrd)
        case BundleKind.EFI | BundleKind.ISO:
            return (bundle.file,)
        case BundleKind.WINPE:
            return (WIMBOOT, *bundle.files)
        case BundleKind.MEMTEST:
            return (bundle.file,) if bundle.file else (MEMTEST_BIOS, MEMTEST_EFI)
    return ()


def _loader(key: str, name: str, path: Path) -> Loader:
    return Loader(key, name, str(path), path.stat().st_size, _head(path), tuple(places(path)))


def _head(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError:
        return None
