"""Puts boot loaders into the TFTP directory: from Debian's packages, or from a file with a checksum.

One rule: nothing is installed on the host; a package that is not there is only unpacked into a temporary folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pbserv.commands.loaders import fromfile, packages, table
from pbserv.commands.loaders.image import inspect
from pbserv.commands.loaders.place import LoaderError, check_directory, place, target_of
from pbserv.commands.loaders.shelf import Entry, advice, shelf

Progress = Callable[[str], None]

__all__ = ["Entry", "LoaderError", "install", "install_file", "shelf"]


def install(
    tftp_directory: Path, progress: Progress, names: Sequence[str] = (), *, suite: str = "", root: Path = Path("/")
) -> list[str]:
    """Places sets or single loaders (none named: iPXE), readable by everyone; returns their names.

    All of them appear or none does. ``suite`` is a release of Debian, empty the host's own; ``root`` is the system
    that may have the packages installed. Raises LoaderError: an unknown name, no such directory, no package and no
    way to get it, a write that failed.
    """
    check_directory(tftp_directory)
    try:
        loaders = table.wanted(names)
    except table.UnknownLoader as fault:
        raise LoaderError(str(fault)) from None
    files = packages.collect(loaders, progress, suite=suite, root=root)
    ordered = {loader.name: files[loader.name] for loader in loaders}
    place(tftp_directory, ordered)
    for loader in loaders:
        _tell(tftp_directory, loader.name, ordered[loader.name], f"from Debian's package {loader.package}", progress)
    return list(ordered)


def install_file(
    tftp_directory: Path, progress: Progress, path: Path, sha256: str, members: Sequence[str] = (), name: str = ""
) -> list[str]:
    """Places a file, or members of a tar archive, if ``path`` has that SHA-256; returns the names they got.

    Raises LoaderError: another checksum, no such member, a name outside of the directory, a write that failed.
    """
    check_directory(tftp_directory)
    files = fromfile.files_of(path, fromfile.read_checked(path, sha256), members, name)
    place(tftp_directory, files)
    for each, data in files.items():
        _tell(tftp_directory, each, data, f"from {path}", progress)
    return list(files)


def _tell(directory: Path, name: str, data: bytes, source: str, progress: Progress) -> None:
    image = inspect(data)
    version = f", {image.version}" if image.version else ""
    progress(f"{target_of(directory, name)}: {len(data)} bytes{version}, {source}")
    if todo := advice(name, image):
        progress(f"  note: {todo}")
