"""The table of strategies, quirks and overrides: TOML text to a value, and the rule that fits a client. Pure.

One rule: an administrator's table is looked at first, and each mistake in it says which entry and what is valid.
"""

from __future__ import annotations

import contextlib
import ipaddress
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pbserv.errors import PbservError
from pbserv.proxydhcp.outcome import ClientKind
from pbserv.proxydhcp.strategy import ITEMS, Strategy

LOADER: Final = "loader"
SILENCE: Final = "silence"
ABSENT: Final = "absent"
NOT_STRATEGIES: Final = (LOADER, SILENCE, ABSENT)
_CLASSES: Final = {"PXEClient": b"PXEClient", "HTTPClient": b"HTTPClient"}
_STRATEGY_KEYS: Final = {"control", "items", "timeout", "file", "option43", "priority", "source"}
_CONDITIONS: Final = {"kind", "arch", "mac", "subnet", "vendor_class"}
_RULE_KEYS: Final = _CONDITIONS | {"strategy", "with_menu", "escalate", "local", "loader", "ignore", "source"}
_LONGEST: Final = 255
_FAULTS_SHOWN: Final = 5


class TableError(PbservError):
    """The table cannot be used; the message names the entries."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions, of which an empty one is always fulfilled, and what follows; see strategies.toml."""

    kinds: frozenset[str] = frozenset()
    archs: frozenset[int] = frozenset()
    macs: tuple[bytes, ...] = ()
    subnets: tuple[ipaddress.IPv4Network, ...] = ()
    vendor_classes: tuple[bytes, ...] = ()
    strategy: str = ""
    with_menu: str = ""
    escalate: tuple[str, ...] = ()
    local: str = LOADER
    loader: str = ""
    ignore: str = ""
    source: str = ""

    @property
    def personal(self) -> bool:
        """It asks for more than what clients of one model have in common."""
        return bool(self.macs or self.subnets)

    def fits(self, kind: ClientKind, arch: int, vendor_class: bytes, mac: bytes, network: str) -> bool:
        """``network``: the relay's address, else ours on the interface."""
        return (
            (not self.kinds or kind.value in self.kinds)
            and (not self.archs or arch in self.archs)
            and (not self.vendor_classes or vendor_class.startswith(self.vendor_classes))
            and (not self.macs or mac.startswith(self.macs))
            and (not self.subnets or any(ipaddress.IPv4Address(network) in subnet for subnet in self.subnets))
        )


@dataclass(frozen=True, slots=True)
class Vendor:
    """Clients whose option 60 begins with ``prefix`` count as ``vendor_class``."""

    prefix: bytes
    vendor_class: bytes


@dataclass(frozen=True, slots=True)
class Table:
    """Rules in their order, strategies by name, and further vendor classes."""

    strategies: Mapping[str, Strategy]
    rules: tuple[Rule, ...] = ()
    vendors: tuple[Vendor, ...] = ()

    @property
    def personal(self) -> bool:
        """Some rule asks for a device or a subnet, so that equal clients may get different answers."""
        return any(rule.personal for rule in self.rules)

    def rule(self, kind: ClientKind, arch: int, vendor_class: bytes, mac: bytes, network: str) -> Rule | None:
        """The first rule that fits."""
        return next((rule for rule in self.rules if rule.fits(kind, arch, vendor_class, mac, network)), None)


def parse(texts: Iterable[tuple[str, str]]) -> Table:
    """The table made of (name, TOML text) pairs, the most important first; raises TableError for all wrong entries."""
    strategies: dict[str, Strategy] = {}
    rules: list[tuple[str, Rule]] = []
    vendors: list[Vendor] = []
    faults: list[str] = []
    for name, text in texts:
        data = _tables(name, text)
        for key, entry in _mapping(name, data.get("strategies", {})).items():
            with _noting(faults):
                strategies.setdefault(key, _strategy(f"{name}: [strategies.{key}]", key, entry))
        for number, entry in enumerate(_list(name, data.get("rule", [])), 1):
            with _noting(faults):
                rules.append((where := f"{name}: rule {number}", _rule(where, entry)))
        for number, entry in enumerate(_list(name, data.get("vendor", [])), 1):
            with _noting(faults):
                vendors.append(_vendor(f"{name}: vendor {number}", entry))
    for where, rule in rules:
        with _noting(faults):
            _known(where, rule, strategies)
    if faults:
        more = f"; and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
        raise TableError("; ".join(faults[:_FAULTS_SHOWN]) + more)
    return Table(strategies, tuple(rule for _where, rule in rules), tuple(vendors))


def _tables(name: str, text: str) -> Mapping[str, Any]:
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as fault:  # ValueError: also a number of thousands of digits
        raise TableError(f"{name}: not TOML: {fault}") from None
    _only(name, data, {"strategies", "rule", "vendor"})
    return data


@contextlib.contextmanager
def _noting(faults: list[str]) -> Iterator[None]:
    """One wrong entry does not hide the next."""
    try:
        yield
    except TableError as fault:
        faults.append(str(fault))


def _strategy(where: str, name: str, entry: object) -> Strategy:
    data = _mapping(where, entry)
    _only(where, data, _STRATEGY_KEYS)
    _text(where, data, "source")
    items = tuple(_texts(where, data, "items"))
    wrong = [item for item in items if item not in ITEMS]
    if wrong:
        raise TableError(f"{where}: items: {wrong[0]!r} is not one of {', '.join(ITEMS)}")
    timeout = data.get("timeout", 0)
    if timeout != "MenuTimeout" and not _is_number(timeout, 0, 255):
        raise TableError(f'{where}: timeout: {timeout!r} is not 0 to 255 or "MenuTimeout"')
    control, priority = data.get("control"), data.get("priority")
    if control is not None and not _is_number(control, 0, 255):
        raise TableError(f"{where}: control: {control!r} is not 0 to 255")
    if priority is not None and not _is_number(priority, -128, 127):
        raise TableError(f"{where}: priority: {priority!r} is not -128 to 127")
    file = data.get("file", True)
    if not isinstance(file, bool):
        raise TableError(f"{where}: file: {file!r} is not true or false")
    raw = _hexadecimal(where, data.get("option43"))
    return Strategy(name, control, items, None if timeout == "MenuTimeout" else timeout, file, raw, priority)


def _hexadecimal(where: str, value: object) -> bytes | None:
    if value is None:
        return None
    try:
        raw = bytes.fromhex(value) if isinstance(value, str) else None
    except ValueError:
        raw = None
    if raw is None or len(raw) >= _LONGEST:
        raise TableError(f"{where}: option43: not hexadecimal bytes, at most {_LONGEST - 1}")
    return raw


def _rule(where: str, entry: object) -> Rule:
    data = _mapping(where, entry)
    _only(where, data, _RULE_KEYS)
    if not data.get("ignore") and not data.get("strategy"):
        raise TableError(f"{where}: names neither a strategy nor ignore")
    kinds = frozenset(_texts(where, data, "kind"))
    wrong = sorted(kinds - {kind.value for kind in ClientKind})
    if wrong:
        raise TableError(f"{where}: kind: {wrong[0]!r} is not one of {', '.join(kind.value for kind in ClientKind)}")
    return Rule(
        kinds=kinds,
        archs=frozenset(_numbers(where, data, "arch")),
        macs=tuple(_mac(where, text) for text in _texts(where, data, "mac")),
        subnets=tuple(_subnet(where, text) for text in _texts(where, data, "subnet")),
        vendor_classes=tuple(text.encode() for text in _texts(where, data, "vendor_class")),
        strategy=_text(where, data, "strategy", needed=False),
        with_menu=_text(where, data, "with_menu", needed=False),
        escalate=tuple(_texts(where, data, "escalate")),
        local=_text(where, data, "local", needed=False) or LOADER,
        loader=_text(where, data, "loader", needed=False),
        ignore=_text(where, data, "ignore", needed=False),
        source=_text(where, data, "source"),
    )


def _known(where: str, rule: Rule, strategies: Mapping[str, Strategy]) -> None:
    named = [rule.strategy, rule.with_menu, *rule.escalate]
    if rule.local not in NOT_STRATEGIES:
        named.append(rule.local)
    for name in named:
        if name and name not in strategies:
            raise TableError(f"{where}: there is no strategy {name!r}; there are: {', '.join(sorted(strategies))}")


def _vendor(where: str, entry: object) -> Vendor:
    data = _mapping(where, entry)
    _only(where, data, {"prefix", "class", "source"})
    _text(where, data, "source")
    name = _text(where, data, "class")
    if name not in _CLASSES:
        raise TableError(f"{where}: class: {name!r} is not one of {', '.join(_CLASSES)}")
    return Vendor(_text(where, data, "prefix").encode(), _CLASSES[name])


def _mac(where: str, text: str) -> bytes:
    digits = text.replace(":", "").replace("-", "").replace(".", "")
    try:
        octets = bytes.fromhex(digits)
    except ValueError:
        octets = b""
    if not 1 <= len(octets) <= 6:
        raise TableError(f"{where}: mac: {text!r} is not the beginning of a MAC address such as aa:bb:cc")
    return octets


def _subnet(where: str, text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as fault:
        raise TableError(f"{where}: subnet: {fault}") from None


def _mapping(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TableError(f"{where}: a table is wanted")
    return value


def _list(where: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TableError(f"{where}: write [[rule]] and [[vendor]] with two brackets")
    return value


def _only(where: str, data: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(data) - known)
    if unknown:
        raise TableError(f"{where}: {unknown[0]!r} is not known; there are: {', '.join(sorted(known))}")


def _text(where: str, data: Mapping[str, Any], key: str, *, needed: bool = True) -> str:
    value = data.get(key, "")
    if not isinstance(value, str) or (needed and not value):
        raise TableError(f"{where}: {key}: a text is wanted")
    if "\0" in value:  # it would end a name in a packet
        raise TableError(f"{where}: {key}: has a zero byte")
    return value


def _texts(where: str, data: Mapping[str, Any], key: str) -> list[str]:
    value = data.get(key, [])
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
        raise TableError(f"{where}: {key}: a text or a list of texts is wanted")
    return found


def _numbers(where: str, data: Mapping[str, Any], key: str) -> list[int]:
    value = data.get(key, [])
    found = value if isinstance(value, list) else [value]
    if not all(_is_number(one, 0, 65_535) for one in found):
        raise TableError(f"{where}: {key}: a number from 0 to 65535 or a list of such is wanted")
    return found


def _is_number(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
