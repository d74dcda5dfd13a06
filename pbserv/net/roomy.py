"""UDP sockets with a receive buffer beyond ``net.core.rmem_max``, made while this process may still do so.

socket(7): SO_RCVBUFFORCE needs CAP_NET_ADMIN, which the service gives up; what a socket has, it keeps. Distributions
set the limit to 208 KiB, in which some 200 DHCP packets wait, and a power cut that ends wakes more machines at once.

One rule: whoever takes a socket must not set SO_RCVBUF on it, which would cut it down to the limit again.
"""

from __future__ import annotations

import socket

SO_RCVBUFFORCE = 33  # asm-generic/socket.h; missing from the socket module

_spare: list[socket.socket] = []


def reserve(count: int, size_bytes: int) -> int:
    """Make ``count`` unbound IPv4 sockets with room for ``size_bytes``; how many have it.

    Without the right to (a start by systemd as the service's own user) none is made, and that is no fault.
    """
    made = 0
    for _ in range(count):
        raw = _open(size_bytes)
        if raw is None:
            break
        _spare.append(raw)
        made += 1
    return made


def take() -> socket.socket | None:
    """A socket to bind, non-blocking, the caller's from now on; None when there is none: open one as usual."""
    return _spare.pop() if _spare else None


def release() -> None:
    """Close those that nobody took."""
    while (raw := take()) is not None:
        raw.close()


def force_room(raw: socket.socket, size_bytes: int) -> bool:
    """Give a socket that much room, beyond the limit where this process may; whether it has it now."""
    try:
        raw.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size_bytes)
    except PermissionError:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size_bytes)
    # socket(7): the kernel doubles the value, for its own bookkeeping, and answers with the doubled one.
    return raw.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 2 * size_bytes


def _open(size_bytes: int) -> socket.socket | None:
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError:  # no descriptor is left: the listener will say so in its own words
        return None
    if force_room(raw, size_bytes):
        return raw
    raw.close()
    return None
