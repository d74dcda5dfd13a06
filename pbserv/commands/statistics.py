"""`pbserv statistics`: what the running server counted, for people and, as JSON, for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pbserv.commands.locate import run_directory
from pbserv.daemon.control import CONTROL_SOCKET_NAME, Request, ask
from pbserv.errors import PbservError


def show(conf: Path, as_json: bool) -> int:
    """Figures of imaging, proxyDHCP and TFTP since the server started."""
    answer = ask(run_directory(conf) / CONTROL_SOCKET_NAME, Request("statistics"))
    if not answer.ok:
        raise PbservError("; ".join(answer.errors))
    data: dict[str, Any] = dict(answer.data)
    if as_json:
        print(json.dumps(data))
        return 0
    for title, value in _lines(data):
        print(f"{title:<20} {value}".rstrip())
    return 0


def _lines(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Since", str(data["since"])
    yield "Imaging", _words(data, "pxe_requests", "images_sent", "images_received")
    if data.get("imaging_results"):
        found = sorted(data["imaging_results"].items())
        yield "  requests", ", ".join(f"{count} {result}" for result, count in found)
    ended = [f"{n} {kind} {how}" for kind, of in sorted(data.get("imaging_jobs", {}).items()) for how, n in of.items()]
    if ended:
        yield "  jobs", ", ".join(ended)
    if "proxydhcp" in data:  # not in the answer of a server that has run since before an upgrade
        yield from _proxydhcp(data["proxydhcp"])
    yield from _tftp(data["tftp"])


def _proxydhcp(proxydhcp: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "ProxyDHCP", _words(proxydhcp, "offers", "acknowledgements")
    if proxydhcp["ignored"]:
        found = sorted(proxydhcp["ignored"].items())
        yield "  not answered", ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in found)
    if proxydhcp["send_failed"]:
        yield "  not sent", f"{proxydhcp['send_failed']} answers; see: pbserv doctor"
    if proxydhcp.get("waited"):
        yield "  waited", f"{proxydhcp['waited']} packets, for what another server decides"
    if proxydhcp["loops"]:
        yield "  loops broken", str(proxydhcp["loops"])
    if proxydhcp["internal_errors"]:
        yield "  internal errors", f"{proxydhcp['internal_errors']}; the server's log has the details"


def _tftp(tftp: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "TFTP requests", _words(tftp, "read_requests", "write_requests")
    yield "  running now", str(tftp["active"])
    for title in ("sent", "received", "refused", "ignored"):
        if tftp[title]:
            yield f"  {title}", ", ".join(f"{count} {word}" for word, count in sorted(tftp[title].items()))
    for direction in ("sent", "received"):
        size = f"{_size(tftp[f'bytes_{direction}'])} in {tftp[f'blocks_{direction}']} blocks"
        yield f"  bytes {direction}", size
    if tftp["bytes_discarded"]:
        yield "  discarded", f"{_size(tftp['bytes_discarded'])} of uploads that broke"
    yield "  sent again", f"{tftp['retransmissions']} packets{_share(tftp)}; {tftp['stale_acks']} stale answers"
    yield "  round trip", _round_trip(tftp)
    yield "  cache", f"{_words(tftp, 'cache_hits', 'cache_misses', 'cache_streams')}; {_size(tftp['cache_bytes'])} held"
    yield "  strays", str(tftp["strays"])
    if tftp["internal_errors"]:
        yield "  internal errors", f"{tftp['internal_errors']}; the server's log has the details"


def _words(figures: Mapping[str, Any], *names: str) -> str:
    return ", ".join(f"{figures[name]} {name.removeprefix('cache_').replace('_', ' ')}" for name in names)


def _share(tftp: Mapping[str, Any]) -> str:
    moved = tftp["blocks_sent"] + tftp["blocks_received"]
    return f" ({tftp['retransmissions'] / moved:.2%})" if moved else ""


def _round_trip(tftp: Mapping[str, Any]) -> str:
    if not tftp["rtt_measured"]:
        return "not measured yet"
    half, most = (_bound(tftp[name]) for name in ("rtt_median_ms", "rtt_p99_ms"))
    return f"half of the transfers {half}, 99 % {most}"


def _bound(milliseconds: float | None) -> str:
    return "above 2 s" if milliseconds is None else f"up to {milliseconds:g} ms"


def _size(count: int) -> str:
    for unit, bytes_each in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= bytes_each:
            return f"{count / bytes_each:.4g} {unit}"
    return f"{count} bytes"
