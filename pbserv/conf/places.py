"""Kinds of values that name directories on this host: the stores of images, and lists of directories.

One rule: as in ``kinds``; paths may hold spaces and commas, so entries are separated by semicolons.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pbserv.conf.grammar import shown
from pbserv.conf.kinds import Integer, Plain

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_OPTION = re.compile(r"\s+(quota|floor|keep|restores|captures):(\S+)\s*$")
_SIZE = re.compile(r"([0-9]{1,9})([KMGT]?)", re.IGNORECASE)
_UNITS: Final[Mapping[str, int]] = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MANY = Integer(0, 1000)


@dataclass(frozen=True, slots=True)
class StorePlace:
    """One store of images; sizes in bytes. ``quota`` 0: none; ``floor`` None: the default; ``keep`` 0: all versions;
    ``restores`` and ``captures`` 0: any number of devices at once."""

    name: str
    directory: Path
    quota: int = 0
    floor: int | None = None
    keep: int = 0
    restores: int = 0
    captures: int = 0


@dataclass(frozen=True, slots=True)
class Stores(Plain):
    """``NAME=DIR quota:500G floor:10G keep:3 restores:20 captures:4``, several separated by semicolons."""

    @property
    def allowed(self) -> str:
        return (
            "NAME=DIRECTORY, then any of quota:SIZE floor:SIZE keep:N restores:N captures:N (sizes such as 500G); "
            "several separated by semicolons"
        )

    def parse(self, text: str) -> tuple[StorePlace, ...]:
        places = tuple(_place(entry.strip()) for entry in text.split(";") if entry.strip())
        if not places:
            raise ValueError(f"{shown(text)} names no store; valid is {self.allowed}")
        for what in ("name", "directory"):
            values = [getattr(place, what) for place in places]
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"the {what} {shown(str(twice))} stands there twice")
        return places

    def show(self, value: Any) -> str:
        return "; ".join(_shown(place) for place in value or ())


@dataclass(frozen=True, slots=True)
class Directories(Plain):
    """Absolute paths, separated by semicolons."""

    @property
    def allowed(self) -> str:
        return "absolute paths, separated by semicolons"

    def parse(self, text: str) -> tuple[Path, ...]:
        paths = tuple(_absolute(entry.strip()) for entry in text.split(";") if entry.strip())
        if not paths:
            raise ValueError(f"{shown(text)} names no directory; valid are {self.allowed}")
        return paths

    def show(self, value: Any) -> str:
        return "; ".join(str(path) for path in value or ())


def _place(entry: str) -> StorePlace:
    name, equals, rest = entry.partition("=")
    name = name.strip()
    if not equals or not _NAME.fullmatch(name):
        raise ValueError(f"{shown(entry)} does not begin with NAME=; a name is 1 to 32 letters, digits, '_' or '-'")
    options: dict[str, int] = {}
    while found := _OPTION.search(rest):
        option, value = found.groups()
        if option in options:
            raise ValueError(f"store {name}: {option} stands there twice")
        options[option] = _size(value) if option in ("quota", "floor") else _MANY.parse(value)
        rest = rest[: found.start()]
    return StorePlace(name, _absolute(rest.strip()), **options)


def _absolute(text: str) -> Path:
    path = Path(text)
    if not text.startswith("/") or ".." in path.parts:
        raise ValueError(f"{shown(text)} is not an absolute path on this host; begin it with '/'")
    return path


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"{shown(text)} is not a size such as 500G; units are K, M, G and T")
    return int(found[1]) * _UNITS[found[2].upper()]


def _shown(place: StorePlace) -> str:
    words = [f"{place.name}={place.directory}"]
    if place.quota:
        words.append(f"quota:{_short(place.quota)}")
    if place.floor is not None:
        words.append(f"floor:{_short(place.floor)}")
    words += [f"{name}:{value}" for name in ("keep", "restores", "captures") if (value := getattr(place, name))]
    return " ".join(words)


def _short(size: int) -> str:
    unit = next(unit for unit in ("T", "G", "M", "K", "") if size % _UNITS[unit] == 0)
    return f"{size // _UNITS[unit]}{unit}" if size else "0"
