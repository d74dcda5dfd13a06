"""`pbserv image`: what the server keeps. All through the HTTP API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any  # Any: JSON values

from pbserv.commands.api import Api, named
from pbserv.commands.tables import Row, clock, print_json, said, sentence, show_facts, show_table, size, sure
from pbserv.errors import UsageError


def listed(conf: Path, query: Mapping[str, str | None], as_json: bool) -> None:
    """``query``: store, state and kind, as the API takes them; None: any."""
    images = list(Api(conf).pages("/images", within="images", **query))
    if as_json:
        return print_json(images)
    rows = (
        (i["name"], i["title"], i["kind"] or "", i["state"], _number(i["served"]), str(len(i["versions"])), i["store"],
         size(i["stored_bytes"]) if i["versions"] else "", clock(i["created"]), "damaged" if i["damages"] else "")
        for i in images
    )  # fmt: skip
    nothing = "no images yet: take one with pbserv work capture MAC IMAGE"
    if any(query.values()):
        nothing = "no such images"
    columns = ("Name", "Title", "Kind", "State", "Served", "Versions", "Store", "Stored", "Created", "")
    return show_table(columns, rows, nothing)


def show(conf: Path, image: str, version: int | None, as_json: bool) -> None:
    api = Api(conf)
    if version is not None:
        return _show_version(api.get(named("images", image, "versions", str(version))), as_json)
    found = api.get(named("images", image))
    if as_json:
        return print_json(found)
    shown = found["version"]
    made = [] if shown is None else api.get(named("images", image, "versions", str(shown)))["contents"]
    show_facts((
        ("image", found["name"]), ("title", found["title"]), ("state", found["state"]), ("kind", found["kind"] or ""),
        ("served", f"version {found['served']}" if found["served"] else "no version"), ("store", found["store"]),
        ("profile", found["profile"]), ("comment", found["comment"]), ("registered by", found["creator"]),
        ("belongs to", f"store {found['owner']} of another server" if found["owner"] else ""),
        ("said to be of", _partition(found)), ("versions kept", _kept(found["keep"])), ("disk", _disk(found["disk"])),
        *_made_with(made),
    ))  # fmt: skip
    if found["history"]:
        print()
        _show_history(found["history"])
    for damage in found["damages"]:
        print(f"damaged, not served: {damage['path']}: {damage['reason']}")
    return None


def _made_with(items: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Tool, compressor and file system of the items of a version, each as often as it differs."""
    for name, value_of in (("tool", _tool), ("compressor", _compressor), ("file system", _file_system)):
        yield name, ", ".join(dict.fromkeys(value for value in map(value_of, items) if value))


def _tool(item: Row) -> str:
    kind = item["kind"].partition(".")[0]
    return str(item["facts"].get("tool") or (kind if kind == "partclone" else ""))


def _compressor(item: Row) -> str:
    return str(item["facts"].get("compressor") or ("zstd" if item["name"].endswith(".zst") else ""))


def _file_system(item: Row) -> str:
    kind, _, fs = item["kind"].partition(".")
    return str(item["facts"].get("fs") or (fs if kind == "partclone" else ""))


def register(conf: Path, body: Mapping[str, Any], as_json: bool) -> None:
    made = Api(conf).post("/images", _given(body))
    where = f"in store {made['store']}; it has no version yet"
    if made["owner"]:
        where = f"; it belongs to store {made['owner']} of another server"
    said(made, f"image {made['name']} registered {where}".replace(" ;", ";"), as_json)


def change(conf: Path, image: str, version: int | None, body: Mapping[str, Any], as_json: bool) -> None:
    """``version``: of it alone, which has a comment and nothing else."""
    given = _given(body)
    if not given:
        raise UsageError("say what is to change; see: pbserv image set --help")
    if version is not None and set(given) != {"comment"}:
        raise UsageError("a version has a comment alone: --version N --comment TEXT")
    where = ("images", image) if version is None else ("images", image, "versions", str(version))
    made = Api(conf).patch(named(*where), given)
    what = f"image {image}" if version is None else f"image {image} version {version}"
    said(made, f"{what} changed: {', '.join(given)}", as_json)


def move(conf: Path, verb: str, image: str, version: int | None, as_json: bool) -> None:
    """``verb``: enable, disable, retire or restore; no ``version``: the newest that is there."""
    api = Api(conf)
    number = version if version is not None else _newest(api, image)
    made = api.post(named("images", image, "versions", str(number), verb))
    said(made, f"image {image} version {number} is {made['states'][str(number)]}; {_serves(made)}", as_json)


def rollback(conf: Path, image: str, to: int | None, as_json: bool) -> None:
    made = Api(conf).post(named("images", image, "rollback"), {} if to is None else {"to": to})
    said(made, f"image {image}: {_serves(made)}", as_json)


def purge(conf: Path, image: str, version: int | None, yes: bool, as_json: bool) -> None:
    api = Api(conf)
    what = f"image {image}" + (" with all its versions" if version is None else f" version {version}")
    found = api.get(named("images", image))
    if version is not None and version not in found["versions"]:
        raise UsageError(f"image {image} has no version {version}; see: pbserv image show {image}")
    sure(f"{what} is removed for ever; go on?", yes)
    api.delete(named("images", image), version=version)
    said({"image": image, "version": version, "purged": True}, f"{what} is gone", as_json)


def delete(conf: Path, image: str, now: bool, yes: bool, as_json: bool) -> None:
    """Retire all versions; ``now``: and purge them."""
    api = Api(conf)
    found = api.get(named("images", image))
    if now:
        sure(f"image {image} with {_counted(found['versions'])} is removed for ever; go on?", yes)
    for number, state in sorted(found["states"].items(), key=lambda each: int(each[0])):
        if state != "retired":
            found = api.post(named("images", image, "versions", number, "retire"))
    if now:
        api.delete(named("images", image))
        return said({"image": image, "deleted": True}, f"image {image} is gone", as_json)
    if not found["versions"]:
        raise UsageError(f"image {image} has no versions that could be retired; pbserv image purge {image} removes it")
    return said(
        found, f"image {image} is retired: nobody gets it any more. It takes room until: pbserv image purge {image}",
        as_json,
    )  # fmt: skip


def _show_version(found: Row, as_json: bool) -> None:
    if as_json:
        return print_json(found)
    origin = found["origin"]
    show_facts((
        ("image", f"{found['image']}, version {found['number']}"),
        ("state", f"{found['state']}{_since(found)}"), ("damage", found["damage"]),
        ("created", clock(found["created"])), ("by", found["creator"]), ("device", origin["mac"]),
        ("origin", " ".join(text for text in (origin["model"], origin["disk"], origin["partition"]) if text)),
        ("disk", _disk(found["disk"])), ("comment", found["comment"]),
        ("verified", clock(found["verified"]) or "not since it was stored"), ("manifest", found["manifest_sha256"]),
        *((key, value) for key, value in sorted(found["facts"].items())),
    ))  # fmt: skip
    print()
    rows = (
        (c["name"], c["kind"], str(c["partition"] or ""), size(c["stored_bytes"]), size(c["uncompressed_bytes"]),
         str(c["frames"]["frames"]) if c["frames"] else "", sentence(c["facts"]), c["sha256"])
        for c in found["contents"]
    )  # fmt: skip
    return show_table(("Item", "Kind", "Partition", "Stored", "Size", "Frames", "Facts", "SHA-256"), rows, "no items")


def _show_history(history: Sequence[Row]) -> None:
    rows = (
        (str(v["number"]), v["state"], clock(v["since"]), v["by"], size(v["stored_bytes"]), clock(v["created"]),
         v["creator"], clock(v["verified"]), v["damage"] or v["comment"])
        for v in history
    )  # fmt: skip
    columns = ("Version", "State", "Since", "By", "Stored", "Created", "Creator", "Verified", "")
    show_table(columns, rows, "no versions")


def _newest(api: Api, image: str) -> int:
    versions = api.get(named("images", image))["versions"]
    if not versions:
        raise UsageError(f"image {image} has no version yet")
    return int(versions[-1])


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not None}


def _serves(image: Row) -> str:
    return f"version {image['served']} is served" if image["served"] else "no version is served"


def _kept(keep: int | None) -> str:
    return "as the store says" if keep is None else "all" if keep == 0 else str(keep)


def _partition(found: Row) -> str:
    number = f"partition {found['partition']}" if found["partition"] else ""
    return " ".join(text for text in (number, found["partition_type"]) if text)


def _disk(disk: Row | None) -> str:
    if disk is None or not disk["size_bytes"]:
        return ""
    return f"{size(disk['size_bytes'])}, sectors of {disk['sector_bytes']} bytes, {disk['table']}, {disk['firmware']}"


def _since(version: Row) -> str:
    since = f" since {clock(version['since'])}" if version["since"] else ""
    return since + (f" by {version['by']}" if version["by"] else "")


def _number(version: int | None) -> str:
    return "" if version is None else str(version)


def _counted(versions: Sequence[int]) -> str:
    return "1 version" if len(versions) == 1 else f"{len(versions)} versions"
