"""Who is calling: the bearer of an API token with its role, a device with the token of its work, or nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pbserv.registry.records import Role
from pbserv.registry.tokens import WorkTokens, digest

_RANK: Final = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}
"""Who may more may also do what those below may. ``site`` stands apart: it may resolve policies, as an
administrator may, and nothing else. So does ``images``: it opens no route; tickets signed
with it open images."""


@dataclass(frozen=True, slots=True)
class Caller:
    """``role`` and ``name`` of an API token; no role for a device, which shows the token of its ``work``."""

    role: Role | None
    work: int | None = None
    name: str = ""

    @property
    def kind(self) -> str:
        """The role, or ``work``."""
        return "work" if self.role is None else self.role.value

    def may(self, role: Role) -> bool:
        """Whether the caller may do what ``role`` may."""
        if self.role is None:
            return False
        return self.role in (role, Role.ADMIN) or _RANK.get(self.role, 0) >= _RANK.get(role, 99)


class Access:
    """Checks bearer tokens in memory. ``roles``, ``names``: digest -> role, name; read at start, then kept in step."""

    def __init__(self, roles: Mapping[str, str], tokens: WorkTokens, names: Mapping[str, str] | None = None) -> None:
        self._roles = {mark: Role(role) for mark, role in roles.items()}
        self._names = dict(names or {})
        self._tokens = tokens

    def put(self, mark: str, role: Role, name: str = "") -> None:
        """A token was made; ``mark`` is its digest."""
        self._roles[mark] = role
        self._names[mark] = name

    def drop(self, mark: str) -> None:
        """A token was revoked: its next call is refused."""
        self._roles.pop(mark, None)
        self._names.pop(mark, None)

    def digests(self, role: Role) -> tuple[str, ...]:
        """Of all tokens of exactly this role."""
        return tuple(mark for mark, given in self._roles.items() if given is role)

    def authorize(self, token: str | None) -> Caller | None:
        """None when the token is missing or not ours. That a work's token is genuine does not say that it is active."""
        if not token or len(token) > 512:
            return None
        mark = digest(token)
        role = self._roles.get(mark)
        if role is not None:
            return Caller(role, name=self._names.get(mark, ""))
        work = self._tokens.work_of(token)
        return None if work is None else Caller(None, work)
