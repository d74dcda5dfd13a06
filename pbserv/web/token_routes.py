"""API tokens for administrators (``/api/v1/tokens``): who may call, and as what.

One rule: a token is told once, in the answer to the call that makes it; the registry has its digest alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from pbserv.httpapi import BEARER, faults, guarded
from pbserv.log import ServiceLog
from pbserv.registry.access import Access
from pbserv.registry.records import Role
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import digest, new_token

_MAX_NUMBER: Final = 2**31 - 1


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("printable characters only")
    return text


Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64), AfterValidator(_line)]
Number = Annotated[int, Path(ge=1, le=_MAX_NUMBER)]


class TokenBody(BaseModel):
    """``name``: who is to have it. ``role``: what it opens; ``site`` is for a server that resolves policies here,
    ``images`` for one that refers its callers to images here."""

    model_config = ConfigDict(extra="forbid")

    name: Title
    role: Role


class TokenView(BaseModel):
    id: int
    name: str
    role: Role
    created: datetime


class NewTokenView(TokenView):
    token: str = Field(description="shown this once; it cannot be had again")


def router(registry: Registry, access: Access, log: ServiceLog) -> APIRouter:
    """``access`` is kept in step: a token works from the answer that brings it, and ends with its deletion."""
    routes = APIRouter(
        prefix="/api/v1/tokens",
        tags=["tokens"],
        route_class=guarded(access, Role.ADMIN),
        dependencies=[Depends(BEARER)],
        responses=faults(401, 403, 422),
    )

    @routes.get("", summary="All tokens, without the tokens themselves")
    async def tokens() -> list[TokenView]:
        return [TokenView.model_validate(each, from_attributes=True) for each in await registry.tokens()]

    @routes.post("", status_code=201, summary="Make a token", responses=faults(409, 413))
    async def make(body: TokenBody) -> NewTokenView:
        """409 when there is one of this name: names tell tokens apart when one has to be revoked."""
        secret = new_token()
        made = await registry.add_token(body.name, body.role, digest(secret))
        access.put(digest(secret), made.role, made.name)
        log.critical("token made", id=made.id, name=made.name, role=made.role.value)
        return NewTokenView(id=made.id, name=made.name, role=made.role, created=made.created, token=secret)

    @routes.delete("/{token_id}", status_code=204, summary="Revoke a token", responses=faults(404, 409))
    async def revoke(token_id: Number) -> None:
        """Its next call is refused. 409 for the last token of an administrator: nobody could make another one."""
        access.drop(await registry.revoke_token(token_id))
        log.critical("token revoked", id=token_id)

    return routes
