"""The directory of one upload below ``.incoming``. Blocking, for worker threads; its lock orders them.

One rule: it is made with the first byte, and either becomes a version by one rename or goes with everything in it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from pbserv.imaging import session_file
from pbserv.imaging.changes import Signing
from pbserv.imaging.durable import filesystem_faults, replace_durably
from pbserv.imaging.faults import DamagedImage, DraftGone, ImagingFault, StoreFault
from pbserv.imaging.layout import Layout, StoredImage
from pbserv.imaging.manifest import INDEX_SUFFIX, Manifest, print_manifest
from pbserv.imaging.reframe import working_files
from pbserv.imaging.session_file import SESSION_FILE, SessionFacts
from pbserv.imaging.version_facts import VersionFacts


class DraftFolder:
    """``name`` is that of the directory; ``resumed``: it is there already."""

    def __init__(self, layout: Layout, image: str, name: str) -> None:
        self.layout = layout
        self.image = image
        self.name = name
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._descriptor = -1
        self._gone = False
        self._charged = 0

    def open(self, expected_bytes: int = 0, facts: SessionFacts | None = None) -> int:
        """The directory's descriptor, made when it is not there yet; ``facts`` are kept where the upload can go on
        after a restart. Raises StoreFull when ``expected_bytes`` cannot fit, DraftGone, StoreFault."""
        self.layout.usage.check(expected_bytes)
        with self._lock:
            self._check()
            if self._descriptor < 0:
                self._descriptor = self.layout.make_incoming(self.image, self.name)
                if facts is not None:
                    self._note(facts)
            return self._descriptor

    def resume(self) -> SessionFacts:
        """Open what a server before left here; raises OSError, DamagedImage."""
        with self._lock:
            self._descriptor = self.layout.open_incoming(self.name)
            facts = self.layout.read_session(self._descriptor)
            if facts.image != self.image:
                raise DamagedImage(f"{self.name}: it is an upload of image {facts.image!r}")
            return facts

    def opened(self) -> int:
        """The descriptor of a directory that was opened before, whatever room there is. Raises DraftGone."""
        with self._lock:
            self._check()
            return self._descriptor

    def recount(self) -> None:
        """Count what is there: nothing of it was counted by this process."""
        with self._lock, self._counting:
            size = self._size()
            self.layout.usage.count(size - self._charged)
            self._charged = size

    def names(self) -> Sequence[str]:
        """Every file that is there."""
        with self._lock:
            return os.listdir(self._descriptor) if self._descriptor >= 0 else ()

    def size_of(self, name: str) -> int:
        """Of a file; -1 when it is not there. Raises OSError."""
        with self._lock:
            try:
                return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_size
            except FileNotFoundError:
                return -1

    def note(self, facts: SessionFacts) -> None:
        """Keep what a restart must know, durably."""
        with self._lock:
            self._check()
            self._note(facts)

    def forget(self, names: Sequence[str]) -> None:
        """Remove files that are of no use any more."""
        with self._lock:
            for name in names if self._descriptor >= 0 else ():
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._descriptor)

    def charge(self, size_bytes: int) -> None:
        """Bytes that are about to be written, or (below 0) given back. Raises StoreFull, DraftGone."""
        with self._counting:
            if self._gone:
                if size_bytes > 0:
                    raise DraftGone(f"image {self.image}: the upload was discarded")
                return
            if size_bytes > 0:
                self.layout.usage.charge(size_bytes)
            else:
                size_bytes = max(size_bytes, -self._charged)
                self.layout.usage.count(size_bytes)
            self._charged += size_bytes

    def publish(
        self, manifest: Manifest, facts: VersionFacts, signing: Signing, sizes: Mapping[str, int]
    ) -> StoredImage:
        """Make it the image's next version; ``sizes`` are what the items must have. Raises StoreFault, DraftGone."""
        digest = hashlib.sha256(print_manifest(manifest).encode()).hexdigest()
        at = datetime.now(UTC)
        self._give_up_others(sizes)
        for name, size in sizes.items():
            with filesystem_faults(f"image {self.image} item {name}"):
                found = self.size_of(name)
            if found != size:
                raise StoreFault(f"image {self.image} item {name}: its file does not have {size} bytes any more")
        with self._lock:
            self._check()
            image = self.layout.publish(
                self.name,
                self._descriptor,
                self.image,
                manifest,
                replace(facts, created=at),
                lambda about, number: signing.signed(about, number, digest, at),
            )
            with suppress(ImagingFault):  # the next start removes it then
                self._clean(sizes)
            with self._counting:
                self._gone = True
                self.layout.usage.count(self.layout.size_of(self.image, image.version) - self._charged)
            self._close()
            return image

    def remove(self) -> None:
        """Remove everything; nothing is accepted any more. Idempotent."""
        with self._lock:
            with self._counting:
                if self._gone:
                    return
                self._gone = True
                self.layout.usage.count(-self._charged)
            made = self._descriptor >= 0
            self._close()
            if made:
                self.layout.remove_incoming(self.name)

    def let_go(self) -> None:
        """Close it as it is; the next start may resume it."""
        with self._lock:
            with self._counting:
                self._gone = True
            self._close()

    def _give_up_others(self, items: Mapping[str, int]) -> None:
        """What came of items that did not become complete goes before the rename: nobody would remove it after that."""
        kept = {SESSION_FILE}
        for item in items:
            kept |= {item, item + INDEX_SUFFIX, *working_files(item)}
        with self._lock, filesystem_faults(f"image {self.image}: removing items that are none of the version"):
            self._check()
            others = set(os.listdir(self._descriptor)) - kept
            for name in (other for other in others if not other.startswith(".part.")):  # of a part that comes late
                size = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_size
                os.unlink(name, dir_fd=self._descriptor)
                self.charge(-size)

    def _clean(self, items: Mapping[str, int]) -> None:
        """What helped while it arrived is no part of the version; needed until the rename, should that not come."""
        useless = {SESSION_FILE, f"{SESSION_FILE}.new", *(name for item in items for name in working_files(item))}
        with filesystem_faults(f"image {self.image}: removing what helped while it arrived"):
            for name in os.listdir(self._descriptor):
                if name in useless or name.startswith(".part."):
                    os.unlink(name, dir_fd=self._descriptor)

    def _note(self, facts: SessionFacts) -> None:
        with filesystem_faults(f"image {self.image}: writing {SESSION_FILE}"):
            replace_durably(SESSION_FILE, session_file.encode(facts), self._descriptor)

    def _size(self) -> int:
        names = os.listdir(self._descriptor)
        return sum(os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_size for name in names)

    def _check(self) -> None:
        if self._gone:
            raise DraftGone(f"image {self.image}: the upload was discarded")

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
