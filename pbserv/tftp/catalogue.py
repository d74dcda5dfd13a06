"""From a name to a file: map file, the client's directory, the common one, aliases, and files made on demand.

One rule: what cannot be given is a Refusal that carries the reply code (RFC 1350 appendix I).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pbserv.errors import PbservError
from pbserv.tftp.homes import Home, home_of, without_dots
from pbserv.tftp.names import candidates, cleaned, climbs, is_reserved
from pbserv.tftp.packet import ErrorCode, Opcode, Request
from pbserv.tftp.paths import Directory
from pbserv.tftp.ports import VirtualFiles
from pbserv.tftp.rewrite import Client, Denied, Rewrite, Watch

Mac = Callable[[], str | None]
"""The client's MAC address, if it can be known; asked only when directories are named by it."""


class Refusal(PbservError):
    """The request gets an ERROR with this code and text; ``why`` is what the administrator is told, if that is more."""

    def __init__(self, code: int, text: str, why: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.why = why or text


class Overload(PbservError):
    """The request gets no answer, so that the client asks again later; the message is the reason."""


class RealFile(NamedTuple):
    """An open descriptor, owned by whoever gets this. ``shown`` is its name below the directory."""

    fd: int
    facts: os.stat_result
    shown: bytes = b""


@dataclass(frozen=True, slots=True)
class MadeFile:
    """Content that came from a service."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Target:
    """Where an upload goes: a descriptor of the folder (O_PATH, owned by whoever gets this), and the name in it.

    ``name`` is that of the file that is there, or of a new one; ``shown`` is its path below the directory.
    """

    folder_fd: int
    name: bytes
    shown: bytes


_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ENODEV})
_REFUSALS = {
    errno.EACCES: (ErrorCode.ACCESS, "access denied"),
    errno.EPERM: (ErrorCode.ACCESS, "access denied"),
    errno.ELOOP: (ErrorCode.ACCESS, "link not followed"),
    errno.EXDEV: (ErrorCode.ACCESS, "outside of the directory"),
    errno.EAGAIN: (ErrorCode.ACCESS, "name is changing"),
    errno.ENAMETOOLONG: (ErrorCode.ILLEGAL, "file name too long"),
    errno.EINVAL: (ErrorCode.ILLEGAL, "file name not usable"),
}
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Catalogue:
    """``aliases`` maps lower-case names to names in the directory; they count when no file of that name exists.

    ``client_directories``: "none", or what the directories of clients are named by, "ip" or "mac". ``placed``: names
    and the files outside of the directory that are sent where it has none of that name.
    """

    def __init__(
        self,
        directory: Directory,
        aliases: Mapping[str, str],
        virtual: VirtualFiles,
        *,
        rewrite: Rewrite | None = None,
        client_directories: str = "none",
        placed: Mapping[str, Path] | None = None,
    ) -> None:
        self._directory = directory
        self._aliases = {os.fsencode(name.lower()): os.fsencode(target) for name, target in aliases.items()}
        self._virtual = virtual
        self._rewrite = rewrite
        self._client_directories = client_directories
        self._placed = {os.fsencode(name): path for name, path in (placed or {}).items()}

    def find(
        self, request: Request, peer: str, local: str, mac: Mac, watch: Watch | None = None
    ) -> RealFile | MadeFile:
        """What a read request gets. Raises Refusal or Overload."""
        home = self._home(peer, mac)
        name = self._meant(request, peer, home, watch)
        spellings = self._spellings(self._of_boot(name, peer), home)
        found = self._real(spellings, home) or self._aliased(spellings, home) or self._from_elsewhere(spellings)
        if found is not None:
            return found
        for spelling in spellings:
            made = self._make(spelling, peer, local)
            if made is not None:
                return made
        raise Refusal(ErrorCode.NOT_FOUND, "file not found")

    def target(self, request: Request, peer: str, local: str, mac: Mac, watch: Watch | None = None) -> Target:
        """Where a write request's file goes; nothing is made or changed. Raises Refusal or Overload."""
        home = self._home(peer, mac)
        name = self._meant(request, peer, home, watch)
        known = self._spellings(name, home, by_letters=True)
        new = self._spellings(cleaned(name), home, by_letters=True)
        for prefix in _prefixes(home):
            found = self._old_target(known, prefix, home) or self._new_target(new, prefix, home)
            if found is not None:
                return found
        raise Refusal(ErrorCode.NOT_FOUND, "directory not found")

    # what the client means

    def _home(self, peer: str, mac: Mac) -> Home:
        self._directory.refresh()
        home = home_of(self._client_directories, peer, mac)
        if home.own is not None and (actual := self._directory.other_case(home.own)) is not None:
            return Home(home.kind, actual)  # 52-54-00-AB-CD-EF
        return home

    def _meant(self, request: Request, peer: str, home: Home, watch: Watch | None) -> bytes:
        name = request.name
        if self._rewrite is not None:
            put = request.opcode == Opcode.WRQ
            exists = self._could_be_written if put else self._could_be_read
            try:
                name = self._rewrite.apply(name, Client(peer, put), lambda asked: exists(asked, home), watch)
            except Denied as denied:
                raise Refusal(ErrorCode.ACCESS, str(denied)) from None
        if climbs(name):
            raise Refusal(ErrorCode.ACCESS, "outside of the directory")
        return name

    def _of_boot(self, name: bytes, peer: str) -> bytes:
        """The name below the directory of one that begins with the token of a boot: ``s/TOKEN/...``."""
        plain = name.lstrip(b"/")
        if not plain.startswith(b"s/"):
            return name
        try:
            return os.fsencode(self._virtual.path_of(os.fsdecode(plain), peer))
        except PermissionError as fault:
            raise Refusal(ErrorCode.ACCESS, "access denied", str(fault)) from None

    def _could_be_read(self, name: bytes, home: Home) -> bool:
        if climbs(name):
            return False
        try:
            found = self._real(self._spellings(name, home), home)
        except Refusal:
            return False
        if found is not None:
            os.close(found.fd)
        return found is not None

    def _could_be_written(self, name: bytes, home: Home) -> bool:
        if climbs(name):
            return False
        try:
            for prefix in _prefixes(home):
                target = self._new_target(self._spellings(cleaned(name), home, by_letters=True), prefix, home)
                if target is not None:
                    os.close(target.folder_fd)
                    return True
        except Refusal:
            pass
        return False

    def _spellings(self, name: bytes, home: Home, *, by_letters: bool = False) -> tuple[bytes, ...]:
        found = candidates(name, os.fsencode(self._directory.path))
        if home.private or by_letters:
            return tuple(plain for one in found if (plain := without_dots(one)))
        return found

    # reads

    def _real(self, spellings: tuple[bytes, ...], home: Home) -> RealFile | None:
        """The file as written in one of the spellings, else one that differs in case; the client's own first."""
        for prefix in _prefixes(home):
            for look in (self._open, self._open_similar):
                for spelling in spellings:
                    found = look(prefix + spelling, home)
                    if found is not None:
                        return found
        return None

    def _aliased(self, spellings: tuple[bytes, ...], home: Home) -> RealFile | None:
        targets = (self._aliases.get(spelling.lower()) for spelling in spellings)
        return self._real(tuple(target for target in targets if target is not None), home)

    def _from_elsewhere(self, spellings: tuple[bytes, ...]) -> RealFile | None:
        for name in spellings:
            if name in self._placed:
                try:
                    fd = os.open(self._placed[name], os.O_RDONLY | os.O_CLOEXEC)
                except OSError as fault:
                    _refuse_unless_absent(fault, "file cannot be read")
                else:
                    return RealFile(fd, os.fstat(fd), name)
        return None

    def _open(self, name: bytes, home: Home) -> RealFile | None:
        if home.hides(name):
            return None
        try:
            return RealFile(*self._directory.open_file(name), name)
        except OSError as fault:
            _refuse_unless_absent(fault, "file cannot be read")
            return None

    def _open_similar(self, name: bytes, home: Home) -> RealFile | None:
        similar = self._directory.other_case(name)
        return self._open(similar, home) if similar is not None else None

    def _make(self, name: bytes, peer: str, local: str) -> MadeFile | None:
        try:
            data = self._virtual.find(name.decode("utf-8"), peer, local)
        except UnicodeDecodeError:
            return None
        except PermissionError as fault:
            raise Refusal(ErrorCode.ACCESS, "access denied", str(fault)) from None
        return MadeFile(data) if data is not None else None

    # writes

    def _old_target(self, spellings: tuple[bytes, ...], prefix: bytes, home: Home) -> Target | None:
        """A name that is taken already: the same file, even if the client writes it in another case."""
        for spelling in spellings:
            for name in (prefix + spelling, self._directory.other_case(prefix + spelling)):
                target = self._target_at(name, home) if name is not None else None
                if target is None:
                    continue
                if _is_there(target):
                    return target
                os.close(target.folder_fd)
        return None

    def _new_target(self, spellings: tuple[bytes, ...], prefix: bytes, home: Home) -> Target | None:
        for spelling in spellings:
            folder, slash, leaf = (prefix + spelling).rpartition(b"/")
            similar = self._directory.other_case(folder) if slash else None
            for name in (prefix + spelling, similar + b"/" + leaf if similar is not None else None):
                target = self._target_at(name, home) if name is not None else None
                if target is not None:
                    return target
        return None

    def _target_at(self, name: bytes, home: Home) -> Target | None:
        if home.hides(name):
            return None
        folder, _, leaf = name.rpartition(b"/")
        if is_reserved(leaf):
            raise Refusal(ErrorCode.ACCESS, "name is kept for uploads that are under way")
        if len(leaf) > 255:
            raise Refusal(ErrorCode.ILLEGAL, "file name too long")
        try:
            return Target(self._directory.open_folder(folder), leaf, name)
        except OSError as fault:
            _refuse_unless_absent(fault, "directory cannot be used")
            return None

    def close(self) -> None:
        self._directory.close()


def _prefixes(home: Home) -> tuple[bytes, ...]:
    return (b"",) if home.own is None else (home.own + b"/", b"")


def _is_there(target: Target) -> bool:
    try:
        os.stat(target.name, dir_fd=target.folder_fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def _refuse_unless_absent(fault: OSError, otherwise: str) -> None:
    """Raises Refusal or Overload for every fault but that there is nothing of that name."""
    code = fault.errno or 0
    if code in _ABSENT:
        return
    if code in _NO_DESCRIPTOR:
        raise Overload("no file descriptor left") from None
    raise Refusal(*_REFUSALS.get(code, (ErrorCode.UNDEFINED, otherwise))) from None
