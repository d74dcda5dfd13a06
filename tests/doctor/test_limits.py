"""Limits of the kernel, disk, clock, and the server's own word."""

from __future__ import annotations

from pbserv.conf.load import Problem
from pbserv.doctor import capacity, server, surroundings
from pbserv.doctor.facts import Capacity, Rights, ServerFacts, Surroundings
from pbserv.doctor.finding import Severity, by_severity, error, exit_code, note, warning
from tests.doctor.made_up import facts, only, settings

GIB = 1 << 30
NOW = 1_790_000_000.0


def test_receive_buffer() -> None:
    nobody = Rights(uid=1000)
    held = facts(capacity=Capacity(rmem_max=212_992, receive_buffer=425_984), server=ServerFacts(7))
    found = only(capacity.receive_buffer, held)
    assert "about 184 machines" in found.what
    assert found.remedy[0].startswith("sysctl -w net.core.rmem_max=4194304")
    would_have = facts(capacity=Capacity(rmem_max=212_992), rights=nobody)
    assert only(capacity.receive_buffer, would_have).what == found.what
    for enough in (
        facts(capacity=Capacity(rmem_max=212_992)),
        facts(capacity=Capacity(rmem_max=212_992, receive_buffer=8 << 20), server=ServerFacts(7)),
        facts(capacity=Capacity(rmem_max=4 << 20), rights=nobody),
        facts(capacity=Capacity(), rights=nobody),
        facts(capacity=Capacity(rmem_max=212_992), rights=nobody, server=ServerFacts(7)),
    ):
        assert list(capacity.receive_buffer(enough)) == []


def test_neighbour_table() -> None:
    small = facts(capacity=Capacity(neighbours_most=1024, neighbours_now=40))
    assert "gc_thresh3=4096" in only(capacity.neighbour_table, small).remedy[0]
    for enough in (Capacity(neighbours_most=1024, neighbours_now=24), Capacity(neighbours_now=24)):
        assert list(capacity.neighbour_table(facts(capacity=enough))) == []


def test_open_files() -> None:
    assert "1256" in only(capacity.open_files, facts(capacity=Capacity(open_files=1024))).what
    assert list(capacity.open_files(facts(capacity=Capacity(open_files=4096)))) == []


def disk(free: int, total: int) -> Surroundings:
    return Surroundings("/var/lib/pbserv", total, free, NOW)


def test_disk() -> None:
    assert only(surroundings.disk_space, facts(surroundings=disk(GIB - 1, 4 * GIB))).severity is Severity.WARNING
    assert only(surroundings.disk_space, facts(surroundings=disk(40 * GIB, 1000 * GIB))).severity is Severity.WARNING
    assert only(surroundings.disk_space, facts(surroundings=disk(0, 4 * GIB))).severity is Severity.ERROR
    for fine in (disk(2 * GIB, 20 * GIB), Surroundings()):
        assert list(surroundings.disk_space(facts(surroundings=fine))) == []


def test_clock() -> None:
    assert "before 2025" in only(surroundings.clock, facts(surroundings=Surroundings(now=86_400.0))).what
    ahead = Surroundings(now=NOW, newest_file=NOW + 7200, newest_path="/x")
    assert "2 hours in the future" in only(surroundings.clock, facts(surroundings=ahead)).evidence
    for fine in (Surroundings(now=NOW, newest_file=NOW + 60), Surroundings(now=NOW)):
        assert list(surroundings.clock(facts(surroundings=fine))) == []


def test_services() -> None:
    failed = facts(server=ServerFacts(7, {"tftp": "udp 69 is in use", "policy": ""}))
    found = only(server.services_running, failed)
    assert (found.severity, found.evidence) == (Severity.ERROR, "udp 69 is in use")
    assert only(server.services_running, facts(server=ServerFacts(7, fault="timeout"))).severity is Severity.ERROR
    assert only(server.services_running, facts()).severity is Severity.NOTE


def test_proxydhcp_is_not_started_by_itself() -> None:
    conf = settings({"pbserv.conf": {"Services": "imaging tftp policy"}})
    assert only(server.proxydhcp_wanted, facts(conf)).severity is Severity.NOTE
    assert only(server.proxydhcp_wanted, facts(conf, server=ServerFacts(7))).severity is Severity.WARNING
    by_hand = facts(conf, server=ServerFacts(7, {"proxydhcp": ""}))
    assert list(server.proxydhcp_wanted(by_hand)) == list(server.proxydhcp_wanted(facts())) == []


def test_problems_of_the_files() -> None:
    (found,) = server.configuration([Problem("/etc/pbserv/tftp.conf", 3, "TFTPPort", "is odd")])
    assert (found.what, found.evidence) == ("TFTPPort: is odd", "/etc/pbserv/tftp.conf:3")
    assert found.severity is Severity.WARNING
    (stopping,) = server.configuration([Problem("/etc/pbserv", 0, "TFTPDirectory", "does not exist")])
    assert (stopping.severity, stopping.evidence) == (Severity.ERROR, "/etc/pbserv")
    (wrong,) = server.configuration([Problem("/x", 0, "", "cannot be read")], Severity.ERROR)
    assert (wrong.severity, wrong.what) == (Severity.ERROR, "cannot be read")


def test_exit_codes() -> None:
    assert [exit_code(found) for found in ([], [note("n")], [warning("w"), note("n")], [note("n"), error("e")])] == [
        0, 0, 3, 1,
    ]  # fmt: skip
    assert [one.what for one in by_severity([note("n"), warning("w"), error("e"), error("f")])] == ["e", "f", "w", "n"]
