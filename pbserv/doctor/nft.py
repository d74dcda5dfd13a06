"""The rules of nftables, as `nft -j list ruleset` prints them (libnftables-json(5)). Pure.

One rule: the format grows, so whatever is unknown becomes an uncertain condition or action, and nothing raises.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from pbserv.doctor.filters import Action, Chain, Condition, Rule, Ruleset

_FAMILIES: Final = frozenset(("ip", "inet"))
_VERDICTS: Final = {
    "accept": Action.ACCEPT, "drop": Action.DROP, "reject": Action.DROP, "return": Action.RETURN,
    "jump": Action.JUMP, "goto": Action.GOTO, "queue": Action.UNKNOWN, "continue": Action.CONTINUE,
}  # fmt: skip
_PASSING: Final = frozenset(("counter", "log", "mangle", "notrack", "ct helper", "ct timeout", "flow", "set", "dup"))
_PAYLOADS: Final = {
    ("ip", "saddr"): "source", ("ip", "daddr"): "destination", ("ip", "protocol"): "protocol",
    ("th", "dport"): "dport", ("th", "sport"): "sport",
}  # fmt: skip
_METAS: Final = {
    "iifname": "iif", "iif": "iif", "oifname": "oif", "oif": "oif", "l4proto": "protocol", "pkttype": "pkttype",
    "nfproto": "family", "protocol": "family",
}  # fmt: skip

Json = Mapping[str, Any]
Sets = Mapping[tuple[str, str, str], tuple[str, ...] | None]


def parse(text: str, listed_elsewhere: Collection[str] = ()) -> tuple[Ruleset, ...]:
    """One ruleset per table; the IPv4 tables ``listed_elsewhere`` (by iptables) are left out. Empty for no JSON."""
    try:
        items = json.loads(text).get("nftables", [])
    except (ValueError, AttributeError):
        return ()
    objects = [item for item in items if isinstance(item, dict)]
    sets = _sets(objects)
    tables: dict[tuple[str, str], dict[str, Chain]] = {}
    for chain in _of(objects, "chain"):
        family, table = str(chain.get("family")), str(chain.get("table"))
        if family in _FAMILIES and not (family == "ip" and table in listed_elsewhere):
            rules = tuple(_rules(objects, family, table, str(chain.get("name")), sets))
            tables.setdefault((family, table), {})[str(chain.get("name"))] = _chain(chain, rules)
    return tuple(Ruleset("nft", f"{family} {table}", chains) for (family, table), chains in tables.items())


def _of(objects: list[dict[str, Any]], kind: str) -> Iterator[Json]:
    return (item[kind] for item in objects if isinstance(item.get(kind), dict))


def _chain(chain: Json, rules: tuple[Rule, ...]) -> Chain:
    filters = chain.get("type") == "filter"
    policy = Action.DROP if chain.get("policy") == "drop" else Action.ACCEPT
    priority = chain.get("prio")
    return Chain(
        str(chain.get("name")), rules, str(chain.get("hook", "")) if filters else "",
        priority if isinstance(priority, int) else 0, policy,
    )  # fmt: skip


def _rules(objects: list[dict[str, Any]], family: str, table: str, name: str, sets: Sets) -> Iterator[Rule]:
    for rule in _of(objects, "rule"):
        if (rule.get("family"), rule.get("table"), rule.get("chain")) == (family, table, name):
            yield from _rule(rule, (family, table), sets)


def _rule(rule: Json, place: tuple[str, str], sets: Sets) -> Iterator[Rule]:
    """One rule; a verdict map becomes one rule per entry."""
    conditions: list[Condition] = []
    handle = f"handle {rule.get('handle')}"
    for statement in rule.get("expr", []):
        if not isinstance(statement, dict) or not statement:
            conditions.append(Condition(""))
            continue
        kind, body = next(iter(statement.items()))
        if kind == "match" and isinstance(body, dict):
            conditions += _match(body, place, sets)
        elif kind in _VERDICTS:
            target = str(body.get("target", "")) if isinstance(body, dict) else ""
            yield Rule(tuple(conditions), _VERDICTS[kind], target, _text(conditions, f"{kind} {target}", handle))
            return
        elif kind == "vmap" and isinstance(body, dict):
            yield from _verdict_map(body, conditions, place, sets, handle)
            return
        elif kind == "xt" and isinstance(body, dict) and body.get("type") == "target":
            yield Rule(tuple(conditions), Action.UNKNOWN, "", _text(conditions, f"xt {body.get('name')}", handle))
            return
        elif kind not in _PASSING:
            conditions.append(Condition(""))  # limit, xt match, quota, ...: it may match or not


def _verdict_map(
    body: Json, conditions: list[Condition], place: tuple[str, str], sets: Sets, handle: str
) -> Iterator[Rule]:
    data = body.get("data")
    entries = data.get("set", []) if isinstance(data, dict) else []
    if not entries:
        yield Rule((*conditions, Condition("")), Action.UNKNOWN, "", _text(conditions, "vmap", handle))
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], dict) and entry[1]):
            continue
        verdict, inner = next(iter(entry[1].items()))
        target = str(inner.get("target", "")) if isinstance(inner, dict) else ""
        found = [*conditions, *_match({"op": "==", "left": body.get("key"), "right": entry[0]}, place, sets)]
        action = _VERDICTS.get(verdict, Action.UNKNOWN)
        yield Rule(tuple(found), action, target, _text(found, f"{verdict} {target}", handle))


def _match(body: Json, place: tuple[str, str], sets: Sets) -> list[Condition]:
    """A match on udp's or tcp's port is one on the protocol too."""
    left, negated = body.get("left"), body.get("op") == "!="
    if body.get("op") not in ("==", "!=", "in"):
        return [Condition("")]
    values = _values(body.get("right"), place, sets)
    key, protocol = _key(left)
    if values is None or not key:
        return [*([Condition("protocol", (protocol,))] if protocol else []), Condition("")]
    found = Condition(key, values, negated)
    return [Condition("protocol", (protocol,)), found] if protocol else [found]


def _key(left: object) -> tuple[str, str]:
    """Our name of what is compared, and the protocol that the comparison implies."""
    if not isinstance(left, dict) or not left:
        return "", ""
    kind, body = next(iter(left.items()))
    if not isinstance(body, dict):
        return "", ""
    if kind == "payload":
        protocol, name = str(body.get("protocol")), str(body.get("field"))
        if protocol in ("udp", "tcp", "sctp", "dccp", "icmp", "ip6", "icmpv6", "arp", "ether", "vlan"):
            return (name if name in ("dport", "sport") else ""), protocol
        return _PAYLOADS.get((protocol, name), ""), ""
    if kind == "meta":
        return _METAS.get(str(body.get("key")), ""), ""
    if kind == "ct":
        return ("state" if body.get("key") == "state" else ""), ""
    if kind == "fib" and body.get("result") == "type" and body.get("flags") == ["daddr"]:
        return "addrtype", ""
    return "", ""


def _values(right: object, place: tuple[str, str], sets: Sets) -> tuple[str, ...] | None:
    """Alternatives as text; None for what is not known."""
    if isinstance(right, str) and right.startswith("@"):
        return sets.get((*place, right[1:]))
    elements = right if isinstance(right, list) else [right]
    if isinstance(right, dict) and isinstance(right.get("set"), list):
        elements = right["set"]
    found = [_value(element) for element in elements]
    return None if None in found else tuple(value for value in found if value is not None)


def _value(element: object) -> str | None:
    if isinstance(element, bool) or not isinstance(element, str | int | dict):
        return None
    if not isinstance(element, dict):
        return str(element)
    if isinstance(pair := element.get("range"), list) and len(pair) == 2 and all(isinstance(end, int) for end in pair):
        return f"{pair[0]}-{pair[1]}"
    if isinstance(prefix := element.get("prefix"), dict):
        return f"{prefix.get('addr')}/{prefix.get('len')}"
    if isinstance(inner := element.get("elem"), dict):  # an element with a counter or a timeout
        return _value(inner.get("val"))
    return None


def _sets(objects: list[dict[str, Any]]) -> Sets:
    """The elements of named sets; None for a set that rules fill while packets come."""
    found: dict[tuple[str, str, str], tuple[str, ...] | None] = {}
    for entry in _of(objects, "set"):
        place = (str(entry.get("family")), str(entry.get("table")))
        flags = entry.get("flags", [])
        changing = "dynamic" in flags or "timeout" in flags
        found[(*place, str(entry.get("name")))] = None if changing else _values(entry.get("elem", []), place, {})
    return found


def _text(conditions: list[Condition], verdict: str, handle: str) -> str:
    words = [
        f"{condition.key} {'!= ' if condition.negated else ''}{','.join(condition.values)}" if condition.key else "..."
        for condition in conditions
    ]
    return f"{' '.join([*words, verdict.strip()])} ({handle})"
