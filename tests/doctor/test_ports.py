"""Who may hold which port, by what the files say."""

from __future__ import annotations

from pbserv.doctor import ports
from pbserv.doctor.facts import Bound, Facts, ServerFacts
from pbserv.doctor.finding import Severity
from tests.doctor.made_up import facts, link, only, proxydhcp, settings

DNSMASQ_67 = Bound("udp", "0.0.0.0", 67, 77, "dnsmasq")
RUNNING = ServerFacts(500, {"proxydhcp": "", "tftp": "", "imaging": ""})


def test_nothing_is_held() -> None:
    assert list(ports.held_ports(facts())) == []
    assert list(ports.held_ports(facts(bound=(Bound("udp", "0.0.0.0", 68, 1, "dhclient"),)))) == []


def test_67_can_be_shared_by_the_flag() -> None:
    shared = only(ports.held_ports, facts(bound=(DNSMASQ_67,)))
    assert shared.severity is Severity.WARNING
    assert "dnsmasq (process 77)" in shared.what
    assert any("LocalDHCPFlag = 1" in line for line in shared.remedy)
    assert only(ports.held_ports, facts(proxydhcp(LocalDHCPFlag="auto"), bound=(DNSMASQ_67,))).severity is Severity.NOTE
    assert only(ports.held_ports, facts(bound=(DNSMASQ_67,), server=RUNNING)).severity is Severity.NOTE
    assert list(ports.held_ports(facts(proxydhcp(LocalDHCPFlag="1"), bound=(DNSMASQ_67,)))) == []


def test_4011_and_tftp_cannot() -> None:
    held = only(ports.held_ports, facts(bound=(Bound("udp", "0.0.0.0", 4011, 77, "dnsmasq"),)))
    assert held.severity is Severity.ERROR
    assert held.evidence == "udp 0.0.0.0:4011: dnsmasq (process 77)"
    assert any("pxe-service" in line for line in held.remedy)
    assert "tftp cannot start" in only(ports.held_ports, facts(bound=(Bound("udp", "::", 69, 8, "in.tftpd"),))).what
    web = only(ports.held_ports, facts(bound=(Bound("tcp", "0.0.0.0", 8067, 8, "nginx"),)))
    assert "or set another HTTPPort, then: pbserv restart imaging" in web.remedy


def test_another_address_is_not_in_the_way() -> None:
    conf = settings({"tftp.conf": {"TFTPInterface": "eth1 10.0.0.1"}})
    eth1 = link("eth1", "10.1.0.1/24", index=3)
    elsewhere = facts(conf, links=(eth1,), bound=(Bound("udp", "192.0.2.1", 69, 8, "x"),))
    assert list(ports.held_ports(elsewhere)) == []
    for address in ("10.1.0.1", "10.0.0.1", "0.0.0.0"):
        bound = (Bound("udp", address, 69, 8, "x"),)
        assert only(ports.held_ports, facts(conf, links=(eth1,), bound=bound)).severity is Severity.ERROR


def test_our_own_ports_are_ours() -> None:
    own = (Bound("udp", "0.0.0.0", 67, 500, "pbserv"), Bound("udp", "0.0.0.0", 4011, None))
    assert list(ports.held_ports(facts(bound=own, server=RUNNING))) == []
    hidden = only(ports.held_ports, facts(bound=(Bound("udp", "0.0.0.0", 69),)))
    assert "only root can name" in hidden.what


def test_a_service_that_is_not_wanted_needs_no_port() -> None:
    conf = settings({"pbserv.conf": {"Services": "tftp"}})
    assert list(ports.held_ports(facts(conf, bound=(DNSMASQ_67,)))) == []


def test_firmware_knows_its_ports_only() -> None:
    found = only(ports.unusual_ports, facts(proxydhcp(BootServerPort="4012")))
    assert (found.severity, "4011" in found.what) == (Severity.WARNING, True)
    assert list(ports.unusual_ports(facts())) == []


def test_flag_1_without_a_dhcp_server() -> None:
    conf = proxydhcp(LocalDHCPFlag="1")
    assert only(ports.missing_dhcp_server, facts(conf)).severity is Severity.WARNING
    for there in (facts(conf, bound=(DNSMASQ_67,)), facts(conf, dhcp_programs=("dhcpd",)), facts()):
        assert list(ports.missing_dhcp_server(there)) == []


def test_one_program_is_named_once() -> None:
    both = (Bound("udp", "10.0.0.1", 69, 8, "x"), Bound("udp", "127.0.0.1", 69, 8, "x"))
    about: Facts = facts(bound=both)
    assert len(list(ports.held_ports(about))) == 1
