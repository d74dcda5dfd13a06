"""Packets walked through rules: verdicts, jumps, and what cannot be known."""

from __future__ import annotations

import pytest

from pbserv.doctor.filters import Action, Chain, Condition, Fate, Probe, Rule, Ruleset, fate_of

DISCOVER = Probe("udp", 67, 68, "eth0", "", "0.0.0.0", "255.255.255.255", broadcast=True)
TFTP = Probe("udp", 69, 0, "eth0", "", "10.0.0.7", "10.0.0.1")


def when(key: str, *values: str, negated: bool = False) -> Condition:
    return Condition(key, values, negated)


def rule(action: Action, *conditions: Condition, target: str = "") -> Rule:
    return Rule(conditions, action, target, f"{action.value} {target}".strip())


def table(*rules: Rule, policy: Action = Action.ACCEPT, **chains: tuple[Rule, ...]) -> Ruleset:
    others = {name: Chain(name, found) for name, found in chains.items()}
    return Ruleset("nft", "inet filter", {"input": Chain("input", rules, "input", 0, policy), **others})


def fate(ruleset: Ruleset, probe: Probe = TFTP) -> Fate:
    return fate_of(probe, ruleset).fate


def test_the_policy_counts_where_no_rule_does() -> None:
    assert fate(table()) is Fate.THROUGH
    outcome = fate_of(TFTP, table(policy=Action.DROP))
    assert (outcome.fate, outcome.chain) == (Fate.LOST, "input")
    assert "policy drop" in outcome.why


def test_the_first_rule_that_holds_decides() -> None:
    drop, accept = rule(Action.DROP, when("dport", "60-70")), rule(Action.ACCEPT, when("dport", "69"))
    assert fate(table(drop, accept)) is Fate.LOST
    assert fate(table(accept, drop)) is Fate.THROUGH


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (when("protocol", "udp"), True),
        (when("protocol", "17"), True),
        (when("protocol", "tcp"), False),
        (when("protocol", "tcp", "udp"), True),
        (when("dport", "69"), True),
        (when("dport", "70-80"), False),
        (when("dport", "22", negated=True), True),
        (when("dport", "tftp"), None),
        (when("sport", "1024-65535"), None),
        (when("sport", "0-65535"), True),
        (when("iif", "eth0"), True),
        (when("iif", "eth*"), True),
        (when("iif", "lo"), False),
        (when("iif", "lo", negated=True), True),
        (when("source", "10.0.0.0/8"), True),
        (when("source", "192.168.0.0/16"), False),
        (when("source", "0.0.0.0/0"), True),
        (when("source", "fe80::/10"), False),
        (when("destination", "10.0.0.1"), True),
        (when("destination", "nonsense"), None),
        (when("state", "established", "related"), False),
        (when("state", "new"), True),
        (when("pkttype", "broadcast"), False),
        (when("addrtype", "local"), True),
        (when("family", "ipv4"), True),
        (when("family", "ipv6"), False),
        (when(""), None),
        (when("dport"), None),
    ],
)
def test_conditions(condition: Condition, holds: bool | None) -> None:
    expected = {True: Fate.LOST, False: Fate.THROUGH, None: Fate.PERHAPS}[holds]
    assert fate(table(rule(Action.DROP, condition))) is expected


def test_broadcasts_and_unicasts_differ() -> None:
    ruleset = table(rule(Action.DROP, when("pkttype", "broadcast")))
    assert (fate(ruleset, DISCOVER), fate(ruleset, TFTP)) == (Fate.LOST, Fate.THROUGH)


def test_jumps_come_back_and_gotos_do_not() -> None:
    accept = rule(Action.ACCEPT)
    jump, goto = rule(Action.JUMP, target="sub"), rule(Action.GOTO, target="sub")
    assert fate(table(jump, accept, policy=Action.DROP, sub=())) is Fate.THROUGH
    assert fate(table(goto, accept, policy=Action.DROP, sub=())) is Fate.LOST
    assert fate(table(jump, accept, policy=Action.DROP, sub=(rule(Action.RETURN), rule(Action.DROP)))) is Fate.THROUGH
    outcome = fate_of(TFTP, table(jump, sub=(rule(Action.DROP),)))
    assert (outcome.fate, outcome.chain) == (Fate.LOST, "sub")


def test_a_jump_to_nowhere_or_in_a_circle_is_uncertain() -> None:
    assert fate(table(rule(Action.JUMP, target="NFQUEUE"))) is Fate.PERHAPS
    circle = (rule(Action.JUMP, target="sub"),)
    assert fate(table(*circle, sub=circle)) is Fate.PERHAPS


def test_what_is_lost_either_way_is_lost() -> None:
    either = (rule(Action.DROP, when("")), rule(Action.DROP))
    assert fate(table(*either)) is Fate.LOST
    assert fate(table(rule(Action.ACCEPT, when("")), rule(Action.DROP))) is Fate.PERHAPS
    assert fate(table(rule(Action.DROP, when("")), rule(Action.ACCEPT))) is Fate.PERHAPS


def test_counters_and_logs_pass() -> None:
    assert fate(table(rule(Action.CONTINUE), rule(Action.DROP))) is Fate.LOST


def test_every_base_chain_of_the_hook_must_let_it_through() -> None:
    first = Chain("early", (rule(Action.ACCEPT),), "input", -10)
    last = Chain("late", (rule(Action.DROP),), "input", 10)
    other = Chain("out", (rule(Action.DROP),), "output", 0)
    assert fate(Ruleset("nft", "t", {"a": first, "b": last})) is Fate.LOST
    assert fate(Ruleset("nft", "t", {"a": first, "c": other})) is Fate.THROUGH
