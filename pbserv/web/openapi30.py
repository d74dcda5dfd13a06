"""An OpenAPI 3.1 document in the words of 3.0, for pages that read no newer one. Pure.

One rule: what 3.0 has no word for is left out rather than said wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final  # Any: JSON

_VERSION: Final = "3.0.3"
_UNKNOWN: Final = frozenset(
    {"contentMediaType", "contentEncoding", "propertyNames", "prefixItems", "const", "examples"}
)
_LIMITS: Final = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_NULL: Final = {"type": "null"}


def lowered(document: Mapping[str, Any]) -> dict[str, Any]:
    """A copy; ``document`` stays as it is."""
    return {**{key: _value(value) for key, value in document.items()}, "openapi": _VERSION}


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(each) for each in value]
    if isinstance(value, dict):
        return _schema(value) if _is_schema(value) else {key: _value(each) for key, each in value.items()}
    return value


def _is_schema(value: Mapping[str, Any]) -> bool:
    """Whether the keys are those of a schema. Names of properties are the keys of an object that is none."""
    kind = value.get("type")
    return (
        isinstance(kind, (str, list))
        or isinstance(value.get("anyOf"), list)
        or not isinstance(value.get("const", {}), dict)
    )


def _schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: _value(each) for key, each in schema.items() if key not in _UNKNOWN}
    if not isinstance(schema.get("const", {}), dict):
        found["enum"] = [schema["const"]]
    if isinstance(schema.get("examples"), list) and schema["examples"]:
        found["example"] = schema["examples"][0]
    if schema.get("contentMediaType") == "application/octet-stream":
        found["format"] = "binary"
    for exclusive, limit in _LIMITS.items():
        if isinstance(found.get(exclusive), (int, float)) and not isinstance(found[exclusive], bool):
            found[limit], found[exclusive] = found[exclusive], True
    if isinstance(schema.get("anyOf"), list) and _NULL in schema["anyOf"]:
        return _nullable(found)
    if "prefixItems" in schema:
        found.setdefault("items", {})
    return found


def _nullable(found: dict[str, Any]) -> dict[str, Any]:
    """``anyOf`` with ``null`` among its parts says that the value may be null."""
    parts = [each for each in found.pop("anyOf") if each != _NULL]
    if len(parts) == 1 and "$ref" not in parts[0]:
        return {**parts[0], **found, "nullable": True}
    return {**found, ("allOf" if len(parts) == 1 else "anyOf"): parts, "nullable": True}
