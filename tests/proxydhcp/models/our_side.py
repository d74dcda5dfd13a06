"""Our server as the models meet it: the real pure functions from datagram to reply, and nothing else of the service.

This is the one file that knows how those functions are called.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.asked import AskedOf
from pbserv.proxydhcp.decide import decide, plan, screen
from pbserv.proxydhcp.facts import gather
from pbserv.proxydhcp.loaders import Loader, Settings
from pbserv.proxydhcp.models import Sent
from pbserv.proxydhcp.outcome import Ignore, Listener, Reason, Reply
from pbserv.proxydhcp.settings import read_table
from pbserv.proxydhcp.strategy import Menu
from pbserv.proxydhcp.table import Table
from pbserv.types import Verdict

DEFAULT: Final = ""
LOCAL: Final = "local"
HTTP_PORT: Final = 8067
TABLE: Final[Table] = read_table(None)
_FILES: Final = {
    0: Loader("NBPx86", "boot/undionly.kpxe"), 7: Loader("NBPx64", "boot/loader.efi"),
    9: Loader("NBPx64", "boot/loader.efi"), 16: Loader("NBPHTTPx64", "boot/loader.efi"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interface:
    """One of our addresses; satisfies ``LocalAddress``."""

    address: str
    ifindex: int = 2
    prefix_length: int = 24
    name: str = "eth0"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A datagram as a listener yields it."""

    peer: str
    port: int
    local: str
    destination: str
    ifindex: int


@dataclass(frozen=True, slots=True)
class OurSide:
    """pbserv. ``strategy``: DEFAULT is what the shipped table says, LOCAL is the verdict LOCAL under that table."""

    interfaces: tuple[Interface, ...]
    strategy: str = DEFAULT
    listeners: tuple[Listener, ...] = (Listener.DHCP, Listener.BOOT_SERVER)
    menu: Menu | None = None
    files: dict[int, Loader] = field(default_factory=lambda: dict(_FILES))

    def answer(self, sent: Sent, listener: Listener, ifindex: int, local: str) -> Reply | Ignore:
        """What we reply to this datagram, which came in on ``ifindex``; ``local`` is our address there."""
        if listener not in self.listeners:
            return Ignore(Reason.MESSAGE_NOT_FOR_PROXY, "the port is not ours")
        settings = Settings(self.files, TABLE, menu=self.menu, http_port=HTTP_PORT)
        arrival = Arrival(sent.source, sent.source_port, local, sent.destination, ifindex)
        facts = gather(arrival, listener, self.interfaces, None)
        if isinstance(facts, Ignore):
            return facts
        query = screen(sent.data, dhcp.head_of(sent.data), AskedOf(TABLE.vendors).read(sent.data), facts)
        if isinstance(query, Ignore):
            return query
        local_disk = self.strategy == LOCAL
        verdict = Verdict.LOCAL if local_disk else Verdict.BOOT
        chosen = plan(query, facts, settings, verdict, "", strategy="" if local_disk else self.strategy)
        return chosen if isinstance(chosen, Ignore) else decide(query, facts, settings, chosen)
