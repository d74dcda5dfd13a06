"""The recorded packets of tests/vectors, by name and as lists."""

from __future__ import annotations

import json
from pathlib import Path

_VECTORS = Path(__file__).parents[2] / "vectors"
RECORDED = {entry["name"]: entry for entry in json.loads((_VECTORS / "pxe-dhcp.json").read_text())}
FIRMWARE = [entry for entry in json.loads((_VECTORS / "firmware-boot.json").read_text()) if entry["proto"] == "dhcp"]


def recorded(name: str) -> bytes:
    return bytes.fromhex(RECORDED[name]["hex"])
