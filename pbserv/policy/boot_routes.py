"""Boot scripts over HTTP: no token needed, a device that boots has none.

One rule: a device that gets nothing gets no script either, whether its address or the name of the script gives it away.
"""

from __future__ import annotations

import re

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from pbserv.httpapi import local_address, peer_address
from pbserv.policy.service import PolicyService, Refused
from pbserv.types import ClientArch, MacAddress, Sighting

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_IPXE_PLATFORMS = {
    ("pcbios", "i386"): ClientArch.BIOS, ("pcbios", "x86_64"): ClientArch.BIOS, ("efi", "x86_64"): ClientArch.EFI_X64,
    ("efi", "i386"): ClientArch.EFI_IA32, ("efi", "arm64"): ClientArch.EFI_ARM64,
}  # fmt: skip


def router(policy: PolicyService) -> APIRouter:
    """``/boot.ipxe`` (the same for everybody) and ``/boot/<mac>.ipxe`` (the decision)."""
    routes = APIRouter(tags=["boot"])

    def stopped() -> PlainTextResponse:
        return PlainTextResponse("error: the policy service is not running (pbserv start policy)\n", 503)

    def check(request: Request, script: str) -> None:
        """Raises Refused, and tells the journal."""
        reason = policy.refuses(peer_address(request))
        if reason:
            policy.fetched(peer_address(request), script, "refused", 0)
            raise Refused(reason)

    @routes.api_route("/boot.ipxe", methods=["GET", "HEAD"], response_class=PlainTextResponse)
    async def boot(request: Request) -> PlainTextResponse:
        if not policy.running:
            return stopped()
        check(request, "boot.ipxe")
        return PlainTextResponse(policy.first_script(local_address(request)))

    @routes.api_route("/boot/{name}.ipxe", methods=["GET", "HEAD"], response_class=PlainTextResponse)
    async def script(
        name: str, request: Request, uuid: str = "", platform: str = "", buildarch: str = "", sent: str = ""
    ) -> PlainTextResponse:
        """``sent``: the client was sent here by another server, whose NovellPolicyEngine names this one."""
        if not policy.running:
            return stopped()
        try:
            mac = MacAddress.parse(name)
        except ValueError as fault:
            return PlainTextResponse(f"error: {fault}\n", 404)
        check(request, f"{mac}.ipxe")
        arch = _IPXE_PLATFORMS.get((platform, buildarch))
        sighting = Sighting(
            mac=mac,
            uuid=uuid.lower() if _UUID.fullmatch(uuid) else None,
            arch=None if arch is None else ClientArch(arch),
            via="http",
            address=peer_address(request),
        )
        return PlainTextResponse(policy.script(sighting, local_address(request), sent=bool(sent)))

    return routes
