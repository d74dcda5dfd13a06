"""`pbserv image upload`: files become a version of an image as they are; a broken upload goes on where it stood."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Final

from pbserv.commands.api import Api, NoAnswerError, RefusedError, named
from pbserv.commands.progress import Bar
from pbserv.commands.tables import clock, print_json, said, show_table, size
from pbserv.commands.uploading import Upload, parts_of, sha256_of
from pbserv.errors import PbservError, UsageError
from pbserv.imaging.importing import OTHER_BYTES
from pbserv.imaging.manifest import (
    MAX_STORED_BYTES,
    RESERVED_ITEM,
    Fact,
    Manifest,
    ManifestItem,
    parse,
    print_manifest,
    single_file,
)

FILE_ITEM: Final = "file"
_UNKNOWN: Final = "0" * 64
_TOLD: Final = ("tool", "compressor", "fs", "fs_bytes", "serves_as")
"""Facts that the server does not find out by itself."""


def upload(conf: Path, image: str, source: Path, *, store: str, overwrite: bool, resume: bool, as_json: bool) -> None:
    """``source``: a file, or a directory as ``pbserv image download`` makes it."""
    manifest, files = _contents(source)
    api = Api(conf)
    total = sum(item.stored_bytes for item in manifest.items)
    going = Upload.resume(api, image) if resume else None
    if going is None:
        going = _begin(api, image, store, overwrite, total)
    try:
        with Bar(f"image {image}", total) as bar:
            items = [_send(going, item, files[item.name], bar) for item in manifest.items]
            made = going.commit(print_manifest(replace(manifest, items=tuple(items), facts=_told(manifest))))
    except (NoAnswerError, KeyboardInterrupt) as fault:
        raise going.broken(str(fault), f"pbserv image upload {image} {source} --resume") from None
    if as_json:
        return print_json(made)
    newest = made["versions"][-1]
    return print(f"image {image} version {newest}: {size(total)} stored, {made['states'][str(newest)]}")


def listed(conf: Path, as_json: bool) -> None:
    """Uploads under way, those of devices too."""
    uploads = Api(conf).get("/uploads")["uploads"]
    if as_json:
        return print_json(uploads)
    rows = (
        (u["upload"], u["image"], u["store"], u["owner"], clock(u["created"]),
         ", ".join(f"{name} {size(item['received_bytes'])}" for name, item in u["items"].items()))
        for u in uploads
    )  # fmt: skip
    return show_table(("Upload", "Image", "Store", "Owner", "Begun", "Arrived"), rows, "no uploads under way")


def discard(conf: Path, number: str, as_json: bool) -> None:
    Api(conf).delete(named("uploads", number))
    said({"upload": number, "discarded": True}, f"upload {number} is given up; what came is removed", as_json)


def _begin(api: Api, image: str, store: str, overwrite: bool, size_bytes: int) -> Upload:
    try:
        return Upload.begin(api, image, store=store, overwrite=overwrite, size_bytes=size_bytes, asis=True)
    except RefusedError as fault:
        broken = Upload.resume(api, image) if fault.status == 409 else None
        if broken is None:
            raise
        raise PbservError(
            f"{fault}. If it is yours, go on with --resume, or give it up: pbserv image uploads --discard "
            f"{broken.number}"
        ) from None


def _contents(source: Path) -> tuple[Manifest, dict[str, Path]]:
    try:
        if not source.is_dir():
            return single_file(FILE_ITEM, source.stat().st_size, _UNKNOWN), {FILE_ITEM: source}
        manifest = parse((source / RESERVED_ITEM).read_text(encoding="utf-8", errors="replace"), MAX_STORED_BYTES)
        files = {item.name: source / item.name for item in manifest.items}
        for item in manifest.items:
            if files[item.name].stat().st_size != item.stored_bytes:
                raise UsageError(f"{files[item.name]}: is not the file of {item.stored_bytes} bytes of the manifest")
    except OSError as fault:
        raise UsageError(
            f"{fault.filename}: {fault.strerror}; an upload is one file, or a directory of pbserv image download"
        ) from None
    return manifest, files


def _told(manifest: Manifest) -> tuple[Fact, ...]:
    return tuple(fact for fact in manifest.facts if fact.key in _TOLD)


def _send(going: Upload, item: ManifestItem, path: Path, bar: Bar) -> ManifestItem:
    """All parts of an item that are not there yet; the item as the manifest of the commit has to have it.

    Those that came before are compared by their digests: the file may be another one by now.
    """
    whole, digests, count = hashlib.sha256(), hashlib.sha256(), 0
    have = going.next_part(item.name)
    for part in parts_of(path, going.part_bytes):
        count += 1
        whole.update(part)
        digest = sha256_of(part)
        digests.update(digest.encode())
        if count >= have and not going.is_complete(item.name):
            going.part(item.name, item.kind, count, part, digest)
        bar.add(len(part))
    if item.sha256 not in (_UNKNOWN, whole.hexdigest()):
        going.give_up()
        raise PbservError(f"{path}: its SHA-256 is {whole.hexdigest()}, and not {item.sha256} as its manifest says")
    fits = count == have - 1 if going.is_complete(item.name) else count >= have - 1
    received = going.complete(item.name, count, None) if fits else None
    if received is None or received.sha256 != digests.hexdigest():
        going.give_up()
        raise PbservError(f"{path}: {OTHER_BYTES}; upload it again without --resume")
    return replace(item, stored_bytes=received.size_bytes, sha256=received.sha256)
