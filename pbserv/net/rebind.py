"""Binding a second UDP listener beside the one that it is going to replace.

One rule: two addresses of one port may overlap (0.0.0.0 and 10.0.0.1) only between the two sockets of this process
and only during the call; afterwards another program gets "address in use" as ever.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from pbserv.errors import StartError
from pbserv.net.udp import IP_PKTINFO, PacketInfoSocket, bind_fault


def bind_beside(old: PacketInfoSocket, address: str, port: int, *, receive_buffer: int = 1 << 22) -> PacketInfoSocket:
    """A listener on ``address`` while ``old`` still holds an overlapping one; raises StartError."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        raw.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with _shareable(old):
            raw.bind((address, port))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as fault:
        raw.close()
        raise StartError(bind_fault("udp", address, port, fault)) from None
    return PacketInfoSocket(raw)


@contextmanager
def _shareable(listener: PacketInfoSocket) -> Iterator[None]:
    """ip(7): a bind succeeds when both sockets have SO_REUSEADDR at that moment."""
    with socket.socket(fileno=os.dup(listener.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            yield
        finally:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
