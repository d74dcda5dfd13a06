"""Loaders from a file that somebody downloaded: only with the checksum that the giver of the file published."""

from __future__ import annotations

import hashlib
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from pbserv.commands.loaders.place import LoaderError

_MOST_BYTES = 256 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_checked(path: Path, sha256: str) -> bytes:
    """The file's bytes, if their SHA-256 is ``sha256`` (hexadecimal, any case). Raises LoaderError."""
    expected = sha256.strip().lower()
    if not _SHA256.fullmatch(expected):
        raise LoaderError(f"--sha256 {sha256!r}: 64 hexadecimal digits are wanted, as sha256sum prints them")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise LoaderError(f"{path}: larger than {_MOST_BYTES >> 20} MiB, no boot loader")
        data = path.read_bytes()
    except OSError as fault:
        raise LoaderError(f"{path}: {fault.strerror}") from None
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise LoaderError(f"{path}: its SHA-256 is {actual}, not {expected}: nothing was installed")
    return data


def files_of(path: Path, data: bytes, members: Sequence[str], name: str) -> dict[str, bytes]:
    """What to install by target name: the file itself, or the named members of a tar archive.

    A member is named by its path in the archive, whose leading folders may be left out, and goes to its last part.
    ``name`` is another target name for the only file. Raises LoaderError.
    """
    if name and len(members) > 1:
        raise LoaderError("--as is for one file")
    try:
        if not tarfile.is_tarfile(io.BytesIO(data)):
            if members:
                raise LoaderError(f"{path} is no tar archive: it has no members to name; use --as NAME")
            return {name or path.name: data}
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as archive:
            return _members(path, archive, members, name)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as fault:
        raise LoaderError(f"{path}: a damaged archive: {fault}") from None


def _members(path: Path, archive: tarfile.TarFile, members: Sequence[str], name: str) -> dict[str, bytes]:
    files = [entry for entry in archive.getmembers() if entry.isfile() and entry.size <= _MOST_BYTES]
    if not members:
        raise LoaderError(f"{path}: name what to install of: {', '.join(entry.name for entry in files[:60])}")
    found: dict[str, bytes] = {}
    for member in members:
        fitting = [entry for entry in files if f"/{entry.name}".endswith(f"/{member.lstrip('/')}")]
        if len(fitting) != 1:
            what = "has no" if not fitting else "has more than one"
            raise LoaderError(f"{path} {what} {member}: {', '.join(e.name for e in fitting or files[:60])}")
        target = name or member.rpartition("/")[2]
        if target in found:
            raise LoaderError(f"two members would be {target}: install them one by one, with --as")
        content = archive.extractfile(fitting[0])
        assert content is not None  # noqa: S101  (a regular file)
        found[target] = content.read()
    return found
