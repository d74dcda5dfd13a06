"""Paths as stat(2) and acl(5) see them, component by component."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pbserv.doctor.facts import Place


def places(path: Path) -> Iterator[Place]:
    """``path`` and what is above it, from the root down; symbolic links are followed."""
    real = path.resolve()
    for part in (*reversed(real.parents), real):
        with contextlib.suppress(OSError):
            facts = part.stat()
            yield Place(str(part), facts.st_mode, facts.st_uid, facts.st_gid, _has_acl(part))


def file_places(path: Path) -> tuple[Place, ...]:
    """The same of a file; empty when it is not there, or not to be seen."""
    found = tuple(places(path))
    return found if found and found[-1].path == str(path.resolve()) else ()


def _has_acl(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except OSError:
        return False
