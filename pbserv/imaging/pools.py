"""Pools: names and addresses for devices that have none, and what all devices of a place share. Pure.

One rule: a pool that exists can be given out to its end: every value of it is one that a device may have.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final  # Any: what JSON gives

from pbserv.imaging.identity import (
    Identity,
    check_dns,
    check_domain,
    check_host,
    check_hostname,
    check_suffixes,
    check_workgroup,
    ipv4,
    normal,
)

MOST: Final = 65_536
"""Names, or addresses, of one pool."""
BY_HAND: Final = ""
"""The pool of what administrators gave themselves; no pool is called so."""
_NUMBER: Final = re.compile(r"\{n(?::0([1-9]))?\}")
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._ -]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Pool:
    """Names, addresses, or both, for the devices of a folder and group.

    ``pattern``: of names, with the number in it as ``lab{n}`` or, with zeros before it, ``lab{n:02}``; ``first`` to
    ``last`` are the numbers. ``network``: ``10.1.0.0/24``; ``addresses``: those of it that are given out, as
    ``10.1.0.10-10.1.0.99``; empty: all but the gateway and the name servers. ``dhcp``: the devices get their addresses
    from DHCP. ``folder``: it serves devices there and below; ``group``: only those of that group. The rest is what a
    device of the pool gets where nothing of its own is said.
    """

    name: str
    pattern: str = ""
    first: int = 1
    last: int = 0
    network: str = ""
    addresses: str = ""
    gateway: str = ""
    dhcp: bool = False
    domain: str = ""
    workgroup: str = ""
    dns: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    folder: str = "/"
    group: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"pool {self.name[:80]!r}: letters, digits, space, - _ and . (not at its ends), at most 64"
            )
        for name, check in _SHARED.items():
            if getattr(self, name):
                check(getattr(self, name))
        if not self.folder.startswith("/") or (self.folder != "/" and self.folder.endswith("/")):
            raise ValueError(f"folder {self.folder[:80]!r}: write / or /NAME/NAME")
        _check_names(self)
        _check_network(self)

    def names(self) -> Iterator[str]:
        """All of them, the lowest number first."""
        if self.pattern:
            for number in range(self.first, self.last + 1):
                yield _named(self.pattern, number)

    def hosts(self) -> Iterator[str]:
        """All addresses that are given out, the lowest first."""
        span = _span(self)
        if span is None:
            return
        kept = {self.gateway, *self.dns}
        low, high = span
        for number in range(int(low), int(high) + 1):
            text = str(ipaddress.IPv4Address(number))
            if text not in kept:
                yield text

    @property
    def name_count(self) -> int:
        return self.last - self.first + 1 if self.pattern else 0

    @property
    def host_count(self) -> int:
        span = _span(self)
        if span is None:
            return 0
        kept = {each for each in (self.gateway, *self.dns) if is_address(each)}
        inside = sum(span[0] <= ipaddress.IPv4Address(each) <= span[1] for each in kept)
        return int(span[1]) - int(span[0]) + 1 - inside

    @property
    def netmask(self) -> str:
        return str(ipaddress.IPv4Network(self.network).netmask) if self.network else ""

    def serves(self, folder: str, groups: Iterable[str]) -> bool:
        """Whether a device of this folder and these groups gets its values here."""
        below = self.folder == "/" or folder == self.folder or folder.startswith(f"{self.folder}/")
        return below and (not self.group or self.group in groups)

    def to_json(self) -> str:
        """Without the name, and what differs from the defaults alone."""
        said = {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if entry.name != "name" and getattr(self, entry.name) != entry.default
        }
        return json.dumps(said, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, name: str, text: str) -> Pool:
        """Raises ValueError that says what cannot be read."""
        try:
            said = json.loads(text or "{}")
        except (ValueError, RecursionError) as fault:
            raise ValueError(f"pool {name!r}: no JSON: {fault}") from None
        if not isinstance(said, dict):
            raise ValueError(f"pool {name!r}: not an object")
        return cls(name, **{key: _read(name, key, value) for key, value in said.items()})

    @classmethod
    def of(cls, name: str, said: Mapping[str, Any]) -> Pool:
        """Of values as people write them; raises ValueError."""
        return cls(name, **normal(said))


def fitting(pools: Iterable[Pool], folder: str, groups: Sequence[str]) -> list[Pool]:
    """Those that serve the device, the nearest first: one of a group before one of a folder, a deep folder before one
    above it, then by name."""
    found = [pool for pool in pools if pool.serves(folder, groups)]
    return sorted(found, key=lambda pool: (not pool.group, -_depth(pool.folder), pool.name))


@dataclass(frozen=True, slots=True)
class Filled:
    """An identity with what pools add to it.

    ``sources``: field -> the pool that it comes from; ``BY_HAND``: an administrator said it. ``used``: the values of
    pools that it has; others that the device was given are of no use to it any more. ``lacking``: ``hostname`` and
    ``address``, each where the device has none and pools could give it one: these, the nearest first.
    """

    identity: Identity
    sources: Mapping[str, str]
    used: frozenset[str]
    lacking: Mapping[str, tuple[Pool, ...]]


def filled(
    own: Identity, given: Iterable[tuple[str, str]], pools: Sequence[Pool], folder: str, groups: Sequence[str]
) -> Filled:
    """``own``: what administrators said. ``given``: pool and value of what the device was given already; these stay,
    also when another pool serves the device now. ``pools``: all that there are.

    What an administrator said wins. The nearest pool that speaks of addresses decides whether they come from DHCP.
    Domain, work group, servers and suffixes come from the nearest pool that says them.
    """
    known, serving = {pool.name: pool for pool in pools}, fitting(pools, folder, groups)
    sources = {entry.name: BY_HAND for entry in fields(own) if getattr(own, entry.name)}
    identity, used = own, set()
    for name, value in sorted(given):
        before, pool = identity, known.get(name)
        if pool is not None:
            identity = _with_value(identity, sources, pool, value)
        if identity is not before:
            used.add(value)
    speaking = [pool for pool in serving if pool.network or pool.dhcp]
    if speaking and speaking[0].dhcp and not identity.address and not identity.dhcp:
        identity, sources["dhcp"] = replace(identity, dhcp=True), speaking[0].name
    for pool in serving:
        identity = _with_shared(identity, sources, pool)
    names = () if identity.hostname else tuple(pool for pool in serving if pool.pattern)
    hosts = () if identity.address or identity.dhcp else tuple(pool for pool in speaking if pool.network)
    lacking = {field: some for field, some in (("hostname", names), ("address", hosts)) if some}
    return Filled(identity, sources, frozenset(used), lacking)


def is_address(value: str) -> bool:
    """Of a value of a pool: a name has a letter in it."""
    return value[:1].isdigit() and value.count(".") == 3


def _with_value(identity: Identity, sources: dict[str, str], pool: Pool, value: str) -> Identity:
    """The pool may have been changed since it gave the value: an address that is not in its network is none."""
    if not is_address(value):
        if identity.hostname:
            return identity
        sources["hostname"] = pool.name
        return replace(identity, hostname=value)
    if identity.dhcp or identity.address or not pool.network or value == pool.gateway:
        return identity
    network = ipaddress.IPv4Network(pool.network)
    try:
        check_host(ipaddress.IPv4Address(value), network, "address")
    except ValueError:
        return identity
    sources.update({name: pool.name for name in ("address", "netmask", *(("gateway",) if pool.gateway else ()))})
    return replace(identity, address=value, netmask=pool.netmask, gateway=pool.gateway)


def _with_shared(identity: Identity, sources: dict[str, str], pool: Pool) -> Identity:
    """Where addresses come from DHCP, so do name servers and suffixes."""
    for name in ("domain", "workgroup", *(() if identity.dhcp else ("dns", "suffixes"))):
        if not getattr(identity, name) and getattr(pool, name):
            identity = replace(identity, **{name: getattr(pool, name)})
            sources[name] = pool.name
    return identity


_SHARED: Final[Mapping[str, Callable[[Any], None]]] = {
    "domain": check_domain, "workgroup": check_workgroup, "dns": check_dns, "suffixes": check_suffixes,
}  # fmt: skip
"""What all devices of a pool get, where nothing of their own is said."""


def _check_names(pool: Pool) -> None:
    if not pool.pattern:
        if pool.last:
            raise ValueError(
                f"pool {pool.name!r}: first and last are numbers of names: say the pattern, as lab{{n:02}}"
            )
        return
    if len(_NUMBER.findall(pool.pattern)) != 1:
        raise ValueError(f"pattern {pool.pattern[:80]!r}: the number stands in it once, as lab{{n}} or lab{{n:02}}")
    if not 0 <= pool.first <= pool.last:
        raise ValueError(f"pool {pool.name!r}: numbers from {pool.first} to {pool.last} are none; say first and last")
    if pool.last - pool.first >= MOST:
        raise ValueError(f"pool {pool.name!r}: {pool.last - pool.first + 1} names; {MOST} at most")
    for number in (pool.first, pool.last):
        try:
            check_hostname(_named(pool.pattern, number))
        except ValueError as fault:
            raise ValueError(f"pattern {pool.pattern[:80]!r}: {fault}") from None


def _named(pattern: str, number: int) -> str:
    return _NUMBER.sub(lambda found: f"{number:0{found[1] or 1}}", pattern)


def _check_network(pool: Pool) -> None:
    if not pool.network:
        if pool.addresses or pool.gateway:
            raise ValueError(f"pool {pool.name!r}: addresses and gateway need their network, such as 10.1.0.0/24")
        return
    if pool.dhcp:
        raise ValueError(f"pool {pool.name!r}: dhcp and the network {pool.network} exclude each other: leave one out")
    try:
        network = ipaddress.IPv4Network(pool.network)
    except ValueError as fault:
        raise ValueError(f"network {pool.network[:80]!r}: {fault}; write it as 10.1.0.0/24") from None
    if str(network) != pool.network or network.num_addresses > MOST or network.prefixlen == 32:
        raise ValueError(f"network {pool.network!r}: write it as 10.1.0.0/24, with 16 to 31 bits")
    if pool.gateway:
        gateway = ipv4("gateway", pool.gateway)
        if str(gateway) != pool.gateway:
            raise ValueError(f"gateway {pool.gateway!r}: write it as {gateway}")
        check_host(gateway, network, "gateway")
    if pool.addresses:
        low, high = _range(pool.addresses)
        check_host(low, network, "addresses:")
        check_host(high, network, "addresses:")
    first = next(pool.hosts(), None)
    if first is None:
        raise ValueError(f"pool {pool.name!r}: no address is left of the network {pool.network}")
    check_host(ipaddress.IPv4Address(first), network, "addresses:")


def _range(text: str) -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]:
    low, dash, high = text.partition("-")
    if not dash:
        raise ValueError(f"addresses {text[:80]!r}: write the first and the last, as 10.1.0.10-10.1.0.99")
    first, last = ipv4("addresses:", low.strip()), ipv4("addresses:", high.strip())
    if last < first:
        raise ValueError(f"addresses {text}: the last one is before the first")
    return first, last


def _span(pool: Pool) -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address] | None:
    if not pool.network:
        return None
    if pool.addresses:
        return _range(pool.addresses)
    network = ipaddress.IPv4Network(pool.network)
    if network.prefixlen >= 31:
        return network.network_address, network.broadcast_address
    return network.network_address + 1, network.broadcast_address - 1


def _depth(folder: str) -> int:
    return 0 if folder == "/" else folder.count("/")


_TYPES: Final = {entry.name: entry.type for entry in fields(Pool)}


def _read(pool: str, key: str, value: object) -> Any:
    kind = _TYPES.get(key) if key != "name" else None
    if kind is None:
        raise ValueError(f"pool {pool!r}: {key!r} is unknown to this version of pbserv")
    if kind == "bool":
        fits = isinstance(value, bool)
    elif kind == "int":
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif kind == "str":
        fits = isinstance(value, str)
    else:
        fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
    if not fits:
        raise ValueError(f"pool {pool!r}: {key} cannot be {value!r:.80}")
    return tuple(value) if isinstance(value, list) else value
