"""A boot session as lines to read: what, when, where, and the answer it got. Pure.

One rule: a packet that firmware sends again, because nothing came back, is one line with a count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import Final

from pbserv.journal.steps import DhcpLine, DhcpText, Line, Spell

# BIOS ROMs derive the xid from their MAC and add the number of the attempt to its first byte.
_XID_OF_ALL_TRIES: Final = 0x00FFFFFF
_NOT_OURS: Final = {
    "ordinary_request_on_67": "for the DHCP server", "message_not_for_proxy": "for the DHCP server",
    "repeated": "answered already",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One line. ``at`` and ``last`` are seconds since the epoch; ``count`` is above 1 for a packet that came again.

    ``packet`` and ``reply`` are the decoded header fields and options of the first of them, where they are wanted and
    kept.
    """

    at: float
    last: float
    count: int
    source: str
    what: str
    detail: str
    answer: str = ""
    packet: tuple[str, ...] = ()
    reply: tuple[str, ...] = ()


def rows(lines: Sequence[Line], spell: Spell | None = None) -> list[Row]:
    """Lines of a session; ``spell`` reads the packets, None leaves them out."""
    told: list[Row] = []
    repeated: dict[tuple[object, ...], int] = {}
    for line in lines:
        if not isinstance(line, DhcpLine):
            told.append(Row(line.at, line.at, 1, line.source, line.what, line.detail))
            continue
        key = _key(line)
        place = repeated.get(key)
        if place is None:
            repeated = {key: len(told)}  # a packet of another kind in between begins a new line
            told.append(row_of(line, spell))
        else:
            told[place] = _again(told[place], line)
    return told


def _key(line: DhcpLine) -> tuple[object, ...]:
    step, text = line.step, line.text
    return (
        text.kind,
        text.xid & _XID_OF_ALL_TRIES,
        text.client,
        step.heard_on,
        step.ifindex,
        step.verdict,
        step.strategy,
    )


def row_of(line: DhcpLine, spell: Spell | None = None) -> Row:
    """One DHCP packet and its answer."""
    step, text = line.step, line.text
    return Row(
        step.at, step.at, 1, "dhcp", text.kind or "DHCP", _asked(line), _answered(line),
        spell(step.data) if spell is not None and step.data else (),
        spell(step.reply) if spell is not None and step.reply else (),
    )  # fmt: skip


def _asked(line: DhcpLine) -> str:
    step, text = line.step, line.text
    words = [f"port {step.heard_on} on {line.interface}", f"from {step.source}:{step.source_port}", *_client(text)]
    return ", ".join((*words, f"secs {text.secs}"))


def _client(text: DhcpText) -> Iterator[str]:
    names = {"bios": "", "uefi": "", "ipxe": "iPXE", "http": "HTTP boot", "raspberrypi": "Raspberry Pi"}
    yield from filter(None, (names.get(text.client, text.client), text.arch, text.vendor_class))


def _answered(line: DhcpLine) -> str:
    step = line.step
    if step.verdict in _NOT_OURS:
        return _NOT_OURS[step.verdict]
    if step.reply is None:
        return f"not answered ({step.verdict.replace('_', ' ')}){_because(step.reason)}"
    words = [step.verdict.upper(), f"strategy {step.strategy}" if step.strategy else "", step.file]
    to = f"to {step.reply_to}:{step.reply_port}" if step.reply_to else ""
    return " ".join(filter(None, (*words, to))) + _because(step.reason)


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _again(row: Row, line: DhcpLine) -> Row:
    first = row.detail.partition(", secs ")
    secs = first[2].partition("..")[0]
    detail = row.detail if secs == str(line.text.secs) else f"{first[0]}, secs {secs}..{line.text.secs}"
    return replace(row, last=line.step.at, count=row.count + 1, detail=detail)


def text_of(row: Row, zone: tzinfo | None = None) -> list[str]:
    """The row as lines of text; times in ``zone``, None means the local one."""
    times = f"x{row.count} in {row.last - row.at:.1f} s" if row.count > 1 else ""
    words = (clock(row.at, zone), f"{row.source:<8}", "" if row.what == row.source else row.what, times, row.detail)
    text = ["  ".join(filter(None, words))]
    if row.answer:
        text.append(f"{'':12}  {'':8}    -> {row.answer}")
    for mark, fields in (("<", row.packet), (">", row.reply)):
        text += [f"{'':12}  {'':8}    {mark} {field}" for field in fields]
    return [plain(line) for line in text]


def plain(text: str) -> str:
    """The text for a terminal: what devices say may not move its cursor."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def clock(at: float, zone: tzinfo | None = None) -> str:
    """``12:34:56.789``"""
    return datetime.fromtimestamp(at).astimezone(zone).isoformat(timespec="milliseconds")[11:23]


def result_text(word: str, why: str, todo: str, *, still: bool) -> list[str]:
    """The last lines of a timeline. ``still``: the session is not over."""
    told = (("so far" if still else "result", word), ("   why", why), ("  todo", todo))
    return [plain(f"{mark}: {text}") for mark, text in told if text]
