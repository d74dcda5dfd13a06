"""A file of the store's directory becomes the next version of an image, by a second name. Blocking; for worker threads.

One rule: the version has the very bytes that were measured; a link costs no room, and where the system refuses one the
bytes are copied and measured again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

from pbserv.imaging.changes import Signing
from pbserv.imaging.durable import CREATE, filesystem_faults, write_durably
from pbserv.imaging.faults import ChecksumMismatch, StoreFull
from pbserv.imaging.layout import Layout, StoredImage, incoming_name
from pbserv.imaging.manifest import INDEX_SUFFIX, Manifest, print_manifest
from pbserv.imaging.sum_files import beside
from pbserv.imaging.version_facts import VersionFacts, with_origin
from pbserv.imaging.watch import Facts, facts_of

_BLOCK = 1 << 20
_NO_LINK = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EACCES, errno.ENOTSUP)
"""EPERM: the kernel's fs.protected_hardlinks, where the file belongs to somebody else."""


def link_in(
    layout: Layout, file: Path, image: str, manifest: Manifest, signing: Signing, index: bytes = b"",
    facts: Facts | None = None,
) -> StoredImage:  # fmt: skip
    """``file``, a plain file in the root of ``layout``, becomes the one item of ``manifest``; the new version.

    ``index``: of its pieces, kept beside it; b'': none. ``facts``: what the file was when it was read for
    ``manifest``; another one of the same length may have its name by now.

    Raises StoreFull, StoreFault, ChecksumMismatch; nothing is left behind then.
    """
    (item,) = manifest.items
    incoming = incoming_name(image)
    folder = layout.make_incoming(image, incoming)
    counted = 0
    copied: Facts | None = None
    try:
        with filesystem_faults(f"image {image}: taking {file.name}"):
            if not _linked(layout, file, folder, item.name, item.stored_bytes):
                layout.usage.charge(item.stored_bytes)
                counted = item.stored_bytes
                copied = _copied(file, folder, item.name, item.sha256)
            elif facts is not None and facts_of(item.name, folder) != facts:
                raise ChecksumMismatch(f"{file}: was replaced while it was taken; it is looked at again")
            if os.stat(item.name, dir_fd=folder, follow_symlinks=False).st_size != item.stored_bytes:
                raise ChecksumMismatch(f"{file}: was replaced while it was taken; it is looked at again")
            if index:
                write_durably(item.name + INDEX_SUFFIX, index, folder)
            os.fsync(folder)
        at = datetime.now(UTC)
        digest = hashlib.sha256(print_manifest(manifest).encode()).hexdigest()
        made = layout.publish(
            incoming,
            folder,
            image,
            manifest,
            with_origin(VersionFacts(creator=signing.creator, created=at), manifest),
            lambda about, number: signing.signed(about, number, digest, at),
        )
        layout.usage.count(layout.size_of(image, made.version) - counted)
    except BaseException:
        layout.usage.count(-counted)
        layout.remove_incoming(incoming)
        raise
    finally:
        os.close(folder)
    if copied is not None:
        with contextlib.suppress(OSError):  # then there are two: the file, and the version
            exchange(file, layout.root / image / str(made.version) / item.name, copied)
    return made


def exchange(file: Path, item: Path, facts: Facts) -> None:
    """``file`` becomes a second name of ``item``, a version's file with the same bytes: so the room is needed once, and
    it goes when the version goes. Whoever could read it still can.

    Not where another file than that of ``facts`` came in its place meanwhile. Raises OSError.
    """
    with beside(file) as new:
        os.link(item, new, follow_symlinks=False)
        mode, wanted = os.lstat(new).st_mode, os.lstat(file).st_mode & 0o044
        if wanted & ~mode:
            os.chmod(new, stat.S_IMODE(mode) | wanted)
        if facts_of(file) == facts:
            os.rename(new, file)


def _linked(layout: Layout, file: Path, folder: int, name: str, size: int) -> bool:
    usage = layout.usage
    if usage.quota_bytes and usage.used_bytes + size > usage.quota_bytes:
        raise StoreFull(
            f"{file}: {size} bytes more would cross the quota of the image store; purge versions or raise it"
        )
    try:
        os.link(file, name, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as fault:
        if fault.errno in _NO_LINK:
            return False
        raise
    return True


def _copied(file: Path, folder: int, name: str, sha256: str) -> Facts:
    """What the file was when it was copied; the copy has its time and its mode, but for what only owners may."""
    made = hashlib.sha256()
    source = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with contextlib.ExitStack() as closing:
        closing.callback(os.close, source)
        facts = os.fstat(source)
        target = os.open(name, CREATE, 0o640, dir_fd=folder)
        closing.callback(os.close, target)
        while block := os.read(source, _BLOCK):
            made.update(block)
            view = memoryview(block)
            while view:
                view = view[os.write(target, view) :]
        os.fchmod(target, facts.st_mode & 0o644 | 0o600)
        os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        os.fsync(target)
    if made.hexdigest() != sha256:
        raise ChecksumMismatch(f"{file}: was written to while it was copied; it is looked at again")
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
