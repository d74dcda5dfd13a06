"""Where a version of an image came from: written once beside its manifest, as JSON. Pure.

One rule: any bytes are a value or DamagedImage; a version without these facts is one of an older pbserv.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from pbserv.imaging.about import MAX_LINE, Record, dump_json, show_time
from pbserv.imaging.faults import DamagedImage
from pbserv.imaging.manifest import Manifest

MAX_FACTS_BYTES: Final = 256 * 1024
FORMAT: Final = 1
ORIGIN_MAC: Final = "origin_mac"
ORIGIN_DISK: Final = "origin_disk"
ORIGIN_PARTITION: Final = "origin_partition"
ORIGIN_MODEL: Final = "origin_model"
"""Facts of a manifest, of the whole image or of its items, by which its sender tells what it was taken of."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Received:
    """What the sender sent for an item, before it was cut into frames. ``sha256`` is of those bytes (whole uploads) or
    of the digests of their parts one after the other (uploads in parts)."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """``creator``: ``token:NAME``, ``job:17``, ``drop``, or empty. Origin: the disk, partition and model captured."""

    creator: str = ""
    job: int | None = None
    mac: str = ""
    created: datetime | None = None
    disk: str = ""
    partition: str = ""
    model: str = ""
    received: Mapping[str, Received] = field(default_factory=dict)


def with_origin(facts: VersionFacts, manifest: Manifest, mac: str = "") -> VersionFacts:
    """The same with what the manifest tells of the origin; ``mac``: of the device, where it is known better.

    A disk or partition is named where all that tell of one mean the same.
    """
    return replace(
        facts,
        mac=mac or _origin(manifest, ORIGIN_MAC),
        disk=_origin(manifest, ORIGIN_DISK),
        partition=_origin(manifest, ORIGIN_PARTITION),
        model=_origin(manifest, ORIGIN_MODEL),
    )


def _origin(manifest: Manifest, key: str) -> str:
    told = {fact.value for fact in manifest.facts if fact.key == key}
    return told.pop()[:MAX_LINE] if len(told) == 1 else ""


def encode(facts: VersionFacts) -> bytes:
    """The file's bytes; ``decode`` gives the same value back."""
    return dump_json(
        {
            "format": FORMAT,
            "creator": facts.creator,
            "job": facts.job,
            "mac": facts.mac,
            "created": show_time(facts.created),
            "origin": {"disk": facts.disk, "partition": facts.partition, "model": facts.model},
            "received": {
                name: {"bytes": item.size_bytes, "sha256": item.sha256} for name, item in sorted(facts.received.items())
            },
        }
    )


def decode(data: bytes) -> VersionFacts:
    """Raises DamagedImage with the field that is wrong."""
    if len(data) > MAX_FACTS_BYTES:
        raise DamagedImage(f"facts: more than {MAX_FACTS_BYTES} bytes")
    record = Record.read(data, "facts", FORMAT)
    origin, received = record.record("origin"), record.record("received")
    return VersionFacts(
        creator=record.text("creator"),
        job=record.number("job", none=True),
        mac=record.text("mac"),
        created=record.time("created"),
        disk=origin.text("disk"),
        partition=origin.text("partition"),
        model=origin.text("model"),
        received={name: _received(received.record(name)) for name in received.fields},
    )


def _received(record: Record) -> Received:
    digest = record.text("sha256")
    if not _SHA256.fullmatch(digest):
        raise DamagedImage(f"{record.where}: sha256 is not 64 hexadecimal digits")
    return Received(record.count("bytes"), digest)
