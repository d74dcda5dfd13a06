"""Sending many equal datagrams with one system call (udp(7), UDP_SEGMENT): the limits, and where it failed.

One rule: the offload is an optimisation. When a network card or kernel refuses it, it is off for that local address
until the process ends, and the same bytes leave one datagram at a time.
"""

from __future__ import annotations

import errno

MAX_SEGMENTS = 64  # kernels before 6.9 refuse more; newer ones take 128
MAX_BYTES = 65_507

NO_OFFLOAD = frozenset({errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.EMSGSIZE})


class OffloadRoutes:
    """Which local addresses must do without the offload; shared by all sockets of a service."""

    __slots__ = ("refused",)

    def __init__(self) -> None:
        self.refused: set[str] = set()
