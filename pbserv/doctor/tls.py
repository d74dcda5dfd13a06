"""HTTPS: does it run, and will anybody believe its certificate, now and next month? Pure."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from pbserv.doctor.facts import Certificate, Facts
from pbserv.doctor.finding import Finding, error, warning
from pbserv.doctor.rights import everybody_reads, user_reads

SOON_S: Final = 30 * 86_400.0
_RELOAD: Final = "pbserv force-reload"


def https_runs(facts: Facts) -> Iterator[Finding]:
    """HTTP runs on without it, so nothing else would say it."""
    if facts.server.https_fault:
        closed = ": with RequireTLS nobody but this host can use the API" if facts.settings.pbserv.require_tls else ""
        remedy = "correct it in pbserv.conf, then: pbserv restart"
        yield error(f"HTTPS does not run{closed}", facts.server.https_fault, remedy)


def certificate_in_order(facts: Facts) -> Iterator[Finding]:
    """What the administrator gave, and what the server made."""
    shown = facts.certificate
    if shown is None:
        return
    if shown.fault:
        yield error("HTTPS cannot start with this certificate", shown.fault, f"give another one, then: {_RELOAD}")
        return
    yield from _expiry(shown, facts)
    yield from _key(shown, facts)
    yield from _names(shown, facts)


def _expiry(shown: Certificate, facts: Facts) -> Iterator[Finding]:
    """One of the server's own is made anew by whoever loads it; only a process that runs for years shows an old one."""
    left_s = shown.expires - facts.surroundings.now
    if left_s >= SOON_S or (shown.own and not facts.server.running):
        return
    evidence = f"{shown.path}: valid until {datetime.fromtimestamp(shown.expires, UTC):%Y-%m-%d %H:%M} UTC"
    remedy = _RELOAD if shown.own else f"put a new one there, then: {_RELOAD}"
    if left_s <= 0:
        yield error("the certificate of HTTPS has expired: browsers and programs refuse it", evidence, remedy)
    else:
        yield warning(f"the certificate of HTTPS expires in {left_s / 86_400:.0f} days", evidence, remedy)


def _key(shown: Certificate, facts: Facts) -> Iterator[Finding]:
    if not shown.key:
        return
    place = shown.key[-1]
    evidence = f"{place.path}: mode {stat.S_IMODE(place.mode):04o}, owner {place.uid}:{place.gid}"
    if everybody_reads(shown.key):
        what = "everybody on this host can read the key of HTTPS, and pass for this server"
        yield warning(what, evidence, f"chmod o-r {place.path}")
    elif not user_reads(shown.key, facts.rights):
        yield error(
            f"the user {facts.rights.user} may not read the key of HTTPS", evidence,
            f"chgrp {facts.rights.user} {place.path} && chmod g+r {place.path}",
        )  # fmt: skip


def _names(shown: Certificate, facts: Facts) -> Iterator[Finding]:
    """A certificate of the server's own has all addresses of the time when it was made; one that was given need only
    have some name of this host, by which it is called then."""
    ours = [entry.address for link in facts.lan_links for entry in link.addresses]
    evidence = f"{shown.path} is for {', '.join((*shown.names, *shown.addresses)) or 'no name at all'}"
    missing = [address for address in ours if address not in shown.addresses]
    if shown.own and missing:
        directory = shown.path.rpartition("/")[0]
        yield warning(
            f"the certificate of HTTPS was made before this host had the address {', '.join(missing)}", evidence,
            f"rm -r {directory}, then: {_RELOAD} (whoever trusts its fingerprint must be told the new one)",
        )  # fmt: skip
    elif not shown.own and ours and not _is_of(shown, facts, ours):
        yield warning(
            "the certificate of HTTPS is not for this host: neither its name nor one of its addresses is in it",
            f"{evidence}; this host is {facts.host or 'without a name'}, {', '.join(ours)}",
            "get one with the name or the address by which people call this host",
        )


def _is_of(shown: Certificate, facts: Facts, ours: list[str]) -> bool:
    """By an address in it, by one to which its names lead, or by the name of this host."""
    here = {*shown.addresses, *shown.resolved} & {*ours, *facts.own_addresses} - {"127.0.0.1"}
    return bool(here) or any(_is_for(name, facts.host) for name in shown.names)


def _is_for(name: str, host: str) -> bool:
    """Whether ``name`` of a certificate may be this host's: with its domain, which the host need not know itself."""
    name, host = name.lower(), host.lower()
    if name.startswith("*."):
        return "." not in host or host.partition(".")[2] == name[2:]
    return bool(host) and name.partition(".")[0] == host.partition(".")[0]
