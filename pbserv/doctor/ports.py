"""Are the ports free that the services need, and who holds them otherwise? Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from pbserv.doctor.facts import Bound, Facts
from pbserv.doctor.finding import Finding, error, note, warning

_WILDCARDS: Final = frozenset(("0.0.0.0", "::", ""))


class _Need(NamedTuple):
    """A port that a service binds. ``known``: the only one that firmware tries; 0 where it is told the port."""

    service: str
    protocol: str
    port: int
    key: str
    known: int = 0
    addresses: tuple[str, ...] = ()


def held_ports(facts: Facts) -> Iterator[Finding]:
    """A port that another program holds stops its service; 67 alone can be shared."""
    for need in _needs(facts):
        for holder in _holders(facts, need):
            yield _held(facts, need, holder)


def unusual_ports(facts: Facts) -> Iterator[Finding]:
    """ROMs know 67, 4011 and 69 and nothing else (PXE 2.1; RFC 1350)."""
    for need in _needs(facts):
        if need.known and need.port != need.known:
            yield warning(
                f"{need.key} is {need.port or 'any free port'}, but firmware only knows {need.known}",
                f"{need.key} = {need.port}",
                f"remove {need.key} from the file, then: pbserv restart {need.service}",
            )


def missing_dhcp_server(facts: Facts) -> Iterator[Finding]:
    """LocalDHCPFlag = 1 says that a DHCP server of this host answers on 67."""
    if not facts.wants("proxydhcp") or facts.settings.proxydhcp.local_dhcp_flag != "1":
        return
    if not facts.dhcp_programs and not any(bound.protocol == "udp" and bound.port == 67 for bound in facts.bound):
        yield warning(
            "LocalDHCPFlag is 1, but no DHCP server runs on this host: nobody answers clients' broadcasts",
            "nothing is bound to UDP 67",
            "set LocalDHCPFlag = 0 in proxydhcp.conf, then: pbserv force-reload",
            "or start the DHCP server of this host",
        )


def _needs(facts: Facts) -> Iterator[_Need]:
    proxy, tftp, http = facts.settings.proxydhcp, facts.settings.tftp, facts.settings.pbserv
    if facts.wants("proxydhcp"):
        if proxy.local_dhcp_flag != "1":
            yield _Need("proxydhcp", "udp", proxy.proxydhcp_port, "ProxyDHCPPort", 67)
        yield _Need("proxydhcp", "udp", proxy.boot_server_port, "BootServerPort", 4011)
    if facts.wants("tftp"):
        yield _Need("tftp", "udp", tftp.port, "TFTPPort", 69, _addresses(facts, tftp.interfaces))
    if facts.wants("imaging") or facts.wants("policy"):
        bound = http.http_address or http.ip_address
        places = (str(bound),) if bound else ()
        yield _Need("imaging", "tcp", http.http_port, "HTTPPort", 0, places)
        if http.https_port is not None:
            yield _Need("imaging", "tcp", http.https_port, "HTTPSPort", 0, places)


def _addresses(facts: Facts, places: tuple[str, ...]) -> tuple[str, ...]:
    """Addresses of ``places``, which may be names of interfaces too."""
    named = {link.name: [entry.address for entry in link.addresses] for link in facts.links}
    return tuple(address for place in places for address in named.get(place, [place]))


def _holders(facts: Facts, need: _Need) -> Iterator[Bound]:
    """Foreign sockets in the way of ``need``, one per program; our own are not foreign."""
    seen: set[tuple[int | None, str]] = set()
    for bound in facts.bound:
        ours = facts.server.running and (
            bound.pid == facts.server.pid or (bound.pid is None and facts.server.runs(need.service))
        )
        if need.port == 0 or ours or (bound.protocol, bound.port) != (need.protocol, need.port):
            continue
        overlaps = not need.addresses or bound.address in _WILDCARDS or bound.address in need.addresses
        if overlaps and (bound.pid, bound.program) not in seen:
            seen.add((bound.pid, bound.program))
            yield bound


def _held(facts: Facts, need: _Need, holder: Bound) -> Finding:
    who = holder_name(holder)
    evidence = f"{holder.protocol} {holder.address}:{holder.port}: {who}"
    if need.key != "ProxyDHCPPort":
        stopped = "HTTPS" if need.key == "HTTPSPort" else need.service
        return error(
            f"port {need.port} is held by {who}: {stopped} cannot start",
            evidence,
            *_release(holder, need),
        )
    flag = facts.settings.proxydhcp.local_dhcp_flag
    if flag == "auto" or facts.server.runs("proxydhcp"):
        return note(f"port 67 is held by {who}: proxyDHCP reads beside it, or does without it", evidence)
    return warning(
        f"port 67 is held by {who}; with LocalDHCPFlag = 0 clients' broadcasts are read beside it, which needs"
        " CAP_NET_RAW",
        evidence,
        "if that is the DHCP server of this subnet, set LocalDHCPFlag = 1 (or auto) in proxydhcp.conf",
        f"if not, stop it: {_stop(holder)}",
    )


def holder_name(holder: Bound) -> str:
    """Program and process id, as far as they are known."""
    if holder.pid is None:
        return "a program that only root can name (run pbserv doctor as root)"
    return f"{holder.program or 'a program'} (process {holder.pid})"


def _release(holder: Bound, need: _Need) -> tuple[str, ...]:
    found = [f"stop it: {_stop(holder)}"]
    if need.port == 4011 and holder.program == "dnsmasq":
        found.append("or take its pxe-service and pxe-prompt lines out: without them dnsmasq leaves 4011 alone")
    if not need.known:
        found.append(f"or set another {need.key}, then: pbserv restart {need.service}")
    return tuple(found)


def _stop(holder: Bound) -> str:
    return f"systemctl stop $(ps -o unit= -p {holder.pid})" if holder.pid else "see: ss -lpn"
