"""Sending many equal datagrams with one system call (udp(7), UDP_SEGMENT): the limits, and where it failed.

One rule: the offload is an optimisation. When a network card or kernel refuses it, it is off for that local address
for a minute, and the same bytes leave one datagram at a time.
"""

from __future__ import annotations

import errno

MAX_SEGMENTS = 64  # kernels before 6.9 refuse more; newer ones take 128
MAX_BYTES = 65_507

NO_OFFLOAD = frozenset({errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT})


REFUSED_FOR_S = 60.0
"""A refusal may have had a passing reason, such as a card that was just reset."""


class OffloadRoutes:
    """Which local addresses must do without the offload; shared by all sockets of a service."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def usable(self, local: str, now: float) -> bool:
        return not self._until or now >= self._until.get(local, 0.0)

    def refuse(self, local: str, now: float) -> None:
        self._until[local] = now + REFUSED_FOR_S
