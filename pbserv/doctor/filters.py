"""What a packet filter does to one packet: rules as values, and a walk through them. Pure.

One rule: what cannot be known here (a set that changes, a rate limit, a foreign match) counts as "perhaps", and a
packet that is perhaps let through is not reported as lost. Verdicts as nft(8) and iptables(8) describe them: accept
ends a base chain, drop and reject end everything, a chain that ends falls back to its caller or its policy.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_DEPTH: Final = 16  # nftables allows 16 nested jumps (NFT_JUMP_STACK_SIZE)


class Action(enum.Enum):
    ACCEPT = "accept"
    DROP = "drop"
    JUMP = "jump"
    GOTO = "goto"
    RETURN = "return"
    CONTINUE = "continue"  # counts, logs, marks: the next rule follows
    UNKNOWN = "unknown"  # ends in a way that we do not understand


@dataclass(frozen=True, slots=True)
class Condition:
    """``key`` is a field of :class:`Probe`, or empty for what we do not understand; ``values`` are alternatives."""

    key: str
    values: tuple[str, ...] = ()
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """``text`` is the rule as its program writes it, as near as we can."""

    conditions: tuple[Condition, ...]
    action: Action
    target: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """``hook`` is empty for chains that are only jumped to."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: str = ""
    priority: int = 0
    policy: Action = Action.ACCEPT


@dataclass(frozen=True, slots=True)
class Ruleset:
    """One table. ``program`` is what lists and changes it: nft, iptables or iptables-legacy."""

    program: str
    table: str
    chains: Mapping[str, Chain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probe:
    """A packet. Empty text and port 0 mean "any such", which makes conditions about them uncertain."""

    protocol: str
    dport: int
    sport: int = 0
    iif: str = ""
    oif: str = ""
    source: str = ""
    destination: str = ""
    broadcast: bool = False
    state: str = "new"
    hook: str = "input"


class Fate(enum.Enum):
    THROUGH = "through"
    PERHAPS = "perhaps"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``chain`` and ``why`` say what lost the packet."""

    fate: Fate
    chain: str = ""
    why: str = ""


THROUGH: Final = Outcome(Fate.THROUGH)


def fate_of(probe: Probe, ruleset: Ruleset) -> Outcome:
    """Walk the base chains of the probe's hook by priority; the first that loses the packet is named."""
    bases = (chain for chain in ruleset.chains.values() if chain.hook == probe.hook)
    doubtful = THROUGH
    for base in sorted(bases, key=lambda chain: chain.priority):
        ways = _walk(base, probe, ruleset, 0)
        outcomes = [*ways.outcomes, *([_by_policy(base)] if ways.falls else [])]
        lost = [outcome for outcome in outcomes if outcome.fate is not Fate.THROUGH]
        if lost and all(outcome.fate is Fate.LOST for outcome in outcomes):
            return lost[0]
        if lost and doubtful is THROUGH:
            doubtful = Outcome(Fate.PERHAPS, lost[0].chain, lost[0].why)
    return doubtful


def _by_policy(base: Chain) -> Outcome:
    if base.policy is Action.DROP:
        return Outcome(Fate.LOST, base.name, f"policy drop of chain {base.name}, and no rule accepts it")
    return THROUGH


@dataclass(frozen=True, slots=True)
class _Ways:
    """How a packet may leave a chain, and whether it may come to the chain's end."""

    outcomes: tuple[Outcome, ...]
    falls: bool


def _walk(chain: Chain, probe: Probe, ruleset: Ruleset, depth: int) -> _Ways:
    outcomes: list[Outcome] = []
    returns = False
    for rule in chain.rules:
        holds = _all_hold(rule.conditions, probe)
        if holds is False or rule.action is Action.CONTINUE:
            continue
        if rule.action is Action.RETURN:
            returns = True
            goes_on = False
        else:
            ways = _act(rule, chain, probe, ruleset, depth)
            outcomes += ways.outcomes
            goes_on = ways.falls and rule.action is not Action.GOTO
            returns = returns or (ways.falls and rule.action is Action.GOTO)
        if holds and not goes_on:
            return _Ways(tuple(outcomes), returns)
    return _Ways(tuple(outcomes), True)


def _act(rule: Rule, chain: Chain, probe: Probe, ruleset: Ruleset, depth: int) -> _Ways:
    """What the rule does to a packet that it matches."""
    match rule.action:
        case Action.ACCEPT:
            return _Ways((THROUGH,), False)
        case Action.DROP:
            return _Ways((Outcome(Fate.LOST, chain.name, rule.text),), False)
        case Action.JUMP | Action.GOTO if rule.target in ruleset.chains and depth < _DEPTH:
            return _walk(ruleset.chains[rule.target], probe, ruleset, depth + 1)
        case _:
            return _Ways((Outcome(Fate.PERHAPS, chain.name, rule.text),), False)


def _all_hold(conditions: tuple[Condition, ...], probe: Probe) -> bool | None:
    """False when one does not hold, None when one is uncertain, else True."""
    certain = True
    for condition in conditions:
        holds = _holds(condition, probe)
        if holds is False:
            return False
        certain = certain and holds is not None
    return True if certain else None


def _holds(condition: Condition, probe: Probe) -> bool | None:
    answers = [_one(condition.key, value, probe) for value in condition.values]
    if not answers:
        return None
    found: bool | None = True if True in answers else None if None in answers else False
    return found if found is None or not condition.negated else not found


def _one(key: str, value: str, probe: Probe) -> bool | None:
    match key:
        case "protocol":
            return value in (probe.protocol, {"udp": "17", "tcp": "6"}[probe.protocol], "all")
        case "dport" | "sport":
            return _in_range(probe.dport if key == "dport" else probe.sport, value)
        case "iif" | "oif":
            return _named(probe.iif if key == "iif" else probe.oif, value)
        case "source" | "destination":
            return _within(probe.source if key == "source" else probe.destination, value)
        case "pkttype":
            return (value == "broadcast") is probe.broadcast if value in ("broadcast", "unicast", "host") else False
        case "addrtype":
            return (value == "broadcast") is probe.broadcast if value in ("broadcast", "local") else False
        case "state":
            return value == probe.state
        case "family":
            return value in ("ipv4", "ip", "2")
        case _:
            return None


def _in_range(port: int, text: str) -> bool | None:
    first, _, last = text.partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        return None
    if port == 0:
        return None if (int(first), int(last or first)) != (0, 65_535) else True
    return int(first) <= port <= int(last or first)


def _named(name: str, pattern: str) -> bool | None:
    if not name:
        return False if pattern == "lo" else None
    return name.startswith(pattern[:-1]) if pattern[-1:] in ("*", "+") else name == pattern


def _within(address: str, network: str) -> bool | None:
    try:
        wanted = ipaddress.ip_network(network, strict=False)
        if wanted.prefixlen == 0:
            return True
        return ipaddress.ip_address(address) in wanted if address else None
    except ValueError:
        return None
