"""What a DHCP packet tells of its device, as labels for the rules of the policy. Pure.

One rule: a label is printable text; bytes that are none are written as hexadecimal digits.
"""

from __future__ import annotations

from typing import Final

from pbserv.proxydhcp.asked import Asked
from pbserv.proxydhcp.client import Client

_CIRCUIT, _REMOTE = 1, 2  # RFC 3046 3.1, 3.2
MAX_CHARACTERS: Final = 128


def labels_of(client: Client, asked: Asked, interface: str, relay: str) -> tuple[tuple[str, str], ...]:
    """``relay``: giaddr, empty for a device on the link; ``interface``: where the packet came in."""
    parts = _parts(asked.relay or b"")
    found = (
        ("client_kind", client.kind.value),
        ("vendor_class", _text(client.text or client.vendor_class)),
        ("interface", interface),
        ("relay", relay),
        ("circuit_id", _text(parts.get(_CIRCUIT, b""))),
        ("remote_id", _text(parts.get(_REMOTE, b""))),
    )
    return tuple((name, value) for name, value in found if value)


def _parts(option: bytes) -> dict[int, bytes]:
    """The sub-options of option 82; what is cut short is left out."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 2 <= len(option):
        length = option[at + 1]
        value = option[at + 2 : at + 2 + length]
        if len(value) == length:
            found.setdefault(option[at], value)
        at += 2 + length
    return found


def _text(data: bytes) -> str:
    plain = data.rstrip(b"\0")
    text = plain.decode("ascii", "replace")
    return (text if text.isprintable() and "\ufffd" not in text else plain.hex())[:MAX_CHARACTERS]
