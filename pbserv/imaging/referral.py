"""Tickets with which one server lets its caller have one image of another server. Pure.

One rule: a ticket opens one image, for one purpose, for a time; whoever made it knows a token of role images of the
other server, which knows no more of that token than its digest. Form: ``EXPIRES.SCOPE.MAC``, SCOPE is ``get:IMAGE`` or
``put:IMAGE``, ``get:IMAGE:VERSION``, or ``send:IMAGE:UPLOAD``; MAC is HMAC-SHA256 over what stands before it, its key
the SHA-256 of that token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

LONGEST_S: Final = 24 * 3600
"""No ticket is good for longer, whatever it says."""
MAX_LENGTH: Final = 256
What = Literal["get", "put", "send"]
_WHATS: Final[tuple[What, ...]] = ("get", "put", "send")
_UPLOAD: Final = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a ticket opens; ``version`` None: any version of the image. ``upload``: of ``send`` alone, the one upload
    whose items may be sent; it can neither be committed nor given up with that."""

    what: What
    image: str
    version: int | None = None
    upload: str = ""

    def opens(self, what: str, image: str, version: int | None) -> bool:
        """Whether it is for this; a ticket for one version does not open the image without one."""
        return self.what == what and self.image == image and self.version in (None, version)

    def __str__(self) -> str:
        if self.what == "send":
            return f"send:{self.image}:{self.upload}"
        return f"{self.what}:{self.image}" + ("" if self.version is None else f":{self.version}")


def sign(scope: Scope, token_digest: str, expires: int) -> str:
    """A ticket; ``token_digest``: SHA-256 of the token in hexadecimal digits, ``expires``: seconds since 1970."""
    said = f"{expires}.{scope}"
    return f"{said}.{_mac(said, token_digest)}"


def verify(ticket: str, token_digests: Iterable[str], now: int) -> Scope | None:
    """What the ticket opens at ``now``; None when it opens nothing: forged, over, of a revoked token, or no ticket."""
    if len(ticket) > MAX_LENGTH or not ticket.isascii():
        return None
    said, _, mac = ticket.rpartition(".")
    expires, _, text = said.partition(".")
    scope = _scope(text)
    if scope is None or not _is_number(expires) or not now < int(expires) <= now + LONGEST_S:
        return None
    fits = [hmac.compare_digest(mac, _mac(said, digest)) for digest in token_digests]  # all of them: time tells nothing
    return scope if any(fits) else None


def _scope(text: str) -> Scope | None:
    what, *names = text.split(":")
    known = next((each for each in _WHATS if each == what), None)
    if known is None or not names or not names[0] or len(names) > 2:
        return None
    if known == "send":
        return Scope(known, names[0], upload=names[1]) if len(names) == 2 and _UPLOAD.fullmatch(names[1]) else None
    if len(names) == 1:
        return Scope(known, names[0])
    return Scope(known, names[0], int(names[1])) if _is_number(names[1]) else None


def _is_number(text: str) -> bool:
    """As :func:`sign` writes it: no zeros in front, no signs."""
    return text.isdigit() and len(text) < 12 and str(int(text)) == text


def _mac(said: str, token_digest: str) -> str:
    return hmac.new(bytes.fromhex(token_digest), said.encode("ascii"), hashlib.sha256).hexdigest()
