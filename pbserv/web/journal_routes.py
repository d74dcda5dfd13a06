"""The boot journal for administrators: sessions, timelines, packets, and what happens now (``/api/v1/journal``)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from pbserv.httpapi import ApiError, faults, requires
from pbserv.journal.journal import Journal
from pbserv.journal.pcap import pcap_of
from pbserv.journal.record import unpack
from pbserv.journal.steps import DhcpStep, Spell, Step
from pbserv.journal.timeline import Row, rows
from pbserv.registry.access import Access
from pbserv.registry.records import BootSession, Role
from pbserv.types import MacAddress

_LINE_TYPE: Final = "application/x-ndjson"
_PCAP_TYPE: Final = "application/vnd.tcpdump.pcap"
_ALIVE_S: Final = 10.0
Limit = Annotated[int, Query(ge=1, le=200)]
Sessions = Annotated[int, Query(ge=1, le=20)]


class SessionView(BaseModel):
    """``still``: a step that comes now would belong to it; ``packets``: how many are kept whole."""

    mac: str
    started: datetime
    ended: datetime
    still: bool
    result: str
    why: str
    todo: str
    packets: int


class RowView(BaseModel):
    """See :class:`pbserv.journal.timeline.Row`; times are seconds since the epoch."""

    at: float
    last: float
    count: int
    source: str
    what: str
    detail: str
    answer: str
    packet: tuple[str, ...]
    reply: tuple[str, ...]


class TimelineView(SessionView):
    """``lost``: how many earlier steps are not kept."""

    lost: int
    rows: list[RowView]


def router(journal: Journal, access: Access, spell: Spell) -> APIRouter:
    """``spell`` reads every option of a packet."""
    routes = APIRouter(
        prefix="/api/v1/journal", tags=["journal"], dependencies=[Depends(requires(access, Role.VIEWER))],
        responses=faults(401, 403, 422),
    )  # fmt: skip

    @routes.get("")
    async def sessions(mac: str | None = None, limit: Limit = 50) -> list[SessionView]:
        """The newest boot sessions of all devices, or of the one that has this address: those of all its addresses."""
        found = await journal.sessions(None if mac is None else _mac_text(mac), limit)
        return [SessionView(**_head(journal, session)) for session in found]

    @routes.get("/stream", response_class=StreamingResponse)
    async def stream(mac: str | None = None) -> StreamingResponse:
        """Steps as they happen: one JSON object in each line, an empty line now and then, until the client leaves."""
        macs = None if mac is None else await journal.addresses(_mac_text(mac))
        journal.refuse_when_full()
        return StreamingResponse(_lines(journal, macs, spell), media_type=_LINE_TYPE)

    @routes.get("/{mac}")
    async def timeline(mac: str, limit: Sessions = 1, packets: bool = False) -> list[TimelineView]:
        """The newest sessions of a device step by step; with ``packets`` every field and option of its packets."""
        found = await journal.sessions(_mac_text(mac), limit)
        return [_timeline(journal, session, spell if packets else None) for session in found]

    @routes.get("/{mac}/packets.pcap", response_class=Response)
    async def packets(mac: str, limit: Sessions = 20) -> Response:
        """The packets of a device's newest sessions that are kept, oldest first."""
        found = reversed(await journal.sessions(_mac_text(mac), limit))
        steps = [(MacAddress.parse(kept.mac).octets, line) for kept in found for line in unpack(kept.steps)[0]]
        return Response(pcap_of(steps), media_type=_PCAP_TYPE)

    return routes


async def _lines(journal: Journal, macs: Collection[str] | None, spell: Spell) -> AsyncIterator[str]:
    with journal.follow(macs) as follower:
        yield "\n"  # the client sees at once that it is connected
        while (heard := await follower.next(_ALIVE_S)) is not None:
            steps, lost = heard
            yield "".join(_line(journal, octets, step, spell) for octets, step in steps) or "\n"
            if lost:
                yield json.dumps({"lost": lost}) + "\n"


def _line(journal: Journal, mac: bytes, step: DhcpStep | Step, spell: Spell) -> str:
    [row] = rows([journal.read(step)], spell)
    return json.dumps({"mac": mac.hex(":"), **asdict(row)}) + "\n"


def _head(journal: Journal, session: BootSession) -> dict[str, object]:
    return {
        "mac": session.mac, "started": session.started, "ended": session.ended, "still": journal.still_open(session),
        "result": session.result, "why": session.why, "todo": session.todo, "packets": session.packets,
    }  # fmt: skip


def _timeline(journal: Journal, session: BootSession, spell: Spell | None) -> TimelineView:
    lines, lost = unpack(session.steps)
    shown = [_row(row) for row in rows(lines, spell)]
    return TimelineView.model_validate({**_head(journal, session), "lost": lost, "rows": shown})


def _row(row: Row) -> RowView:
    return RowView(**asdict(row))


def _mac_text(mac: str) -> str:
    """The canonical spelling, or a 422 answer."""
    try:
        return str(MacAddress.parse(mac))
    except ValueError as fault:
        raise ApiError(422, str(fault)) from None
