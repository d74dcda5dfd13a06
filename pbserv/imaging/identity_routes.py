"""Image-safe data over HTTP: what the imaging client and installed systems ask; what people ask is in identity_api.py.

One rule: an installed system's token opens the identity of its own device; it is no token of work and no API token.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Path, Query, Request
from fastapi.responses import PlainTextResponse

from pbserv.httpapi import ApiError, bearer, local_address
from pbserv.imaging import identity_api
from pbserv.imaging.identities import IdentityDesk, Looked
from pbserv.imaging.identity import Form as TextForm
from pbserv.imaging.identity import Served
from pbserv.imaging.jobs import Jobs
from pbserv.registry.access import Access, Caller
from pbserv.registry.registry import NotFoundError
from pbserv.types import MacAddress

_Number = Annotated[int, Path(ge=1, lt=2**63)]
_Wanted = Annotated[TextForm, Query(alias="form", description="shell lines, or the file of an installed system")]
_Mac = Annotated[str, Form(max_length=32)]


def router(identities: IdentityDesk, jobs: Jobs, access: Access) -> APIRouter:
    """All routes about identities and pools."""
    routes = APIRouter()
    routes.include_router(identity_api.router(identities, access))
    client = APIRouter(prefix="/client/v1", tags=["imaging client"], default_response_class=PlainTextResponse)
    _client_routes(client, identities, jobs, access)
    _system_routes(client, identities)
    routes.include_router(client)
    return routes


def _client_routes(routes: APIRouter, identities: IdentityDesk, jobs: Jobs, access: Access) -> None:
    def device(request: Request) -> Caller:
        caller = access.authorize(bearer(request))
        if caller is None or caller.work is None:
            raise ApiError(401, "the token of this device's work is needed (pb.token on the kernel command line)")
        return caller

    @routes.get("/jobs/{job_id}/identity", summary="What the device of a running job is called and how it is reached")
    async def of_job(request: Request, job_id: _Number, form: _Wanted = "shell", who: Caller = Depends(device)) -> str:
        """Missing values are given from pools at this moment. The flag is told as it is once the restore succeeds."""
        job = await jobs.running(job_id, who.work or 0)
        seen = await identities.fill(job.mac)
        told = identities.served(seen, _url(request))
        return Served(told.identity, told.mac, told.server, told.token, True, job.image, job.version).text(form)


def _system_routes(routes: APIRouter, identities: IdentityDesk) -> None:
    @routes.post("/identity", summary="The image-safe data of the installed system that asks")
    async def current(request: Request, mac: _Mac = "", form: Annotated[TextForm, Form()] = "shell") -> str:
        """``JUST_IMAGED='1'``: it is to be applied, and then to be said with ``identity/done``."""
        seen = await opened(request, mac)
        if seen.record.just_imaged:
            seen = await identities.fill(seen.device.mac)
        return identities.served(seen, _url(request)).text(form)

    @routes.post("/identity/done", summary="The installed system has applied its image-safe data")
    async def done(request: Request, mac: _Mac = "") -> str:
        """The just-imaged flag is cleared. A repeated call changes nothing."""
        seen = await opened(request, mac)
        await identities.set_just_imaged(seen.device.mac, False, "the installed system")
        return "OK\n"

    async def opened(request: Request, mac: str) -> Looked:
        """The token is that of the device's name, which its file says."""
        refused = ApiError(401, "MAC and token of the identity file of this computer are needed")
        try:
            name = str(MacAddress.parse(mac))
        except ValueError:
            raise refused from None
        if not identities.opens(name, bearer(request) or ""):
            raise refused
        try:
            return await identities.look(name)
        except NotFoundError as fault:
            raise ApiError(404, f"{fault}; this computer is not registered any more") from None


def _url(request: Request) -> str:
    """Where the caller reached this server: the address of the connection, not a name that it made up."""
    server = request.scope.get("server")
    address = local_address(request)
    host = f"[{address}]" if ":" in address else address
    return f"{request.url.scheme}://{host}:{server[1]}" if server and server[1] else f"{request.url.scheme}://{host}"
