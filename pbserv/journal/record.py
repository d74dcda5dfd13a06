"""A boot session as the registry keeps it: JSON with the packets in base64, compressed. Pure.

One rule: what a newer pbserv wrote is read as far as it is understood, what is damaged counts as empty.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from pbserv.journal.steps import DhcpLine, DhcpStep, DhcpText, Line, Step

_MOST_BYTES = 16 << 20  # of one session once it is unpacked: 200 steps cannot have more


def pack(lines: Iterable[Line], lost: int) -> bytes:
    """``lost``: how many earlier steps are not kept."""
    text = json.dumps({"lost": lost, "steps": [_row(line) for line in lines]}, separators=(",", ":"))
    return zlib.compress(text.encode(), 1)


def unpack(packed: bytes) -> tuple[list[Line], int]:
    """The opposite of :func:`pack`."""
    try:
        found = json.loads(zlib.decompressobj().decompress(packed, _MOST_BYTES))
        return [_line(row) for row in found["steps"]], int(found["lost"])
    except (zlib.error, ValueError, KeyError, TypeError):
        return [], 0


def _row(line: Line) -> list[object]:
    if isinstance(line, Step):
        return list(line)
    step = line.step
    return [
        *step[:7], _text(step.data), *step[8:12], None if step.reply is None else _text(step.reply), *step[13:],
        list(line.text), line.interface,
    ]  # fmt: skip


def _line(row: Sequence[Any]) -> Line:
    if len(row) == len(Step._fields):
        return Step(*row)
    *fields, text, interface = row
    step = DhcpStep(*fields)
    reply = None if fields[12] is None else base64.b64decode(fields[12])
    return DhcpLine(step._replace(data=base64.b64decode(fields[7]), reply=reply), DhcpText(*text), interface)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
