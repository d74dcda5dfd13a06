"""A received UDP datagram with the way that it came, and the words for a port that cannot be bound."""

from __future__ import annotations

import errno
from typing import NamedTuple


class Datagram(NamedTuple):
    """One received datagram. ``local`` is this host's address on the wire it came by (``ipi_spec_dst``);
    ``destination`` is what the sender wrote, which may be a broadcast."""

    data: bytes
    peer: str
    port: int
    local: str
    destination: str
    ifindex: int


def bind_fault(protocol: str, address: str, port: int, fault: OSError) -> str:
    """One line that says which address could not be bound, why, and what to do."""
    where = f"{protocol} {address}:{port}"
    match fault.errno:
        case errno.EADDRINUSE:
            return f"{where} is in use by another program; stop it (see: ss -lpn sport = :{port}) or change the port"
        case errno.EADDRNOTAVAIL:
            return f"{where}: this host has no address {address}; see: ip address"
        case errno.EACCES | errno.EPERM:
            return f"{where}: ports below 1024 need root or CAP_NET_BIND_SERVICE; start as root or change the port"
        case _:
            return f"{where}: {fault.strerror or fault}"
