"""The decisions as what boot loaders read, under one set of settings, and where they send a client.

One rule: addresses in scripts are literal, and a client is sent to another server once at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pbserv.net.interfaces import address_on_host
from pbserv.policy.config import PolicyConf
from pbserv.policy.decide import Ruling
from pbserv.policy.labels import labels_of
from pbserv.policy.names import Asked, Form
from pbserv.policy.oracles.build import OracleSettings, oracle_settings
from pbserv.policy.oracles.preboot_server import ServerSettings
from pbserv.policy.rendering.facts import BootFacts
from pbserv.policy.rendering.places import Places
from pbserv.policy.rendering.renderer import Renderer, RenderError
from pbserv.policy.snapshot import Zone
from pbserv.registry.records import Device
from pbserv.registry.tokens import WorkTokens
from pbserv.types import ClientArch, Decision, Verdict


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """``url_address`` overrides the address in boot scripts; None means the one that the client asked.

    ``engine``: ``a.b.c.d[:port]`` of the server that decides (NovellPolicyEngine); None: this one. ``state``: where
    answers of another server are kept; None: in memory alone.
    """

    conf: PolicyConf
    url_address: str | None
    http_port: int
    engine: str | None = None
    state: Path | None = None


@dataclass(frozen=True, slots=True)
class BootScripts:
    """``engine``: ``a.b.c.d:port`` of the other server that decides; empty: this one does.

    ``oracle``: who is asked about each device (PolicyHook, PrebootServer).
    """

    settings: PolicySettings
    engine: str
    tokens: WorkTokens
    renderer: Renderer
    oracle: OracleSettings

    @classmethod
    def under(
        cls, settings: PolicySettings, tokens: WorkTokens, on_fault: Callable[[RenderError], None]
    ) -> BootScripts:
        """Raises RenderError for a template of the administrator that is broken, StartError for settings that do not
        go together."""
        renderer = Renderer(settings.conf.template_directory, on_fault)
        renderer.check()
        oracle = oracle_settings(settings.conf, settings.http_port, settings.state)
        return cls(settings, _other_server(settings), tokens, renderer, oracle)

    @property
    def zone(self) -> Zone:
        conf = self.settings.conf
        return Zone(conf.zone_default, conf.unknown_devices, self.engine, isinstance(self.oracle, ServerSettings))

    def url(self, local: str) -> str:
        """This server's base URL, for a client that reached us at ``local``."""
        settings = self.settings
        return f"http://{settings.conf.local_interface or settings.url_address or local}:{settings.http_port}"

    def first(self, local: str) -> str:
        """The script that is the same for everybody; it sends them to the server that decides."""
        if self.engine:
            return self.renderer.bootstrap(f"http://{self.engine}", sent=True)
        return self.renderer.bootstrap(self.url(local))

    def of(self, ruling: Ruling, facts: BootFacts, *, sent: bool) -> str:
        """The ruling as an iPXE script. ``sent``: another server sent the client here; it is not sent any further."""
        if self.engine and not sent:
            return self.renderer.bootstrap(f"http://{self.engine}", sent=True)
        if self.engine:
            why = f"two servers send their clients on: this one to {self.engine}"
            ruling = replace(ruling, decision=Decision(Verdict.SILENT, why))
        return self.renderer.ipxe(ruling, facts)

    def rendered(self, asked: Asked, ruling: Ruling, facts: BootFacts) -> str | None:
        """What the loader that asks in this form reads; None: it is not to find such a file."""
        match asked.form:
            case "bootstrap":
                return self.first(facts.server)
            case "ipxe":
                return self.of(ruling, facts, sent=False)
            case "pxelinux":
                return self.renderer.pxelinux(ruling, facts)
            case "grub":
                return self.renderer.grub(ruling, facts)
            case "raspberrypi":
                return self.renderer.raspberrypi(ruling, facts, asked.leaf)
            case "settings":
                return self.renderer.settings(ruling, facts)
            case "done":
                return None

    def facts(self, mac: str, device: Device | None, ruling: Ruling, local: str, session: str) -> BootFacts:
        """``mac`` is the address that boots; ``session`` the token of this boot."""
        work = ruling.work
        arch = device.arch if device is not None else None
        return BootFacts(
            mac=mac,
            name=device.name if device else "",
            uuid=(device.uuid or "") if device else "",
            serial=device.serial if device else "",
            asset=device.asset if device else "",
            arch=None if arch is None else ClientArch(arch),
            labels=labels_of(mac, device, {}),
            url=ruling.url or self.url(local),
            server=local,
            session="" if ruling.url else session,
            token=ruling.token or ("" if work is None else self.tokens.issue(work.id)),
            arguments=self.settings.conf.client_arguments,
        )


def wait_text(form: Form, name: str, facts: BootFacts) -> str | None:
    """Tells a loader to ask for ``name`` once more in a second."""
    path = Places(facts).tftp(name)
    match form:
        case "grub":
            return f"echo 'pbserv: the work is being made'\nsleep 1\nconfigfile (tftp,{facts.server})/{path}\n"
        case "pxelinux":
            head = "SAY pbserv: the work is being made\nDEFAULT again\nPROMPT 1\nTIMEOUT 10\n"
            return f"{head}LABEL again\n  CONFIG ::{path}\n"
        case "ipxe":
            return f"#!ipxe\nsleep 1\nchain --replace tftp://{facts.server}/{path}\n"
        case _:
            return None


def _other_server(settings: PolicySettings) -> str:
    """Empty when this server decides, which is also what its own address means."""
    if settings.engine is None:
        return ""
    host, _, port = settings.engine.partition(":")
    if int(port or settings.http_port) == settings.http_port and address_on_host(host):
        return ""
    return f"{host}:{port or settings.http_port}"
