"""Image-safe data and pools over HTTP for people: viewers look, operators change identities, administrators pools.

One rule: a change that names the state it was made for never falls on another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, Final  # Any: the fields of a body on their way into a record

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pbserv import httpetags as etags
from pbserv.httpapi import BEARER, ApiError, faults, guarded
from pbserv.httpetags import NOT_MODIFIED, IfMatch, IfNoneMatch, Seen
from pbserv.httppages import PAGED, Limit, cut
from pbserv.imaging.identities import IdentityDesk, Looked
from pbserv.imaging.identity import Identity, IdentityChange, values_of
from pbserv.imaging.pools import Pool
from pbserv.registry.access import Access
from pbserv.registry.pools import PoolRecord
from pbserv.registry.records import Role
from pbserv.registry.registry import ConflictError, NotFoundError, Registry
from pbserv.types import MacAddress

_TAGS: Final = ["identities"]


def _device_mac(text: str) -> str:
    address = MacAddress.parse(text)
    if address.octets[0] & 1 or not any(address.octets):
        raise ValueError(f"{address} is no device's address: it is a group's, or empty")
    return str(address)


MacPath = Annotated[
    str,
    AfterValidator(_device_mac),
    Path(
        max_length=32,
        json_schema_extra={"pattern": r"^[0-9A-Fa-f][02468ACEace]([:-]?[0-9A-Fa-f]{2}){5}$",
                           "examples": ["52:54:00:12:34:56"]},
        description="any of the device's addresses, however it is written",
    ),
]  # fmt: skip
PoolName = Annotated[
    str, Path(max_length=64, json_schema_extra={"pattern": "^[A-Za-z0-9]([A-Za-z0-9._ -]{0,62}[A-Za-z0-9])?$"})
]
_Text = Annotated[str, Field(max_length=255)]
_Texts = Annotated[list[_Text], Field(max_length=32)]
_Number = Annotated[int, Field(ge=0, le=2**31 - 1)]


class IdentityFields(BaseModel):
    """What is said of a device; an empty value takes it away.

    ``dhcp`` takes the addresses away, and an address ``dhcp``. ``netmask``: 255.255.255.0, or its bits. ``suffixes``:
    domains in which names are looked up.
    """

    model_config = ConfigDict(extra="forbid")
    hostname: _Text | None = None
    domain: _Text | None = None
    workgroup: _Text | None = None
    dhcp: bool | None = None
    address: _Text | None = None
    netmask: _Text | None = None
    gateway: _Text | None = None
    dns: _Texts | None = None
    suffixes: _Texts | None = None
    workstation: _Text | None = None

    def change(self) -> IdentityChange:
        return IdentityChange(**_tuples(self.model_dump()))


class IdentityView(BaseModel):
    """``sources``: field -> ``administrator`` or ``pool NAME``. ``lacking``: what a pool will give at the next restore.
    ``image`` and ``version``: what the device was imaged with last."""

    mac: str
    hostname: str
    domain: str
    workgroup: str
    dhcp: bool
    address: str
    netmask: str
    gateway: str
    dns: list[str]
    suffixes: list[str]
    workstation: str
    sources: dict[str, str]
    lacking: list[str]
    just_imaged: bool
    image: str
    version: int | None
    changed: datetime | None


class JustImaged(BaseModel):
    model_config = ConfigDict(extra="forbid")
    set: bool = True


class PoolFields(BaseModel):
    """Names, addresses, or both, and what all devices of the pool get. ``pattern``: ``lab{n:02}``, with ``first`` and
    ``last``. ``addresses``: ``10.1.0.10-10.1.0.99`` of the ``network``; empty: all. ``dhcp``: from DHCP instead."""

    model_config = ConfigDict(extra="forbid")
    pattern: _Text = ""
    first: _Number = 1
    last: _Number = 0
    network: _Text = ""
    addresses: _Text = ""
    gateway: _Text = ""
    dhcp: bool = False
    domain: _Text = ""
    workgroup: _Text = ""
    dns: _Texts = Field(default_factory=list)
    suffixes: _Texts = Field(default_factory=list)
    folder: str = Field("/", max_length=600)
    group: _Text = ""


class PoolView(PoolFields):
    name: str
    revision: int


class PoolCounted(PoolView):
    """``given``: how many values devices have of it. ``names`` and ``hosts``: how many it has in all."""

    given: int
    names: int
    hosts: int


class PoolValueView(BaseModel):
    value: str
    mac: str
    given: datetime


def router(identities: IdentityDesk, access: Access) -> APIRouter:
    """The routes below ``/api/v1``."""

    def routes(role: Role) -> APIRouter:
        return APIRouter(route_class=guarded(access, role), dependencies=[Depends(BEARER)],
                         responses=faults(401, 403, 422))  # fmt: skip

    viewer, operator, admin = (routes(role) for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN))
    _looking(viewer, identities)
    _changing(operator, identities)
    _filling(operator, identities)
    _pool_looking(viewer, identities.registry)
    _pool_changing(admin, identities.registry)
    whole = APIRouter(prefix="/api/v1", tags=list(_TAGS))
    for each in (viewer, operator, admin):
        whole.include_router(each)
    return whole


def _looking(routes: APIRouter, identities: IdentityDesk) -> None:
    @routes.get("/devices/{mac}/identity", summary="What belongs to a device and not to its image",
                response_model=IdentityView, responses={**faults(404, 409), **NOT_MODIFIED})  # fmt: skip
    async def identity(mac: MacPath, response: Response, seen: Seen = None) -> IdentityView | Response:
        view = _view(await identities.look(mac))
        return etags.known(seen, response, etags.of_view(view)) or view


def _changing(routes: APIRouter, identities: IdentityDesk) -> None:
    @routes.put("/devices/{mac}/identity", summary="Say all of it; what is left out is taken away",
                responses=faults(404, 409, 412))  # fmt: skip
    async def put(mac: MacPath, body: IdentityFields, response: Response, if_match: IfMatch = None) -> IdentityView:
        change = body.change()
        return tagged(response, await _valid(identities, mac, lambda _: change.of(Identity()), if_match))

    @routes.patch("/devices/{mac}/identity", summary="Say some of it; what is left out stays",
                  responses=faults(404, 409, 412))  # fmt: skip
    async def patch(mac: MacPath, body: IdentityFields, response: Response, if_match: IfMatch = None) -> IdentityView:
        return tagged(response, await _valid(identities, mac, body.change().of, if_match))

    @routes.delete("/devices/{mac}/identity", status_code=204, responses=faults(404, 409, 412),
                   summary="Forget it; its name and address are free for other devices")  # fmt: skip
    async def delete(mac: MacPath, if_match: IfMatch = None) -> None:
        await identities.clear(mac, _matching(if_match))


def _filling(routes: APIRouter, identities: IdentityDesk) -> None:
    @routes.post("/devices/{mac}/identity/just-imaged", responses=faults(404, 409),
                 summary="Its image-safe data is to be applied (again), or not")  # fmt: skip
    async def just_imaged(mac: MacPath, response: Response, body: JustImaged | None = None) -> IdentityView:
        wanted = True if body is None else body.set
        return tagged(response, await identities.set_just_imaged(mac, wanted, "an administrator"))

    @routes.post("/devices/{mac}/identity/fill", responses=faults(404, 409),
                 summary="Give it now what pools would give it at its next restore")  # fmt: skip
    async def fill(mac: MacPath, response: Response) -> IdentityView:
        return tagged(response, await identities.fill(mac))


def _pool_looking(routes: APIRouter, registry: Registry) -> None:
    @routes.get("/pools", summary="The pools, by name", responses={**PAGED, **faults(409)})
    async def pools(
        request: Request, response: Response, after: Annotated[str, Query(max_length=64)] = "", limit: Limit = 100
    ) -> list[PoolCounted]:
        found = [each for each in await registry.pools() if each.name > after][: limit + 1]
        return [_counted(each) for each in cut(found, limit, lambda record: record.name, request, response)]

    @routes.get("/pools/{name}", summary="One pool", responses=faults(404, 409))
    async def pool(name: PoolName, response: Response) -> PoolCounted:
        record, _ = await registry.pool(name)
        response.headers["ETag"] = etags.of_revision(record.revision)
        return _counted(record)

    @routes.get("/pools/{name}/values", summary="What it gave, and to whom", responses={**PAGED, **faults(404)})
    async def values(
        name: PoolName,
        request: Request,
        response: Response,
        after: Annotated[str, Query(max_length=64)] = "",
        limit: Limit = 100,
    ) -> list[PoolValueView]:
        _, given = await registry.pool(name)
        found = sorted((each for each in given if each.value > after), key=lambda each: each.value)[: limit + 1]
        page = cut(found, limit, lambda each: each.value, request, response)
        return [PoolValueView(value=each.value, mac=each.mac, given=each.given) for each in page]


def _pool_changing(routes: APIRouter, registry: Registry) -> None:
    @routes.put("/pools/{name}", summary="Make or replace a pool; what it gave stays given", response_model=PoolView,
                responses={201: {"model": PoolView, "description": "it is new"}, **faults(409, 412)})  # fmt: skip
    async def put(
        name: PoolName,
        body: PoolFields,
        response: Response,
        if_match: IfMatch = None,
        if_none_match: IfNoneMatch = None,
    ) -> PoolView:
        try:
            pool = Pool.of(name, _tuples(body.model_dump()))
        except ValueError as fault:
            raise ApiError(422, str(fault)) from None
        if pool.group:
            await _check_group(registry, pool.group)
        before = await _found(registry, name)
        etags.demand(if_match, if_none_match, None if before is None else etags.of_revision(before.revision))
        conditional = if_match is not None or if_none_match is not None
        expected = (before.revision if before else 0) if conditional else None
        record = await registry.put_pool(name, pool.to_json(), expected)
        response.status_code = 201 if before is None else 200
        response.headers["ETag"] = etags.of_revision(record.revision)
        return PoolView(**_pool_values(pool), revision=record.revision)

    @routes.delete("/pools/{name}", status_code=204, responses=faults(404, 409, 412),
                   summary="Delete a pool that no device has values of")  # fmt: skip
    async def delete(
        name: PoolName,
        if_match: IfMatch = None,
        release: Annotated[bool, Query(description="take its values from the devices that have some")] = False,
    ) -> None:
        record, _ = await registry.pool(name)
        etags.demand(if_match, None, etags.of_revision(record.revision))
        await registry.delete_pool(name, None if if_match is None else record.revision, release=release)


async def _valid(
    identities: IdentityDesk, mac: str, make: Callable[[Identity], Identity], if_match: str | None
) -> Looked:
    try:
        return await identities.change(mac, make, _matching(if_match))
    except ValueError as fault:
        raise ApiError(422, str(fault)) from None


def _matching(if_match: str | None) -> Callable[[Looked], None]:
    return lambda seen: etags.demand(if_match, None, etags.of_view(_view(seen)))


def tagged(response: Response, seen: Looked) -> IdentityView:
    """The answer to a change, with the ETag for the next one."""
    view = _view(seen)
    response.headers["ETag"] = etags.of_view(view)
    return view


def _view(seen: Looked) -> IdentityView:
    record, sources = seen.record, seen.filled.sources
    return IdentityView(
        mac=seen.device.mac,
        **values_of(seen.filled.identity),
        sources={name: f"pool {pool}" if pool else "administrator" for name, pool in sorted(sources.items())},
        lacking=list(seen.filled.lacking),
        just_imaged=record.just_imaged,
        image=record.image,
        version=record.version,
        changed=record.changed,
    )


async def _found(registry: Registry, name: str) -> PoolRecord | None:
    try:
        return (await registry.pool(name))[0]
    except NotFoundError:
        return None


async def _check_group(registry: Registry, group: str) -> None:
    try:
        await registry.document("group", group)
    except NotFoundError:
        raise ApiError(422, f"there is no group {group!r}; make it first: pbserv group set") from None


def _counted(record: PoolRecord) -> PoolCounted:
    try:
        pool = Pool.from_json(record.name, record.body)
    except ValueError as fault:
        raise ConflictError(f"{fault}; a newer pbserv wrote it") from None
    counts = {"given": record.given, "names": pool.name_count, "hosts": pool.host_count}
    return PoolCounted(**_pool_values(pool), revision=record.revision, **counts)


def _pool_values(pool: Pool) -> dict[str, Any]:
    return {entry.name: getattr(pool, entry.name) for entry in fields(pool)}


def _tuples(said: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
