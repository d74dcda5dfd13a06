"""What an upload must remember besides its items' checkpoints, so that a restarted server goes on with it; JSON. Pure.

One rule: any bytes are a value or DamagedImage; an upload whose file does not read is given up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pbserv.imaging import manifest
from pbserv.imaging.about import Record, dump_json, show_time
from pbserv.imaging.faults import DamagedImage
from pbserv.imaging.frames.checkpoint import Received, StoredItem

SESSION_FILE: Final = manifest.SESSION_FILE
MAX_SESSION_BYTES: Final = 4 * 1024 * 1024
FORMAT: Final = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """``creator``: see VersionFacts. ``asis``: nothing is cut into frames. ``items``: those that came in one body."""

    image: str
    creator: str
    created: datetime
    asis: bool = False
    items: Mapping[str, StoredItem] = field(default_factory=dict)


def encode(facts: SessionFacts) -> bytes:
    """The file's bytes; ``decode`` gives the same value back."""
    return dump_json(
        {
            "format": FORMAT,
            "image": facts.image,
            "creator": facts.creator,
            "created": show_time(facts.created),
            "asis": facts.asis,
            "items": {name: _item(item) for name, item in facts.items.items()},
        }
    )


def decode(data: bytes) -> SessionFacts:
    """Raises DamagedImage with the field that is wrong."""
    if len(data) > MAX_SESSION_BYTES:
        raise DamagedImage(f"{SESSION_FILE}: more than {MAX_SESSION_BYTES} bytes")
    record = Record.read(data, SESSION_FILE, FORMAT)
    created = record.time("created")
    if created is None:
        raise record.fault("created", "is missing")
    items = record.record("items")
    return SessionFacts(
        image=record.text("image"),
        creator=record.text("creator"),
        created=created,
        asis=record.flag("asis"),
        items={name: _read_item(name, items.record(name)) for name in items.fields},
    )


def _item(item: StoredItem) -> dict[str, object]:
    received = item.received
    return {
        "bytes": item.size_bytes,
        "sha256": item.sha256,
        "kind": item.kind,
        "stream": item.stream,
        "plain": item.plain_bytes,
        "received": {"bytes": received.size_bytes, "sha256": received.sha256, "plain": received.plain_bytes},
        "facts": dict(item.facts),
    }


def _read_item(name: str, record: Record) -> StoredItem:
    received, facts = record.record("received"), record.record("facts")
    return StoredItem(
        name=name,
        size_bytes=record.count("bytes"),
        sha256=_digest(record),
        kind=record.text("kind"),
        stream=record.text("stream"),
        plain_bytes=record.count("plain"),
        received=Received(received.count("bytes"), _digest(received), received.count("plain")),
        facts={key: facts.text(key) for key in facts.fields},
    )


def _digest(record: Record) -> str:
    text = record.text("sha256")
    if not _SHA256.fullmatch(text):
        raise record.fault("sha256", "is not 64 hexadecimal digits")
    return text
