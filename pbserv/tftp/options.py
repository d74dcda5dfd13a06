"""What a request and the settings agree on (RFC 2090, 2347, 2348, 2349, 7440, and tftp-hpa's three). Pure.

One rule: the answer holds only what was asked, in the client's order and spelling; what cannot be used is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pbserv.tftp.packet import Option

DEFAULT_BLOCK_SIZE = 512
IPV4_OVERHEAD = 32
IPV6_OVERHEAD = 52
"""IP, UDP and TFTP header bytes in front of a block."""
LARGEST_WINDOW_BYTES = 4 << 20

_NUMBER = re.compile(rb"[0-9]{1,20}")
_LARGEST_SIZE = (1 << 63) - 1


class Limits(NamedTuple):
    """What the settings and the path allow.

    ``mtu_bytes`` is that of the route to the client, ``overhead`` what the headers take of it. ``refused`` holds names
    of options in lower case. ``multicast`` is the answer to RFC 2090's option; None leaves it out.
    """

    block_size: int
    window: int
    mtu_bytes: int
    timeout_s: float
    overhead: int = IPV4_OVERHEAD
    refused: frozenset[str] = frozenset()
    multicast: bytes | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """The agreement.

    ``fixed_timeout``: the client named its interval, so it is not adapted to the round-trip time. ``rollover`` is the
    number that follows block 65535. ``tsize`` is the size that an uploading client announced.
    """

    block_size: int = DEFAULT_BLOCK_SIZE
    window: int = 1
    timeout_s: float = 1.0
    fixed_timeout: bool = False
    accepted: tuple[Option, ...] = ()
    rollover: int = 0
    multicast: bool = False
    tsize: int | None = None


@lru_cache(maxsize=512)  # the machines of a room ask alike
def negotiate(asked: tuple[Option, ...], size_bytes: int | None, limits: Limits) -> Terms:
    """Terms for sending a file; ``size_bytes`` None leaves tsize out (netascii: the size on the wire is not known)."""
    usable = _usable(asked, limits)
    if limits.multicast is None or usable.get("multicast", (b"", b"x"))[1]:
        usable.pop("multicast", None)  # RFC 2090: the client sends an empty value
    else:
        usable.pop("windowsize", None)  # the members of a group acknowledge block by block
    if size_bytes is None:
        usable.pop("tsize", None)
    return _agree(usable, limits, size_bytes)


def negotiate_write(asked: tuple[Option, ...], limits: Limits) -> Terms:
    """Terms for taking a file; ``tsize`` is echoed, as RFC 2349 has it."""
    usable = _usable(asked, limits)
    usable.pop("multicast", None)
    return _agree(usable, limits, None)


def _usable(asked: tuple[Option, ...], limits: Limits) -> dict[str, Option]:
    """Lower-case name -> what the client wrote, in its order, of all options whose value is one."""
    usable: dict[str, Option] = {}
    for name, text in asked:
        # RFC 2347: an option that is not acknowledged was not used. Names that are not ASCII are unknown ones.
        key = name.lower().decode("ascii", "replace")
        valid = _VALID.get(key)
        if valid is None or key in limits.refused or key in usable or _RIVALS.get(key) in usable:
            continue
        if key == "multicast" or (_NUMBER.fullmatch(text) and valid(int(text))):
            usable[key] = (name, text)
    return usable


def _agree(usable: dict[str, Option], limits: Limits, size_bytes: int | None) -> Terms:
    numbers = {key: int(text) for key, (_name, text) in usable.items() if text}
    block_size = _block_size(numbers, limits)
    window = _window(numbers, block_size, limits)
    changed = {
        "blksize": b"%d" % block_size,
        "blksize2": b"%d" % block_size,
        "windowsize": b"%d" % window,
        "multicast": limits.multicast or b"",
    }
    if size_bytes is not None:
        changed["tsize"] = b"%d" % size_bytes
    timeout_s = limits.timeout_s
    if "timeout" in numbers:
        timeout_s = float(numbers["timeout"])
    elif "utimeout" in numbers:
        timeout_s = numbers["utimeout"] / 1e6
    return Terms(
        block_size=block_size,
        window=window,
        timeout_s=timeout_s,
        fixed_timeout="timeout" in numbers or "utimeout" in numbers,
        # RFC 2349: the timeout must be equal in the answer; what is not negotiated goes back letter by letter.
        accepted=tuple((name, changed.get(key, text)) for key, (name, text) in usable.items()),
        rollover=numbers.get("rollover", 0),
        multicast="multicast" in usable,
        tsize=numbers.get("tsize") if size_bytes is None else None,
    )


def _block_size(numbers: dict[str, int], limits: Limits) -> int:
    # RFC 2348: the answer is at most what was asked.
    ceiling = max(8, min(limits.block_size, limits.mtu_bytes - limits.overhead))
    if "blksize" in numbers:
        return min(numbers["blksize"], ceiling)
    if "blksize2" in numbers:
        return 1 << (min(numbers["blksize2"], ceiling).bit_length() - 1)
    return DEFAULT_BLOCK_SIZE


def _window(numbers: dict[str, int], block_size: int, limits: Limits) -> int:
    # RFC 7440: the answer is at most what was asked.
    return max(1, min(numbers.get("windowsize", 1), limits.window, LARGEST_WINDOW_BYTES // block_size))


_VALID: dict[str, Callable[[int], bool]] = {
    "blksize": lambda asked: 8 <= asked <= 65464,  # RFC 2348: "valid values range between 8 and 65464"
    "blksize2": lambda asked: 8 <= asked <= 32768,  # tftp-hpa: the answer is a power of two
    "multicast": lambda _: True,
    # tftp-hpa takes all numbers. Departs: with few numbers behind 65535 a repeated block would pass for a new one.
    "rollover": lambda asked: asked <= 32768,
    "timeout": lambda asked: 1 <= asked <= 255,  # RFC 2349
    "tsize": lambda asked: asked <= _LARGEST_SIZE,
    "utimeout": lambda asked: 10_000 <= asked <= 255_000_000,  # tftp-hpa, microseconds
    "windowsize": lambda asked: 1 <= asked <= 65535,  # RFC 7440
}
_RIVALS = {"blksize": "blksize2", "blksize2": "blksize", "timeout": "utimeout", "utimeout": "timeout"}
"""Two ways to ask for one thing: the first usable one counts, and the other is left out."""
