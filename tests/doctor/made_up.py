"""Facts of a host that is well, to be changed by each test in the one place that it is about."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pbserv.doctor.facts import Asked, Facts, Link, OfferSeen, Rights
from pbserv.doctor.finding import Finding
from pbserv.net.interfaces import InterfaceAddress
from pbserv.settings import Settings, load_settings

ALL = {"pbserv.conf": {"Services": "imaging tftp policy proxydhcp"}}
ROOT = Rights(uid=0, capabilities=frozenset((10, 13)), user="pbserv", user_uid=990, user_gids=frozenset((990,)))

Conf = Mapping[str, Mapping[str, str]]


def settings(conf: Conf = ALL) -> Settings:
    """Settings from files that hold ``conf`` and are gone again."""
    with tempfile.TemporaryDirectory() as place:
        for name, keys in {**ALL, **conf}.items():
            (Path(place) / name).write_text("".join(f"{key} = {value}\n" for key, value in keys.items()))
        return load_settings(Path(place))


def proxydhcp(**keys: str) -> Settings:
    return settings({"proxydhcp.conf": keys})


def address(text: str, name: str = "eth0", index: int = 2, brd: bool = True) -> InterfaceAddress:
    host, _, length = text.partition("/")
    broadcast = host.rpartition(".")[0] + ".255" if brd else None
    return InterfaceAddress(index, name, host, int(length or "24"), broadcast)


def link(name: str = "eth0", *addresses: str, index: int = 2, **changes: Any) -> Link:
    found = tuple(address(text, name, index) for text in addresses or ("10.0.0.1/24",))
    return dataclasses.replace(Link(name, index, addresses=found), **changes)


LOOPBACK = Link("lo", 1, loopback=True, addresses=(InterfaceAddress(1, "lo", "127.0.0.1", 8),), carrier=None)


def facts(conf: Settings | None = None, **changes: Any) -> Facts:
    """A host with one interface, 10.0.0.1/24 on eth0, on which nothing is wrong."""
    return dataclasses.replace(Facts(conf or settings(), links=(LOOPBACK, link()), rights=ROOT), **changes)


def offer(source: str = "10.0.0.5", **changes: Any) -> OfferSeen:
    """An offer of a plain DHCP server."""
    plain = OfferSeen(source, "52:54:00:00:00:05", source, is_dhcp=True, is_proxy=False)
    return dataclasses.replace(plain, **changes)


def proxy(source: str = "10.0.0.9", **changes: Any) -> OfferSeen:
    """An offer of a proxyDHCP server."""
    return offer(source, is_dhcp=False, is_proxy=True, vendor_class="PXEClient", **changes)


def asked(*offers: OfferSeen, interface: str = "eth0") -> tuple[Asked, ...]:
    return (Asked(interface, "bios", offers), Asked(interface, "uefi", offers))


def only(check: Callable[[Facts], Iterator[Finding]], about: Facts) -> Finding:
    """The one finding of a check."""
    found = list(check(about))
    assert len(found) == 1, found
    return found[0]
