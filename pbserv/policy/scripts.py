"""The boot scripts under one set of settings, and where they send a client.

One rule: addresses in scripts are literal, and a client is sent to another server once at most.
"""

from __future__ import annotations

from dataclasses import dataclass

from pbserv.net.interfaces import address_on_host
from pbserv.policy.config import PolicyConf
from pbserv.policy.render import BootFacts, boot_script, bootstrap
from pbserv.registry.records import Device
from pbserv.registry.tokens import WorkTokens
from pbserv.types import Decision, Verdict


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """``url_address`` overrides the address in boot scripts; None means the one that the client asked.

    ``engine``: ``a.b.c.d[:port]`` of the server that decides (NovellPolicyEngine); None: this one.
    """

    conf: PolicyConf
    url_address: str | None
    http_port: int
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class BootScripts:
    """``engine``: ``a.b.c.d:port`` of the other server that decides; empty: this one does."""

    settings: PolicySettings
    engine: str
    tokens: WorkTokens

    @classmethod
    def under(cls, settings: PolicySettings, tokens: WorkTokens) -> BootScripts:
        return cls(settings, _other_server(settings), tokens)

    def url(self, local: str) -> str:
        """This server's base URL, for a client that reached us at ``local``."""
        settings = self.settings
        return f"http://{settings.conf.local_interface or settings.url_address or local}:{settings.http_port}"

    def first(self, local: str) -> str:
        """The script that is the same for everybody; it sends them to the server that decides."""
        return bootstrap(f"http://{self.engine}", sent=True) if self.engine else bootstrap(self.url(local))

    def of(self, mac: str, device: Device | None, decision: Decision, local: str, *, sent: bool) -> str:
        """The decision for one device. ``sent``: another server sent the client here; it is not sent any further."""
        if self.engine and not sent:
            return self.first(local)
        if self.engine:
            decision = Decision(Verdict.SILENT, f"two servers send their clients on: this one to {self.engine}")
        return boot_script(
            decision,
            BootFacts(
                mac=mac,
                name=device.name if device else "",
                url=self.url(local),
                server=local,
                token="" if decision.work is None else self.tokens.issue(decision.work),
                arguments=self.settings.conf.client_arguments,
            ),
        )


def _other_server(settings: PolicySettings) -> str:
    """Empty when this server decides, which is also what its own address means."""
    if settings.engine is None:
        return ""
    host, _, port = settings.engine.partition(":")
    if int(port or settings.http_port) == settings.http_port and address_on_host(host):
        return ""
    return f"{host}:{port or settings.http_port}"
