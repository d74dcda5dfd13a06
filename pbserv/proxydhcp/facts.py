"""What the host knows about how a packet came, as a value: the pure half of receiving. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from pbserv.proxydhcp.outcome import Ignore, Listener, Reason
from pbserv.proxydhcp.packet import undotted


class LocalAddress(Protocol):
    """An IPv4 address of this host."""

    @property
    def ifindex(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def prefix_length(self) -> int: ...


class Arrival(Protocol):
    """A received datagram, without its bytes."""

    @property
    def peer(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def local(self) -> str: ...

    @property
    def destination(self) -> str: ...

    @property
    def ifindex(self) -> int: ...


class Facts(NamedTuple):
    """Where a packet came from and which address this host shows there.

    ``advertised`` is the address that clients are told, mostly ``local`` itself. ``networks`` are the subnets of the
    arrival interface as (network, mask) pairs of integers.
    """

    listener: Listener
    source: str
    source_port: int
    local: str
    advertised: str
    ifindex: int
    unicast: bool = False
    networks: tuple[tuple[int, int], ...] = ()

    def interface_to(self, address: str) -> int:
        """The interface to name when sending to ``address``: the arrival interface, or 0 (by route).

        To name an interface makes the kernel believe that the address is on that wire when no route says otherwise,
        so a client behind a router is left to the routes.
        """
        number = int.from_bytes(undotted(address), "big")
        near = number == 0xFFFFFFFF or any(number & mask == network for network, mask in self.networks)
        return self.ifindex if near else 0


def gather(
    arrival: Arrival,
    listener: Listener,
    host: Sequence[LocalAddress],
    local_interface: str | None,
    advertised: Mapping[str, str] = MappingProxyType({}),
) -> Facts | Ignore:
    """The facts about a datagram, or why it is none of ours.

    ``local_interface`` restricts to the interface that has this address (and shows this address there); datagrams
    that were sent to the address itself count as well, whichever way they came. ``advertised``: what clients are told
    instead of our own address, by the name of the interface.
    """
    here = [entry for entry in host if entry.ifindex == arrival.ifindex]
    unicast = any(entry.address == arrival.destination for entry in host)
    if local_interface is not None:
        at_home = any(entry.address == local_interface for entry in here)
        if not at_home and arrival.destination != local_interface:
            return Ignore(Reason.OTHER_INTERFACE, f"only the interface of {local_interface} is served")
    if unicast:
        local = arrival.destination
    elif local_interface is not None:
        local = local_interface
    elif any(entry.address == arrival.local for entry in here):
        local = arrival.local  # the kernel's choice among several addresses of the interface
    elif here:
        local = here[0].address
    else:
        return Ignore(Reason.NO_LOCAL_ADDRESS, "the interface has no IPv4 address", "give the interface an address")
    networks = tuple([_network(entry.address, entry.prefix_length) for entry in here])
    names = [entry.name.partition(":")[0] for entry in here]  # an alias is eth0:1
    told = next((advertised[name] for name in names if name in advertised), local)
    return Facts(listener, arrival.peer, arrival.port, local, told, arrival.ifindex, unicast, networks)


@functools.lru_cache(maxsize=256)
def _network(address: str, prefix_length: int) -> tuple[int, int]:
    mask = (0xFFFFFFFF << (32 - prefix_length)) & 0xFFFFFFFF
    return int.from_bytes(undotted(address), "big") & mask, mask
