"""The recorded packets by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_VECTORS = Path(__file__).parent.parent / "vectors"
_BY_NAME: dict[str, str] = {
    entry["name"]: entry["hex"] for entry in json.loads((_VECTORS / "pxe-dhcp.json").read_text())
}
CAPTURED: list[dict[str, Any]] = [
    entry for entry in json.loads((_VECTORS / "firmware-boot.json").read_text()) if entry["proto"] == "dhcp"
]


def recorded(name: str) -> bytes:
    return bytes.fromhex(_BY_NAME[name])
