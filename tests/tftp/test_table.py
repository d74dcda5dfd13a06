"""Who may start another transfer. The sessions are real ones whose packets lead nowhere; no service runs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pbserv.log import ServiceLog
from pbserv.net.mmsg import Endpoint, Outbox
from pbserv.tftp.laidout import LaidOut
from pbserv.tftp.metrics import TftpMetrics
from pbserv.tftp.options import Terms
from pbserv.tftp.packet import Request, encode_ack
from pbserv.tftp.report import Reporter
from pbserv.tftp.sending import SendingSession
from pbserv.tftp.session import Session
from pbserv.tftp.table import Caps, TransferTable
from pbserv.tftp.transfer import Outcome

IN_ALL = "too many transfers"
OF_THIS_CLIENT = "too many transfers of this client"
UNANSWERED = "too many unanswered transfers of this client"
BLOCKS = 3


class Nowhere:
    """A link whose packets arrive nowhere."""

    mtu_bytes = 1500

    def __init__(self, address: str, port: int) -> None:
        self.endpoint = Endpoint((address, port, 0, 0) if ":" in address else (address, port))
        self.outbox = Outbox(socket.AF_INET, lambda: None)
        self.sent: list[bytes] = []
        self.closed = False

    def attach(self, member: Session) -> None:
        self.member = member

    def poll(self) -> None:
        pass

    def send(self, data: bytes | memoryview) -> bool:
        self.sent.append(bytes(data))
        return True

    def send_flight(self, buffer: memoryview, size_bytes: int) -> bool:
        self.sent.append(bytes(buffer))
        return True

    def send_soon(self, data: bytes) -> bool:
        return self.send(data)

    def queue_flight(self, address: int, length: int, size_bytes: int) -> None:
        self.sent.append(b"")

    def close(self) -> None:
        self.closed = True


class Desk:
    """Starts transfers of a small file as long as the table lets it."""

    def __init__(self, log: ServiceLog, caps: Caps) -> None:
        self.metrics = TftpMetrics()
        self.table = TransferTable(caps, self.metrics)
        self.told: list[str] = []
        self._reporter = Reporter(log, self, self.metrics)
        self._port = 1024

    def transferred(self, peer: str, name: str, outcome: str, size: int) -> None:
        self.told.append(outcome)

    def start(self, address: str, *, answered: bool = False) -> SendingSession:
        assert self.table.full_for(address) == ""
        self._port += 1
        request, terms = Request(1, b"f", "octet", ()), Terms(timeout_s=1.0)
        session = SendingSession(
            (address, self._port, "10.0.0.254"),
            b"request",
            request,
            Nowhere(address, self._port),
            terms,
            512 * (BLOCKS - 1),
            self._reporter,
            self.table.remove,
        )
        self.table.add(session)
        session.begin(LaidOut.of_bytes(bytes(512 * (BLOCKS - 1)), 512, 0))
        if answered:
            answer(session, 1)
        return session

    def fill(self, address: str, *, answered: bool = False) -> tuple[int, str]:
        """How many transfers could be started, and why no more."""
        count = 0
        while not (reason := self.table.full_for(address)):
            self.start(address, answered=answered)
            count += 1
        return count, reason


class Members:
    """How many members of multicast groups there are, by address."""

    def __init__(self, by_address: dict[str, int]) -> None:
        self._by_address = by_address

    def __len__(self) -> int:
        return sum(self._by_address.values())

    def of(self, address: str) -> int:
        return self._by_address.get(address, 0)


def link_of(session: Session) -> Nowhere:
    link = session._link
    assert isinstance(link, Nowhere)
    return link


def answer(session: Session, block: int) -> None:
    session.collect(encode_ack(block))
    session.act(session.deadline - 0.1)


@pytest.fixture
def make_desk(tmp_path: Path):
    log = ServiceLog("tftp")
    log.configure(1, tmp_path / "tftp.log", 15, quiet=True)
    return lambda **caps: Desk(log, Caps(**caps))


async def test_in_all(make_desk) -> None:
    desk = make_desk(transfers=5, per_address=3, unanswered=2)
    sessions = [desk.start(f"10.0.0.{n}", answered=True) for n in range(1, 6)]
    assert desk.table.full_for("10.0.0.9") == IN_ALL
    assert desk.table.full_for("127.0.0.1") == IN_ALL  # nobody is exempt from this one
    assert desk.metrics.active == len(desk.table) == 5
    sessions[2].fail(Outcome.STOPPED, "make room")
    assert desk.table.full_for("10.0.0.9") == ""
    desk.start("10.0.0.9", answered=True)
    assert desk.table.full_for("10.0.0.3") == IN_ALL
    assert desk.told == ["service stopped"]


async def test_who_never_said_a_word_makes_room_for_others(make_desk) -> None:
    """The one that has been silent longest goes, without another packet to an address that may be forged."""
    desk = make_desk(transfers=6)
    silent = [desk.start(f"10.0.0.{n}") for n in range(1, 5)]
    links = [link_of(session) for session in silent]
    talking = [desk.start(f"10.0.1.{n}", answered=True) for n in range(1, 3)]
    answer(silent[1], 1)
    for gone in (0, 2, 3):
        talking.append(desk.start(f"10.0.2.{gone}", answered=True))
        assert [session.ended for session in silent] == [n != 1 and n <= gone for n in range(4)]
    assert desk.table.full_for("10.0.0.9") == IN_ALL
    assert len(desk.table) == 6
    assert not any(session.ended for session in talking)
    assert desk.told == ["no answer"] * 3
    assert all(len(link.sent) == 1 for link in (links[0], *links[2:]))


async def test_a_silent_transfer_that_ended_by_itself_makes_no_second_place(make_desk) -> None:
    desk = make_desk(transfers=3)
    silent = [desk.start(f"10.0.0.{n}") for n in range(1, 4)]
    silent[0].unreachable()
    answer(desk.start("10.0.1.1"), 1)
    assert not silent[1].ended
    desk.start("10.0.1.2", answered=True)
    desk.start("10.0.1.3", answered=True)
    assert silent[1].ended
    assert silent[2].ended
    assert desk.fill("10.0.1.4") == (0, IN_ALL)


async def test_members_of_multicast_groups_count(make_desk) -> None:
    desk = make_desk(transfers=10, per_address=4, unanswered=4)
    desk.table.guests = Members({"10.0.0.1": 3, "10.0.0.2": 4})
    assert desk.fill("10.0.0.1", answered=True) == (1, OF_THIS_CLIENT)
    assert desk.fill("10.0.0.2", answered=True) == (0, OF_THIS_CLIENT)
    assert desk.fill("127.0.0.1", answered=True) == (2, IN_ALL)


@pytest.mark.parametrize("address", ["10.0.0.1", "2001:db8::1", "fe80::1"])
async def test_transfers_without_a_word_are_few_per_address(make_desk, address: str) -> None:
    desk = make_desk(transfers=100, per_address=20, unanswered=4)
    assert desk.fill(address) == (4, UNANSWERED)
    assert desk.fill("10.0.0.2") == (4, UNANSWERED)  # its own count


async def test_a_client_that_answers_may_have_more(make_desk) -> None:
    desk = make_desk(transfers=100, per_address=20, unanswered=4)
    assert desk.fill("10.0.0.1", answered=True) == (20, OF_THIS_CLIENT)
    assert desk.table.full_for("10.0.0.2") == ""


async def test_each_answer_makes_room_for_one_request(make_desk) -> None:
    desk = make_desk(transfers=100, per_address=6, unanswered=2)
    silent = [desk.start("10.0.0.1") for _ in range(2)]
    for expected in (3, 4):
        assert desk.table.full_for("10.0.0.1") == UNANSWERED
        answer(silent.pop(0), 1)
        silent.append(desk.start("10.0.0.1"))
        assert len(desk.table) == expected
    assert desk.table.full_for("10.0.0.1") == UNANSWERED
    answer(silent[0], 1)
    answer(silent[1], 1)
    assert desk.fill("10.0.0.1") == (2, OF_THIS_CLIENT)  # both caps are reached; the larger one is named


@pytest.mark.parametrize("end", ["completed", "no answer", "unreachable"])
async def test_what_is_over_counts_no_longer(make_desk, end: str) -> None:
    desk = make_desk(transfers=100, per_address=3, unanswered=3)
    sessions = [desk.start("10.0.0.1") for _ in range(3)]
    assert desk.table.full_for("10.0.0.1") == OF_THIS_CLIENT
    for session in sessions:
        if end == "completed":
            for block in range(1, BLOCKS + 1):
                answer(session, block)
        elif end == "unreachable":
            session.unreachable()
        else:
            while not session.ended:
                session.on_deadline(session.deadline)
    assert desk.told == [{"unreachable": "client port closed"}.get(end, end)] * 3
    assert len(desk.table) == desk.metrics.active == 0
    assert all(desk.table.find(session.key) is None for session in sessions)
    assert desk.fill("10.0.0.1") == (3, OF_THIS_CLIENT)


async def test_the_smaller_cap_rules_whichever_it_is(make_desk) -> None:
    desk = make_desk(transfers=100, per_address=2, unanswered=50)
    assert desk.fill("10.0.0.1") == (2, OF_THIS_CLIENT)
    assert desk.fill("10.0.0.2", answered=True) == (2, OF_THIS_CLIENT)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1"])
async def test_the_host_itself_is_bounded_by_the_sum_only(make_desk, address: str) -> None:
    desk = make_desk(transfers=30, per_address=2, unanswered=1)
    assert desk.fill(address, answered=True) == (30, IN_ALL)


@pytest.mark.parametrize("address", ["12.7.0.1", "128.0.0.1", "10.127.0.1", "::2", "1::1"])
async def test_what_only_looks_like_the_host_itself_is_not(make_desk, address: str) -> None:
    desk = make_desk(transfers=30, per_address=2, unanswered=1)
    assert desk.fill(address) == (1, UNANSWERED)


async def test_caps_of_a_reload_hold_at_once_and_end_nothing(make_desk) -> None:
    desk = make_desk(transfers=100, per_address=10, unanswered=10)
    running = [desk.start("10.0.0.1", answered=True) for _ in range(8)]
    desk.table.caps = Caps(100, 4, 4)
    assert desk.table.full_for("10.0.0.1") == OF_THIS_CLIENT
    assert not any(session.ended for session in running)
    desk.table.caps = Caps(3, 100, 100)  # fewer than run
    assert desk.table.full_for("10.0.0.1") == IN_ALL
    desk.table.caps = Caps()
    assert desk.table.full_for("10.0.0.1") == ""


async def test_the_end_of_the_service_empties_the_table(make_desk) -> None:
    desk = make_desk(transfers=10)
    sessions = [desk.start(f"10.0.0.{n}", answered=True) for n in range(5)]
    await desk.table.finish(0.0)
    assert all(session.ended for session in sessions)
    assert len(desk.table) == 0
    assert desk.told == ["service stopped"] * 5
