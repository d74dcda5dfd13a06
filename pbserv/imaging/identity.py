"""Image-safe data: what belongs to a device and not to the image that is written to it. Pure.

One rule: an identity that exists can be given to a system as it is; what contradicts itself is refused, with the field
and the remedy, when it is said.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal  # Any: what JSON gives, and the fields of a record on their way into another

Form = Literal["shell", "linux", "windows"]
"""Of the text: lines for the imaging client; the files that an installed Linux or Windows reads."""
MAX_DNS: Final = 8
MAX_SUFFIXES: Final = 8
MAX_WORKSTATION: Final = 255
MAX_DOMAIN: Final = 253
"""RFC 1035 2.3.4: 255 octets on the wire."""
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
"""RFC 1123 2.1."""
_WORKGROUP: Final = re.compile(r"[A-Za-z0-9_#@~-]([A-Za-z0-9_#@~. -]{0,13}[A-Za-z0-9_#@~-])?")
"""NetBIOS names have 15 characters; those that a shell or Windows reads as something else are left out."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Empty: not said, the system keeps what its image has.

    ``dhcp``: addresses come from DHCP, then none is set. ``address``, ``netmask`` and ``gateway`` are IPv4, as
    ``10.1.0.7``, ``255.255.255.0``; ``dns`` are addresses of either family. ``suffixes``: domains in which names are
    looked up. ``workstation``: the name of its object, or another text by which an inventory knows it.
    """

    hostname: str = ""
    domain: str = ""
    workgroup: str = ""
    dhcp: bool = False
    address: str = ""
    netmask: str = ""
    gateway: str = ""
    dns: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    workstation: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value:
                check(value)
        _check_addresses(self)

    @property
    def prefix(self) -> int:
        """Bits of the netmask; 0 without one."""
        return ipaddress.IPv4Network(f"0.0.0.0/{self.netmask}").prefixlen if self.netmask else 0

    def to_json(self) -> str:
        """What differs from the defaults alone."""
        said = {name: value for name, value in values_of(self).items() if value}
        return json.dumps(said, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Identity:
        """Raises ValueError that says what cannot be read; an empty text is an empty identity."""
        try:
            said = json.loads(text or "{}")
        except (ValueError, RecursionError) as fault:
            raise ValueError(f"identity: no JSON: {fault}") from None
        if not isinstance(said, dict):
            raise ValueError("identity: not an object")
        return cls(**{name: _read(name, value) for name, value in said.items()})


@dataclass(frozen=True, slots=True)
class IdentityChange:
    """What is changed of an identity; None leaves a field as it is, an empty value takes it away."""

    hostname: str | None = None
    domain: str | None = None
    workgroup: str | None = None
    dhcp: bool | None = None
    address: str | None = None
    netmask: str | None = None
    gateway: str | None = None
    dns: tuple[str, ...] | None = None
    suffixes: tuple[str, ...] | None = None
    workstation: str | None = None

    def of(self, before: Identity) -> Identity:
        """The identity after the change; raises ValueError. DHCP takes the addresses away, and an address DHCP."""
        said: dict[str, Any] = {name: value for name, value in values_of(self).items() if value is not None}
        if said.get("dhcp"):
            said = {"address": "", "netmask": "", "gateway": "", **said}
        elif said.get("address"):
            said = {"dhcp": False, **said}
        elif said.get("address") == "":
            said = {"netmask": "", "gateway": "", **said}
        return replace(before, **normal(said))


@dataclass(frozen=True, slots=True)
class Served:
    """What goes to a device: its identity, and by what it may say that it has taken it over.

    ``server``: ``http://10.0.0.5:8067``. ``token``: see :mod:`pbserv.imaging.identity_routes`.
    """

    identity: Identity
    mac: str
    server: str
    token: str
    just_imaged: bool
    image: str = ""
    version: int | None = None
    more: Mapping[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, str]:
        """All keys, always in the same order, with empty texts for what is not said."""
        own = self.identity
        dhcp = "1" if own.dhcp else "0" if own.address else ""
        return {
            "PBSERV": self.server, "MAC": self.mac, "TOKEN": self.token, "IMAGE": self.image,
            "VERSION": str(self.version or ""), "JUST_IMAGED": "1" if self.just_imaged else "0",
            "HOSTNAME": own.hostname, "DOMAIN": own.domain, "WORKGROUP": own.workgroup, "DHCP": dhcp,
            "ADDRESS": own.address, "NETMASK": own.netmask, "PREFIX": str(own.prefix or ""), "GATEWAY": own.gateway,
            "DNS": " ".join(own.dns), "SUFFIXES": " ".join(own.suffixes), "WORKSTATION": own.workstation,
        }  # fmt: skip

    def text(self, form: Form = "shell") -> str:
        """``KEY='value'`` lines that a POSIX shell may evaluate; for Windows ``KEY=value``, with its line ends."""
        if form == "windows":
            lines = [f"; {line}" for line in _ABOUT] + [f"{key}={value}" for key, value in self.values().items()]
            return "".join(f"{line}\r\n" for line in lines)
        lines = [f"# {line}" for line in _ABOUT] if form == "linux" else []
        lines += [f"{key}={_quoted(value)}" for key, value in self.values().items()]
        return "".join(f"{line}\n" for line in lines)


_ABOUT: Final = (
    "Image-safe data of this computer, written by pbserv when its disk was written.",
    "Whoever has applied it says so: POST mac=MAC to PBSERV/client/v1/identity/done, Authorization: Bearer TOKEN.",
    "What holds now: the same to PBSERV/client/v1/identity.",
)


def values_of(each: Identity | IdentityChange) -> dict[str, Any]:
    return {entry.name: getattr(each, entry.name) for entry in fields(each)}


def normal(said: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they are kept: ``24`` becomes ``255.255.255.0``, names have no dot at their end. Raises ValueError."""
    found = dict(said)
    if found.get("netmask"):
        found["netmask"] = netmask_of(found["netmask"])
    if found.get("domain"):
        found["domain"] = found["domain"].rstrip(".")
    if found.get("suffixes"):
        found["suffixes"] = tuple(dict.fromkeys(each.rstrip(".") for each in found["suffixes"]))
    if found.get("dns"):
        found["dns"] = tuple(dict.fromkeys(found["dns"]))
    return found


def netmask_of(text: str) -> str:
    """``255.255.255.0`` of itself, ``24`` or ``/24``. Raises ValueError."""
    bits = text.removeprefix("/")
    if re.fullmatch("[0-9]{1,2}", bits) and 1 <= int(bits) <= 32:
        return str(ipaddress.IPv4Network(f"0.0.0.0/{int(bits)}").netmask)
    number = int(ipv4("netmask", text))
    inverse = number ^ 0xFFFFFFFF
    if not number or inverse & (inverse + 1):
        raise ValueError(f"netmask {text!r}: write it as 255.255.255.0, or its bits: 24")
    return str(ipaddress.IPv4Address(number))


def ipv4(name: str, text: str) -> ipaddress.IPv4Address:
    """Raises ValueError that names the field."""
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is no IPv4 address; write it as 10.1.0.7") from None


def check_hostname(text: str) -> None:
    """Raises ValueError. Without a letter it would be taken for an address."""
    if not _LABEL.fullmatch(text) or text.isdecimal():
        raise ValueError(
            f"hostname {text!r}: letters, digits and - (not at its ends), at most 63, one letter at least; the domain"
            " stands apart"
        )


def check_domain(text: str) -> None:
    if len(text) > MAX_DOMAIN or not all(_LABEL.fullmatch(part) for part in text.split(".")):
        raise ValueError(f"domain {text[:80]!r}: write it as school.example")


def check_workgroup(text: str) -> None:
    if not _WORKGROUP.fullmatch(text):
        raise ValueError(f"workgroup {text[:80]!r}: letters, digits and - _ . # @ ~ and space, 15 at most")


def check_dns(servers: Sequence[str]) -> None:
    if len(servers) > MAX_DNS:
        raise ValueError(f"dns: {len(servers)} servers; {MAX_DNS} at most")
    for each in servers:
        try:
            address = ipaddress.ip_address(each)
        except ValueError:
            raise ValueError(f"dns {each[:80]!r} is no address; write it as 10.1.0.2 or 2001:db8::2") from None
        if address.is_multicast or address.is_unspecified:
            raise ValueError(f"dns {each} is no address of a server")


def check_suffixes(names: Sequence[str]) -> None:
    if len(names) > MAX_SUFFIXES:
        raise ValueError(f"suffixes: {len(names)} domains; {MAX_SUFFIXES} at most")
    for each in names:
        try:
            check_domain(each)
        except ValueError as fault:
            raise ValueError(f"suffixes: {fault}") from None


def check_host(address: ipaddress.IPv4Address, network: ipaddress.IPv4Network, name: str) -> None:
    """``address`` can be that of a computer in ``network``. Raises ValueError."""
    if address not in network:
        raise ValueError(f"{name} {address} is not in the network {network}")
    ends = () if network.prefixlen >= 31 else (network.network_address, network.broadcast_address)  # RFC 3021
    if address in ends or address.is_multicast or address.is_loopback or address.is_unspecified or address.is_reserved:
        raise ValueError(f"{name} {address} is no computer's address in the network {network}")


def _check_addresses(identity: Identity) -> None:
    if identity.dhcp and identity.address:
        raise ValueError(f"dhcp and the address {identity.address} exclude each other: leave one out")
    if not identity.address:
        if identity.netmask or identity.gateway:
            raise ValueError("netmask and gateway belong to an address: say it too, or leave them out")
        return
    if not identity.netmask:
        raise ValueError(f"address {identity.address}: its netmask is missing, such as 255.255.255.0")
    address = ipv4("address", identity.address)
    network = ipaddress.IPv4Network((int(address), identity.netmask), strict=False)
    check_host(address, network, "address")
    if identity.gateway:
        gateway = ipv4("gateway", identity.gateway)
        check_host(gateway, network, "gateway")
        if gateway == address:
            raise ValueError(f"gateway {gateway} is the device's own address")


def _check_workstation(text: str) -> None:
    if len(text) > MAX_WORKSTATION or not text.isprintable():
        raise ValueError(f"workstation: one line of at most {MAX_WORKSTATION} printable characters")


_CHECKS: Final[Mapping[str, Callable[[Any], None]]] = {
    "hostname": check_hostname,
    "domain": check_domain,
    "workgroup": check_workgroup,
    "address": lambda text: _canonical("address", text, str(ipv4("address", text))),
    "netmask": lambda text: _canonical("netmask", text, netmask_of(text)),
    "gateway": lambda text: _canonical("gateway", text, str(ipv4("gateway", text))),
    "dns": check_dns,
    "suffixes": check_suffixes,
    "workstation": _check_workstation,
}


def _canonical(name: str, text: str, same: str) -> None:
    if text != same:
        raise ValueError(f"{name} {text!r}: write it as {same}")


_TYPES: Final = {entry.name: entry.type for entry in fields(Identity)}


def _read(name: str, value: object) -> Any:
    """A value of JSON as the field has it. Raises ValueError for a field or type that there is not."""
    kind = _TYPES.get(name)
    if kind is None:
        raise ValueError(f"identity: {name!r} is unknown to this version of pbserv")
    if kind == "bool":
        fits = isinstance(value, bool)
    elif kind == "str":
        fits = isinstance(value, str)
    else:
        fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
    if not fits:
        raise ValueError(f"identity: {name} cannot be {value!r:.80}")
    return tuple(value) if isinstance(value, list) else value


def _quoted(value: str) -> str:
    return shlex.quote(value) if "'" in value else f"'{value}'"
