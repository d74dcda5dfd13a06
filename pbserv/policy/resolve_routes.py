"""The policy for servers of other sites: ``POST /api/v1/policy/resolve``, which their PrebootServer names.

One rule: a site learns what one device is to do, and nothing else of this server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fastapi import APIRouter, Depends, Request

from pbserv.httpapi import BEARER, ApiError, faults, guarded, local_address
from pbserv.policy.decide import Ruling
from pbserv.policy.oracles.wire import Question, WireRuling, wire_of
from pbserv.policy.orders import settled
from pbserv.registry.access import Access
from pbserv.registry.records import Role
from pbserv.registry.tokens import WorkTokens
from pbserv.types import Sighting


class Resolver(Protocol):
    """What this needs of the policy service."""

    def learn(
        self, mac: str, labels: Mapping[str, str], *, serial: str = "", asset: str = "", uuid: str | None = None
    ) -> None:
        """What is known of the machine."""

    async def settle(self, sighting: Sighting) -> Ruling:
        """The ruling, with the work that it needs."""

    def url(self, local: str) -> str:
        """This server's base URL for who reached it at ``local``."""


def router(policy: Resolver, access: Access, tokens: WorkTokens) -> APIRouter:
    """One route, for tokens of role site (or admin)."""
    routes = APIRouter(
        prefix="/api/v1/policy", tags=["policy"], dependencies=[Depends(BEARER)],
        route_class=guarded(access, Role.SITE), responses=faults(401, 403, 422),
    )  # fmt: skip

    @routes.post("/resolve", response_model_exclude_defaults=True)
    async def resolve(question: Question, request: Request) -> WireRuling:
        """What a device of another site is to do. Work that it needs is made, as when it asked here."""
        try:
            sighting = question.sighting()
        except ValueError as fault:
            raise ApiError(422, f"mac: {fault}") from None
        told = dict(question.labels)
        serial, asset = told.pop("serial", "")[:64], told.pop("asset", "")[:64]
        policy.learn(str(sighting.mac), told, serial=serial, asset=asset, uuid=sighting.uuid)
        ruling = settled(await policy.settle(sighting))
        # a device that was registered just now knows nothing of itself yet
        policy.learn(str(sighting.mac), told, serial=serial, asset=asset, uuid=sighting.uuid)
        token = "" if ruling.work is None else tokens.issue(ruling.work.id)
        return wire_of(ruling, url=policy.url(local_address(request)), token=token)

    return routes
