"""This server as what pixiecore asks in its API mode: ``GET /v1/boot/<mac>``.

One rule: it may be asked as often as one likes, and answers the same; whoever asks is the device, or shows a token.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter, Request

from pbserv.httpapi import ApiError, bearer, faults, local_address, peer_address
from pbserv.policy.orders import settled
from pbserv.policy.service import PolicyService
from pbserv.registry.access import Access
from pbserv.registry.records import Role
from pbserv.types import ClientArch, MacAddress, Sighting

MOST_ARCH: Final = 0xFFFF
MOST_BASIC: Final = 1024


def router(policy: PolicyService, access: Access) -> APIRouter:
    """The route of pixiecore's API, beside our own."""
    routes = APIRouter(tags=["boot"])

    @routes.get("/v1/boot/{name}", responses=faults(403, 404, 422))
    async def boot(name: str, request: Request, arch: int | None = None) -> Mapping[str, str | list[str]]:
        """What the device is to boot; 404 when it is not to boot here. ``arch``: the number in option 93 of DHCP."""
        try:
            mac = MacAddress.parse(name)
        except ValueError as fault:
            raise ApiError(404, str(fault)) from None
        peer, trusted = peer_address(request), _trusted(access, request)
        reason = "" if trusted else policy.refuses(peer) or policy.contradicts(str(mac), peer)
        if reason:
            raise ApiError(403, f"{reason}; another host may ask with a token of role site or operator")
        known = ClientArch(arch) if arch is not None and 0 <= arch <= MOST_ARCH else None
        sighting = Sighting(mac, arch=known, via="http", address="" if trusted else peer)
        ruling = settled(await policy.settle(sighting))
        if ruling.refused:
            raise ApiError(403, ruling.refused)
        facts = policy.facts(sighting, ruling, local_address(request))
        answer = policy.scripts.renderer.pixiecore(ruling, facts)
        if answer is None:
            raise ApiError(404, f"{ruling.decision.verdict.value}: {ruling.decision.reason}")
        return answer

    return routes


def _trusted(access: Access, request: Request) -> bool:
    """Whether whoever asks may ask for others: work is made by asking, and its token is in the answer."""
    caller = access.authorize(bearer(request) or _password(request.headers.get("authorization", "")))
    return caller is not None and (caller.may(Role.OPERATOR) or caller.may(Role.SITE))


def _password(authorization: str) -> str | None:
    """Of HTTP Basic (RFC 7617): pixiecore has no option for tokens, but sends what stands in its URL before the @."""
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "basic" or len(text) > MOST_BASIC:
        return None
    try:
        return base64.b64decode(text, validate=True).decode().partition(":")[2] or None
    except ValueError:
        return None
