"""`pbserv journal`: how far devices came with their boots, and why not further. All through the HTTP API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pbserv.commands.api import Api, named
from pbserv.errors import PbservError, UsageError
from pbserv.journal.timeline import Row, plain, result_text, text_of
from pbserv.types import MacAddress

Session = Mapping[str, Any]
DEVICES = 50
SESSIONS = 1
PCAP_HEADER_BYTES = 24  # all that a file without packets has


def show(conf: Path, mac: str | None, *, follow: bool, packets: bool, as_json: bool, limit: int | None) -> None:
    """Without ``mac`` a table of the newest sessions; with it the timeline of its newest ``limit`` sessions.

    ``follow`` goes on with what happens, until Ctrl-C.
    """
    api = Api(conf)
    if mac is None:
        if packets and not follow:
            raise UsageError("--packets shows the packets of one device: name its MAC address")
        if not follow:
            return _table(api.get("/journal", limit=limit or DEVICES), as_json)
    else:
        found = api.get(named("journal", mac), limit=limit or SESSIONS, packets=packets)
        if as_json and not follow:
            return print(json.dumps(found))
        _timelines(mac, found, as_json, follow)
    if follow:
        _follow(api.lines("/journal/stream", mac=mac), packets, as_json, mac)
    return None


def save_packets(conf: Path, mac: str | None, limit: int | None, target: Path) -> None:
    """Write the packets of a device that are kept to a new file; one that exists is never replaced."""
    if mac is None:
        raise UsageError("--pcap saves the packets of one device: name its MAC address")
    if target.exists():
        raise PbservError(f"{target} exists; name a file that does not")
    data = Api(conf).download(named("journal", mac, "packets.pcap"), limit=limit)
    if len(data) <= PCAP_HEADER_BYTES:
        raise PbservError(f"no packets of {mac} are kept; see: pbserv journal, and JournalPackets in pbserv.conf")
    try:
        with target.open("xb") as file:
            file.write(data)
    except OSError as fault:
        raise PbservError(f"{target}: {fault.strerror}") from None
    print(f"{target}: {len(data)} bytes")


def _table(sessions: Sequence[Session], as_json: bool) -> None:
    if as_json:
        return print(json.dumps(sessions))
    if not sessions:
        return print("no device has booted yet; see also: pbserv doctor")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Time", "Device", "How far", "Why"):
        table.add_column(column, no_wrap=column in ("Time", "Device"))
    for session in sessions:
        word = f"{session['result']} (so far)" if session["still"] else session["result"]
        table.add_row(
            *(escape(plain(cell)) for cell in (_day(session["started"]), session["mac"], word, session["why"]))
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    return None


def _timelines(mac: str, sessions: Sequence[Session], as_json: bool, follow: bool) -> None:
    """Oldest first, so that what is newest stands where the eye is."""
    if as_json:
        for session in reversed(sessions):
            print(json.dumps(session), flush=True)
        return
    if not sessions and not follow:
        print(f"no boot of {mac} is kept; see: pbserv journal")
    for session in reversed(sessions):
        for line in _timeline(session):
            print(line)
        print()


def _timeline(session: Session) -> Iterator[str]:
    yield f"{session['mac']}  {_day(session['started'])}"
    if session["lost"]:
        yield f"({session['lost']} earlier steps are not kept)"
    for row in session["rows"]:
        yield from text_of(Row(**row))
    yield from result_text(session["result"], session["why"], session["todo"], still=session["still"])


def _follow(lines: Iterator[str], packets: bool, as_json: bool, mac: str | None) -> None:
    alone = "" if mac is None else str(MacAddress.parse(mac))
    try:
        for line in filter(None, lines):
            if as_json:
                print(line, flush=True)
                continue
            for text in _followed(json.loads(line), packets, alone):
                print(text, flush=True)
    except KeyboardInterrupt:
        return


def _followed(step: dict[str, Any], packets: bool, alone: str) -> Iterator[str]:
    """``alone``: the address that was named; the steps of others, which its device has too, say whose they are."""
    if "lost" in step:
        yield f"({step['lost']} steps were lost: they came faster than they could be shown)"
        return
    mac = step.pop("mac")
    row = Row(**step) if packets else Row(**{**step, "packet": (), "reply": ()})
    first, *more = text_of(row)
    yield first if mac == alone else f"{mac}  {first}"
    yield from more


def _day(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
