"""`pbserv image download`: an image as files, from where an earlier try broke off.

One rule: what arrives is not called what it is before all of it is there and its digest is the one of the store.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final  # Any: JSON values

from pbserv.commands.api import Api, NoAnswerError, named
from pbserv.commands.progress import Bar
from pbserv.commands.tables import Row, print_json, size
from pbserv.errors import PbservError, UsageError
from pbserv.imaging.manifest import RESERVED_ITEM, DiskFacts, Fact, Manifest, ManifestItem, print_manifest

BLOCK_BYTES: Final = 1024 * 1024
TRIES: Final = 8
"""One after the other without a byte more; then the fault is told."""
PAUSE_S: Final = 2.0


def download(conf: Path, image: str, to: Path | None, version: int | None, items: Sequence[str], as_json: bool) -> None:
    """Into the directory ``to``, default: one named as the image; what is there complete is not fetched again."""
    api, facts = Api(conf).referred("GET", named("images", image, "versions", str(version or 0)))
    wanted = _wanted(facts, items)
    place = to or Path(image)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with Bar(f"image {image} version {facts['number']}", sum(item["stored_bytes"] for item in wanted)) as bar:
            for item in wanted:
                _fetch(api, facts, item, place, bar)
        if not items:
            (place / RESERVED_ITEM).write_text(print_manifest(manifest_of(facts)), encoding="utf-8")
    except OSError as fault:
        raise PbservError(f"{fault.filename or place}: {fault.strerror}; what came is kept, try again") from fault
    names = [item["name"] for item in wanted]
    total = sum(item["stored_bytes"] for item in wanted)
    if as_json:
        return print_json({"image": image, "version": facts["number"], "directory": str(place), "items": names,
                           "bytes": total})  # fmt: skip
    return print(f"image {image} version {facts['number']}: {size(total)} in {place}, verified")


def manifest_of(facts: Row) -> Manifest:
    """The manifest of a version as the API shows it."""
    disk = facts["disk"]
    items = tuple(
        ManifestItem(c["name"], c["kind"], c["partition"], c["stored_bytes"], c["sha256"], c["uncompressed_bytes"])
        for c in facts["contents"]
    )
    told = [Fact("", key, value) for key, value in facts["facts"].items()]
    told += [Fact(c["name"], key, value) for c in facts["contents"] for key, value in c["facts"].items()]
    return Manifest(
        DiskFacts(disk["size_bytes"], disk["sector_bytes"], disk["table"], disk["firmware"]), items, tuple(told)
    )


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wanted(facts: Row, items: Sequence[str]) -> list[Row]:
    wanted = [item for item in facts["contents"] if not items or item["name"] in items]
    unknown = set(items) - {item["name"] for item in wanted}
    if unknown:
        names = ", ".join(item["name"] for item in facts["contents"])
        raise UsageError(f"image {facts['image']} version {facts['number']} has no item {min(unknown)!r}, but {names}")
    return wanted


def _fetch(api: Api, facts: Row, item: Row, place: Path, bar: Bar) -> None:
    """One item; raises PbservError when it is not what the store has."""
    final, part = place / item["name"], place / f".{item['name']}.{item['sha256'][:16]}.part"
    total: int = item["stored_bytes"]
    if final.is_file() and final.stat().st_size == total and digest_of(final) == item["sha256"]:
        bar.add(total)
        return
    with part.open("ab") as file:
        if file.tell() > total:
            file.truncate(0)
        bar.add(file.tell())
        _fill(api, facts, item, file, bar)
        file.flush()
        os.fsync(file.fileno())
    if digest_of(part) != item["sha256"]:
        part.unlink()
        raise PbservError(
            f"{final}: what came is not what the store promised (SHA-256 {item['sha256']}) and was removed; try again"
        )
    part.replace(final)


def _fill(api: Api, facts: Row, item: Row, file: BinaryIO, bar: Bar) -> None:
    tries = 0
    while file.tell() < item["stored_bytes"]:
        began = file.tell()
        try:
            _append(api, facts, item, file, bar)
        except NoAnswerError:
            tries = 0 if file.tell() > began else tries + 1
            if tries == TRIES:
                raise
            time.sleep(PAUSE_S)
            continue
        if file.tell() == began:
            raise PbservError(f"item {item['name']}: the server sent nothing from byte {began} on; try again")


def _append(api: Api, facts: Row, item: Row, file: BinaryIO, bar: Bar) -> None:
    began = file.tell()
    path = named("images", facts["image"], "items", item["name"])
    headers: Mapping[str, str] = {"Range": f"bytes={began}-", "If-Range": f'"{item["sha256"]}"'} if began else {}
    query: dict[str, Any] = {"version": facts["number"]}
    with api.stream(path, headers, **query) as answer:
        if began and answer.status_code != 206:
            raise PbservError(
                f"item {item['name']}: the server does not go on at byte {began}: it is not the same bytes"
            )
        for block in answer.iter_raw(BLOCK_BYTES):
            if file.tell() + len(block) > item["stored_bytes"]:
                raise PbservError(f"item {item['name']}: more came than the {item['stored_bytes']} bytes that it has")
            file.write(block)
            bar.add(len(block))
