"""Files are put into TFTPDirectory whole or not at all, readable by everyone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pbserv.errors import PbservError


class LoaderError(PbservError):
    """The loaders could not be put in place; the message names the remedy."""


def target_of(directory: Path, name: str) -> Path:
    """Where ``name`` lies below TFTPDirectory. Raises LoaderError for a name that leads out of it."""
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or pure.name in ("", ".") or "\0" in name:
        raise LoaderError(f"{name!r} is no name below {directory}: give a relative path, such as arm64/snponly.efi")
    return directory / pure


def check_directory(directory: Path) -> None:
    """Raises LoaderError when there is no TFTPDirectory."""
    if not directory.is_dir():
        raise LoaderError(f"{directory}: no such directory (TFTPDirectory in tftp.conf)")


def place(directory: Path, files: Mapping[str, bytes]) -> None:
    """Put all files in place; nothing appears before all of them are written. Raises LoaderError."""
    staged: list[tuple[Path, Path]] = []
    try:
        for name, data in files.items():
            target = target_of(directory, name)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                staged.append((_stage(target, data), target))
            except OSError as fault:
                raise LoaderError(f"{target}: {fault.strerror}") from None
        for temporary, target in staged:
            _appear(temporary, target)
    finally:
        for temporary, _target in staged:
            temporary.unlink(missing_ok=True)


def _stage(target: Path, data: bytes) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fchmod(out.fileno(), 0o644)
            os.fsync(out.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _appear(temporary: Path, target: Path) -> None:
    try:
        temporary.replace(target)
    except OSError as fault:
        raise LoaderError(f"{target}: {fault.strerror}") from None
