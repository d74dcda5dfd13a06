"""The state directory and what is in it, owned by the service user. The rule: root follows no foreign link.

The directories belong to an unprivileged user, who may replace them by links at any time; so everything is done on
descriptors that were opened without following links, and a link's target is never changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from pbserv.daemon.privileges import Account
from pbserv.errors import PbservError

SUBDIRECTORIES = ("log", "run", "images", "client")
OWN_ENTRIES = frozenset(
    (*SUBDIRECTORIES, "registry.db", "registry.db-wal", "registry.db-shm", "secret.key", "admin.token", "tls")
)
"""What root may have put there before the first start: ``pbserv client build`` makes client/."""
_MODE = 0o750


def prepare_directories(
    state: Path, owner: Account | None = None, subdirectories: Sequence[str] = SUBDIRECTORIES
) -> list[str]:
    """Create what is missing with mode 0750, give it to ``owner`` (None or not root: it stays ours); what was done.

    A subdirectory may be a symbolic link to a directory if root or we ourselves made the link; its target is left as
    it is. Raises PbservError, also when a directory belongs to somebody else, or is full of other things.
    """
    done: list[str] = []
    parent = _open_parent(state, done)
    try:
        descriptor = _own(parent, state, owner, done, only_empty=True)
    finally:
        os.close(parent)
    if descriptor is None:
        # The state directory itself is a link that root made: what it leads to is the place.
        return done + prepare_directories(state.resolve(), owner, subdirectories)
    try:
        for name in subdirectories:
            inner = _own(descriptor, state / name, owner, done)
            if inner is not None:
                os.close(inner)
    finally:
        os.close(descriptor)
    return done


def _open_parent(path: Path, done: list[str]) -> int:
    """The directory that holds ``path``; made with mode 0755 if it is missing."""
    try:
        for missing in reversed([parent for parent in path.parents if not parent.exists()]):
            missing.mkdir(mode=0o755)
            done.append(f"created {missing}")
        return os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PbservError(f"{path}: {error.filename}: {error.strerror}") from error


def _own(parent: int, path: Path, owner: Account | None, done: list[str], only_empty: bool = False) -> int | None:
    """Create or check ``path`` inside ``parent``; its descriptor, or None when it is a link that may stay.

    With ``only_empty`` a directory of root's that has other things in it than ours is not taken over.
    """
    created = True
    try:
        os.mkdir(path.name, _MODE, dir_fd=parent)
    except FileExistsError:
        created = False
    except OSError as error:
        raise PbservError(f"{path}: the directory cannot be made: {error.strerror}") from error
    try:
        descriptor = os.open(path.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError as error:
        if stat.S_ISLNK(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode):
            _check_link(parent, path)
            return None
        raise PbservError(f"{path}: {error.strerror}; pbserv needs a directory there") from error
    try:
        if created:
            os.fchmod(descriptor, _MODE)
            done.append(f"created {path}")
        _give(descriptor, path, owner, only_empty and not created)
    except OSError as error:
        os.close(descriptor)
        raise PbservError(f"{path}: {error.strerror}") from error
    except PbservError:
        os.close(descriptor)
        raise
    return descriptor


def _check_link(parent: int, path: Path) -> None:
    link = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
    if link.st_uid not in {0, os.geteuid()}:
        raise PbservError(f"{path} is a link that neither root nor the caller made; remove it")
    try:
        target = os.stat(path.name, dir_fd=parent)
    except OSError as error:
        raise PbservError(f"{path} is a link that leads nowhere: {error.strerror}") from error
    if not stat.S_ISDIR(target.st_mode):
        raise PbservError(f"{path} is a link to something that is not a directory")


def _give(descriptor: int, path: Path, owner: Account | None, only_empty: bool) -> None:
    facts = os.fstat(descriptor)
    if facts.st_mode & stat.S_IWOTH:
        os.fchmod(descriptor, stat.S_IMODE(facts.st_mode) & ~0o007)
    if owner is None or os.geteuid() != 0 or facts.st_uid == owner.uid:
        return
    remedy = f"if it is meant for pbserv: chown -R {owner.name}: {path}"
    if facts.st_uid != 0:
        raise PbservError(f"{path} belongs to user {facts.st_uid}, not to {owner.name}; {remedy}")
    if only_empty:
        entries = set(os.listdir(descriptor))
        if not entries.issuperset(SUBDIRECTORIES) and entries - OWN_ENTRIES:
            raise PbservError(f"{path} is root's and has other things in it; {remedy}")
    os.fchown(descriptor, owner.uid, owner.gid)
    os.fchmod(descriptor, _MODE)


def hand_over_files(state: Path, owner: Account | None) -> None:
    """Give ``owner`` the files that root left in an earlier run (another ``User``); on descriptors, links not followed.

    The directory may belong to the unprivileged user: only regular files with one name are given away, so a hard link
    to somebody else's file stays what it is.
    """
    if owner is None or os.geteuid() != 0:
        return
    for path in (
        *state.iterdir(), *(state / "log").glob("*.log"), *(state / "tls").glob("*.pem"), state / "images" / ".incoming"
    ):  # fmt: skip
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            facts = os.fstat(descriptor)
            single = stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1
            ours = path.name in OWN_ENTRIES or path.suffix in (".log", ".pem") or path.name == ".incoming"
            if facts.st_uid == 0 and ours and (single or stat.S_ISDIR(facts.st_mode)):
                os.fchown(descriptor, owner.uid, owner.gid)
        finally:
            os.close(descriptor)
