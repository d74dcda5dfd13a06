"""The rules of iptables, as iptables-save(8) prints them, in both its kinds. Pure.

One rule: an option that is not known makes its rule uncertain; nothing raises.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

from pbserv.doctor.filters import Action, Chain, Condition, Rule, Ruleset

_HOOKS: Final = {"INPUT": "input", "OUTPUT": "output", "PREROUTING": "prerouting"}
_PRIORITIES: Final = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_TARGETS: Final = {"ACCEPT": Action.ACCEPT, "DROP": Action.DROP, "REJECT": Action.DROP, "RETURN": Action.RETURN}
_PASSING: Final = frozenset(
    ("LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "CT", "NOTRACK", "TOS", "DSCP", "TTL", "CHECKSUM", "TRACE", "AUDIT",
     "CLASSIFY", "SET", "TCPMSS", "RATEEST", "CONNSECMARK", "SECMARK")
)  # fmt: skip
# Option -> our name of what it compares, and what separates its values.
_OPTIONS: Final = {
    "-p": "protocol", "-i": "iif", "-o": "oif", "-s": "source", "-d": "destination", "--dport": "dport",
    "--sport": "sport", "--dports": "dport", "--sports": "sport", "--ctstate": "state", "--state": "state",
    "--pkt-type": "pkttype", "--dst-type": "addrtype",
}  # fmt: skip
# Options that say how a rule's match or target works, and whether the rule matches does not hang on them.
_SILENT: Final = frozenset(
    ("--comment", "--reject-with", "--log-prefix", "--log-level", "--nflog-group", "--nflog-prefix",
     "--set-xmark", "--set-mark", "--helper", "--dscp-class", "--set-dscp", "--set-tos", "--nflog-threshold")
)  # fmt: skip


def parse(text: str, program: str) -> tuple[Ruleset, ...]:
    """One ruleset per table that can drop packets; ``program`` is iptables or iptables-legacy."""
    found: list[Ruleset] = []
    for table, lines in _tables(text):
        if table in _PRIORITIES:
            found.append(Ruleset(program, table, _chains(table, lines)))
    return tuple(found)


def tables(text: str) -> frozenset[str]:
    """The names of all tables in ``text``."""
    return frozenset(table for table, _lines in _tables(text))


def _tables(text: str) -> Iterator[tuple[str, list[str]]]:
    name = ""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("*"):
            name, lines = line[1:].strip(), []
        elif line.strip() == "COMMIT" and name:
            yield name, lines
            name = ""
        else:
            lines.append(line)


def _chains(table: str, lines: list[str]) -> dict[str, Chain]:
    rules: dict[str, list[Rule]] = {}
    for line in lines:
        if line.startswith("-A ") and (rule := _rule(line)) is not None:
            rules.setdefault(rule[0], []).append(rule[1])
    chains: dict[str, Chain] = {}
    for line in lines:
        if line.startswith(":"):
            name, policy = [*line[1:].split(), "", ""][:2]
            verdict = Action.DROP if policy == "DROP" else Action.ACCEPT
            chains[name] = Chain(name, tuple(rules.get(name, ())), _HOOKS.get(name, ""), _PRIORITIES[table], verdict)
    return chains


def _rule(line: str) -> tuple[str, Rule] | None:
    """The chain's name and the rule; None for a line that cannot be split."""
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    if len(words) < 2:
        return None
    conditions: list[Condition] = []
    action, target, negated = Action.CONTINUE, "", False
    position = 2
    while position < len(words):
        word, value = words[position], words[position + 1] if position + 1 < len(words) else ""
        position += 2
        if word == "!":
            negated, position = True, position - 1
            continue
        if word in ("-j", "-g"):
            target, action = value, _action(word, value)
        elif word in _OPTIONS:
            conditions.append(Condition(_OPTIONS[word], _values(word, value), negated))
        elif word != "-m" and word not in _SILENT:
            conditions.append(Condition(""))
            position -= 0 if value and not value.startswith("-") and value != "!" else 1
        negated = False
    return words[1], Rule(tuple(conditions), action, target, line)


def _action(word: str, target: str) -> Action:
    if word == "-g":
        return Action.GOTO
    if target in _PASSING:
        return Action.CONTINUE
    return _TARGETS.get(target, Action.JUMP)  # a chain, or a target that fate_of() does not know as one


def _values(option: str, text: str) -> tuple[str, ...]:
    if option in ("-s", "-d", "-i", "-o", "-p"):
        return (text,)
    words = text.replace(":", "-").split(",") if option.endswith(("port", "ports")) else text.split(",")
    return tuple(_open_range(word) if option.endswith(("port", "ports")) else word.lower() for word in words)


def _open_range(text: str) -> str:
    first, dash, last = text.partition("-")
    return f"{first or '0'}-{last or '65535'}" if dash else text
