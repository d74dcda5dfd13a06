"""Rewriting the names in requests, by the rules of a tftp-hpa map file (tftpd(8), "Filename remapping"). Pure.

The rules are read by ``mapfile``. One rule: rewriting always ends: after STEP_LIMIT rules, or when the name outgrows
LONGEST_NAME, the request is refused.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from pbserv.errors import PbservError
from pbserv.tftp.posix import Pattern, Spans

STEP_LIMIT = 4096
LONGEST_NAME = 1024
"""Requests have 512 bytes; what rules make of a name may double that."""


class Denied(PbservError):
    """The rules refuse the request; the message is for the client."""


class Then(enum.Enum):
    """What follows when a rule has matched."""

    GO_ON = "goes on"
    STOP = "ends"
    STOP_IF_FILE = "ends, as there is such a file"
    RESTART = "starts over"
    JUMP = "jumps"
    DENY = "refuses"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line. ``pattern`` None is a label, whose name stands in ``replacement``."""

    line: int
    text: str
    pattern: Pattern | None
    replacement: bytes = b""
    then: Then = Then.GO_ON
    rewrites: bool = False
    repeats: bool = False
    onwards: bool = False
    inverted: bool = False
    gets: bool = True
    puts: bool = True
    ipv4: bool = True
    ipv6: bool = True


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks for what: the facts that rules look at besides the name."""

    address: str
    put: bool = False

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        found = ipaddress.ip_address(self.address.partition("%")[0])
        return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that matched, for those who want to see it. ``note`` says what came of it."""

    rule: Rule
    before: bytes
    after: bytes
    note: str


Exists = Callable[[bytes], bool]
Watch = Callable[[Step], None]


class Rewrite:
    """The rules of one map file, in their order."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self._labels = {rule.replacement: at for at, rule in reversed(tuple(enumerate(rules))) if rule.pattern is None}

    def apply(self, name: bytes, client: Client, exists: Exists, watch: Watch | None = None) -> bytes:
        """The name that is meant by ``name``; raises Denied. ``exists``: whether the request could be served so."""
        return _Run(self.rules, self._labels, client, exists, watch).through(name)


class _Run:
    """One name's way through the rules."""

    def __init__(
        self,
        rules: tuple[Rule, ...],
        labels: dict[bytes, int],
        client: Client,
        exists: Exists,
        watch: Watch | None,
    ) -> None:
        self._rules = rules
        self._labels = labels
        self._exists = exists
        self._watch = watch or (lambda _: None)
        self._steps = 0
        self._put = client.put
        self._ip = client.ip

    def through(self, name: bytes) -> bytes:
        at = 0
        while at < len(self._rules):
            rule = self._rules[at]
            at += 1
            if rule.pattern is None or not self._concerns(rule):
                continue
            self._count(rule)
            spans = rule.pattern.search(name)
            if (spans is None) is not rule.inverted:
                continue
            after = self._rewritten(rule, rule.pattern, name, spans) if rule.rewrites and spans else name
            if rule.then is Then.STOP_IF_FILE and not self._exists(after):
                self._watch(Step(rule, name, name, "goes on, as there is no such file"))
                continue
            before, name = name, after
            self._watch(Step(rule, before, name, rule.then.value))
            match rule.then:
                case Then.STOP | Then.STOP_IF_FILE:
                    return name
                case Then.RESTART:
                    at = 0
                case Then.JUMP:
                    at = self._labelled(rule, name, spans)
                case Then.DENY:
                    text = self._expanded(rule.replacement, name, spans)
                    raise Denied(text.decode("utf-8", "replace") or "access denied")
                case Then.GO_ON:
                    pass
        return name

    def _concerns(self, rule: Rule) -> bool:
        return (rule.puts if self._put else rule.gets) and (rule.ipv4 if self._ip.version == 4 else rule.ipv6)

    def _count(self, rule: Rule) -> None:
        self._steps += 1
        if self._steps > STEP_LIMIT:
            raise Denied(f"name goes round in circles in the map file, line {rule.line}")

    def _rewritten(self, rule: Rule, pattern: Pattern, name: bytes, spans: Spans) -> bytes:
        while True:
            start, end = spans[0]
            middle = self._expanded(rule.replacement, name, spans)
            name = name[:start] + middle + name[end:]
            if len(name) > LONGEST_NAME:
                raise Denied(f"name grows too long in the map file, line {rule.line}")
            onward = start + len(middle) if rule.onwards else 0
            if not rule.repeats or (rule.onwards and onward >= len(name)):
                return name
            found = pattern.search(name, onward)
            if found is None:
                return name
            spans = found
            self._count(rule)

    def _labelled(self, rule: Rule, name: bytes, spans: Spans | None) -> int:
        label = self._expanded(rule.replacement, name, spans)
        if label not in self._labels:
            raise Denied(f"no such label in the map file, line {rule.line}")
        return self._labels[label]

    def _expanded(self, template: bytes, name: bytes, spans: Spans | None) -> bytes:
        """``template`` with its escapes replaced."""
        made: list[bytes] = []
        case: _Case = _as_is
        for plain, letter in _PIECES.findall(template):
            if plain:
                made.append(case(plain))
            elif letter in _CASES:
                case = _CASES[letter]
            elif letter.isdigit():
                start, end = spans[int(letter)] if spans else (-1, -1)
                made.append(case(name[start:end]) if start >= 0 else b"")
            elif letter == b"i":
                made.append(case(str(self._ip).encode()))
            elif letter == b"x":
                made.append(case(self._ip.packed.hex().upper().encode()))
            else:  # an escaped letter stands for itself, and so does a backslash at the end
                made.append(case(letter or b"\\"))
        return b"".join(made)


_Case = Callable[[bytes], bytes]
_PIECES = re.compile(rb"([^\\]+)|\\(.?)", re.DOTALL)


def _as_is(text: bytes) -> bytes:
    return text


def _by_letter(change: Callable[[str], str]) -> _Case:
    """Letter for letter, as towupper(3) does: what would become two letters stays."""

    def changed(text: bytes) -> bytes:
        letters = text.decode("utf-8", "surrogateescape")
        turned = "".join(new if len(new := change(letter)) == 1 else letter for letter in letters)
        return turned.encode("utf-8", "surrogateescape")

    return changed


_CASES: dict[bytes, _Case] = {
    b"U": _by_letter(str.upper),
    b"L": _by_letter(str.lower),
    b"E": _as_is,
}
