"""`pbserv store`: where images are kept. All through the HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import Any  # Any: JSON values

from pbserv.commands.api import Api, named
from pbserv.commands.tables import print_json, show_facts, show_table, size
from pbserv.commands.task_watch import begin
from pbserv.errors import UsageError


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


def scrub(
    conf: Path, store: str | None, image: str | None, version: int | None, body: dict[str, Any], *, wait: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Verify a store, or one image; ``body``: as the API takes it."""
    if (store is None) == (image is None):
        raise UsageError("say what to verify: STORE, or --image IMAGE")
    if version is not None and image is None:
        raise UsageError("--version goes with --image")
    if image is not None:
        return begin(conf, named("images", image, "scrub"), {**body, "version": version}, wait, as_json)
    return begin(conf, named("stores", str(store), "scrub"), body, wait, as_json)


def check(conf: Path, store: str, *, wait: bool, as_json: bool) -> None:
    """Remove leftovers of a store, and look at its versions."""
    return begin(conf, named("stores", store, "check"), {}, wait, as_json)


def _limit(size_bytes: int) -> str:
    return size(size_bytes) if size_bytes else "none"


def _count(most: int) -> str:
    return str(most) if most else "any number of"
