"""Interfaces: addresses, broadcasts, bridges, cables."""

from __future__ import annotations

from pbserv.doctor import links
from pbserv.doctor.checks import examine
from pbserv.doctor.finding import Severity, exit_code
from tests.doctor.made_up import LOOPBACK, address, facts, link, only, proxydhcp


def test_a_host_that_is_well_has_nothing_but_notes() -> None:
    assert [finding.what for finding in examine(facts())] == ["the server does not run"]
    assert exit_code(examine(facts())) == 0


def test_no_address_at_all() -> None:
    bare = link(addresses=())
    found = only(links.no_usable_link, facts(links=(LOOPBACK, bare)))
    assert found.severity is Severity.ERROR
    assert "eth0 (no address)" in found.evidence
    assert "none at all" in only(links.no_usable_link, facts(links=(LOOPBACK,))).evidence
    assert "eth0 (down)" in only(links.no_usable_link, facts(links=(link(up=False),))).evidence
    assert "among those asked for" in only(links.no_usable_link, facts(interface="eth7")).what


def test_no_broadcast_address() -> None:
    dumb = link(addresses=(address("10.0.0.1/24", brd=False),))
    found = only(links.no_broadcast_address, facts(links=(dumb,)))
    assert found.severity is Severity.WARNING
    assert found.remedy[0].endswith("&& ip address add 10.0.0.1/24 brd + dev eth0")
    assert "10.0.0.255" in found.what
    tunnel = link(addresses=(address("10.0.0.1/24", brd=False),), broadcasts=False)
    point = link(addresses=(address("10.0.0.1/31", brd=False),))
    assert list(links.no_broadcast_address(facts(links=(tunnel, point)))) == []


def test_only_links_that_are_served_count() -> None:
    other = link("eth1", index=3, addresses=(address("10.1.0.1/24", "eth1", 3, brd=False),))
    both = (link(), other)
    assert list(links.no_broadcast_address(facts(proxydhcp(LocalInterface="10.0.0.1"), links=both))) == []
    assert list(links.no_broadcast_address(facts(links=both, interface="eth0"))) == []
    assert only(links.no_broadcast_address, facts(links=both)).what.startswith("eth1")


def test_interfaces_of_containers_count_when_they_are_named() -> None:
    engine = link("docker0", "172.17.0.1/16", index=9)
    assert facts(links=(link(), engine)).lan_links == (link(),)
    assert facts(links=(link(), engine), interface="docker0").lan_links == (engine,)
    assert facts(proxydhcp(LocalInterface="172.17.0.1"), links=(link(), engine)).lan_links == (engine,)


def test_down_and_without_a_cable() -> None:
    down = link("eth1", "10.1.0.1/24", index=3, up=False)
    assert only(links.link_down, facts(links=(link(), down))).severity is Severity.NOTE
    chosen = facts(proxydhcp(LocalInterface="10.1.0.1"), links=(link(), down))
    assert only(links.link_down, chosen).severity is Severity.ERROR
    assert only(links.link_down, facts(links=(link(carrier=False),))).what.startswith("eth0 has no carrier")
    assert list(links.link_down(facts(links=(link("eth1", up=False, addresses=()), LOOPBACK)))) == []


def test_the_port_of_a_bridge_has_an_address() -> None:
    found = only(links.enslaved_link, facts(links=(link(master="br0"),)))
    assert found.remedy == (
        "ip address del 10.0.0.1/24 dev eth0",
        "ip address add 10.0.0.1/24 brd + dev br0",
    )
    assert list(links.enslaved_link(facts(links=(link(master="br0", addresses=()),)))) == []


def test_several_addresses() -> None:
    two = link("eth0", "10.0.0.1/24", "10.0.0.2/24")
    assert "clients are told 10.0.0.1" in only(links.several_addresses, facts(links=(two,))).what
    for conf in (proxydhcp(AdvertisedAddresses="eth0=10.0.0.2"), proxydhcp(LocalInterface="10.0.0.2")):
        assert list(links.several_addresses(facts(conf, links=(two,)))) == []


def test_strict_reverse_path_matters_with_several_interfaces() -> None:
    strict, vlan = link(rp_filter=1), link("eth0.5", "10.5.0.1/24", index=3, rp_filter=1)
    assert list(links.strict_reverse_path(facts(links=(strict,)))) == []
    found = only(links.strict_reverse_path, facts(links=(strict, vlan)))
    assert found.severity is Severity.NOTE
    assert "net.ipv4.conf.eth0/5.rp_filter=2" in found.remedy[1]
