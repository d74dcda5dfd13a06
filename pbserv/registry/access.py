"""Who is calling: an administrator, a device with the token of its work, or nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pbserv.registry.tokens import ADMIN_ROLE, WorkTokens, digest


@dataclass(frozen=True, slots=True)
class Caller:
    """``work`` is the number of the work whose token was shown; None for an administrator."""

    kind: Literal["admin", "work"]
    work: int | None = None


class Access:
    """Checks bearer tokens in memory. The digests of administrators' tokens come from the registry at start."""

    def __init__(self, digests: dict[str, str], tokens: WorkTokens) -> None:
        self._digests = digests
        self._tokens = tokens

    def authorize(self, token: str | None) -> Caller | None:
        """None when the token is missing or not ours. That a work's token is genuine does not say that it is active."""
        if not token or len(token) > 512:
            return None
        if self._digests.get(digest(token)) == ADMIN_ROLE:
            return Caller("admin")
        work = self._tokens.work_of(token)
        return None if work is None else Caller("work", work)
