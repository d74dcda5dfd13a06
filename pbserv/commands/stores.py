"""`pbserv store`: where images are kept. All through the HTTP API."""

from __future__ import annotations

from pathlib import Path

from pbserv.commands.api import Api, named
from pbserv.commands.tables import print_json, show_facts, show_table, size


def listed(conf: Path, as_json: bool) -> None:
    stores = Api(conf).get("/stores")["stores"]
    if as_json:
        return print_json(stores)
    rows = (
        (s["name"], str(s["images"]), str(s["versions"]), size(s["used_bytes"]), _limit(s["quota_bytes"]),
         size(s["free_bytes"]), size(s["floor_bytes"]), str(s["damaged"] or ""), s["directory"])
        for s in stores
    )  # fmt: skip
    columns = ("Name", "Images", "Versions", "Used", "Quota", "Free", "Floor", "Damaged", "Directory")
    return show_table(columns, rows, "no stores")


def show(conf: Path, store: str, as_json: bool) -> None:
    found = Api(conf).get(named("stores", store))
    if as_json:
        return print_json(found)
    show_facts((
        ("store", found["name"]), ("directory", found["directory"]),
        ("images", f"{found['images']}, {found['versions']} versions"), ("used", size(found["used_bytes"])),
        ("quota", _limit(found["quota_bytes"])),
        ("free", f"{size(found['free_bytes'])}, of which {size(found['floor_bytes'])} stay free"),
        ("versions kept", str(found["keep"]) if found["keep"] else "all"),
        ("at once", f"{_count(found['restores'])} restores, {_count(found['captures'])} captures"),
    ))  # fmt: skip
    for damage in found["damages"]:
        print(f"damaged, not served: {damage['path']}: {damage['reason']}")
    return None


def _limit(size_bytes: int) -> str:
    return size(size_bytes) if size_bytes else "none"


def _count(most: int) -> str:
    return str(most) if most else "any number of"
