"""What a store has on the disk, as values: versions, damages, and all that a start found.

One rule: a committed version never changes; what is said of it stands elsewhere (``about``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from pbserv.imaging.manifest import Manifest
from pbserv.imaging.version_facts import VersionFacts


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One committed version of an image; never changes."""

    name: str
    version: int
    created: datetime
    manifest: Manifest
    facts: VersionFacts = field(default_factory=VersionFacts)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Stored bytes per item name."""
        return MappingProxyType({item.name: item.stored_bytes for item in self.manifest.items})


@dataclass(frozen=True, slots=True)
class Damage:
    """A directory of the store that is not served, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What the start of a store found: versions, what is not served and why, bytes of all versions."""

    images: list[StoredImage]
    damages: list[Damage]
    used_bytes: int
