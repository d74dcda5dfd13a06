"""Who may change state: administrators by a stored hash, devices by a keyed digest of their work's number.

A device's token is HMAC-SHA256(secret, work): nothing about it is stored, it survives a restart, it ends with its work.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from pbserv.errors import PbservError

ADMIN_ROLE = "admin"


def digest(token: str) -> str:
    """What is stored of a token. It holds 256 random bits, so a plain hash cannot be guessed backwards."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    return secrets.token_urlsafe(32)


class WorkTokens:
    """Makes and checks the tokens of work: ``<work id>.<64 hex digits>``."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def key(self, purpose: str) -> bytes:
        """A key of its own for another kind of token, so that none of one kind is ever one of another."""
        return hmac.new(self._secret, b"key:" + purpose.encode(), hashlib.sha256).digest()

    def issue(self, work_id: int) -> str:
        mark = hmac.new(self._secret, b"work:%d" % work_id, hashlib.sha256).hexdigest()
        return f"{work_id}.{mark}"

    def work_of(self, token: str) -> int | None:
        """The work that a token belongs to, or None when it is not ours."""
        head, dot, _ = token.partition(".")
        if not dot or not head.isascii() or not head.isdecimal() or len(head) > 18:
            return None
        work_id = int(head)
        return work_id if hmac.compare_digest(self.issue(work_id).encode(), token.encode()) else None


def load_secret(path: Path) -> bytes:
    """The server's key, made at first use; readable by the service user alone."""
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        secret = secrets.token_bytes(32)
        write_private(path, secret)
    except OSError as fault:
        raise PbservError(f"{path}: {fault.strerror}; it must be readable by the service user") from fault
    if len(secret) < 32:
        raise PbservError(f"{path}: is shorter than 32 bytes; remove it and cancel work that is under way")
    return secret


def write_private(path: Path, data: bytes) -> None:
    """Write ``data`` so that the file is complete or absent, mode 0600."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
