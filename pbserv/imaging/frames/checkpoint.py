"""The checkpoint of an upload, ``ITEM.state``: what is needed to go on after a restart, as JSON. Pure.

One rule: any bytes are a checkpoint or DamagedImage; an upload whose checkpoint does not read is given up, not guessed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pbserv.imaging.faults import DamagedImage
from pbserv.imaging.frames.index import Stream
from pbserv.imaging.frames.strip import StripPoint

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Received:
    """What was sent. ``sha256`` is that of the body, or of the parts' digests (hex) one after the other."""

    size_bytes: int
    sha256: str
    plain_bytes: int


@dataclass(frozen=True, slots=True)
class StoredItem:
    """A complete item as it lies on the disk. ``plain_bytes`` is what ``zstd -dc`` makes of it.

    ``stream`` is partclone, raw or pieces (kept as it came); ``facts`` are for the manifest.
    """

    name: str
    size_bytes: int
    sha256: str
    kind: str
    stream: str
    plain_bytes: int
    received: Received
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An upload after its part number ``part``. ``stream_bytes`` counts what was uncompressed so far, checksums too.

    ``address`` and ``tail`` are the extent that is being gathered; -1 where none is left.
    """

    kind: str
    stream: Stream | None = None
    kept: str = ""
    extent_bytes: int = 0
    level: int = 0
    part: int = 0
    received_bytes: int = 0
    stream_bytes: int = 0
    stored_bytes: int = 0
    frames: int = 0
    head_frames: int = 0
    head_bytes: int = 0
    used_bytes: int = 0
    address: int = 0
    tail: bytes = b""
    strip: StripPoint = field(default_factory=StripPoint)
    complete: StoredItem | None = None


def encode(point: Checkpoint) -> bytes:
    """The file's bytes."""
    strip, done = point.strip, point.complete
    body: dict[str, object] = {
        "format": _FORMAT,
        "kind": point.kind,
        "stream": 0 if point.stream is None else int(point.stream),
        "kept": point.kept,
        "tail": base64.b64encode(point.tail).decode(),
        "strip": [strip.passed, strip.crc, int(strip.owed), strip.seen.hex()],
        "complete": None if done is None else _done(done),
    }
    body.update((name, getattr(point, name)) for name in _NUMBERS)
    return json.dumps(body).encode()


def decode(data: bytes, name: str) -> Checkpoint:
    """Read the checkpoint of item ``name``; raises DamagedImage."""
    try:
        body = json.loads(data)
        if body["format"] != _FORMAT:
            raise ValueError(f"format {body['format']!r}")
        numbers = {key: _number(body[key]) for key in _NUMBERS}
        passed, crc, owed, seen = body["strip"]
        return Checkpoint(
            kind=_text(body["kind"]),
            stream=Stream(body["stream"]) if body["stream"] else None,
            kept=_text(body["kept"]),
            tail=base64.b64decode(_text(body["tail"]), validate=True),
            strip=StripPoint(_number(passed), _number(crc), bool(owed), bytes.fromhex(seen)),
            complete=None if body["complete"] is None else _read_done(body["complete"], name),
            **numbers,
        )
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as fault:
        raise DamagedImage(
            f"item {name}: its upload's checkpoint cannot be read ({fault}); send the item anew"
        ) from None


_NUMBERS: Final = (
    "extent_bytes", "level", "part", "received_bytes", "stream_bytes", "stored_bytes", "frames", "head_frames",
    "head_bytes", "used_bytes", "address",
)  # fmt: skip


def _done(item: StoredItem) -> dict[str, object]:
    got = item.received
    return {
        "size_bytes": item.size_bytes, "sha256": item.sha256, "kind": item.kind, "stream": item.stream,
        "plain_bytes": item.plain_bytes, "received": [got.size_bytes, got.sha256, got.plain_bytes],
        "facts": dict(item.facts),
    }  # fmt: skip


def _read_done(body: Mapping[str, object], name: str) -> StoredItem:
    received, facts = body["received"], body["facts"]
    if not isinstance(received, list) or len(received) != 3 or not isinstance(facts, dict):
        raise ValueError("what was received")
    size, sha256, plain = received
    return StoredItem(
        name, _number(body["size_bytes"]), _text(body["sha256"]), _text(body["kind"]), _text(body["stream"]),
        _number(body["plain_bytes"]), Received(_number(size), _text(sha256), _number(plain)),
        {_text(key): _text(value) for key, value in facts.items()},
    )  # fmt: skip


def _number(value: object) -> int:
    if not isinstance(value, int) or not -1 <= value < 1 << 63:
        raise ValueError(f"{value!r} is no number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value
