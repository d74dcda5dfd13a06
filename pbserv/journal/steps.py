"""What a boot session consists of: one value per DHCP packet, one per event of any other kind. Pure.

One rule: a step is written down as it came. Whoever shows it decodes it; the packet handlers have no time for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple


class DhcpStep(NamedTuple):
    """One DHCP packet of a boot client, and the reply that it got.

    ``at`` is in seconds since the epoch. ``heard_on`` is the port, 67 or 4011; ``source``, ``source_port`` and
    ``destination`` are those of the packet, ``local`` is this host's address on interface ``ifindex``. ``verdict`` is
    "offer", "ack", "not sent", or the word of the reason why there is no reply; ``reason`` says it in a sentence.
    ``strategy`` and ``file`` are empty and ``reply`` is None without a reply.
    """

    at: float
    heard_on: int
    ifindex: int
    source: str
    source_port: int
    local: str
    destination: str
    data: bytes
    verdict: str
    reason: str
    strategy: str = ""
    file: str = ""
    reply: bytes | None = None
    reply_to: str = ""
    reply_port: int = 0


Told = tuple[int, int, str, int, str, str, str, str, str, str, bytes | None, str, int, bool]
"""What packets of a device have in common that are answered alike: a :class:`DhcpStep` without ``at`` and ``data``, and
whether ``reply`` is to have the transaction id of the packet (see :func:`answering`).

Plain, as all that is kept by the ten thousand: the collector looks away from plain tuples of texts and numbers.
"""
IFINDEX: Final = 1
REPLY: Final = 10


def told_of(step: DhcpStep) -> Told:
    """For a step that shares nothing with others."""
    return (*step[1:7], *step[8:], False)


def step_of(at: float, told: Told, data: bytes) -> DhcpStep:
    reply = told[REPLY]
    if reply and told[-1]:
        reply = answering(reply, data)
    return DhcpStep(at, *told[:6], data, *told[6:10], reply, *told[11:13])


def answering(reply: bytes, data: bytes) -> bytes:
    """The reply to another packet of a device whose packets differ in their transaction id alone."""
    return b"".join((reply[:4], data[4:8], reply[8:]))


class Step(NamedTuple):
    """Anything else that happened to the device: ``source`` is tftp, http, policy, imaging, dhcp or registry."""

    at: float
    source: str
    what: str
    detail: str


class DhcpText(NamedTuple):
    """What a decoder reads in a packet of a boot client; a text is empty where the packet does not say it.

    ``kind`` is the message's name (DISCOVER ...), ``client`` bios, uefi, ipxe, http or raspberrypi.
    """

    kind: str
    xid: int
    secs: int
    client: str = ""
    arch: str = ""
    vendor_class: str = ""


Describe = Callable[[bytes], DhcpText]
"""Reads a packet; never raises. The decoder is a service's own, so it is handed in."""

Spell = Callable[[bytes], tuple[str, ...]]
"""Every header field and option of a packet, one text each; never raises."""


class DhcpLine(NamedTuple):
    """A DHCP step as it is kept: read once, with the name that its interface had then.

    Where the bytes are not kept any more, ``data`` of the step is empty, and so is ``reply`` if there was one.
    """

    step: DhcpStep
    text: DhcpText
    interface: str


Line = Step | DhcpLine

_MESSAGES = {1: "DISCOVER", 3: "REQUEST", 4: "DECLINE", 7: "RELEASE", 8: "INFORM"}  # RFC 2132 9.6
_SOURCES = {
    "tftp": "tftp", "http": "http", "asked": "policy", "registered": "registry", "state": "registry",
    "job": "imaging", "image": "imaging", "strategy": "dhcp", "next": "dhcp", "loop": "dhcp",
}  # fmt: skip


def glance(data: bytes) -> DhcpText:
    """What can be read without decoding: transaction, seconds, and the message type where it comes first."""
    if len(data) < 243:
        return DhcpText("", 0, 0)
    kind = _MESSAGES.get(data[242], "") if data[240] == 53 else ""
    return DhcpText(kind, int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:10], "big"))


def source_of(what: str) -> str:
    """Who told of an event, by its first word."""
    return _SOURCES.get(what.partition(" ")[0].rstrip(":"), "registry")
