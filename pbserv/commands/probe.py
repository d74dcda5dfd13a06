"""`pbserv probe`: plays boot clients on the wires of this host and says what each answer is worth."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pbserv.errors import PbservError, StartError, UsageError
from pbserv.probe.ask import Answers, Probe, Recorded, usable_interfaces
from pbserv.probe.firmware import FIRMWARE, firmware_of
from pbserv.probe.report import Probed, all_boot, as_json, text
from pbserv.probe.verdict import Asked, server_question, verdict
from pbserv.types import MacAddress

LONGEST_WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Options:
    """``boot_server``: None asks boot servers where the client would, True asks every proxy, False asks nobody."""

    kinds: tuple[str, ...]
    mac: MacAddress | None
    wait_s: float
    boot_server: bool | None


def probe(
    interface: str | None,
    kind: str,
    mac: str | None,
    wait_s: float,
    boot_server: bool | None,
    wants_json: bool,
    pcap: Path | None,
) -> int:
    """0 when every client that was played would boot, else 1."""
    options = Options(_kinds(kind), _checked_mac(mac), wait_s, boot_server)
    if options.mac is not None and len(options.kinds) > 1:
        raise UsageError("--mac: one address cannot be several machines; name one kind with --as")
    if not 0 < wait_s <= LONGEST_WAIT_S:
        raise UsageError(f"--wait {wait_s:g}: seconds, more than 0 and at most {LONGEST_WAIT_S:g}")
    with contextlib.ExitStack() as stack:
        probes = _opened(stack, [interface]) if interface else _opened(stack, usable_interfaces())
        sink = stack.enter_context(_pcap_file(pcap)) if pcap is not None else None
        for one in probes:
            print(_announced(one, options), file=sys.stderr, flush=True)
        with ThreadPoolExecutor(len(probes)) as pool:
            results = [result for found in pool.map(partial(_one, options=options), probes) for result in found]
        if sink is not None:
            _record(sink, [frame for one in probes for frame in one.recorded])
    _show(results, wants_json)
    return 0 if all_boot(results) else 1


def _show(results: list[Probed], wants_json: bool) -> None:
    if wants_json:
        print(json.dumps([as_json(result) for result in results], indent=2))
        return
    for number, result in enumerate(results):
        print("\n" * (number > 0), end="")
        for line in text(result):
            print(line)


def _kinds(kind: str) -> tuple[str, ...]:
    return tuple(FIRMWARE) if kind == "all" else (firmware_of(kind).kind,)


def _checked_mac(value: str | None) -> MacAddress | None:
    if value is None:
        return None
    try:
        mac = MacAddress.parse(value)
    except ValueError as fault:
        raise UsageError(f"--mac {fault}") from None
    if mac.octets[0] & 1 or not any(mac.octets):
        raise UsageError(f"--mac {value}: that names no single machine")
    return mac


def _opened(stack: contextlib.ExitStack, interfaces: Sequence[str]) -> list[Probe]:
    """Those that can be used; the fault of one is told, and is the fault of all when none is left."""
    probes: list[Probe] = []
    for number, name in enumerate(interfaces, 1):
        try:
            probes.append(stack.enter_context(contextlib.closing(Probe.open(name))))
        except StartError as fault:
            if number == len(interfaces) and not probes:
                raise
            print(f"pbserv: {fault}", file=sys.stderr)
    return probes


def _announced(one: Probe, options: Options) -> str:
    machines = ", ".join(f"{kind} ({options.mac or one.mac_of(kind)})" for kind in options.kinds)
    return f"{one.interface}: asks as {machines}; listens for {options.wait_s:g} s, longer if it asks boot servers"


def _one(one: Probe, options: Options) -> list[Probed]:
    return [_judged(one, answers, options) for answers in one.ask(options.kinds, options.mac, options.wait_s)]


def _judged(one: Probe, answers: Answers, options: Options) -> Probed:
    ask_server = None if options.boot_server is False else partial(one.ask_server, wait_s=options.wait_s)
    found = verdict(answers, ask_server)
    if not options.boot_server or not answers.address:
        return Probed(answers, found)
    known = {asked.server for asked in found.asked}
    further: list[Asked] = []
    for offer in answers.offers:
        if not offer.is_proxy:
            continue
        sent = server_question(answers, offer)
        if sent.destination not in known:
            known.add(sent.destination)
            replies = tuple(one.ask_server(sent, options.wait_s))
            further.append(Asked(sent.destination, sent.port, sent.source_port, "--boot-server", replies))
    return Probed(answers, found, tuple(further))


@contextlib.contextmanager
def _pcap_file(path: Path) -> Iterator[BinaryIO]:
    """A new file; it is made before anything is sent, so that nothing is asked in vain, and gone after a fault."""
    try:
        sink = path.open("xb")
    except FileExistsError:
        raise PbservError(f"--pcap {path}: the file exists already; name another") from None
    except OSError as fault:
        raise PbservError(f"--pcap {path}: {fault.strerror}") from None
    try:
        with sink:
            yield sink
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _record(sink: BinaryIO, frames: list[Recorded]) -> None:
    import dpkt  # type: ignore[import-untyped]

    writer = dpkt.pcap.Writer(sink, linktype=dpkt.pcap.DLT_EN10MB)
    for wall, frame in sorted(frames):
        writer.writepkt(frame, ts=wall)
