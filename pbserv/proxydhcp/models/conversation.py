"""What a model of a boot client says and hears, and the driver that lets one boot on a simulated network. Pure.

One rule: the environment is a function from what was sent to what is heard, so that a model decides by packets alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.packet import Packet
from pbserv.types import MacAddress

CLIENT_PORT: Final = 68
SERVER_PORT: Final = 67
BOOT_SERVER_PORT: Final = 4011
BROADCAST: Final = "255.255.255.255"
UNSPECIFIED: Final = "0.0.0.0"
_MOST_QUESTIONS: Final = 16  # a model that asks more often than this asks for ever


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the client is. None stands for what such a client usually has.

    ``uuid`` is the 16 bytes of option 97 as the wire has them, ``undi`` the version of option 94, ``xid`` the first
    transaction id of clients that draw one at random; ROMs that derive theirs do so.
    """

    mac: MacAddress = field(default_factory=lambda: MacAddress(bytes.fromhex("525400123456")))
    uuid: bytes | None = bytes(range(1, 17))
    arch: int | None = None
    undi: tuple[int, int] | None = None
    xid: int = 0x1A2B3C4D


@dataclass(frozen=True, slots=True)
class Operator:
    """The person at the keyboard: whether F8 is pressed at a prompt, and which menu entry is taken (from 0).

    ``picks`` None: nobody is there, so a menu that waits for a key waits for ever.
    """

    presses_menu_key: bool = False
    picks: int | None = 0


NOBODY: Final = Operator(picks=None)


@dataclass(frozen=True, slots=True)
class Heard:
    """One reply as the client got it. ``port`` is the client's own; ``at_s`` counts from what it answers."""

    packet: Packet
    source: str
    source_port: int = SERVER_PORT
    port: int = CLIENT_PORT
    at_s: float = 0.0
    size_bytes: int = dhcp.LEAST_BYTES


@dataclass(frozen=True, slots=True)
class Sent:
    """A UDP payload and its way."""

    data: bytes
    source: str
    source_port: int
    destination: str
    port: int


@dataclass(frozen=True, slots=True)
class Cached:
    """The packets that UEFI firmware keeps for the programs that it starts (EFI_PXE_BASE_CODE_MODE)."""

    dhcp_ack: Packet | None = None
    proxy_offer: Packet | None = None
    pxe_reply: Packet | None = None


@dataclass(frozen=True, slots=True)
class Boot:
    """The client fetches ``file`` from ``server``. ``lease``: the DHCP server's packet that gave the address.

    ``first``: server and file of the boot file that has been loaded already and now fetches this one.
    """

    server: str
    file: str
    why: str
    lease: Heard | None = None
    cached: Cached = Cached()
    protocol: str = "tftp"
    first: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """The client has an address and asks a boot server; :attr:`after` says what it does with the replies.

    The request counts as repeated for ``waits_s`` in all; replies that come later are not heard.
    """

    sent: Sent
    why: str
    waits_s: float
    after: Callable[[Sequence[Heard]], Choice]
    lease: Heard | None = None


@dataclass(frozen=True, slots=True)
class Fails:
    """The client gives up. ``code`` is what it shows; ``again``: only after another DISCOVER without success."""

    code: str
    why: str
    lease: Heard | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class LocalDisk:
    """The client goes on with its boot order. ``code`` is what it shows, if anything."""

    why: str
    lease: Heard | None = None
    code: str = ""


Choice: TypeAlias = Boot | Ask | Fails | LocalDisk


class Model(Protocol):
    """How one kind of client boots."""

    @property
    def name(self) -> str: ...

    @property
    def waits_s(self) -> tuple[float, ...]:
        """How long offers are collected after each DISCOVER; as many numbers as there are tries."""

    @property
    def arch(self) -> int:
        """Option 93 where the identity names none."""

    def discover(self, who: Identity, attempt: int = 0) -> Sent:
        """The DISCOVER of try ``attempt``, byte for byte as this client writes it."""

    def request(self, lease: Heard, who: Identity) -> Sent:
        """The DHCP REQUEST that takes the offered address: for the DHCP server, and no proxy's business."""

    def choose(self, offers: Sequence[Heard], who: Identity = ..., operator: Operator = ...) -> Choice:
        """What the client does with these offers, in the order of their arrival.

        The ACK of the DHCP server may stand in the place of its OFFER: what is read for the boot is in the ACK.
        """


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended. ``steps`` has one line for each thing that the client did or concluded."""

    boots: bool
    file: str
    server: str
    why: str
    steps: tuple[str, ...]
    code: str = ""
    local: bool = False
    protocol: str = ""
    first: tuple[str, str] | None = None


Network: TypeAlias = Callable[[Sent], Sequence[Heard]]


def run(model: Model, network: Network, who: Identity | None = None, operator: Operator | None = None) -> Outcome:
    """Boot: DISCOVER until an offer is good enough, REQUEST, boot servers, the file."""
    identity, person = who or Identity(), operator or Operator()
    steps: list[str] = []
    choice: Choice = Fails("", "nobody answered", again=True)
    offers: list[Heard] = []
    for attempt, wait_s in enumerate(model.waits_s):
        sent = model.discover(identity, attempt)
        offers = [heard for heard in answers(sent, network(sent)) if heard.at_s <= wait_s and _is_offer(heard)]
        choice = model.choose(offers, identity, person)
        steps.append(f"DISCOVER {attempt + 1}: {len(offers)} offers")
        if not (isinstance(choice, Fails) and choice.again):
            break
    if choice.lease is not None:
        choice = _take_address(model, network, identity, person, choice.lease, offers, choice, steps)
    for _ in range(_MOST_QUESTIONS):
        if not isinstance(choice, Ask):
            break
        steps.append(f"asks {choice.sent.destination}:{choice.sent.port}: {choice.why}")
        replies = [heard for heard in answers(choice.sent, network(choice.sent)) if heard.at_s <= choice.waits_s]
        choice = choice.after(replies)
    return _outcome(choice, steps)


def _take_address(
    model: Model, network: Network, who: Identity, operator: Operator, lease: Heard, offers: Sequence[Heard],
    choice: Choice, steps: list[str],
) -> Choice:  # fmt: skip
    """REQUEST and ACK; the choice is made again with what the ACK says, since that is what firmware keeps."""
    sent = model.request(lease, who)
    server = lease.packet.options.get(dhcp.SERVER_ID)
    for heard in answers(sent, network(sent)):
        if heard.packet.message_type == dhcp.ACK and heard.packet.options.get(dhcp.SERVER_ID) == server:
            steps.append(f"has the address {dhcp.dotted(heard.packet.yiaddr)}")
            acknowledged = dataclasses.replace(heard, at_s=lease.at_s)
            return model.choose([acknowledged if offer is lease else offer for offer in offers], who, operator)
    if lease.packet.message_type is None:
        return choice  # BOOTP has two messages only
    return Fails("", "its DHCP server does not acknowledge the address")


def answers(sent: Sent, heard: Sequence[Heard]) -> list[Heard]:
    """The replies to this message: same transaction, same hardware address (RFC 2131 4.4.1), in order of arrival."""
    asked = dhcp.decode(sent.data)
    found = [
        one
        for one in heard
        if one.packet.op == dhcp.BOOTREPLY and one.packet.xid == asked.xid and one.packet.chaddr == asked.chaddr
    ]
    return sorted(found, key=lambda one: one.at_s)


def _is_offer(heard: Heard) -> bool:
    return heard.port == CLIENT_PORT and heard.packet.message_type in (dhcp.OFFER, None)


def _outcome(choice: Choice, steps: list[str]) -> Outcome:
    if isinstance(choice, Boot):
        if choice.first is not None:
            steps.append("fetches {1} from {0}".format(*choice.first))
        steps.append(f"fetches {choice.file} from {choice.server}: {choice.why}")
        return Outcome(
            True, choice.file, choice.server, choice.why, tuple(steps), protocol=choice.protocol, first=choice.first
        )
    if isinstance(choice, LocalDisk):
        steps.append(f"goes on with its boot order: {choice.why}")
        return Outcome(False, "", "", choice.why, tuple(steps), choice.code, local=True)
    if isinstance(choice, Ask):
        return Outcome(False, "", "", "it asks for ever", tuple(steps))
    steps.append(f"{choice.code} {choice.why}".lstrip())
    return Outcome(False, "", "", choice.why, tuple(steps), choice.code)
