"""Which packets of a boot the rules lose, and what opens the way again."""

from __future__ import annotations

from pbserv.doctor import firewall, iptables
from pbserv.doctor.filters import Ruleset
from pbserv.doctor.finding import Severity
from tests.doctor.made_up import facts, link, only, proxydhcp, settings

OPEN = "-A INPUT -p udp -m multiport --dports 67,69,4011 -j ACCEPT"
WEB = "-A INPUT -p tcp -m tcp --dport 8067 -j ACCEPT"
KNOWN = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"


def rules(*lines: str, policy: str = "DROP", output: str = "ACCEPT", program: str = "iptables") -> tuple[Ruleset, ...]:
    text = f"*filter\n:INPUT {policy} [0:0]\n:OUTPUT {output} [0:0]\n" + "\n".join(lines) + "\nCOMMIT\n"
    return iptables.parse(text, program)


def test_an_open_host_and_one_that_opened_what_is_needed() -> None:
    assert list(firewall.blocked_traffic(facts())) == []
    assert list(firewall.blocked_traffic(facts(firewalls=rules(policy="ACCEPT")))) == []
    assert list(firewall.blocked_traffic(facts(firewalls=rules(OPEN, WEB, KNOWN)))) == []


def test_a_policy_that_drops_is_one_finding_with_one_command() -> None:
    found = only(firewall.blocked_traffic, facts(firewalls=rules(KNOWN)))
    assert found.severity is Severity.ERROR
    assert "clients' DHCP broadcasts (udp 67)" in found.what
    assert "HTTP (scripts, images) (tcp 8067)" in found.what
    assert "TFTP transfers" not in found.what
    assert found.remedy[:2] == (
        "iptables -I INPUT -p udp -m multiport --dports 67,4011,69 -j ACCEPT",
        "iptables -I INPUT -p tcp -m multiport --dports 8067 -j ACCEPT",
    )


def test_https_where_there_is_one() -> None:
    conf = settings({"pbserv.conf": {"HTTPSPort": "8443"}})
    found = only(firewall.blocked_traffic, facts(conf, firewalls=rules(OPEN, WEB, KNOWN)))
    assert found.what == "the firewall drops HTTPS (API, console) (tcp 8443)"
    assert found.remedy[0] == "iptables -I INPUT -p tcp -m multiport --dports 8443 -j ACCEPT"


def test_transfers_need_what_is_established() -> None:
    conf = settings({"tftp.conf": {"TFTPPortRange": "50000-50099"}})
    found = only(firewall.blocked_traffic, facts(conf, firewalls=rules(OPEN, WEB)))
    assert "TFTP transfers (udp 50000-50099)" in found.what
    assert "--dports 50000:50099" in found.remedy[0]
    free = only(firewall.blocked_traffic, facts(firewalls=rules(OPEN, WEB)))
    assert free.remedy[0] == "iptables -I INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    single = settings({"tftp.conf": {"TFTPSinglePort": "1"}})
    assert list(firewall.blocked_traffic(facts(single, firewalls=rules(OPEN, WEB)))) == []


def test_broadcasts_alone_can_be_lost() -> None:
    broadcast = "-A INPUT -m addrtype --dst-type BROADCAST -j DROP"
    found = only(firewall.blocked_traffic, facts(firewalls=rules(broadcast, policy="ACCEPT")))
    assert found.what == "the firewall drops clients' DHCP broadcasts (udp 67)"
    assert broadcast in found.evidence
    alone = proxydhcp(LocalDHCPFlag="1")
    assert list(firewall.blocked_traffic(facts(alone, firewalls=rules(broadcast, policy="ACCEPT")))) == []


def test_offers_can_be_lost_on_the_way_out() -> None:
    found = only(firewall.blocked_traffic, facts(firewalls=rules(policy="ACCEPT", output="DROP")))
    assert found.what == "the firewall drops our offers to clients (udp 68)"
    assert found.remedy[0] == "iptables -I OUTPUT -p udp -m multiport --dports 68 -j ACCEPT"


def test_what_cannot_be_known_is_a_note() -> None:
    limited = "-A INPUT -p udp -m limit --limit 5/sec -j DROP"
    found = only(firewall.blocked_traffic, facts(firewalls=rules(limited, policy="ACCEPT")))
    assert found.severity is Severity.NOTE
    assert not found.remedy


def test_the_commands_are_those_of_what_runs_here() -> None:
    closed = rules(KNOWN, WEB)
    with_ufw = only(firewall.blocked_traffic, facts(firewalls=closed, frontends=frozenset(("ufw",))))
    assert with_ufw.remedy == ("ufw allow 67/udp", "ufw allow 4011/udp", "ufw allow 69/udp")
    with_firewalld = only(firewall.blocked_traffic, facts(firewalls=closed, frontends=frozenset(("firewalld",))))
    added = "--add-port=67/udp --add-port=4011/udp --add-port=69/udp"
    assert with_firewalld.remedy == (f"firewall-cmd --permanent {added} && firewall-cmd --reload",)
    legacy = only(firewall.blocked_traffic, facts(firewalls=rules(KNOWN, WEB, program="iptables-legacy")))
    assert legacy.remedy[0].startswith("iptables-legacy -I INPUT")


def test_rules_of_one_interface() -> None:
    one = "-A INPUT -i eth1 -p udp -j DROP"
    two = facts(links=(link(), link("eth1", "10.1.0.1/24", index=3)), firewalls=rules(one, policy="ACCEPT"))
    found = only(firewall.blocked_traffic, two)
    assert found.evidence.endswith("interfaces eth1")


def test_clients_of_the_subnet_count() -> None:
    near = "-A INPUT -s 10.0.0.0/24 -j ACCEPT"
    found = only(firewall.blocked_traffic, facts(firewalls=rules(near)))
    assert found.what == "the firewall drops clients' DHCP broadcasts (udp 67)"


def test_firewalls_that_could_not_be_read() -> None:
    found = only(firewall.unread_firewalls, facts(unread_firewalls=("nft: Operation not permitted",)))
    assert found.severity is Severity.NOTE
