"""Packets that wait for another server's word: the real desk, under a clock of the test."""

from __future__ import annotations

from collections.abc import Callable

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.outcome import Ignore, Reason
from pbserv.proxydhcp.packet import Packet
from pbserv.proxydhcp.waiting import LONGEST_S, MOST_HELD, Waiting
from pbserv.types import Decision, Sighting, Verdict
from tests.proxydhcp.samples import asks
from tests.proxydhcp.served import REQUEST, Served

ASKING = "PolicyHook 10.0.0.7:8080 is asked"


class Undecided(Served):
    """Its policy is asking another server until ``known`` is set."""

    known = False

    def decide(self, sighting: Sighting) -> Decision:
        if not self.known and self.verdict is Verdict.BOOT:
            self.asked.append(sighting)
            return Decision(Verdict.SILENT, ASKING, later=True)
        return super().decide(sighting)

    def run(self, times: int = 1) -> list[Packet]:
        """The replies that come of so many timers."""
        before = len(self.out.sent)
        for _ in range(times):
            due, self.delayed = self.delayed, []
            for _seconds, call in due:
                call()
        return [one[0] for one in self.out.sent[before:]]


def test_a_packet_is_answered_once_it_is_known_how() -> None:
    it = Undecided()
    assert it.take(asks(xid=7)) == []
    assert it.run(2) == []
    it.known = True
    (reply,) = it.run()
    assert (reply.xid, reply.message_type) == (7, dhcp.OFFER)
    assert (it.delayed, it.counters) == ([], {"offer": 1, "waited": 1})
    assert it.out.flushes == 4  # the batch, and each time that it was asked again
    assert [event[0] for event in it.book.events] == ["waits"]
    assert it.book.words == ["offer"]
    (again,) = it.take(asks(xid=8))
    assert again.xid == 8
    assert it.counters == {"offer": 2, "waited": 1}


def test_the_steps_grow_and_end() -> None:
    it = Undecided()
    it.take(asks())
    steps = []
    while it.delayed:
        steps.append(it.delayed[0][0])
        assert it.run() == []
    assert steps[:5] == [0.025, 0.05, 0.075, 0.1, 0.1]
    assert 1.4 < sum(steps) <= LONGEST_S
    assert it.counters == {"policy_late": 1}
    assert it.book.words == ["policy_late"]
    assert it.book.steps[-1][1].reason == f"after 1.5 s: {ASKING}"
    it.known = True
    assert len(it.take(asks(xid=9))) == 1


def test_what_is_decided_after_the_wait_may_be_silence() -> None:
    it = Undecided()
    it.take(asks())
    it.verdict = Verdict.SILENT
    assert it.run() == []
    assert (it.delayed, it.counters) == ([], {"policy_silent": 1, "waited": 1})


def test_repetitions_do_not_pile_up_and_the_newest_is_answered() -> None:
    it = Undecided()
    for xid in range(20):
        assert it.take(asks(xid=xid), after=0.6) == []
    it.known = True
    (reply,) = it.run()
    assert reply.xid == 19
    assert it.run(30) == []
    assert it.counters == {"offer": 1, "waited": 1, "repeated": 19}
    assert [event[0] for event in it.book.events].count("waits") == 1


def test_a_packet_that_is_answered_at_once_ends_the_wait_of_an_older_one() -> None:
    it = Undecided()
    it.take(asks(xid=1))
    it.known = True
    assert [reply.xid for reply in it.take(asks(xid=2))] == [2]
    assert it.run(30) == []
    assert it.counters == {"offer": 1, "repeated": 1}


def test_both_ports_wait() -> None:
    it = Undecided()
    it.request(REQUEST)
    it.known = True
    (reply,) = it.run()
    assert (reply.message_type, it.out.sent[-1][1:3]) == (dhcp.ACK, ("10.1.0.50", 4011))


def test_devices_wait_each_for_themselves_and_not_too_many() -> None:
    it = Undecided()
    macs = [f"5254000{number:05x}" for number in range(MOST_HELD + 10)]
    assert it.take(*(asks(mac=mac) for mac in macs)) == []
    assert it.counters == {"too_many_wait": 10}
    assert it.book.words == ["too_many_wait"] * 10
    it.known = True
    assert len(it.run()) == MOST_HELD
    assert it.run(30) == []
    assert it.counters == {"too_many_wait": 10, "offer": MOST_HELD, "waited": MOST_HELD}
    assert len(it.take(asks(mac=macs[-1], xid=5))) == 1


def test_a_fault_while_it_waits_ends_its_wait() -> None:
    it = Undecided()
    it.take(asks())
    it.verdict = RuntimeError("tripped")
    assert it.run() == []
    assert (it.delayed, it.counters) == ([], {"fault": 1})
    it.verdict, it.known = Verdict.BOOT, True
    assert len(it.take(asks(xid=2))) == 1


def test_time_passes_in_steps() -> None:
    calls: list[tuple[float, Callable[[], None]]] = []
    waiting = Waiting(lambda seconds, call: calls.append((seconds, call)))
    passed: list[float] = []

    def again(seconds: float) -> None:
        passed.append(seconds)
        outcome.append(waiting.hold(b"mac", packet, "x", again))

    packet, outcome = object(), list[Ignore | None]()
    assert waiting.hold(b"mac", packet, "x", again) is None
    while calls:
        calls.pop()[1]()
    last = outcome.pop()
    assert last is not None
    assert last.reason is Reason.POLICY_LATE
    assert set(outcome) == {None}
    assert (len(waiting), round(sum(passed), 3)) == (0, 1.45)
