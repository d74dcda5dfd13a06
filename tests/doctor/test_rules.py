"""Rules as nft and iptables-save print them; the texts are those of nftables 1.0.6 and iptables 1.8.9."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.doctor import iptables, nft
from pbserv.doctor.filters import Fate, Probe, Ruleset, fate_of

DISCOVER = Probe("udp", 67, 68, "s0", "", "0.0.0.0", "255.255.255.255", broadcast=True)
PROBES = {
    "discover": DISCOVER,
    "4011": Probe("udp", 4011, 0, "s0", "", "10.0.0.7", "10.0.0.1"),
    "69": Probe("udp", 69, 0, "s0", "", "10.0.0.7", "10.0.0.1"),
    "69 from afar": Probe("udp", 69, 0, "s0", "", "192.0.2.7", "10.0.0.1"),
    "transfer": Probe("udp", 32768, 0, "s0", "", "10.0.0.7", "10.0.0.1", state="established"),
    "http": Probe("tcp", 8067, 0, "s0", "", "10.0.0.7", "10.0.0.1"),
    "http elsewhere": Probe("tcp", 8067, 0, "eth9", "", "10.0.0.7", "10.0.0.1"),
}


def nft_json(*rules: list[dict[str, Any]], policy: str = "drop") -> str:
    place = {"family": "inet", "table": "filter"}
    named = {"set": {**place, "name": "ports", "type": "inet_service", "elem": [67, {"range": [4011, 4012]}]}}
    changing = {"set": {**place, "name": "banned", "type": "ipv4_addr", "flags": ["dynamic"]}}
    chain = {"chain": {**place, "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": policy}}
    sub = {"chain": {**place, "name": "sub"}}
    found = [
        {"rule": {**place, "chain": "input", "handle": number, "expr": expr}} for number, expr in enumerate(rules, 5)
    ]
    return json.dumps({"nftables": [{"metainfo": {}}, {"table": place}, named, changing, chain, sub, *found]})


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def port(right: Any, protocol: str = "udp", op: str = "==") -> dict[str, Any]:
    return match({"payload": {"protocol": protocol, "field": "dport"}}, right, op)


SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
STATE = {"ct": {"key": "state"}}
IIF = {"meta": {"key": "iifname"}}
ACCEPT, DROP = {"accept": None}, {"drop": None}
REJECT = {"reject": {"type": "icmpx", "expr": "port-unreachable"}}


def fates(rulesets: tuple[Ruleset, ...]) -> dict[str, Fate]:
    (ruleset,) = rulesets
    return {name: fate_of(probe, ruleset).fate for name, probe in PROBES.items()}


def through(text: str) -> set[str]:
    """What passes for sure."""
    return {name for name, fate in fates(nft.parse(text)).items() if fate is Fate.THROUGH}


@pytest.mark.parametrize(
    ("rules", "passing"),
    [
        ([], set()),
        ([[port("@ports"), ACCEPT]], {"discover", "4011"}),
        ([[port({"set": [69, {"range": [4000, 4100]}]}), ACCEPT]], {"4011", "69", "69 from afar"}),
        ([[port(69), match(SADDR, {"prefix": {"addr": "10.0.0.0", "len": 8}}), {"counter": {}}, ACCEPT]], {"69"}),
        ([[match(STATE, ["established", "related"], "in"), ACCEPT]], {"transfer"}),
        ([[match({"meta": {"key": "l4proto"}}, {"set": ["tcp", "udp"]}), ACCEPT]], set(PROBES)),
        ([[match({"meta": {"key": "pkttype"}}, "broadcast"), ACCEPT]], {"discover"}),
        ([[match({"fib": {"result": "type", "flags": ["daddr"]}}, "broadcast"), ACCEPT]], {"discover"}),
        ([[port(22, "tcp", "!="), ACCEPT]], {"http", "http elsewhere"}),
        (
            [[{"vmap": {"key": IIF, "data": {"set": [["s0", {"accept": None}], ["eth9", {"drop": None}]]}}}]],
            set(PROBES) - {"http elsewhere"},
        ),
        ([[match(IIF, "lo"), ACCEPT]], set()),
        ([[{"jump": {"target": "sub"}}], [ACCEPT]], set(PROBES)),
        ([[{"goto": {"target": "sub"}}], [ACCEPT]], set()),
        ([[{"mystery": {}}, ACCEPT]], set()),
        ([[port(67), {"limit": {"rate": 5}}, ACCEPT]], set()),
    ],
)
def test_nft_rules_that_open(rules: list[list[dict[str, Any]]], passing: set[str]) -> None:
    assert through(nft_json(*rules)) == passing


def test_nft_rules_that_close() -> None:
    found = fates(nft.parse(nft_json([port(67), DROP], [port(8067, "tcp"), REJECT], policy="accept")))
    lost = {name for name, fate in found.items() if fate is Fate.LOST}
    assert lost == {"discover", "http", "http elsewhere"}


def test_nft_what_may_match_is_perhaps() -> None:
    banned = [match(SADDR, "@banned"), DROP]
    assert set(fates(nft.parse(nft_json(banned, policy="accept"))).values()) == {Fate.PERHAPS}
    xt = [{"xt": {"type": "match", "name": "recent"}}, DROP]
    assert set(fates(nft.parse(nft_json(xt, policy="accept"))).values()) == {Fate.PERHAPS}


def test_nft_says_which_rule() -> None:
    outcome = fate_of(DISCOVER, nft.parse(nft_json([port(67), DROP]))[0])
    assert outcome.why == "protocol udp dport 67 drop (handle 5)"


def test_nft_leaves_tables_of_other_families_and_of_iptables_out() -> None:
    text = nft_json().replace('"inet"', '"ip"')
    assert nft.parse(text.replace('"ip"', '"ip6"')) == ()
    assert nft.parse(text, {"filter"}) == ()
    assert len(nft.parse(text, {"nat"})) == 1


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_nft_takes_any_json(value: Any) -> None:
    place = {"family": "inet", "table": "t"}
    items = [
        {"chain": {**place, "name": "c", "hook": "input", "type": "filter"}},
        {"rule": {**place, "chain": "c", "expr": [{"match": {"op": "==", "left": value, "right": value}}, value]}},
        {"rule": {**place, "chain": "c", "expr": [{"vmap": value}, {"jump": value}, {"set": value}]}},
        {"set": {**place, "name": "s", "elem": value}},
        value,
    ]
    for ruleset in nft.parse(json.dumps({"nftables": items})):
        fate_of(DISCOVER, ruleset)
    assert nft.parse(json.dumps(value)) == ()


def test_nft_takes_what_is_no_json() -> None:
    assert nft.parse("") == ()


SAVED = """\
# Generated by iptables-save v1.8.9 (nf_tables) on Sat Nov 21 09:34:56 2026
*nat
:PREROUTING ACCEPT [0:0]
COMMIT
*filter
:INPUT {policy} [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:LOCAL - [0:0]
{rules}
COMMIT
# Completed
"""


def saved(*rules: str, policy: str = "DROP") -> tuple[Ruleset, ...]:
    return iptables.parse(SAVED.format(policy=policy, rules="\n".join(rules)), "iptables")


@pytest.mark.parametrize(
    ("rules", "passing"),
    [
        ([], set()),
        (["-A INPUT -p udp -m multiport --dports 67,4000:4100 -j ACCEPT"], {"discover", "4011"}),
        (["-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"], {"transfer"}),
        (["-A INPUT -m state --state ESTABLISHED -j ACCEPT"], {"transfer"}),
        (['-A INPUT -s 10.0.0.0/8 -p udp -m udp --dport 69 -m comment --comment "a b" -j ACCEPT'], {"69"}),
        (["-A INPUT -m pkttype --pkt-type broadcast -j ACCEPT"], {"discover"}),
        (["-A INPUT -m addrtype --dst-type BROADCAST -j ACCEPT"], {"discover"}),
        (["-A INPUT ! -i eth9 -p tcp -j ACCEPT"], {"http"}),
        (["-A INPUT -i s+ -p tcp -j ACCEPT"], {"http"}),
        (["-A INPUT -p tcp -m tcp --dport 8000: -j ACCEPT"], {"http", "http elsewhere"}),
        (['-A INPUT -j LOG --log-prefix "x "', "-A INPUT -j ACCEPT"], set(PROBES)),
        (
            ["-A INPUT -j LOCAL", "-A INPUT -j ACCEPT", "-A LOCAL -p tcp -j DROP"],
            set(PROBES) - {"http", "http elsewhere"},
        ),
        (["-A INPUT -g LOCAL", "-A INPUT -j ACCEPT"], set()),
        (["-A INPUT -p udp -m limit --limit 5/sec -j ACCEPT"], set()),
        (["-A INPUT -p udp -m recent --rcheck --name a -j ACCEPT"], set()),
    ],
)
def test_iptables_rules_that_open(rules: list[str], passing: set[str]) -> None:
    found = fates(saved(*rules))
    assert {name for name, fate in found.items() if fate is Fate.THROUGH} == passing


def test_iptables_rules_that_close() -> None:
    rejecting = "-A INPUT -p udp -m udp --dport 69 -j REJECT --reject-with icmp-port-unreachable"
    outcome = fate_of(PROBES["69"], saved(rejecting, policy="ACCEPT")[0])
    assert (outcome.fate, outcome.chain, outcome.why) == (Fate.LOST, "INPUT", rejecting)
    assert fates(saved("-A INPUT -j NFQUEUE --queue-num 1", policy="ACCEPT"))["69"] is Fate.PERHAPS


def test_iptables_tables() -> None:
    assert iptables.tables(SAVED) == {"nat", "filter"}
    assert iptables.tables("") == frozenset()


@given(st.text())
def test_iptables_takes_any_text(text: str) -> None:
    for ruleset in saved(f"-A INPUT {text}", text):
        fate_of(DISCOVER, ruleset)
    iptables.parse(text, "iptables")
