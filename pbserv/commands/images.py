"""`pbserv image`: what the server keeps. All through the HTTP API."""

from __future__ import annotations

from pathlib import Path

from pbserv.commands.api import Api, named
from pbserv.commands.tables import clock, print_json, said, show_table, size


def listed(conf: Path, as_json: bool) -> None:
    images = Api(conf).get("/images")["images"]
    if as_json:
        return print_json(images)
    rows = (
        (i["name"], str(i["version"]), str(len(i["items"])), size(i["stored_bytes"]), clock(i["created"]))
        for i in images
    )
    nothing = "no images yet: take one with pbserv work capture MAC IMAGE"
    return show_table(("Name", "Version", "Items", "Stored", "Created"), rows, nothing)


def delete(conf: Path, image: str, as_json: bool) -> None:
    Api(conf).delete(named("images", image))
    said({"image": image, "deleted": True}, f"image {image} deleted", as_json)
