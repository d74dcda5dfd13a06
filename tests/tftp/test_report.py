from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pbserv.log import ServiceLog
from pbserv.tftp.figures import figures
from pbserv.tftp.metrics import RTT_BOUNDS_S, Histogram, TftpMetrics
from pbserv.tftp.packet import Opcode, Request
from pbserv.tftp.report import Ended, Reporter
from pbserv.tftp.transfer import Outcome

SENT = Ended(
    kind="sent", client="10.0.0.9:2000", name=b"boot/ipxe.efi", size_bytes=1_000_000, block_size=1428, window=16,
    seconds=0.5, outcome=Outcome.COMPLETED, detail="", bytes_moved=1_000_000, blocks=701, retransmissions=16, stale=2,
    rtt_s=0.0007,
)  # fmt: skip
RECEIVED = replace(SENT, kind="received", name=b"report.txt", client="[fe80::1]:2000")


class Room:
    def __init__(self, place: Path, level: int) -> None:
        self.path = place / "tftp.log"
        self.log = ServiceLog("tftp")
        self.log.configure(level, self.path, 1, quiet=True)
        self.metrics = TftpMetrics()
        self.told: list[tuple[str, str, str, int]] = []
        self.reporter = Reporter(self.log, self, self.metrics)

    def transferred(self, peer: str, name: str, outcome: str, size: int) -> None:
        self.told.append((peer, name, outcome, size))

    @property
    def lines(self) -> list[str]:
        return [line.split(" ", 1)[1] for line in self.path.read_text().splitlines()] if self.path.exists() else []


def test_one_line_says_everything(tmp_path: Path) -> None:
    room = Room(tmp_path, 2)
    room.reporter.ended(SENT)
    assert room.lines == [
        "tftp transaction: sent client=10.0.0.9:2000 file=boot/ipxe.efi size=1000000 blksize=1428 windowsize=16"
        ' seconds=0.5 rate="2 MB/s" retransmissions=16 rtt_ms=0.7 result=completed'
    ]


@pytest.mark.parametrize(
    ("outcome", "event", "level"),
    [
        (Outcome.COMPLETED, "transaction: sent", 2),
        (Outcome.UNACKNOWLEDGED, "transaction: sent", 2),
        (Outcome.CLOSED, 'transaction: closed by client', 2),
        (Outcome.PROBE, "request: probed", 3),
        (Outcome.REPLACED, "request: replaced", 3),
        (Outcome.TIMED_OUT, "warning: failed", 1),
        (Outcome.FILE_FAULT, "warning: failed", 1),
    ],
)  # fmt: skip
def test_levels_are_the_manuals(tmp_path: Path, outcome: Outcome, event: str, level: int) -> None:
    silent, loud = Room(tmp_path / "a", level - 1), Room(tmp_path / "b", level)
    for room in (silent, loud):
        room.reporter.ended(replace(SENT, outcome=outcome, detail="why"))
        assert room.metrics.outcomes == {outcome.value: 1}
    assert silent.lines == []
    assert len(loud.lines) == 1
    assert event in loud.lines[0]
    assert loud.lines[0].endswith("reason=why")


def test_uploads_are_counted_by_themselves(tmp_path: Path) -> None:
    room = Room(tmp_path, 2)
    room.reporter.ended(RECEIVED)
    room.reporter.ended(replace(RECEIVED, outcome=Outcome.TIMED_OUT, bytes_moved=500, rtt_s=0.0))
    metrics = room.metrics
    assert (metrics.bytes_sent, metrics.bytes_received, metrics.bytes_discarded) == (0, 1_000_500, 500)
    assert (metrics.blocks_sent, metrics.blocks_received, metrics.rtt.count) == (0, 1402, 1)
    assert room.told == []  # who wants to know of uploads is told by the upload itself
    assert "received client=[fe80::1]:2000" in room.lines[0]
    assert "failed" in room.lines[1]
    assert "kind=write" in room.lines[1]


def test_refused_requests(tmp_path: Path) -> None:
    room = Room(tmp_path, 1)
    read, write = (Request(opcode, b"none.bin", "octet") for opcode in (Opcode.RRQ, Opcode.WRQ))
    room.reporter.refused("[::1]:9", read, 1, "not found")
    room.reporter.refused("10.0.0.9:9", write, 2, "writes are not allowed")
    room.reporter.refused("10.0.0.9:9", Request(Opcode.RRQ, b"autoexec.ipxe", "octet"), 1, "not found")
    assert [line.split(" ", 2)[2].split(" ")[0] for line in room.lines] == ["refused", "refused"]
    assert room.told == [("::1", "none.bin", "missing", 0)]
    assert room.metrics.refused == {1: 2, 2: 1}


def test_a_faulty_observer_is_a_bug_and_nothing_more(tmp_path: Path) -> None:
    room = Room(tmp_path, 2)

    def transferred(*_facts: object) -> None:
        raise ValueError("observer")

    room.transferred = transferred  # type: ignore[method-assign]
    room.reporter.ended(SENT)
    assert room.metrics.bugs == 1
    assert room.metrics.ended == {("sent", "completed"): 1}


def test_histogram_bounds_belong_to_their_bucket() -> None:
    histogram = Histogram(RTT_BOUNDS_S)
    assert histogram.quantile(0.5) is None
    for value in (0.0001, 0.0002, 0.0003, 2.0, 2.1):
        histogram.add(value)
    assert histogram.counts[:2] == [2, 1]
    assert histogram.counts[-2:] == [1, 1]
    assert (histogram.quantile(0.4), histogram.quantile(0.6), histogram.quantile(1)) == (0.0002, 0.0005, float("inf"))
    assert histogram.count == 5


def test_figures_of_a_service_that_never_ran() -> None:
    shown = figures(TftpMetrics())
    assert shown["rtt_median_ms"] is None
    assert shown["cache_bytes"] == 0
    assert shown["sent"] == {}
