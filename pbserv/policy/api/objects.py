"""The objects of the policy over HTTP, all six kinds alike: list, look, put, delete.

One rule: an object is stored only if all that it names exists, and deleted only if nothing names it.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, replace
from datetime import datetime
from typing import Annotated, Any, Final, get_type_hints  # Any: the definitions that pydantic makes a model of

from fastapi import Path, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, create_model

from pbserv import httpetags as etags
from pbserv.httpapi import ApiError, faults
from pbserv.httpetags import NOT_MODIFIED, IfMatch, IfNoneMatch, Seen
from pbserv.httppages import PAGED, Limit, cut
from pbserv.policy.api.desk import Desk, Key, Routers, checked_name
from pbserv.policy.api.fields import NAME_PATTERN, Cursor, canonical_mac
from pbserv.policy.documents import decode, encode, kind_of, read_object
from pbserv.policy.model import KINDS, ROOT, Assignment, PolicyObject
from pbserv.registry.records import Document

PLURALS: Final = {kind: f"{kind}s" for kind in KINDS}
_ZONE: Final = "~"
"""How the folder ``/`` is written in a path."""
_PART: Final = NAME_PATTERN.strip("^$")
_FOLDER_PATH: Final = f"^(~|{_PART}(/{_PART}){{0,7}})$"


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Of one kind: ``given`` is what comes, ``shown`` what is answered, ``stored`` the same with warnings."""

    given: type[BaseModel]
    shown: type[BaseModel]
    stored: type[BaseModel]

    @classmethod
    def of(cls, kind: str) -> _Shapes:
        declared, title = KINDS[kind], kind.capitalize()
        hints = get_type_hints(declared)
        given: dict[str, Any] = {
            entry.name: (hints[entry.name], ... if entry.default is MISSING else entry.default)
            for entry in fields(declared)
            if entry.name != "name"
        }
        about = (declared.__doc__ or "").strip()
        shown: dict[str, Any] = {"name": (str, ...), **{name: (hint, ...) for name, (hint, _) in given.items()}}
        shown |= {"revision": (int, ...), "changed": (datetime, ...)}
        view = create_model(f"{title}View", __doc__=about, **shown)
        return cls(
            create_model(f"{title}Fields", __config__=ConfigDict(extra="forbid"), __doc__=about, **given),
            view,
            create_model(f"{title}Stored", __base__=view, __doc__=about, warnings=(list[str], ...)),
        )


def add(routers: Routers, desk: Desk) -> None:
    for kind in KINDS:
        shapes = _Shapes.of(kind)
        _reading(routers, desk, kind, shapes)
        _writing(routers, desk, kind, shapes)


def _place(kind: str) -> tuple[str, Any]:
    """The path of one object, and the type of the name in it."""
    if kind == "folder":
        about = f"without the slash at the beginning; {_ZONE} is the zone, /"
        name = Path(max_length=600, description=about, json_schema_extra={"pattern": _FOLDER_PATH})
        return "/folders/{name:path}", Annotated[str, AfterValidator(_folder), name]
    return f"/{PLURALS[kind]}/{{name}}", Annotated[
        str, Path(max_length=64, json_schema_extra={"pattern": NAME_PATTERN})
    ]


def _folder(text: str) -> str:
    return ROOT if text == _ZONE else f"/{text}" if text else text


def _reading(routers: Routers, desk: Desk, kind: str, shapes: _Shapes) -> None:
    plural, (path, name_type) = PLURALS[kind], _place(kind)

    async def listed(request: Request, response: Response, after: Cursor = "", limit: Limit = 100) -> list[BaseModel]:
        stock = await desk.stock()
        named = sorted((key[1], each) for key, each in stock.decoded.items() if key[0] == kind and key[1] > after)
        page = cut(named[: limit + 1], limit, lambda pair: pair[0], request, response)
        return [_view(shapes.shown, each, stock.documents[kind, name]) for name, each in page]

    async def one(name: str, response: Response, seen: Seen = None) -> BaseModel | Response:
        document = await desk.registry.document(kind, checked_name(kind, name))
        unchanged = etags.known(seen, response, etags.of_revision(document.revision))
        return unchanged or _view(shapes.shown, decode(document), document)

    one.__annotations__["name"] = name_type
    routers.viewer.add_api_route(
        f"/{plural}", listed, tags=[plural], response_model=list[shapes.shown],  # type: ignore[name-defined]
        summary=f"The {plural}, by name", name=f"list_{plural}", responses=PAGED,
    )  # fmt: skip
    routers.viewer.add_api_route(
        path, one, tags=[plural], response_model=shapes.shown, summary=f"One {kind}", name=f"get_{kind}",
        responses={**faults(404), **NOT_MODIFIED},
    )  # fmt: skip


def _writing(routers: Routers, desk: Desk, kind: str, shapes: _Shapes) -> None:
    plural, (path, name_type) = PLURALS[kind], _place(kind)

    async def put(
        name: str, body: BaseModel, response: Response, if_match: IfMatch = None, if_none_match: IfNoneMatch = None
    ) -> BaseModel:
        values = body.model_dump(mode="json", exclude_unset=True)
        given = canonical(read_object(kind, checked_name(kind, name), values))
        async with desk.changing:
            document, created, warnings = await _store(desk, given, if_match, if_none_match)
        response.status_code = 201 if created else 200
        response.headers["ETag"] = etags.of_revision(document.revision)
        return _view(shapes.stored, given, document, warnings=warnings)

    async def delete(name: str, if_match: IfMatch = None) -> None:
        async with desk.changing:
            await _delete(desk, (kind, checked_name(kind, name)), if_match)

    put.__annotations__.update(name=name_type, body=shapes.given)  # FastAPI reads them: each kind has its own body
    delete.__annotations__["name"] = name_type
    routers.admin.add_api_route(
        path, put, methods=["PUT"], tags=[plural], response_model=shapes.stored, name=f"put_{kind}",
        summary=f"Make or replace a {kind}; what it names has to exist",
        responses={201: {"model": shapes.stored, "description": "it is new"}, **faults(412)},
    )  # fmt: skip
    routers.admin.add_api_route(
        path, delete, methods=["DELETE"], status_code=204, tags=[plural], name=f"delete_{kind}",
        summary=f"Delete a {kind} that nothing names", responses=faults(404, 409, 412),
    )  # fmt: skip


async def _store(
    desk: Desk, given: PolicyObject, if_match: str | None, if_none_match: str | None
) -> tuple[Document, bool, list[str]]:
    """What is stored now, whether it is new, and what is odd about it. An equal object changes nothing."""
    key = (kind_of(given), given.name)
    stock = await desk.stock()
    before = stock.documents.get(key)
    etags.demand(if_match, if_none_match, None if before is None else etags.of_revision(before.revision))
    after = stock.with_changes({key: given}, ())
    await desk.check_objects(stock.objects, after)
    await desk.registry.change_documents(
        [(*key, encode(given))], [], expected={key: before.revision if before else 0}
    )  # fmt: skip
    own = f"{key[0]} {key[1]!r}: "
    warnings = [each.removeprefix(own) for each in await desk.warnings(after) if each.startswith(own)]
    return await desk.registry.document(*key), before is None, warnings


async def _delete(desk: Desk, key: Key, if_match: str | None) -> None:
    stock = await desk.stock()
    document = stock.documents.get(key) or await desk.registry.document(*key)
    etags.demand(if_match, None, etags.of_revision(document.revision))
    users = await desk.uses(stock.objects, *key)
    if users:
        raise ApiError(409, f"{key[0]} {key[1]!r} is named by {', '.join(users)}; change these first")
    await desk.registry.change_documents([], [key], expected={key: document.revision})


def canonical(given: PolicyObject) -> PolicyObject:
    """The device of an assignment in the one spelling that the registry has; raises ApiError 422."""
    if not isinstance(given, Assignment) or not given.device:
        return given
    try:
        return replace(given, device=canonical_mac(given.device))
    except ValueError as fault:
        raise ApiError(422, f"assignment {given.name!r}: device: {fault}") from None


def _view(shape: type[BaseModel], each: PolicyObject, document: Document, **more: object) -> BaseModel:
    values = {entry.name: getattr(each, entry.name) for entry in fields(each)}
    return shape.model_validate({**values, "revision": document.revision, "changed": document.changed, **more})
