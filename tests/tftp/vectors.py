"""Requests of real firmware, captured on the wire."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).parents[1] / "vectors" / "firmware-boot.json"


@dataclass(frozen=True)
class Vector:
    client: str
    data: bytes
    file: str
    mode: str
    options: dict[str, str]


def firmware_requests() -> list[Vector]:
    found = [
        Vector(one["client"], bytes.fromhex(one["hex"]), one["file"], one["mode"], one["options"])
        for one in json.loads(_FILE.read_text())
        if one["proto"] == "tftp" and one["kind"] == "RRQ"
    ]
    assert found
    return found
