"""Files of other imaging systems on their way into the server: looked at, planned, read, sent. Blocking.

One rule: every file is opened once for sending and must be of the planned length, and one part at most is in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol  # Any: JSON values

import zstandard

from pbserv.imaging.convert import plain_limit, refusal
from pbserv.imaging.formats import clonezilla, sums_files
from pbserv.imaging.formats.model import FormatError
from pbserv.imaging.formats.sums_files import Sum
from pbserv.imaging.import_plan import (
    MAX_SIDECAR,
    VIRTUAL,
    Plan,
    PlannedItem,
    Seen,
    beside,
    plan_directory,
    plan_file,
    wanted,
)
from pbserv.imaging.inspection import InspectionError, Report, inspect
from pbserv.imaging.manifest import Fact, Manifest, ManifestItem, print_manifest
from pbserv.imaging.trees import TREE, pack_tree, plan_tree
from pbserv.imaging.unpack import MAX_PLAIN_BYTES, unpacked

_CHUNK = 1 << 20
_QEMU_SECONDS = 20
_LEVEL = 1
"""Of parts on their way; the server makes frames of its own."""
OTHER_BYTES = "the parts that the server had of it are of other bytes than it has now"
"""Where an upload is gone on with, and the file is not the one that it began with."""


def _nothing(_count: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Source:
    """What was found at a path: the directory of the files, and a plan for every disk or image in it.

    ``sums``: digests of whole files by their names, as lists beside them say (MD5SUMS ...).
    """

    directory: Path
    plans: tuple[Plan, ...]
    sums: Mapping[str, Sum] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Received:
    """What the server has of an item; both stand in the manifest. ``sha256``: of its parts' digests, as
    hexadecimal digits, one after the other."""

    size_bytes: int
    sha256: str


class Uploader(Protocol):
    """One upload of one image. Parts are numbered from 1; a part that was sent before is passed over."""

    @property
    def part_bytes(self) -> int:
        """So many bytes a part has at most."""
        ...

    def next_part(self, item: str) -> int:
        """The first part that the server does not have."""
        ...

    def part(self, item: str, kind: str, number: int, body: bytes, sha256: str) -> None:
        """Send one part; raises PbservError."""
        ...

    def complete(self, item: str, parts: int, plain_bytes: int) -> Received:
        """All parts of the item are there; ``plain_bytes`` is their sum, before parts were compressed."""
        ...

    def commit(self, manifest: str) -> Mapping[str, Any]:
        """Make the image visible; the server's answer."""
        ...


def survey(path: Path) -> Source:
    """Look at ``path``, a file or a directory of FOG or Clonezilla; raises InspectionError with the reason.

    A directory of any files, as an add-on image, is :func:`survey_tree`.
    """
    reports = inspect(path)
    system = reports[0].system
    try:
        seen = [_seen(report) for report in reports]
        if path.is_dir():
            names = _names(path)
            if clonezilla.ENCRYPTED in names:
                raise FormatError("its images are encrypted (ecryptfs.info): let Clonezilla decrypt a copy first")
            small = _small(path, wanted(names))
            sums = sums_files.of_directory(_small(path, sums_files.ALGORITHMS), names)
            _compare(small, sums)
            return Source(path, plan_directory(system, path.absolute().name, seen, small), sums)
        directory = path.absolute().parent
        small = _small(directory, beside(seen[0].name))
        names = _names(directory) | set(seen[0].volumes)
        sums = sums_files.of_image(seen[0].name, _small(directory, sums_files.ALGORITHMS), names)
        return Source(directory, (plan_file(seen[0], small, names, system),), sums)
    except FormatError as fault:
        raise InspectionError(f"{path}: {fault}") from fault
    except OSError as fault:
        raise InspectionError(f"{fault.filename or path}: {fault.strerror or fault}") from fault


def survey_tree(path: Path) -> Source:
    """All that is below the directory ``path`` as one add-on image; raises InspectionError."""
    return Source(path, (plan_tree(path),))


def _compare(small: Mapping[str, bytes], sums: Mapping[str, Sum]) -> None:
    for name, data in small.items():
        if name in sums and len(data) < MAX_SIDECAR and not sums_files.fits(data, sums[name]):
            raise FormatError(f"{name} is not of the digest that {sums[name].source} says; copy the directory again")


def _seen(report: Report) -> Seen:
    found = report.found
    if found.tool in VIRTUAL and report.compressor == "none" and len(report.volumes) == 1:
        found = replace(found, device_bytes=_virtual_bytes(report.path.absolute(), found.tool))
    return Seen(report.path.name, report.volumes, report.missing, report.compressor, report.stored_bytes, found)


def _names(directory: Path) -> frozenset[str]:
    try:
        return frozenset(entry.name for entry in os.scandir(directory) if entry.is_file())
    except PermissionError:
        return frozenset()


def _small(directory: Path, names: Iterable[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in names:
        if (directory / name).is_file():
            with (directory / name).open("rb") as file:
                found[name] = file.read(MAX_SIDECAR)
    return found


def content(source: Source, item: PlannedItem, *, convert: bool, advance: Callable[[int], None] = _nothing) -> _Bytes:
    """The bytes of an item as they are to be sent: stored as they are, or with ``convert`` uncompressed where possible.

    ``advance`` hears of the bytes that were read of the files. Close it when it is given up; raises InspectionError.
    """
    if item.kind == "boot":
        made = zstandard.ZstdCompressor(level=3).compress(item.content)
        return _one(made)
    if item.kind == TREE:
        return pack_tree(source.directory, advance)
    if not item.volumes:
        return _one(item.content)
    stored = _virtual(source.directory, item, advance) if item.virtual else _volumes(source.directory, item, advance)
    if not natively(item, convert):
        return stored
    limit = plain_limit(item.found, MAX_PLAIN_BYTES) if item.found else MAX_PLAIN_BYTES
    return _named(unpacked(stored, item.compressor, limit), source.directory / item.source)


def natively(item: PlannedItem, convert: bool) -> bool:
    """True where the item is sent uncompressed, to be cut into frames by the server: also every virtual disk."""
    return (convert or bool(item.virtual)) and item.found is not None


def as_it_is(plan: Plan, convert: bool) -> bool:
    """True where the server is to keep the bytes as they come; raises InspectionError where ``convert`` cannot be."""
    for item in plan.items:
        if convert and item.found is not None and (why := refusal(item.found)):
            raise InspectionError(f"{item.source} cannot be converted: {why}; import it as it is, without --convert")
    return not any(natively(item, convert) for item in plan.items)


_Bytes = Generator[bytes, None, None]


def _one(data: bytes) -> _Bytes:
    if data:
        yield data


def _named(pieces: _Bytes, path: Path) -> _Bytes:
    try:
        with closing(pieces):
            yield from pieces
    except FormatError as fault:
        raise InspectionError(f"{path}: {fault}") from fault


def _volumes(directory: Path, item: PlannedItem, advance: Callable[[int], None]) -> _Bytes:
    """All volumes one after the other; their lengths together are the planned one."""
    total = 0
    for name in item.volumes:
        with closing(stored_file(directory / name, advance)) as chunks:
            for chunk in chunks:
                total += len(chunk)
                yield chunk
    if total != item.stored_bytes:
        raise InspectionError(
            f"{directory / item.source}: {total} bytes were read, and it had {item.stored_bytes} when it was looked at;"
            " somebody writes to it: import it again when that is done"
        )


def stored_file(path: Path, advance: Callable[[int], None]) -> _Bytes:
    """A file's bytes in chunks, of which ``advance`` hears the lengths; raises InspectionError."""
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                advance(len(chunk))
                yield chunk
    except OSError as fault:
        raise InspectionError(f"{path}: {fault.strerror}") from fault


def _virtual(directory: Path, item: PlannedItem, advance: Callable[[int], None]) -> _Bytes:
    """A virtual machine's disk, uncompressed into a sparse file first: qemu-img writes wherever it likes."""
    path = (directory / item.volumes[0]).absolute()
    _virtual_bytes(path, item.virtual)
    with tempfile.TemporaryDirectory(prefix="pbserv-import-") as folder:
        raw = Path(folder) / "disk.raw"
        done = subprocess.run(
            [_qemu_img(), "convert", "-f", item.virtual, "-O", "raw", "-S", "64k", str(path), str(raw)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise InspectionError(
                f"{path}: {_last(done.stderr)}; room is needed in {tempfile.gettempdir()} (or TMPDIR)"
            )
        size = raw.stat().st_size
        if size != item.plain_bytes:
            raise InspectionError(
                f"{path}: {size} bytes came out, and {item.plain_bytes} were expected; import it again"
            )
        advance(item.stored_bytes)
        with raw.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                yield chunk


def _qemu_img() -> str:
    program = shutil.which("qemu-img")
    if program is None:
        raise InspectionError("disks of virtual machines need qemu-img: apt-get install qemu-utils")
    return program


def _virtual_bytes(path: Path, form: str) -> int:
    """The disk's size. Refuses files that draw on others: whoever made them would choose what is read of this host."""
    try:
        done = subprocess.run(
            [_qemu_img(), "info", "-f", form, "--output=json", str(path)],
            capture_output=True, text=True, check=False, timeout=_QEMU_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise InspectionError(f"{path}: qemu-img did not end within {_QEMU_SECONDS} s; the file is damaged") from None
    if done.returncode != 0:
        raise InspectionError(f"{path}: {_last(done.stderr)}")
    facts = json.loads(done.stdout)
    data = facts.get("format-specific", {}).get("data", {})
    extents = [str(extent.get("filename", "")) for extent in data.get("extents", ())]
    others = [facts.get("backing-filename"), facts.get("full-backing-filename"), data.get("data-file")]
    others += [name for name in extents if Path(name).absolute() != path]
    if other := next((name for name in others if name), ""):
        raise InspectionError(
            f"{path}: draws on another file, {other}; make one file of it first:"
            f" qemu-img convert -O qcow2 {path.name} NEW"
        )
    return int(facts["virtual-size"])


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return "".join(c if c.isprintable() else "?" for c in lines[-1])[:300] if lines else "qemu-img gave no reason"


def send(
    source: Source, plan: Plan, uploader: Uploader, *, convert: bool, advance: Callable[[int], None] = _nothing
) -> Mapping[str, Any]:
    """Send all items and commit; the server's answer. Raises PbservError; what was sent can be resumed."""
    items: list[ManifestItem] = []
    facts: list[Fact] = []
    for item in plan.items:
        read: list[int] = [0]

        def heard(count: int, read: list[int] = read) -> None:
            read[0] += count
            advance(count)

        with closing(content(source, item, convert=convert, advance=heard)) as pieces:
            native = natively(item, convert)
            received, plain = _send_item(item, pieces, uploader, native)
        plain = plain if native else read[0] if item.kind == TREE else item.plain_bytes
        items.append(ManifestItem(item.name, item.kind, item.partition, received.size_bytes, received.sha256, plain))
        facts += [Fact(item.name, key, value) for key, value in item.facts if not (native and key == "compressor")]
    return uploader.commit(print_manifest(Manifest(plan.disk, tuple(items), tuple(facts))))


def _send_item(item: PlannedItem, pieces: Iterable[bytes], uploader: Uploader, native: bool) -> tuple[Received, int]:
    """(what the server has, bytes that were sent, before compression).

    Parts that the server cuts into frames are compressed one by one: so none can be taken for compressed by its bytes.
    Those that it has already are compared too, by the digest of all digests: the files may be others by now.
    """
    have = uploader.next_part(item.name)
    number = total = 0
    digests = hashlib.sha256()
    for plain in _parts(pieces, _room(uploader.part_bytes) if native else uploader.part_bytes):
        number += 1
        total += len(plain)
        body = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(plain) if native else plain
        digest = hashlib.sha256(body).hexdigest()
        digests.update(digest.encode())
        if number >= have:
            uploader.part(item.name, item.kind, number, body, digest)
    received = uploader.complete(item.name, number, total) if number >= have - 1 else None
    if received is None or received.sha256 != digests.hexdigest():
        raise InspectionError(f"{item.source or item.name}: {OTHER_BYTES}; import again without --resume")
    return received, total


def _room(part_bytes: int) -> int:
    """So many bytes fit into a part also where compression makes them longer: 1/256 and some, as zstd says."""
    return part_bytes - (part_bytes >> 7) - 1024


def _parts(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Bodies of exactly ``size`` bytes, the last one shorter; at least one, which may be empty."""
    body = bytearray()
    made = False
    for piece in pieces:
        body += piece
        while len(body) >= size:
            yield bytes(body[:size])
            made = True
            del body[:size]
    if body or not made:
        yield bytes(body)
