"""What answers on the network mean for machines that boot from us."""

from __future__ import annotations

import dataclasses

import pytest

from pbserv.doctor import onwire
from pbserv.doctor.facts import Asked, ServerFacts
from pbserv.doctor.finding import Severity
from tests.doctor.made_up import asked, facts, offer, only, proxy, proxydhcp, settings

RUNNING = ServerFacts(500, {"proxydhcp": ""})
CHECKS = [
    onwire.rival_proxies, onwire.no_dhcp_server, onwire.several_dhcp_servers, onwire.boot_options_of_dhcp,
    onwire.option_60_of_dhcp, onwire.own_proxy_silent, onwire.not_asked,
]  # fmt: skip


def test_a_plain_dhcp_server_and_us() -> None:
    well = facts(asked=asked(offer(), proxy("10.0.0.1")), server=RUNNING)
    for check in CHECKS:
        assert list(check(well)) == []
        assert list(check(facts(asked=None, server=RUNNING))) == []


def test_a_rival() -> None:
    found = only(onwire.rival_proxies, facts(asked=asked(offer(), proxy(), proxy("10.0.0.1"))))
    assert found.severity is Severity.ERROR
    assert "10.0.0.9 (MAC 52:54:00:00:00:05)" in found.what
    assert "option 60 PXEClient" in found.evidence
    strong = only(onwire.rival_proxies, facts(asked=asked(offer(), proxy(has_43=True))))
    assert "prefer" in strong.what


def test_a_server_that_stands_by_expects_another() -> None:
    for keys in ({"ReplyDelay": "200"}, {"MinimumSecs": "4"}):
        standing_by = facts(proxydhcp(**keys), asked=asked(offer(), proxy()))
        assert only(onwire.rival_proxies, standing_by).severity is Severity.NOTE


def test_rivals_are_told_per_interface() -> None:
    both = (*asked(offer(), proxy()), *asked(offer(), interface="eth1"))
    assert "on eth0" in only(onwire.rival_proxies, facts(asked=both)).what


def test_no_dhcp_server() -> None:
    found = only(onwire.no_dhcp_server, facts(asked=asked(proxy("10.0.0.1"))))
    assert (found.severity, "PXE-E52" in found.what) == (Severity.ERROR, True)
    assert "heard: 10.0.0.1" in found.evidence
    assert "nobody at all" in only(onwire.no_dhcp_server, facts(asked=asked())).evidence


def test_several_dhcp_servers() -> None:
    found = only(onwire.several_dhcp_servers, facts(asked=asked(offer("10.0.0.5"), offer("10.0.0.6"))))
    assert found.severity is Severity.WARNING
    one = asked(offer("10.0.0.5"), offer("10.0.0.6", server_id="10.0.0.5"))
    assert list(onwire.several_dhcp_servers(facts(asked=one))) == []


@pytest.mark.parametrize("options", [{"boot_file": "pxelinux.0"}, {"file": "x.efi"}, {"tftp_server": "10.0.0.7"}])
def test_a_dhcp_server_with_boot_options(options: dict[str, str]) -> None:
    found = only(onwire.boot_options_of_dhcp, facts(asked=asked(offer(next_server="10.0.0.5", **options))))
    assert found.severity is Severity.WARNING
    assert next(iter(options.values())) in found.what
    assert "option 60" not in found.evidence


def test_the_most_telling_offer_counts() -> None:
    bios, uefi = asked(offer())
    uefi = dataclasses.replace(uefi, offers=(offer(file="x.efi"),))
    assert "x.efi" in only(onwire.boot_options_of_dhcp, facts(asked=(bios, uefi))).what


def test_option_60_of_a_foreign_dhcp_server() -> None:
    found = only(onwire.option_60_of_dhcp, facts(asked=asked(offer(vendor_class="PXEClient"))))
    assert (found.severity, "PXE-E18" in found.what) == (Severity.ERROR, True)
    assert list(onwire.option_60_of_dhcp(facts(asked=asked(offer(vendor_class="MSFT 5.0"))))) == []


def test_option_60_of_our_own_dhcp_server() -> None:
    conf = proxydhcp(LocalDHCPFlag="1")
    found = only(onwire.option_60_of_dhcp, facts(conf, asked=asked(offer("10.0.0.1"))))
    assert (found.severity, "does not send option 60" in found.what) == (Severity.ERROR, True)
    right = asked(offer("10.0.0.1", vendor_class="PXEClient"))
    assert list(onwire.option_60_of_dhcp(facts(conf, asked=right))) == []


def test_our_own_proxy_does_not_answer() -> None:
    quiet = facts(asked=asked(offer()), server=RUNNING)
    by_policy = only(onwire.own_proxy_silent, quiet)
    assert (by_policy.severity, "NewDevices = pending" in by_policy.evidence) == (Severity.NOTE, True)
    conf = settings({"preboot-policy.conf": {"NewDevices": "accept"}})
    assert only(onwire.own_proxy_silent, facts(conf, asked=quiet.asked, server=RUNNING)).severity is Severity.ERROR
    assert list(onwire.own_proxy_silent(facts(asked=quiet.asked))) == []
    local = proxydhcp(LocalDHCPFlag="1")
    assert list(onwire.own_proxy_silent(facts(local, asked=quiet.asked, server=RUNNING))) == []


def test_an_interface_that_could_not_be_asked() -> None:
    failed = (Asked("eth0", "bios", fault="no carrier"),)
    assert only(onwire.not_asked, facts(asked=failed)).evidence == "no carrier"
    assert list(onwire.no_dhcp_server(facts(asked=failed))) == []
