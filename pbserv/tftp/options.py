"""What a read request and the settings agree on (RFC 2347, 2348, 2349, 7440). Pure.

One rule: the answer holds only what was asked, in the client's order and spelling; what cannot be used is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pbserv.tftp.packet import Option

DEFAULT_BLOCK_SIZE = 512
IPV4_OVERHEAD = 32
"""IP, UDP and TFTP header bytes in front of a block."""

_NUMBER = re.compile(rb"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings and the path allow. ``mtu_bytes`` is that of the route to the client."""

    block_size: int
    window: int
    mtu_bytes: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Terms:
    """The agreement. ``fixed_timeout``: the client named its interval, so it is not adapted to the round-trip time."""

    block_size: int = DEFAULT_BLOCK_SIZE
    window: int = 1
    timeout_s: float = 1.0
    fixed_timeout: bool = False
    accepted: tuple[Option, ...] = ()


def negotiate(asked: tuple[Option, ...], size_bytes: int | None, limits: Limits) -> Terms:
    """Terms for sending a file; ``size_bytes`` None leaves tsize out."""
    block_size, window, timeout_s, fixed = DEFAULT_BLOCK_SIZE, 1, limits.timeout_s, False
    accepted: list[Option] = []
    for name, text in asked:
        rule = _RULES.get(name.lower())
        if rule is None or not _NUMBER.fullmatch(text):
            continue  # RFC 2347: an option that is not acknowledged was not used
        value = rule(int(text), size_bytes, limits)
        if value is None:
            continue
        match name.lower():
            case b"blksize":
                block_size = value
            case b"windowsize":
                window = value
            case b"timeout":
                timeout_s, fixed = float(value), True
        accepted.append((name, b"%d" % value))
    return Terms(block_size, window, timeout_s, fixed, tuple(accepted))


def _blksize(asked: int, _size: int | None, limits: Limits) -> int | None:
    # RFC 2348: "valid values range between 8 and 65464"; the answer is at most what was asked.
    if not 8 <= asked <= 65464:
        return None
    return max(8, min(asked, limits.block_size, limits.mtu_bytes - IPV4_OVERHEAD))


def _timeout(asked: int, _size: int | None, _limits: Limits) -> int | None:
    # RFC 2349: 1 to 255 seconds, and the answer must equal the request.
    return asked if 1 <= asked <= 255 else None


def _tsize(_asked: int, size: int | None, _limits: Limits) -> int | None:
    return size


def _windowsize(asked: int, _size: int | None, limits: Limits) -> int | None:
    # RFC 7440: 1 to 65535, and the answer is at most what was asked.
    return min(asked, limits.window) if 1 <= asked <= 65535 else None


_RULES: dict[bytes, Callable[[int, int | None, Limits], int | None]] = {
    b"blksize": _blksize,
    b"timeout": _timeout,
    b"tsize": _tsize,
    b"windowsize": _windowsize,
}
