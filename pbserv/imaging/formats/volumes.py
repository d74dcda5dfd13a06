"""Names of files that are one image: the volumes of `split`, and directories of other imaging systems. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_VOLUME = re.compile(r"(?P<stem>.+)\.(?P<number>[a-z]{2}|[0-9]{3})", re.S)
_CLONEZILLA = re.compile(r".+(?:-ptcl|\.dd|\.ntfs)-img(?:\.(?:gz|bz2|lzo|lzma|xz|lz|lrz|lz4|zst|uncomp))?", re.S)
_PARTIMAGE = re.compile(r"(?:[hsv]d[a-z]{1,2}|(?:nvme[0-9]+n|mmcblk)[0-9]+p)[0-9]{1,3}", re.S)
"""Images of partimage in a directory of Clonezilla are called after the partition alone: sda1.aa or sda1.000."""
_FOG = re.compile(r"d[0-9]+p[0-9]+\.img", re.S)
_SLEPOS = re.compile(r".+-[0-9]+\.[0-9]+\.[0-9]+(?:\.gz|\.xz)?", re.S)
_OPENGNSYS = (".img", ".dsk", ".pgz", ".img.diff")
_FIRST = ("aa", "000")
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Streams:
    """One image in volumes: their names in order, and those that are missing between the first and the last."""

    name: str
    volumes: Names
    missing: Names = ()


def together(name: str, beside: Collection[str]) -> Streams:
    """What belongs to ``name``, a file or what several volumes share, in a directory with these names."""
    for first in _FIRST:
        stem = name
        if name in beside:
            if _number(name, first) is None:
                continue
            stem = name[: -len(first) - 1]
        found = {number: other for other in beside if (number := _number(other, first, stem)) is not None}
        if not found or (0 not in found and not first.isdigit() and min(found) >= 26):
            continue  # an ending such as .gz, and no volume
        missing = tuple(f"{stem}.{_written(one, first)}" for one in range(max(found)) if one not in found)
        return Streams(stem, tuple(found[one] for one in sorted(found)), missing)
    return Streams(name, (name,))


def streams(names: Collection[str]) -> tuple[str, list[Streams]]:
    """System and images of all partitions in a directory of Clonezilla or FOG; ('', []) where it is none."""
    for system, pattern in (("Clonezilla", _CLONEZILLA), ("FOG", _FOG)):
        stems = sorted({stem for name in names if pattern.fullmatch(stem := _stem(name))})
        if system == "Clonezilla" and "parts" in names:
            stems += sorted({stem for name in names if (stem := _stem(name)) != name and _PARTIMAGE.fullmatch(stem)})
        if stems:
            return system, [together(stem, names) for stem in stems]
    return ("Clonezilla" if {"parts", "disk"} & set(names) else ""), []


def system_of(name: str, beside: Collection[str]) -> str:
    """The imaging system that a file comes from, by its name and what lies beside it; '' is unknown."""
    if name.endswith(_OPENGNSYS) and {f"{name}.sum", f"{name}.full.sum"} & set(beside):
        return "OpenGnSys"
    if _SLEPOS.fullmatch(name) and {f"{name}.md5", f"{name.removesuffix('.gz').removesuffix('.xz')}.md5"} & set(beside):
        return "SLEPOS"
    if _FOG.fullmatch(_stem(name)):
        return "FOG"
    return "Clonezilla" if _CLONEZILLA.fullmatch(_stem(name)) else ""


def _stem(name: str) -> str:
    match = _VOLUME.fullmatch(name)
    return match["stem"] if match and not _CLONEZILLA.fullmatch(name) else name


def _number(name: str, first: str, stem: str | None = None) -> int | None:
    """Which volume it is, counted as ``first`` is written; None where it is none, or not of ``stem``."""
    match = _VOLUME.fullmatch(name)
    if match is None or (stem is not None and match["stem"] != stem):
        return None
    text = match["number"]
    if text.isdigit() != first.isdigit():
        return None
    return int(text) if text.isdigit() else (ord(text[0]) - ord("a")) * 26 + ord(text[1]) - ord("a")


def _written(number: int, first: str) -> str:
    if first.isdigit():
        return f"{number:03d}"
    return chr(ord("a") + number // 26) + chr(ord("a") + number % 26)
