"""From the name in a request to a file: the directory first, then aliases, then files made on demand.

One rule: what cannot be given is a Refusal that carries the reply code (RFC 1350 appendix I).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass

from pbserv.errors import PbservError
from pbserv.tftp.names import candidates, climbs
from pbserv.tftp.packet import ErrorCode
from pbserv.tftp.paths import Directory
from pbserv.tftp.ports import VirtualFiles


class Refusal(PbservError):
    """The request gets an ERROR with this code and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Overload(PbservError):
    """The request gets no answer, so that the client asks again later; the message is the reason."""


@dataclass(frozen=True, slots=True)
class RealFile:
    """An open descriptor, owned by whoever gets this."""

    fd: int
    facts: os.stat_result


@dataclass(frozen=True, slots=True)
class MadeFile:
    """Content that came from a service."""

    data: bytes


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
    """``aliases`` maps lower-case names to names in the directory; they count when no file of that name exists."""

    def __init__(self, directory: Directory, aliases: Mapping[str, str], virtual: VirtualFiles) -> None:
        self._directory = directory
        self._aliases = {os.fsencode(name.lower()): os.fsencode(target) for name, target in aliases.items()}
        self._virtual = virtual

    def find(self, name: bytes, peer: str, local: str) -> RealFile | MadeFile:
        """Raises Refusal or Overload."""
        if climbs(name):
            raise Refusal(ErrorCode.ACCESS, "outside of the directory")
        self._directory.refresh()
        spellings = candidates(name, os.fsencode(self._directory.path))
        for spelling in spellings:
            found = self._open(spelling)
            if found is not None:
                return found
        for spelling in spellings:
            found = self._open_similar(spelling) or self._open_alias(spelling)
            if found is not None:
                return found
        for spelling in spellings:
            made = self._make(spelling, peer, local)
            if made is not None:
                return made
        raise Refusal(ErrorCode.NOT_FOUND, "file not found")

    def _open(self, name: bytes) -> RealFile | None:
        try:
            return RealFile(*self._directory.open_file(name))
        except OSError as fault:
            code = fault.errno or 0
            if code in _ABSENT:
                return None
            if code in _NO_DESCRIPTOR:
                raise Overload("no file descriptor left") from None
            raise Refusal(*_REFUSALS.get(code, (ErrorCode.UNDEFINED, "file cannot be read"))) from None

    def _open_similar(self, name: bytes) -> RealFile | None:
        similar = self._directory.other_case(name)
        return self._open(similar) if similar is not None else None

    def _open_alias(self, name: bytes) -> RealFile | None:
        target = self._aliases.get(name.lower())
        return self._open(target) or self._open_similar(target) if target is not None else None

    def _make(self, name: bytes, peer: str, local: str) -> MadeFile | None:
        try:
            data = self._virtual.find(name.decode("utf-8"), peer, local)
        except UnicodeDecodeError:
            return None
        return MadeFile(data) if data is not None else None

    def close(self) -> None:
        self._directory.close()
