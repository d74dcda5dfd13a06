"""Policy objects as JSON and as plain values (of the API, of files), read and written by their declarations.

One rule: what is wrong is said with the name of the object and of the field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any  # Any: JSON values on their way into a checked object

from pydantic import TypeAdapter, ValidationError

from pbserv.errors import PbservError
from pbserv.policy.model import KINDS, PolicyObject
from pbserv.registry.records import Document


class PolicyError(PbservError):
    """A policy object that cannot be used; over HTTP that is 422."""

    status = 422


@cache
def _adapter(kind: str) -> TypeAdapter[PolicyObject]:
    return TypeAdapter(KINDS[kind])


def kind_of(each: PolicyObject) -> str:
    return next(kind for kind, cls in KINDS.items() if type(each) is cls)


def read_object(kind: str, name: str, values: Mapping[str, Any]) -> PolicyObject:
    """The object of ``values``, which do not repeat its name. Raises PolicyError."""
    if kind not in KINDS:
        raise PolicyError(f"{kind!r} is no kind of policy object: {', '.join(KINDS)}")
    try:
        return _adapter(kind).validate_python({**values, "name": name})
    except ValidationError as fault:
        raise PolicyError(f"{kind} {name!r}: {_said(fault)}") from None


def decode(document: Document) -> PolicyObject:
    """Raises PolicyError, as when the registry was written by a newer pbserv."""
    try:
        values = json.loads(document.body)
    except ValueError as fault:
        raise PolicyError(f"{document.kind} {document.name!r}: its record is no JSON: {fault}") from None
    if not isinstance(values, dict):
        raise PolicyError(f"{document.kind} {document.name!r}: its record is no JSON object")
    return read_object(document.kind, document.name, values)


def encode(each: PolicyObject) -> str:
    """JSON with sorted keys, without the name: equal objects have equal texts. Fields at their default are left out."""
    return json.dumps(values_of(each), sort_keys=True, ensure_ascii=False)


def values_of(each: PolicyObject) -> dict[str, Any]:
    """What differs from the defaults, without the name; plain values, as TOML and JSON have them."""
    values = json.loads(_adapter(kind_of(each)).dump_json(each))
    defaults = {entry.name: entry.default for entry in fields(each)}
    return {
        key: _trimmed(value) for key, value in values.items() if key != "name" and getattr(each, key) != defaults[key]
    }


def _trimmed(value: Any) -> Any:
    """Items of a menu: without what they leave at its default."""
    if isinstance(value, list):
        return [_trimmed(each) for each in value]
    if isinstance(value, dict):
        return {key: each for key, each in value.items() if each != "" or key == "title"}  # a title must be there
    return value


def _said(fault: ValidationError) -> str:
    said = []
    for error in fault.errors():
        where = ".".join(str(part) for part in error["loc"] if not str(part).startswith("function"))
        text = error["msg"].removeprefix("Value error, ")
        if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            text = "there is no such field"
        said.append(f"{where}: {text}" if where else text)
    return "; ".join(said)
