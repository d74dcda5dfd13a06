"""What lies in TFTPDirectory: which boot files, of which version, for whom, and what is missing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pbserv.commands.loaders.image import Image, inspect
from pbserv.commands.loaders.table import BY_NAME, ELSEWHERE, Loader

_SUFFIXES: Final = (".efi", ".0", ".kpxe", ".kkpxe", ".pxe", ".c32", ".lkrn")
_MOST_BYTES: Final = 64 << 20
_GRUB = (
    "this GRUB never reads a proxy's offer and finds no configuration unless the DHCP server names this server:"
    " pbserv loaders install --suite trixie {name}"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A boot file that is there, or is missing while something names it.

    ``keys`` are the keys of proxydhcp.conf that name it; ``advice`` is empty where nothing is to be done.
    """

    name: str
    present: bool
    size: int = 0
    sha256: str = ""
    serves: str = ""
    role: str = ""
    version: str = ""
    signed: bool = False
    autoexec: bool = False
    keys: tuple[str, ...] = ()
    advice: str = ""


def shelf(directory: Path, named: Mapping[str, str], virtual: tuple[str, ...] = ()) -> list[Entry]:
    """Every loader of ``directory``, and those missing that ``named`` (key -> file) or another loader asks for.

    ``virtual`` are files that the server makes itself. Unreadable files are entries with an advice.
    """
    keys: dict[str, list[str]] = {}
    for key, name in named.items():
        if name and "://" not in name and name not in virtual:
            keys.setdefault(name.lstrip("/"), []).append(key)
    present = set(_files(directory)) | {name for name in keys if (directory / name).is_file()}
    entries = [_present(directory, name, tuple(keys.get(name, ()))) for name in sorted(present)]
    needed = {need: f"{name} asks for it" for name in present for need in _needs(directory, name)}
    asked = {name: "" for name in keys} | needed
    missing = sorted(asked.keys() - present)
    return entries + [_missing(name, tuple(keys.get(name, ())), asked[name]) for name in missing]


def _files(directory: Path) -> Iterator[str]:
    """Names of what looks like a boot file: the directory and its folders, two levels deep."""
    for pattern in ("*", "*/*", "*/*/*"):
        for path in directory.glob(pattern):
            name = path.relative_to(directory).as_posix()
            hidden = any(part.startswith(".") for part in name.split("/"))
            looks = path.name in BY_NAME or path.name in ELSEWHERE or path.suffix in _SUFFIXES
            if looks and not hidden and path.is_file():
                yield name


def _needs(directory: Path, name: str) -> Iterator[str]:
    folder, slash, leaf = name.rpartition("/")
    for need in BY_NAME[leaf].needs if leaf in BY_NAME else ():
        if not (directory / folder / need).is_file():
            yield f"{folder}{slash}{need}"


def _present(directory: Path, name: str, keys: tuple[str, ...]) -> Entry:
    known = BY_NAME.get(name.rpartition("/")[2])
    path = directory / name
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= _MOST_BYTES else b""
    except OSError as fault:
        return Entry(name, present=True, keys=keys, advice=f"{path}: {fault.strerror}")
    image = inspect(data)
    return Entry(
        name, present=True, size=size, sha256=hashlib.sha256(data).hexdigest() if size == len(data) else "",
        serves=_serves(known, image), role=known.role if known else "", version=image.version, signed=image.signed,
        autoexec=image.autoexec, keys=keys, advice=advice(name, image),
    )  # fmt: skip


def advice(name: str, image: Image) -> str:
    """What to do about a file that is there; empty: nothing."""
    return "" if image.proxy else _GRUB.format(name=name.rpartition("/")[2])


def _serves(known: Loader | None, image: Image) -> str:
    if known is not None:
        return known.serves
    return f"UEFI {image.machine}" if image.machine else ""


def _missing(name: str, keys: tuple[str, ...], why: str) -> Entry:
    leaf = name.rpartition("/")[2]
    known = BY_NAME.get(name)
    if known is not None:
        suite = f"--suite {known.suite} " if known.suite else ""
        do = f"pbserv loaders install {suite}{name}"
    elif leaf in ELSEWHERE:
        do = f"{ELSEWHERE[leaf]}; pbserv loaders install --from FILE --sha256 HEX --as {name}"
    else:
        do = "copy it there, or pbserv loaders install --from FILE --sha256 HEX --as " + name
    text = f"{why}: {do}" if why else do
    return Entry(name, present=False, serves=known.serves if known else "", keys=keys, advice=text)
