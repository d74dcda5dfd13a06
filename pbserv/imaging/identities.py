"""Image-safe data of the devices: looked at, changed, filled from pools, and confirmed by the systems that got it.

One rule: what is decided about an identity is decided within the transaction that writes it, of what stands there.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pbserv.imaging.identity import Identity, Served
from pbserv.imaging.jobs import History
from pbserv.imaging.pools import BY_HAND, Filled, Pool, filled
from pbserv.registry.identity import Claim, IdentityRecord, IdentityWrite
from pbserv.registry.pools import PoolRecord
from pbserv.registry.records import Device, DeviceState
from pbserv.registry.registry import ConflictError, Registry

_OPTION: Final = {"hostname": "--last N", "address": "--network or --addresses"}
"""With what a pool gets more of it."""
_KINDS: Final = {"hostname": "name", "address": "address"}


@dataclass(frozen=True, slots=True)
class Looked:
    """``own``: what administrators said; ``filled``: with what pools add; ``record``: as it is kept."""

    device: Device
    own: Identity
    record: IdentityRecord
    filled: Filled

    @classmethod
    def of(cls, device: Device, record: IdentityRecord, pools: Sequence[PoolRecord]) -> Looked:
        """Raises ConflictError for what a newer pbserv wrote."""
        try:
            own = Identity.from_json(record.body)
            known = [Pool.from_json(each.name, each.body) for each in pools]
        except ValueError as fault:
            raise ConflictError(f"{fault}; a newer pbserv wrote it") from None
        return cls(device, own, record, filled(own, record.given, known, device.folder, device.groups))

    @property
    def said(self) -> bool:
        """Whether there is anything in it, or would be once it is filled."""
        return self.filled.identity != Identity() or bool(self.filled.lacking) or self.record.just_imaged


Check = Callable[[Looked], None]
"""Raises when what stands is not what the caller has seen."""


def _anything(_: Looked) -> None:
    pass


class IdentityDesk:
    """``key`` makes the tokens of installed systems; it is like no other of the server's."""

    def __init__(self, registry: Registry, history: History, key: bytes) -> None:
        self.registry = registry
        self._history = history
        self._key = key

    async def look(self, mac: str) -> Looked:
        """Raises NotFoundError for a device that is not registered."""
        return Looked.of(*await self.registry.identity(mac))

    async def change(self, mac: str, make: Callable[[Identity], Identity], check: Check = _anything) -> Looked:
        """``make`` may raise ValueError. Raises NotFoundError, and ConflictError for a hostname or address that another
        device has."""

        def decide(device: Device, record: IdentityRecord, pools: Sequence[PoolRecord]) -> IdentityWrite:
            check(Looked.of(device, record, pools))
            own = make(Identity.from_json(record.body))
            return _changed(Looked.of(device, _with_body(record, own), pools))

        after = Looked.of(*await self.registry.change_identity(mac, decide))
        self._history.add(after.device.mac, "identity", f"changed by an administrator: {summary(after)}")
        return after

    async def fill(self, mac: str) -> Looked:
        """What is lacking is given from the pools that serve the device; a second call changes nothing. Raises
        NotFoundError, and ConflictError when these are used up."""
        before = await self.look(mac)
        if not _to_do(before):
            return before

        def decide(device: Device, record: IdentityRecord, pools: Sequence[PoolRecord]) -> IdentityWrite | None:
            now = Looked.of(device, record, pools)
            return _filling(now) if _to_do(now) else None

        after = Looked.of(*await self.registry.change_identity(mac, decide))
        self._history.add(after.device.mac, "identity", f"filled from pools: {summary(after)}")
        return after

    async def prepare(self, mac: str) -> tuple[bool, str]:
        """Before a disk is written: whether there is image-safe data for the device, filled now; and why it cannot be
        filled, or an empty text. Raises NotFoundError."""
        try:
            return (await self.fill(mac)).said, ""
        except ConflictError as fault:
            return True, str(fault)

    async def clear(self, mac: str, check: Check = _anything) -> None:
        """Nothing is said any more; its values are free for others. Raises NotFoundError."""

        def decide(device: Device, record: IdentityRecord, pools: Sequence[PoolRecord]) -> IdentityWrite:
            check(Looked.of(device, record, pools))
            return IdentityWrite("", empty=True)

        device, _, _ = await self.registry.change_identity(mac, decide)
        self._history.add(device.mac, "identity", "cleared by an administrator")

    async def set_just_imaged(self, mac: str, wanted: bool, by: str) -> Looked:
        """Raises NotFoundError. The history tells of a change alone."""
        before = await self.look(mac)
        if before.record.just_imaged is wanted:
            return before
        await self.registry.set_just_imaged(mac, wanted)
        self._history.add(before.device.mac, "identity", f"just imaged: {'set' if wanted else 'cleared'} by {by}")
        return await self.look(mac)

    def token_of(self, mac: str) -> str:
        """64 hex digits that open the identity of this device (its name in the registry) and nothing else."""
        return hmac.new(self._key, mac.encode(), hashlib.sha256).hexdigest()

    def opens(self, mac: str, token: str) -> bool:
        return hmac.compare_digest(self.token_of(mac).encode(), token.encode("utf-8", "replace"))

    def served(self, seen: Looked, server: str) -> Served:
        """What the device gets. ``server``: the URL at which it reached this server."""
        record, mac = seen.record, seen.device.mac
        return Served(
            seen.filled.identity, mac, server, self.token_of(mac), record.just_imaged, record.image, record.version
        )


def summary(seen: Looked) -> str:
    """For the history: what it is called and how it is reached."""
    identity, sources = seen.filled.identity, seen.filled.sources
    told = []
    for name in ("hostname", "address"):
        if getattr(identity, name):
            source = f" (pool {sources[name]})" if sources.get(name) else ""
            told.append(f"{name} {getattr(identity, name)}{source}")
    if identity.dhcp:
        told.append("addresses from DHCP")
    return ", ".join(told) or "no name, no address"


def _with_body(record: IdentityRecord, own: Identity) -> IdentityRecord:
    body = own.to_json()
    return IdentityRecord(
        record.mac, body, record.given, record.just_imaged, record.image, record.version, record.changed
    )


def _by_hand(seen: Looked) -> frozenset[str]:
    return frozenset(filter(None, (seen.own.hostname, seen.own.address)))


def _changed(wanted: Looked) -> IdentityWrite:
    """``wanted``: what is to stand, with the values that the device has now."""
    hand = _by_hand(wanted)
    held = {value for pool, value in wanted.record.given if pool == BY_HAND}
    claims = [(name, getattr(wanted.own, name)) for name in ("hostname", "address")]
    new = [(name, value) for name, value in claims if value and value not in held]
    return IdentityWrite(
        wanted.record.body,
        wanted.filled.used | (hand & held),
        [[Claim(BY_HAND, (value,))] for _, value in new],
        [
            f"{name} {value} is that of {{holder}}: choose another, or take it away there:"
            f" pbserv device identity MAC --{name} ''"
            for name, value in new
        ],
    )


def _to_do(seen: Looked) -> bool:
    useless = any(pool != BY_HAND and value not in seen.filled.used for pool, value in seen.record.given)
    return useless or bool(seen.filled.lacking)


def _filling(seen: Looked) -> IdentityWrite:
    mac = seen.device.mac
    if seen.device.state is DeviceState.RETIRED and seen.filled.lacking:
        raise ConflictError(f"device {mac} is retired: it gets no values of pools; accept it first")
    held = {value for pool, value in seen.record.given if pool == BY_HAND}
    claims, none_left = [], []
    for name, pools in seen.filled.lacking.items():
        claims.append([Claim(each.name, each.names() if name == "hostname" else each.hosts()) for each in pools])
        several = ", ".join(repr(each.name) for each in pools)
        none_left.append(
            f"no {_KINDS[name]} is free for device {mac}: pool {several} is used up; give it more: pbserv pool set"
            f" '{pools[0].name}' {_OPTION[name]}, or name one: pbserv device identity {mac} --{name}"
        )
    return IdentityWrite(seen.record.body, seen.filled.used | held, claims, none_left)
