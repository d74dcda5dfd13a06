"""Offers to choose from, made of a few values."""

from __future__ import annotations

from collections.abc import Sequence

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models import Ask, Choice, Heard
from pbserv.proxydhcp.packet import Packet, decode, encapsulate, undotted
from tests.proxydhcp.models.captures import RECORDED

LEASE = "10.1.0.77"
DHCP_SERVER = "10.1.0.1"
PROXY = "10.1.0.5"
OTHER = "10.1.0.9"
PXE = b"PXEClient"
JUST_BOOT = encapsulate({6: b"\x08"}) + b"\xff"


def heard(
    server: str = PROXY,
    *,
    lease: str = "",
    kind: int | None = dhcp.OFFER,
    vendor_class: bytes | None = PXE,
    siaddr: str = "",
    file: str = "",
    option43: bytes | None = None,
    port: int = 68,
    source_port: int = 67,
    at_s: float = 0.0,
    size_bytes: int = 300,
    identified: bool = True,
    **more: bytes,
) -> Heard:
    """A reply of ``server``. Further options: ``o6=...`` is option 6."""
    options: dict[int, bytes] = {int(name[1:]): value for name, value in more.items()}
    if kind is not None:
        options[dhcp.MESSAGE_TYPE] = bytes((kind,))
    if identified:
        options[dhcp.SERVER_ID] = undotted(server)
    if vendor_class is not None:
        options[dhcp.VENDOR_CLASS] = vendor_class
    if option43 is not None:
        options[dhcp.VENDOR_SPECIFIC] = option43
    packet = Packet(
        dhcp.BOOTREPLY, 1, bytes(16), yiaddr=undotted(lease) if lease else dhcp.ZERO,
        siaddr=undotted(siaddr) if siaddr else dhcp.ZERO, file=file.encode(), options=options,
    )  # fmt: skip
    return Heard(packet, server, source_port, port, at_s, size_bytes)


def dhcp_offer(**values: object) -> Heard:
    """What a DHCP server offers that knows nothing of booting, unless ``values`` say otherwise."""
    return heard(**({"server": DHCP_SERVER, "lease": LEASE, "vendor_class": None} | values))  # type: ignore[arg-type]


def menu(
    *items: tuple[int, str],
    control: int = 7,
    timeout_s: int | None = 0,
    servers: Sequence[tuple[int, Sequence[str]]] = (),
    multicast: str = "",
) -> bytes:
    """Option 43 with a menu."""
    parts = {6: bytes((control,))}
    if multicast:
        parts[7] = undotted(multicast)
    if servers:
        parts[8] = b"".join(
            kind.to_bytes(2, "big") + bytes((len(listed),)) + b"".join(map(undotted, listed))
            for kind, listed in servers
        )
    parts[9] = b"".join(kind.to_bytes(2, "big") + bytes((len(text),)) + text.encode() for kind, text in items)
    if timeout_s is not None:
        parts[10] = bytes((timeout_s,)) + b"F8"
    return encapsulate(parts) + b"\xff"


def recorded(name: str) -> Heard:
    """A server's packet from the captures."""
    entry = RECORDED[name]
    data = bytes.fromhex(entry["hex"])
    return Heard(decode(data), entry["src"], entry["sport"], entry["dport"], 0.0, len(data))


def asked(choice: Choice) -> tuple[str, int, int]:
    """Where a choice that asks asks: address, port, and the port that it asks from."""
    assert isinstance(choice, Ask), choice
    return choice.sent.destination, choice.sent.port, choice.sent.source_port
