"""What loaders and installers ask over HTTP: no token of an API is needed, a device that boots has none.

One rule: a device that gets nothing gets no script either, whether its address or the name of the script gives it away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from pbserv.httpapi import ApiError, local_address, peer_address
from pbserv.policy.decide import Ruling
from pbserv.policy.orders import bundle_of, settled
from pbserv.policy.rendering.facts import one_line
from pbserv.policy.service import PolicyService, Refused
from pbserv.registry.records import DeviceState, WorkState
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import WorkTokens
from pbserv.types import ClientArch, MacAddress, Sighting

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_IPXE_PLATFORMS = {
    ("pcbios", "i386"): ClientArch.BIOS, ("pcbios", "x86_64"): ClientArch.BIOS, ("efi", "x86_64"): ClientArch.EFI_X64,
    ("efi", "i386"): ClientArch.EFI_IA32, ("efi", "arm64"): ClientArch.EFI_ARM64,
}  # fmt: skip
TOLD: Final = {"manufacturer": "manufacturer", "product": "product", "board-serial": "board_serial",
               "hostname": "hostname", "platform": "platform", "buildarch": "buildarch"}  # fmt: skip
"""What iPXE says of the machine in its question -> the label that it becomes."""
MAX_TOLD: Final = 128
MAX_ITEM: Final = 64
"""Characters of the name of a menu's item."""
MAX_REASON: Final = 1000


def router(policy: PolicyService, registry: Registry, tokens: WorkTokens) -> APIRouter:
    """``/boot.ipxe`` (the same for everybody), ``/boot/<mac>.ipxe`` (the decision), answer files and reports."""
    routes = APIRouter(tags=["boot"])
    _script_routes(routes, policy)
    _answer_routes(routes, policy, registry, tokens)
    return routes


def _script_routes(routes: APIRouter, policy: PolicyService) -> None:
    @routes.api_route("/boot.ipxe", methods=["GET", "HEAD"], response_class=PlainTextResponse)
    async def boot(request: Request) -> PlainTextResponse:
        """The script that every iPXE begins with: it asks for the device's own."""
        if not policy.running:
            return _stopped()
        _check(policy, request, "boot.ipxe", policy.refuses(peer_address(request)))
        return PlainTextResponse(policy.scripts.first(local_address(request)))

    @routes.api_route("/boot/{name}.ipxe", methods=["GET", "HEAD"], response_class=PlainTextResponse)
    async def script(
        name: str, request: Request, uuid: str = "", platform: str = "", buildarch: str = "", sent: str = "",
        serial: str = "", asset: str = "", item: str = "",
    ) -> PlainTextResponse:  # fmt: skip
        """The decision for one device. ``sent``: the client was sent here by another server, whose NovellPolicyEngine
        names this one. ``item``: chosen in the menu."""
        if not policy.running:
            return _stopped()
        try:
            mac = MacAddress.parse(name)
        except ValueError as fault:
            return PlainTextResponse(f"error: {fault}\n", 404)
        peer = peer_address(request)
        leaf = f"{mac}.ipxe"
        _check(policy, request, leaf, policy.refuses(peer) or policy.contradicts(str(mac), peer))
        arch = _IPXE_PLATFORMS.get((platform, buildarch))
        sighting = Sighting(
            mac=mac,
            uuid=uuid.lower() if _UUID.fullmatch(uuid) else None,
            arch=None if arch is None else ClientArch(arch),
            via="http",
            address=peer,
            details=_told(request.query_params),
        )
        learn = partial(policy.learn, str(mac), dict(sighting.details), serial=serial[:64], asset=asset[:64])
        learn()  # rules may ask for it
        ruling = settled(await (policy.choose(sighting, item[:MAX_ITEM]) if item else policy.settle(sighting)))
        learn()  # a new device was registered just now
        policy.progressed(str(mac), peer)
        _check(policy, request, leaf, ruling.refused)
        return PlainTextResponse(_rendered(policy, sighting, ruling, local_address(request), sent=bool(sent)))


def _answer_routes(routes: APIRouter, policy: PolicyService, registry: Registry, tokens: WorkTokens) -> None:
    @routes.api_route("/boot/answer/{token}/{leaf}", methods=["GET", "HEAD"], response_class=PlainTextResponse)
    async def answer(token: str, leaf: str, request: Request) -> PlainTextResponse:
        """The answer file of an installation, rendered for the device whose boot or work the token names."""
        if not policy.running:
            return _stopped()
        mac, ruling = await _whose(policy, registry, tokens, token, peer_address(request))
        facts = policy.facts(Sighting(MacAddress.parse(mac), via="http"), ruling, local_address(request))
        text = None if ruling.bundle is None else policy.scripts.renderer.answer(ruling.bundle, facts, leaf)
        if text is None:
            raise ApiError(404, f"the bundle of {mac} has no answer file {leaf}")
        if request.method == "GET" and ruling.work is not None:
            await registry.begin_work(ruling.work.id)
        policy.note(mac, "answer file", leaf)
        return PlainTextResponse(text)

    @routes.api_route("/boot/done/{token}", methods=["GET", "POST"], response_class=PlainTextResponse)
    async def done(token: str, ok: str = "1", reason: str = "") -> PlainTextResponse:
        """The loader or the installed system reports how one-shot work ended; the first report counts."""
        work_id = tokens.work_of(token)
        if work_id is None:
            raise ApiError(403, "the token of the device's work is needed")
        work = await registry.work(work_id)
        if work.active or work.state is WorkState.EXPIRED:
            await policy.reported(work_id, ok=ok == "1", reason=one_line(reason)[:MAX_REASON])
        return PlainTextResponse("#!ipxe\n")  # iPXE may fetch it as an image; it does nothing


async def _whose(
    policy: PolicyService, registry: Registry, tokens: WorkTokens, token: str, peer: str
) -> tuple[str, Ruling]:
    """The device that a token of work or of a boot names, with what it is to do. Raises ApiError or Refused."""
    work_id = tokens.work_of(token)
    if work_id is not None:
        work = await registry.work(work_id)
        if not work.active:
            raise ApiError(410, f"work {work_id} is {work.state}")
        _refuse_barred(policy, peer)
        ruling = policy.explain(work.mac, everything=False)
        if ruling.work is None:
            ruling = Ruling(ruling.decision, bundle=bundle_of(work), work=work)
        return work.mac, ruling
    mac = policy.boot_of(token)
    if mac is None:
        raise ApiError(403, "the token in the path is not one of ours, or its boot began long ago")
    reason = policy.refusal(mac) or policy.contradicts(mac, peer, proven=True)
    if reason:
        raise Refused(reason)
    return mac, policy.explain(mac, everything=False)


def _refuse_barred(policy: PolicyService, peer: str) -> None:
    """Raises Refused for who asks from the address of a denied or retired device, whatever token it shows. Another card
    of the machine that is installed may well be one that nobody has accepted."""
    mac = policy.mac_at(peer)
    device = None if mac is None else policy.snapshot.device(mac)
    if device is not None and device.state in (DeviceState.DENIED, DeviceState.RETIRED):
        raise Refused(policy.refusal(device.mac))


def _rendered(policy: PolicyService, sighting: Sighting, ruling: Ruling, local: str, *, sent: bool) -> str:
    return policy.scripts.of(ruling, policy.facts(sighting, ruling, local), sent=sent)


def _told(query: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The labels of a question; what iPXE leaves empty says nothing."""
    return tuple((label, query[name][:MAX_TOLD]) for name, label in TOLD.items() if query.get(name))


def _check(policy: PolicyService, request: Request, script: str, reason: str) -> None:
    """Raises Refused, and tells the journal."""
    if reason:
        policy.fetched(peer_address(request), script, "refused", 0)
        raise Refused(reason)


def _stopped() -> PlainTextResponse:
    return PlainTextResponse("error: the policy service is not running (pbserv start policy)\n", 503)
