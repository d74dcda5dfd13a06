"""Images and stores as everybody outside the store sees them: values that never change. Pure but for a path.

One rule: what is shown here stands on the disk; nothing is worked out that the disk could contradict.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pbserv.imaging.about import About, VersionAbout
from pbserv.imaging.faults import UnknownImage
from pbserv.imaging.layout import Damage, StoredImage
from pbserv.imaging.states import ImageKind, VersionState, image_state, kind_of


@dataclass(frozen=True, slots=True)
class ImageVersion:
    """One version with its state. ``damage``: why it is not served although its files are there; empty: it is fine."""

    image: StoredImage
    about: VersionAbout
    damage: str = ""

    @property
    def number(self) -> int:
        return self.image.version

    @property
    def state(self) -> VersionState:
        return self.about.state


@dataclass(frozen=True, slots=True)
class ImageObject:
    """An image with everything that is known of it; ``versions`` oldest first, without those in ``damages``."""

    name: str
    store: str
    about: About
    versions: tuple[ImageVersion, ...]
    damages: tuple[Damage, ...] = ()

    @property
    def served(self) -> StoredImage | None:
        """The newest enabled version that is not damaged."""
        fine = (one.image for one in reversed(self.versions) if one.state is VersionState.ENABLED and not one.damage)
        return next(fine, None)

    @property
    def state(self) -> str:
        """registered, validated, enabled, disabled or retired."""
        return image_state({one.number: one.state for one in self.versions})

    @property
    def kind(self) -> ImageKind | None:
        """As it was registered, else as the newest version tells; None when neither is known."""
        if self.about.kind is not None:
            return self.about.kind
        return kind_of(self.versions[-1].image.manifest) if self.versions else None

    @property
    def etag(self) -> str:
        return self.about.etag

    def version(self, number: int) -> ImageVersion:
        """Raises UnknownImage."""
        found = next((one for one in self.versions if one.number == number), None)
        if found is None:
            known = ", ".join(str(one.number) for one in self.versions) or "none"
            raise UnknownImage(f"image {self.name} has no version {number}, but {known}")
        return found


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """A store as it is now. Bytes; ``quota_bytes`` 0: no quota; ``keep`` 0: all versions are kept.

    ``restores`` and ``captures``: how many devices may do that at once, 0: any number.
    """

    name: str
    directory: Path
    quota_bytes: int
    used_bytes: int
    free_bytes: int
    floor_bytes: int
    keep: int
    restores: int
    captures: int
    images: int
    versions: int
    damages: tuple[Damage, ...]
