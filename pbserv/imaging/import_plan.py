"""What is to be uploaded of files of another imaging system, and as what. Pure: names and findings in, a plan out.

One rule: bytes of images are planned as they are stored, volumes joined; only tables, boot areas and notes on swap are
written anew, in the form that the imaging client reads. What cannot be restored as a whole is refused with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from pbserv.imaging.formats import clonezilla, fog, sfdisk, slepos
from pbserv.imaging.formats.model import FormatError, Found
from pbserv.imaging.manifest import DiskFacts
from pbserv.imaging.version_facts import ORIGIN_DISK, ORIGIN_PARTITION

MAX_SIDECAR = 4 << 20
"""So much of a file beside the images is read at most."""
BOOT_BYTES = 1 << 20
"""So much of the disk's beginning is kept, as the imaging client does."""
VIRTUAL = ("qcow2", "qcow", "vmdk", "vdi", "vhdx")
OPENGNSYS = (".img.diff", ".img", ".dsk", ".pgz")
ENDINGS = {"gzip": "gz", "lzop": "lzo", "bzip2": "bz2", "xz": "xz", "lz4": "lz4", "zstd": "zst", "none": ""}
_TABLES = ("gpt", "mbr")
_GROWING = ("ext", "xfs", "btrfs", "ntfs")
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_-]+")
_PACKED = re.compile(r"\.(?:gz|lzo|bz2|xz|lz4|zst|img|dsk|pgz|raw|iso|fsa|pcl|qcow2?|vmdk|vdi|vhdx|dd|ptcl-img)$")


@dataclass(frozen=True, slots=True)
class Seen:
    """One image that was found: its name without the volume's ending, its volumes in order, what it is."""

    name: str
    volumes: tuple[str, ...]
    missing: tuple[str, ...]
    compressor: str
    stored_bytes: int
    found: Found


@dataclass(frozen=True, slots=True)
class Check:
    """An MD5 that somebody left: of all stored bytes, or of the first ``size_bytes`` of the uncompressed ones."""

    md5: str
    source: str
    size_bytes: int = 0

    @property
    def plain(self) -> bool:
        """True where it is one of uncompressed bytes."""
        return self.size_bytes > 0


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """One item. Its bytes are ``content``, or the ``volumes`` one after the other, through qemu-img where ``virtual``.

    ``content`` of kind boot is to be compressed by zstd. ``plain_bytes`` is 0 where it is not known. ``source`` is the
    name of the file without its volume's ending.
    """

    name: str
    kind: str
    partition: int
    compressor: str = "none"
    content: bytes = b""
    volumes: tuple[str, ...] = ()
    stored_bytes: int = 0
    plain_bytes: int = 0
    virtual: str = ""
    source: str = ""
    found: Found | None = None
    checks: tuple[Check, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """One image: what it may be called, where it is from, its disk and its items; ``warnings`` are sentences."""

    name: str
    title: str
    system: str
    disk: DiskFacts
    items: tuple[PlannedItem, ...]
    warnings: tuple[str, ...] = ()


def proposal(name: str) -> str:
    """A name that a new image may have, made of a file's or a directory's: windows-10 of `windows 10.img.gz`."""
    return _FORBIDDEN.sub("-", bare(name)).strip("-_")[:64].rstrip("-_") or "image"


def bare(name: str) -> str:
    """A file's name without what tells its format and compressor, and without the ending of a volume."""
    name = re.sub(r"\.(?:aa|000)$", "", name)
    while (shorter := _PACKED.sub("", name)) and shorter != name:
        name = shorter
    return name


def wanted(names: Collection[str]) -> list[str]:
    """Files beside the images whose bytes the plan needs, at most MAX_SIDECAR of each."""
    found: list[str] = ["disk", "parts"]
    for disk in fog.disks(names):
        found += fog.sidecars(disk)
    for name in clonezilla.disks(names):
        found += clonezilla.sidecars(name)
    found += clonezilla.swap_files(names)
    present = set(names)
    return [name for name in dict.fromkeys(found) if name in present]


def beside(file: str) -> tuple[str, ...]:
    """Sidecars of one image file whose bytes the plan needs."""
    return (f"{file}.sum", f"{file}.full.sum", *slepos.sidecars(file))


def plan_file(seen: Seen, small: Mapping[str, bytes], names: Collection[str], system: str) -> Plan:
    """The plan for one image in one file or in volumes; raises FormatError."""
    _complete(seen)
    if f"{seen.name}.lock" in names:
        raise FormatError(f"{seen.name}.lock exists: OpenGnSys works on the image; wait, or remove the lock")
    if seen.name.endswith(".diff"):
        raise FormatError(f"{seen.name}: differences to another image, and no image: import that one, then work on it")
    whole = whole_disk(seen.found)
    checks, plain_bytes, warnings = _checks(seen, small)
    item = _item(seen, 0, "", whole, checks, plain_bytes)
    size = item.plain_bytes if whole else 0  # without a disk's size it is an image of a partition
    if whole and not size:
        raise FormatError(
            f"{seen.name}: the size of the disk is not known from its first bytes; convert it to raw first"
        )
    sector = 4096 if whole and seen.found.block_bytes == 4096 else 512
    title = _title(seen.name, system)
    return Plan(proposal(seen.name), title, system, DiskFacts(size, sector, "none", "bios"), (item,), tuple(warnings))


def whole_disk(found: Found) -> bool:
    """True for a disk with its table, false for what fills a partition."""
    return found.tool in VIRTUAL or (found.tool == "raw" and found.file_system in _TABLES)


def plan_directory(system: str, label: str, seen: Sequence[Seen], small: Mapping[str, bytes]) -> tuple[Plan, ...]:
    """A plan for each disk in a directory of FOG or Clonezilla that is called ``label``; raises FormatError."""
    for one in seen:
        _complete(one)
    if system == "FOG":
        numbers = fog.disks({*small, *(one.name for one in seen)})
        disks = [_fog_disk(number, seen, small) for number in numbers]
    else:
        _no_volume_groups(seen, small)
        disks = [_clonezilla_disk(name, seen, small) for name in clonezilla.disks(small)]
        _no_lost_disks(disks, small)
    if not disks:
        raise FormatError("no partition table lies beside the images; import the images of partitions one by one")
    lost = {one.name for one in seen} - {one.name for disk in disks for _, one in disk.images}
    if lost:
        raise FormatError(f"{min(lost)}: of no disk whose partition table is here; copy the directory again, whole")
    kept = [disk for disk in disks if disk.images or len(disks) == 1]
    plans = [_disk_plan(disk, system, label, several=len(disks) > 1) for disk in kept]
    left_out = tuple(
        f"disk {disk.mark} has no image of a partition and is left out" for disk in disks if disk not in kept
    )
    return (replace(plans[0], warnings=plans[0].warnings + left_out), *plans[1:]) if plans else ()


@dataclass(frozen=True, slots=True)
class _Disk:
    """One disk of a directory; what its sidecars say. ``mark`` tells it from the others: d1, sda."""

    mark: str
    table: sfdisk.Table | None
    boot: bytes
    size_bytes: int
    swaps: Mapping[int, Mapping[str, str]]
    images: tuple[tuple[int, Seen], ...]
    """Partition and image."""
    node: str = ""
    """The disk that it was, such as /dev/sda; empty where nothing tells."""


def _fog_disk(number: int, seen: Sequence[Seen], small: Mapping[str, bytes]) -> _Disk:
    mark = f"d{number}"
    name = next((f"{mark}.{kind}" for kind in fog.TABLES if f"{mark}.{kind}" in small), "")
    mbr, grub = small.get(f"{mark}.mbr", b""), small.get(f"{mark}.grub.mbr", b"")
    table = _signed(sfdisk.parse(small[name], name), mbr) if name else None
    swaps = f"{mark}.original.swapuuids"
    found = ((fog.image(one.name), one) for one in seen)
    return _Disk(
        mark,
        table,
        fog.boot_area(table, mbr, grub) if table else b"",
        fog.disk_bytes(small.get(f"{mark}.size", b"")),
        {part: {"UUID": uuid} for part, uuid in fog.swaps(small.get(swaps, b""), swaps).items()},
        tuple((at[1], one) for at, one in found if at is not None and at[0] == number),
        table.device if table else "",
    )


def _clonezilla_disk(name: str, seen: Sequence[Seen], small: Mapping[str, bytes]) -> _Disk:
    mbr = small.get(f"{name}-mbr", b"")
    swaps: dict[int, Mapping[str, str]] = {}
    for file in clonezilla.swap_files(small):
        part = clonezilla.of_disk(file.removeprefix("swappt-").removesuffix(".info"), name)
        if part is not None:
            swaps[part] = clonezilla.swap(small[file])
    found = ((clonezilla.image(one.name), one) for one in seen)
    numbered = ((clonezilla.of_disk(at[0], name) if at else None, one) for at, one in found)
    return _Disk(
        name,
        _signed(sfdisk.parse(small[f"{name}-pt.sf"], f"{name}-pt.sf"), mbr),
        mbr[:512] + small.get(f"{name}-hidden-data-after-mbr", b"") if len(mbr) >= 512 else b"",
        clonezilla.geometry(small.get(f"{name}-pt.parted", b""))[0],
        swaps,
        tuple((number, one) for number, one in numbered if number is not None),
        f"/dev/{name}",
    )


def _signed(table: sfdisk.Table | None, mbr: bytes) -> sfdisk.Table | None:
    """An old dump lacks the disk's signature, by which Windows finds its partitions; the first sector has it."""
    if table is None or table.label != "dos" or table.label_id or mbr[510:512] != b"\x55\xaa":
        return table
    return sfdisk.rewritten(table, f"0x{int.from_bytes(mbr[440:444], 'little'):08x}")


def _no_volume_groups(seen: Sequence[Seen], small: Mapping[str, bytes]) -> None:
    nodes = clonezilla.words(small.get("parts", b""), "parts") if "parts" in small else ()
    for one in seen:
        at = clonezilla.image(one.name)
        if at and "-" in at[0] and at[0] not in nodes:
            raise FormatError(
                f"{one.name}: a volume of LVM, which is no partition: restore it by Clonezilla and capture that disk"
            )


def _no_lost_disks(disks: Sequence[_Disk], small: Mapping[str, bytes]) -> None:
    """`disk` and `parts` say what was saved; raises FormatError where a disk's table or a partition's image is gone."""
    for node in clonezilla.words(small.get("disk", b""), "disk"):
        if disks and node not in {disk.mark for disk in disks}:
            raise FormatError(f"disk names {node}, and {node}-pt.sf is not here; copy the directory again, whole")
    nodes = clonezilla.words(small.get("parts", b""), "parts")
    for disk in disks:
        extended = {entry.number for entry in disk.table.entries if entry.extended} if disk.table else set()
        here = {number for number, _ in disk.images} | extended | disk.swaps.keys()
        for node in nodes:
            number = clonezilla.of_disk(node, disk.mark)
            if number is not None and number not in here:
                raise FormatError(f"parts names {node}, and its image is not here; copy the directory again, whole")


def _disk_plan(disk: _Disk, system: str, label: str, *, several: bool) -> Plan:
    table = disk.table
    if table is None:
        raise FormatError(f"{disk.mark}.partitions is missing: import the images of its partitions one by one")
    parts = {entry.number: entry for entry in table.entries}
    items = [PlannedItem("table.sfdisk", "sfdisk", 0, content=table.text, plain_bytes=len(table.text))]
    if boot := disk.boot[: min(BOOT_BYTES, table.first_sector * table.sector_bytes)]:
        items.append(PlannedItem("boot.zst", "boot", 0, "zstd", content=boot, plain_bytes=len(boot)))
    warnings: list[str] = []
    taken: dict[int, str] = {}
    for number, one in sorted(disk.images, key=lambda pair: pair[0]):
        if number in taken:
            raise FormatError(f"{one.name} and {taken[number]} are both of partition {number}: remove one")
        if number not in parts:
            raise FormatError(f"{one.name}: the table of the disk has no partition {number}; copy the directory again")
        taken[number] = one.name
        room = parts[number].size * table.sector_bytes
        if one.found.device_bytes > room:
            raise FormatError(f"{one.name}: needs {one.found.device_bytes} bytes, and partition {number} has {room}")
        if 0 < one.found.device_bytes < room - (room >> 4) and number == _growing(disk, parts):
            warnings.append(f"partition {number}: its file system is smaller than the partition; restore with a resize")
        planned = _item(_as_large(one, room), number, _said(one), False, (), 0)
        items.append(replace(planned, facts=planned.facts + _origin(disk.node, number)))
    items += _swaps(disk, parts, taken)
    warnings += [
        f"partition {number} has no image; a restore makes it and leaves it empty"
        for number, entry in sorted(parts.items())
        if number not in taken and number not in disk.swaps and not entry.extended
    ]
    size = max(disk.size_bytes, table.disk_bytes)
    facts = DiskFacts(size, table.sector_bytes, table.label, table.firmware)
    name = proposal(f"{label}-{disk.mark}" if several else label)
    return Plan(name, _title(label, system), system, facts, tuple(items), tuple(warnings))


def _origin(node: str, number: int) -> tuple[tuple[str, str], ...]:
    """Facts on where a partition was: /dev/sda and /dev/sda3."""
    between = "p" if node[-1:].isdigit() else ""
    return ((ORIGIN_DISK, node), (ORIGIN_PARTITION, f"{node}{between}{number}")) if node else ()


def _growing(disk: _Disk, parts: Mapping[int, sfdisk.Entry]) -> int:
    """The partition whose file system a restore with a resize makes larger: the last one that is no swap; 0: none."""
    ends = {entry.start + entry.size: number for number, entry in parts.items()
            if not entry.extended and number not in disk.swaps}  # fmt: skip
    last = ends[max(ends)] if ends else 0
    one = next((one for number, one in disk.images if number == last), None)
    system = (_said(one) or one.found.file_system).lower() if one and one.found.tool == "partclone" else ""
    return last if system.startswith(_GROWING) else 0


def _as_large(seen: Seen, room: int) -> Seen:
    """What dd saved of a partition is all of it, also where nothing in it tells its size."""
    if seen.found.tool != "raw" or (seen.found.device_bytes and seen.found.file_system != "unknown"):
        return seen
    return replace(seen, found=replace(seen.found, device_bytes=room))


def _swaps(disk: _Disk, parts: Mapping[int, sfdisk.Entry], taken: Collection[int]) -> list[PlannedItem]:
    made = []
    for number, values in sorted(disk.swaps.items()):
        if number in parts and number not in taken:
            content = "".join(
                f"{key}={value}\n" for key, value in sorted(values.items()) if value.isprintable()
            ).encode()
            made.append(PlannedItem(f"p{number}.swap", "swap", number, content=content, plain_bytes=len(content)))
    return made


def _said(seen: Seen) -> str:
    """The file system by Clonezilla's name: the header says EXTFS alone."""
    at = clonezilla.image(seen.name)
    return at[1] if at and at[1] != "dd" else ""


def _item(seen: Seen, number: int, said: str, whole: bool, checks: tuple[Check, ...], plain_bytes: int) -> PlannedItem:
    found = seen.found
    system = re.sub(r"[^a-z0-9+-]", "", (said or found.file_system).lower())[:16] or "unknown"
    virtual = found.tool if found.tool in VIRTUAL else ""
    stem = f"p{number}" if number else "disk" if whole else "part"
    kind = "raw" if whole else {"partclone": f"partclone.{system}"}.get(found.tool, found.tool)
    middle = system if found.tool == "partclone" else "raw" if kind == "raw" else f"{system}.{kind}"
    if virtual and seen.compressor != "none":
        raise FormatError(f"{seen.name}: uncompress it first ({seen.compressor}): qemu-img reads files from any place")
    ending = "" if virtual else ENDINGS[seen.compressor]
    name = ".".join(word for word in (stem, middle.replace("+", ""), ending) if word)
    taken = "" if number else dict(found.facts).get("Taken from", "")
    facts = (
        ("tool", found.tool), ("compressor", "none" if virtual else seen.compressor), ("fs", "" if whole else system),
        ("device_bytes", str(found.device_bytes or "")), ("used_bytes", str(found.used_bytes or "")),
        ("serves_as", seen.name), (ORIGIN_PARTITION, taken),
    )  # fmt: skip
    size = plain_bytes or (seen.stored_bytes if seen.compressor == "none" and not virtual else _plain(found))
    return PlannedItem(
        name, kind, number, "none" if virtual else seen.compressor, b"", seen.volumes, seen.stored_bytes, size,
        virtual, seen.name, found, checks, tuple((key, value) for key, value in facts if value),
    )  # fmt: skip


def _plain(found: Found) -> int:
    """Uncompressed bytes as far as the header tells them; 0 is unknown."""
    if found.tool in (*VIRTUAL, "raw"):
        return found.device_bytes
    return 0


def _complete(seen: Seen) -> None:
    if seen.missing:
        raise FormatError(
            f"{seen.name}: volumes are missing: {', '.join(seen.missing[:8])}; put them beside the others"
        )


def _checks(seen: Seen, small: Mapping[str, bytes]) -> tuple[tuple[Check, ...], int, list[str]]:
    """(what is to be compared, uncompressed bytes where SLEPOS says so, warnings); raises FormatError."""
    checks: list[Check] = []
    warnings: list[str] = []
    plain_bytes = 0
    full = f"{seen.name}.full.sum"
    if full in small and re.fullmatch(rb"\s*[0-9a-fA-F]{32}\s*", small[full]):
        checks.append(Check(small[full].decode().strip().lower(), full))
    elif full in small:
        warnings.append(f"{full} holds no MD5 and is passed over")
    for name in slepos.sidecars(seen.name):
        if name not in small:
            continue
        try:
            said = slepos.md5(small[name], name)
        except FormatError:
            if slepos.name(seen.name):
                raise
            warnings.append(f"{name} is none of SLEPOS' and is passed over")
            continue
        if seen.compressor == "none" and said.plain_bytes != seen.stored_bytes:
            raise FormatError(f"{name} is of {said.plain_bytes} bytes, and {seen.name} has {seen.stored_bytes}")
        plain_bytes = said.plain_bytes
        checks.append(Check(said.md5, name, said.plain_bytes))
        break
    return tuple(checks), plain_bytes, warnings


def _title(name: str, system: str) -> str:
    return f"{name} ({system})" if system else name
