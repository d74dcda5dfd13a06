"""The result of a probe, for people and, as JSON values, for programs. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pbserv.probe.ask import Answers
from pbserv.probe.explain import fields
from pbserv.probe.firmware import firmware_of
from pbserv.probe.judge import Finding, Severity, judge, usable
from pbserv.probe.offer import Offer
from pbserv.probe.verdict import Asked, Verdict
from pbserv.proxydhcp.packet import MESSAGE_NAMES

_MARKS: Final = {Severity.ERROR: "!!", Severity.WARNING: " !", Severity.NOTE: "  "}
_NAME: Final = 24
_WIDTH: Final = 110

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Probed:
    """All about one kind of firmware on one interface. ``further``: boot servers that only the user wanted asked."""

    answers: Answers
    verdict: Verdict
    further: tuple[Asked, ...] = ()


def text(result: Probed) -> Iterator[str]:
    """Every answer field by field, what is wrong with it, and the verdict."""
    answers = result.answers
    title = f"{answers.interface}, as {answers.kind} ({firmware_of(answers.kind).title}, {answers.mac})"
    yield title
    yield "=" * len(title)
    for number, offer in enumerate(answers.offers, 1):
        yield from _offer(f"{number}. ", offer, answers.kind)
    if not answers.offers:
        yield "nobody answered"
    for asked in (*result.verdict.asked, *result.further):
        yield f"asked {asked.server} on port {asked.port} from port {asked.source_port}: {asked.why}"
        for offer in asked.answers:
            yield from _offer("", offer, answers.kind)
        if not asked.answers:
            yield "   no answer"
    for line in remarks(answers):
        yield from _wrapped("note: ", line)
    yield from _wrapped("=> ", f"this client {result.verdict.text}")


def remarks(answers: Answers) -> Iterator[str]:
    """What follows from the answers as a whole."""
    proxies = sorted({offer.server for offer in answers.offers if offer.is_proxy and not offer.is_dhcp})
    servers = sorted({offer.server for offer in answers.offers if offer.is_dhcp})
    if not servers:
        yield "no DHCP server offers an address, and without one nothing boots"
    if len(servers) > 1:
        yield f"{len(servers)} DHCP servers answer: {', '.join(servers)}; a client takes what suits it, or the first"
    if len(proxies) > 1:
        yield f"{len(proxies)} proxyDHCP servers answer: {', '.join(proxies)}; which of them counts, the verdict says"
    if not proxies:
        yield (
            "no proxyDHCP server answers. One that does not know this made-up device may wait until it is accepted"
            f" (pbserv device accept {answers.mac}), or it has no loader for this kind of client"
        )


def _offer(number: str, offer: Offer, kind: str) -> Iterator[str]:
    findings = judge(offer, kind)
    sender = f"{offer.source}:{offer.source_port} ({offer.source_mac}{_own(offer)})"
    way = f"{len(offer.data)} bytes to {offer.destination}:{offer.port}"
    yield f"{number}{_kind(offer)} from {sender}, {_message(offer)} after {offer.seconds * 1000:.0f} ms, {way}"
    for name, value in fields(offer.packet):
        yield from _wrapped(f"     {name:<{_NAME}} ", value)
    for finding in findings:
        yield from _wrapped(f"  {_MARKS[finding.severity]} ", f"{finding.what} [{finding.source}]")
    yield f"   usable for {kind}" if usable(findings) else f"   not usable for {kind}"


def _wrapped(head: str, line: str) -> list[str]:
    return textwrap.wrap(line, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)


def _kind(offer: Offer) -> str:
    if offer.asked != 67:
        return "boot server"
    match offer.is_dhcp, offer.is_proxy:
        case True, True:
            return "DHCP and proxy in one"
        case True, False:
            return "DHCP"
        case _:
            return "proxy"


def _own(offer: Offer) -> str:
    return ", this host" if offer.own else ""


def _message(offer: Offer) -> str:
    kind = offer.packet.message_type
    return "BOOTP" if kind is None else MESSAGE_NAMES.get(kind, f"type {kind}")


def as_json(result: Probed) -> Json:
    """The same as JSON values."""
    answers, found = result.answers, result.verdict
    return {
        "interface": answers.interface,
        "kind": answers.kind,
        "mac": str(answers.mac),
        "offers": [_offer_json(offer, answers.kind) for offer in answers.offers],
        "boot_servers": [_asked_json(asked, answers.kind) for asked in (*found.asked, *result.further)],
        "remarks": list(remarks(answers)),
        "verdict": {
            "word": found.word, "text": found.text, "code": found.code, "file": found.file, "server": found.server,
        },
    }  # fmt: skip


def _asked_json(asked: Asked, kind: str) -> Json:
    return {
        "server": asked.server, "port": asked.port, "source_port": asked.source_port, "why": asked.why,
        "answers": [_offer_json(offer, kind) for offer in asked.answers],
    }  # fmt: skip


def _offer_json(offer: Offer, kind: str) -> Json:
    findings = judge(offer, kind)
    return {
        "type": _kind(offer), "message": _message(offer), "source": offer.source, "source_port": offer.source_port,
        "source_mac": str(offer.source_mac), "this_host": offer.own, "destination": offer.destination,
        "port": offer.port, "seconds": round(offer.seconds, 6), "bytes": len(offer.data),
        "server": offer.server, "file": offer.file,
        "fields": [list(pair) for pair in fields(offer.packet)],
        "findings": [_finding_json(finding) for finding in findings],
        "usable": usable(findings), "hex": offer.data.hex(),
    }  # fmt: skip


def _finding_json(finding: Finding) -> Json:
    return {"severity": finding.severity.value, "what": finding.what, "source": finding.source}


def all_boot(results: Sequence[Probed]) -> bool:
    """Whether every client that was played would boot."""
    return all(result.verdict.boots for result in results)
