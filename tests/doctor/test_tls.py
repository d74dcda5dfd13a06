"""HTTPS: when its certificate deserves a word."""

from __future__ import annotations

import dataclasses
import stat
from typing import Any

import pytest

from pbserv.doctor import ports, tls
from pbserv.doctor.facts import Bound, Certificate, Facts, Place, Rights, ServerFacts, Surroundings
from pbserv.doctor.finding import Severity
from pbserv.doctor.rights import everybody_reads, user_reads
from tests.doctor.made_up import ROOT, facts, link, only, settings

NOW = 1_800_000_000.0
DAY = 86_400.0


def path(mode: int, *above: int, uid: int = 990, gid: int = 990) -> tuple[Place, ...]:
    """A file below directories of the modes ``above``."""
    places = [Place("/", stat.S_IFDIR | 0o755, 0, 0)]
    places += [Place(f"/{number}", stat.S_IFDIR | each, 0, 0) for number, each in enumerate(above)]
    return (*places, Place("/etc/pbserv/key.pem", stat.S_IFREG | mode, uid, gid))


GOOD = Certificate(
    "/etc/pbserv/certificate.pem", expires=NOW + 90 * DAY, names=("pbserv.example",), addresses=("10.0.0.1",),
    key=path(0o640),
)  # fmt: skip
RUNNING = ServerFacts(500, {"imaging": ""})


def about(certificate: Certificate = GOOD, **changes: Any) -> Facts:
    return facts(surroundings=Surroundings(now=NOW), host="pbserv", certificate=certificate, **changes)


def shown(**changes: Any) -> Certificate:
    return dataclasses.replace(GOOD, **changes)


def test_a_good_one_and_none() -> None:
    assert list(tls.certificate_in_order(about())) == []
    assert list(tls.certificate_in_order(facts())) == []
    assert list(tls.https_runs(facts())) == []


def test_one_that_cannot_be_shown() -> None:
    found = only(tls.certificate_in_order, about(shown(fault="TLSKey: /k.pem: not the key of it")))
    assert (found.severity, found.evidence) == (Severity.ERROR, "TLSKey: /k.pem: not the key of it")


@pytest.mark.parametrize(
    ("days", "severity", "said"),
    [(29, Severity.WARNING, "expires in 29 days"), (0, Severity.ERROR, "expired"), (-3, Severity.ERROR, "expired")],
)
def test_its_end_is_near(days: int, severity: Severity, said: str) -> None:
    found = only(tls.certificate_in_order, about(shown(expires=NOW + days * DAY)))
    assert found.severity is severity
    assert said in found.what
    assert "valid until 20" in found.evidence
    assert "pbserv force-reload" in found.remedy[0]


def test_the_servers_own_is_made_anew_at_the_next_start() -> None:
    own = shown(own=True, expires=NOW + 3 * DAY)
    assert list(tls.certificate_in_order(about(own))) == []
    running = only(tls.certificate_in_order, about(own, server=RUNNING))
    assert running.remedy == ("pbserv force-reload",)


def test_a_key_that_everybody_can_read() -> None:
    found = only(tls.certificate_in_order, about(shown(key=path(0o644))))
    assert found.severity is Severity.WARNING
    assert found.remedy == ("chmod o-r /etc/pbserv/key.pem",)
    assert list(tls.certificate_in_order(about(shown(key=path(0o644, 0o711))))) != []
    closed = about(shown(key=path(0o644, 0o710, uid=0)))
    assert "may not read" in only(tls.certificate_in_order, closed).what, "nobody gets through the directory"


def test_a_key_that_the_server_cannot_read() -> None:
    found = only(tls.certificate_in_order, about(shown(key=path(0o600, uid=0, gid=0))))
    assert found.severity is Severity.ERROR
    assert "the user pbserv may not read the key" in found.what
    assert "mode 0600, owner 0:0" in found.evidence


def test_a_certificate_for_another_host() -> None:
    found = only(tls.certificate_in_order, about(shown(names=("other.example",), addresses=("192.0.2.1",))))
    assert found.severity is Severity.WARNING
    assert "other.example, 192.0.2.1" in found.evidence
    assert "this host is pbserv, 10.0.0.1" in found.evidence


@pytest.mark.parametrize(
    "changes",
    [
        {"names": (), "addresses": ("10.0.0.1",)},
        {"names": ("PBSERV.corp.example",), "addresses": ()},
        {"names": ("*.corp.example",), "addresses": ()},
        {"names": ("imaging.corp.example",), "addresses": (), "resolved": ("10.0.0.1",)},
    ],
)
def test_for_this_host_by_any_of_its_names(changes: dict[str, tuple[str, ...]]) -> None:
    assert list(tls.certificate_in_order(about(shown(**changes)))) == []


def test_an_alias_of_loopback_is_no_name_of_this_host() -> None:
    assert only(tls.certificate_in_order, about(shown(names=("x.example",), addresses=(), resolved=("127.0.0.1",))))


def test_the_servers_own_was_made_before_an_address_came() -> None:
    own = shown(own=True)
    assert list(tls.certificate_in_order(about(own))) == []
    more = about(own, links=(link(), link("eth1", "10.1.0.1/24", index=3)))
    found = only(tls.certificate_in_order, more)
    assert "10.1.0.1" in found.what
    assert "rm -r /etc/pbserv" in found.remedy[0]


def test_https_that_does_not_run() -> None:
    conf = settings({"pbserv.conf": {"HTTPSPort": "8443", "RequireTLS": "YES"}})
    down = dataclasses.replace(RUNNING, https_fault="HTTPS: port 8443 is taken")
    found = only(tls.https_runs, facts(conf, server=down))
    assert (found.severity, found.evidence) == (Severity.ERROR, "HTTPS: port 8443 is taken")
    assert "RequireTLS" in found.what
    assert "RequireTLS" not in only(tls.https_runs, facts(server=down)).what


def test_its_port_is_taken() -> None:
    conf = settings({"pbserv.conf": {"HTTPSPort": "8443"}})
    nginx = (Bound("tcp", "0.0.0.0", 8443, 8, "nginx"),)
    found = only(ports.held_ports, facts(conf, bound=nginx))
    assert found.what == "port 8443 is held by nginx (process 8): HTTPS cannot start"
    assert list(ports.held_ports(facts(bound=nginx))) == []


def test_who_reads_what() -> None:
    assert everybody_reads(path(0o604))
    assert not everybody_reads(path(0o640))
    assert not everybody_reads(path(0o644, 0o750))
    assert not everybody_reads(())
    assert user_reads(path(0o400), ROOT)
    assert user_reads(path(0o040, uid=0), ROOT)
    assert not user_reads(path(0o400, uid=0), ROOT)
    assert not user_reads(path(0o444, 0o700), ROOT)
    assert user_reads(path(0o000), Rights(user_uid=None)), "nobody can say"
