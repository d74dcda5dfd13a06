"""API tokens as they are kept, and the counters of names.

One rule: a token itself is never here, only its digest; and there is always an administrator's.
"""

from __future__ import annotations

from sqlalchemy import func, select

from pbserv.registry.faults import ConflictError, NotFoundError
from pbserv.registry.models import CounterRow, TokenRow
from pbserv.registry.records import Role, Token
from pbserv.registry.store import Store, now


class ApiTokens(Store):
    """The part of the registry that keeps tokens and counters."""

    async def add_token(self, name: str, role: Role, sha256: str) -> Token:
        """Raises ConflictError when there is a token of this name."""
        async with self._write() as change:
            if await change.session.scalar(select(TokenRow.id).where(TokenRow.name == name)) is not None:
                raise ConflictError(f"there is a token named {name!r} already; see: pbserv token list")
            row = TokenRow(name=name, role=role.value, sha256=sha256, created=now())
            change.session.add(row)
            await change.session.flush()
            return _token(row)

    async def tokens(self) -> list[Token]:
        """The oldest first."""
        async with self._read() as session:
            return [_token(row) for row in (await session.scalars(select(TokenRow).order_by(TokenRow.id))).all()]

    async def revoke_token(self, token_id: int) -> str:
        """Its digest. Raises NotFoundError, and ConflictError for the last token of an administrator."""
        async with self._write() as change:
            row = await change.session.get(TokenRow, token_id)
            if row is None:
                raise NotFoundError(f"no token {token_id}; see: pbserv token list")
            admins = select(func.count()).where(TokenRow.role == Role.ADMIN)
            if row.role == Role.ADMIN and (await change.session.scalar(admins) or 0) < 2:
                raise ConflictError(f"token {row.name!r} is the last one of role admin; make another one first")
            await change.session.delete(row)
            return row.sha256

    async def token_digests(self) -> dict[str, str]:
        """SHA-256 hex digest of each token -> role."""
        async with self._read() as session:
            rows = (await session.execute(select(TokenRow.sha256, TokenRow.role))).all()
        return {sha256: role for sha256, role in rows}

    async def token_names(self) -> dict[str, str]:
        """SHA-256 hex digest of each token -> what it is called."""
        async with self._read() as session:
            rows = (await session.execute(select(TokenRow.sha256, TokenRow.name))).all()
        return {sha256: name for sha256, name in rows}

    async def next_number(self, name: str) -> int:
        """1, 2, 3 ... for each name; never the same twice, whoever asks and however often the server starts."""
        first = self._upsert(CounterRow).values(name=name, value=1)
        counted = first.on_conflict_do_update(
            index_elements=[CounterRow.name], set_={"value": CounterRow.value + 1}
        ).returning(CounterRow.value)
        async with self._write() as change:
            return (await change.session.execute(counted)).scalar_one()


def _token(row: TokenRow) -> Token:
    return Token(row.id, row.name, Role(row.role), row.created)
