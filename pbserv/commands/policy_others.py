"""Pools and image-safe data in a policy file: read, compared with the server's, and put there.

One rule: each pool and each identity is a change of its own, after the objects and devices that it needs, and none is
deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final  # Any: JSON values as the API takes and answers them

from pbserv.commands.api import Api, named
from pbserv.commands.tables import Row
from pbserv.errors import PbservError
from pbserv.imaging.identity import Identity
from pbserv.imaging.pools import Pool
from pbserv.policy.entries import device_mac
from pbserv.policy.files import Check, Named, PolicyFile

_KEPT: Final = ("name", "revision", "given", "names", "hosts")
"""What an answer about a pool has beyond its fields."""
_BY_HAND: Final = "administrator"


def _pool(name: str, values: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return name, _fields(Pool.from_json(name, _text(values)))


def _identity(mac: str, values: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return device_mac(mac), _fields(Identity.from_json(_text(values)))


CHECKS: Final[Mapping[str, Check]] = {"pool": _pool, "identity": _identity}
"""Table of a policy file -> what checks the things in it."""


@dataclass(frozen=True, slots=True)
class OtherChange:
    """``row``: as the changes of the policy are told. ``etag``: of the state that it was made for."""

    row: Row
    path: str
    etag: str | None


def exported(api: Api, macs: Iterable[str]) -> dict[str, Named]:
    """All pools, and what administrators said of these devices; what pools gave them is theirs to give."""
    pools = {each["name"]: _pool(each["name"], _of_pool(each))[1] for each in api.pages("/pools")}
    identities = {mac: _said(api.get(named("devices", mac, "identity"))) for mac in macs}
    return {"pool": pools, "identity": {mac: values for mac, values in identities.items() if values}}


def changes(api: Api, policy: PolicyFile) -> list[OtherChange]:
    """What applying the file would change. Raises PbservError for an identity of no device."""
    return [*_pool_changes(api, policy.others["pool"]), *_identity_changes(api, policy)]


def _pool_changes(api: Api, wanted: Named) -> Iterator[OtherChange]:
    for name, after in wanted.items():
        path = named("pools", name)
        found, etag = api.find(path)
        before = None if found is None else _pool(name, _of_pool(found))[1]
        if before != after:
            yield OtherChange(_row("pool", name, before, after), path, etag)


def _identity_changes(api: Api, policy: PolicyFile) -> Iterator[OtherChange]:
    for mac, after in policy.others["identity"].items():
        path = named("devices", mac, "identity")
        found, etag = api.find(path)
        if found is None and mac not in policy.entries:
            raise PbservError(f"identity {mac}: there is no such device; name it as [device.{json.dumps(mac)}], too")
        before = None if found is None else _said(found)
        if before != after:
            yield OtherChange(_row("identity", mac, before or None, after), path, etag)


def carry_out(api: Api, wanted: Iterable[OtherChange]) -> None:
    """Raises PbservError at the first that is refused; those before it stand."""
    for each in wanted:
        try:
            api.put(each.path, dict(each.row["after"]), _state(api, each))
        except PbservError as fault:
            what = f"{each.row['kind']} {each.row['name']}"
            raise PbservError(
                f"{what}: {fault}; what was shown before it is applied: mend it, and apply again"
            ) from None


def _state(api: Api, change: OtherChange) -> str | None:
    """The ETag to put it with. That of an identity is of all that is known of the device, which the changes before
    this one may have changed, too: it is asked for anew. Raises PbservError where what was said is another thing."""
    if change.row["kind"] != "identity":
        return change.etag
    found, etag = api.find(change.path)
    if found is not None and _said(found) != (change.row["before"] or {}):
        raise PbservError("it was changed since")
    return etag


def _row(kind: str, name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Row:
    return {"kind": kind, "name": name, "action": "create" if before is None else "change", "before": before,
            "after": after}  # fmt: skip


def _of_pool(found: Row) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in _KEPT}


def _said(found: Row) -> Mapping[str, Any]:
    """Of an identity as the API tells it, what an administrator said."""
    return {key: found[key] for key, source in found["sources"].items() if source == _BY_HAND and found[key]}


def _fields(thing: Pool | Identity) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(thing.to_json())
    return fields


def _text(values: Mapping[str, Any]) -> str:
    """TOML has dates, which no field is: they become texts."""
    return json.dumps(dict(values), default=str)
