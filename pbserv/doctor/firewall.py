"""Does the packet filter of this host let through what booting needs, in and out? Pure.

One rule: a packet of each kind is walked through the rules; nothing is guessed from the look of a rule.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pbserv.doctor.facts import Facts, Link
from pbserv.doctor.filters import Fate, Probe, Ruleset, fate_of
from pbserv.doctor.finding import Finding, error, note

_ALL: Final = "255.255.255.255"


@dataclass(frozen=True, slots=True)
class _Traffic:
    """A kind of packet, and the port that a rule would have to open for it."""

    name: str
    probe: Probe
    opens: str  # "udp 67", "tcp 8067", "udp 50000-50099"
    known: bool = False  # letting through what connection tracking knows is enough


@dataclass(frozen=True, slots=True)
class _Loss:
    """Where a packet was lost, and how sure that is; equal ones become one finding."""

    fate: Fate
    ruleset: Ruleset
    hook: str
    chain: str
    why: str

    @property
    def key(self) -> tuple[str, ...]:
        return (self.fate.value, self.ruleset.program, self.ruleset.table, self.hook, self.chain, self.why)


def blocked_traffic(facts: Facts) -> Iterator[Finding]:
    """One finding per rule or policy that is in the way."""
    lost: dict[tuple[str, ...], tuple[_Loss, list[_Traffic], list[str]]] = {}
    for link in facts.lan_links:
        for traffic in _traffic(facts, link):
            loss = _loss(facts, traffic.probe)
            if loss is None:
                continue
            _loss_of, kinds, links = lost.setdefault(loss.key, (loss, [], []))
            if traffic.name not in [kind.name for kind in kinds]:
                kinds.append(traffic)
            if link.name not in links:
                links.append(link.name)
    for loss, kinds, links in lost.values():
        yield _finding(facts, loss, kinds, links)


def unread_firewalls(facts: Facts) -> Iterator[Finding]:
    """Rules that could not be read may be in the way all the same."""
    for text in facts.unread_firewalls:
        yield note("a firewall could not be looked at", text, "sudo pbserv doctor")


def _loss(facts: Facts, probe: Probe) -> _Loss | None:
    """The first table that loses the packet, or else the first that may."""
    perhaps: _Loss | None = None
    hooks = ("prerouting", "input") if probe.iif else ("output", "postrouting")
    for ruleset in facts.firewalls:
        for hook in hooks:
            outcome = fate_of(_at(probe, hook), ruleset)
            if outcome.fate is Fate.THROUGH:
                continue
            found = _Loss(outcome.fate, ruleset, hook, outcome.chain, outcome.why)
            if outcome.fate is Fate.LOST:
                return found
            perhaps = perhaps or found
    return perhaps


def _at(probe: Probe, hook: str) -> Probe:
    return Probe(
        probe.protocol, probe.dport, probe.sport, probe.iif, probe.oif, probe.source, probe.destination,
        probe.broadcast, probe.state, hook,
    )  # fmt: skip


def _traffic(facts: Facts, link: Link) -> Iterator[_Traffic]:
    own = link.addresses[0].address
    client = _neighbour(link)
    settings = facts.settings

    def comes(port: int, protocol: str = "udp", state: str = "new") -> Probe:
        return Probe(protocol, port, 0, iif=link.name, source=client, destination=own, state=state)

    if facts.wants("proxydhcp"):
        if settings.proxydhcp.local_dhcp_flag != "1":
            port = settings.proxydhcp.proxydhcp_port
            asks = Probe("udp", port, 68, iif=link.name, source="0.0.0.0", destination=_ALL, broadcast=True)
            yield _Traffic("clients' DHCP broadcasts", asks, f"udp {port}")
            offer = Probe("udp", 68, port, oif=link.name, source=own, destination=_ALL, broadcast=True)
            yield _Traffic("our offers to clients", offer, "udp 68")
        port = settings.proxydhcp.boot_server_port
        yield _Traffic("boot server requests", comes(port), f"udp {port}")
    if facts.wants("tftp"):
        yield _Traffic("TFTP requests", comes(settings.tftp.port), f"udp {settings.tftp.port}")
        if not settings.tftp.single_port:
            first, last = settings.tftp.port_range or facts.capacity.local_ports
            # The server sends first, so connection tracking knows what comes back (state established).
            answers = comes(first, state="established")
            yield _Traffic("TFTP transfers", answers, f"udp {first}-{last}", known=settings.tftp.port_range is None)
    if facts.wants("imaging") or facts.wants("policy"):
        port = settings.pbserv.http_port
        yield _Traffic("HTTP (scripts, images)", comes(port, "tcp"), f"tcp {port}")
        if settings.pbserv.https_port is not None:
            secure = settings.pbserv.https_port
            yield _Traffic("HTTPS (API, console)", comes(secure, "tcp"), f"tcp {secure}")


def _neighbour(link: Link) -> str:
    """An address that a client on this link could have."""
    entry = link.addresses[0]
    network = ipaddress.ip_network((entry.address, entry.prefix_length), strict=False)
    hosts = (str(host) for host in network.hosts())
    return next((host for host in hosts if host != entry.address), "")


def _finding(facts: Facts, loss: _Loss, kinds: list[_Traffic], links: list[str]) -> Finding:
    names = ", ".join(f"{kind.name} ({kind.opens})" for kind in kinds)
    where = f"{loss.ruleset.program}: table {loss.ruleset.table}, chain {loss.chain}"
    evidence = f"{where}: {loss.why}; interfaces {', '.join(links)}"
    if loss.fate is Fate.PERHAPS:
        return note(f"the firewall may drop {names}: it depends on what cannot be seen from here", evidence)
    return error(f"the firewall drops {names}", evidence, *_opening(facts, loss, kinds))


def _opening(facts: Facts, loss: _Loss, kinds: list[_Traffic]) -> Iterator[str]:
    """The commands that open the way, in the words of what runs here."""
    opens = [kind.opens for kind in kinds if not (kind.known and loss.hook == "input")]
    incoming = loss.hook in ("input", "prerouting")
    if incoming and "firewalld" in facts.frontends:
        added = " ".join(f"--add-port={_slashed(text)}" for text in opens)
        yield f"firewall-cmd --permanent {added} && firewall-cmd --reload"
        return
    if incoming and "ufw" in facts.frontends:
        yield from (f"ufw allow {_slashed(text.replace('-', ':'))}" for text in opens)
        return
    for protocol in ("udp", "tcp"):
        ports = [text.partition(" ")[2] for text in opens if text.startswith(protocol)]
        if ports:
            yield _accepting(loss, protocol, ports)
    if len(opens) < len(kinds):
        yield _accepting_known(loss)
    yield "and keep it over the next boot in the configuration of that firewall"


def _accepting(loss: _Loss, protocol: str, ports: list[str]) -> str:
    if loss.ruleset.program == "nft":
        return f"nft insert rule {loss.ruleset.table} {loss.chain} {protocol} dport {{ {', '.join(ports)} }} accept"
    listed = ",".join(ports).replace("-", ":")
    return f"{_iptables(loss)} -I {loss.chain} -p {protocol} -m multiport --dports {listed} -j ACCEPT"


def _accepting_known(loss: _Loss) -> str:
    """What answers packets of ours."""
    if loss.ruleset.program == "nft":
        return f"nft insert rule {loss.ruleset.table} {loss.chain} ct state established,related accept"
    return f"{_iptables(loss)} -I {loss.chain} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"


def _iptables(loss: _Loss) -> str:
    table = loss.ruleset.table
    return loss.ruleset.program if table == "filter" else f"{loss.ruleset.program} -t {table}"


def _slashed(text: str) -> str:
    protocol, _, ports = text.partition(" ")
    return f"{ports}/{protocol}"
