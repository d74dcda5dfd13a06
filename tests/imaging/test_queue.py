"""Who may begin and who waits: a machine that asks in any order, and the cases that people look at."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pbserv.imaging.queue import (
    FORGOTTEN_S,
    LONGEST_WAIT_S,
    SILENT_S,
    Admitted,
    Ask,
    Direction,
    Limits,
    Queue,
    StoreLimit,
    Waiting,
)
from pbserv.types import Instant


def ask(
    device: str, *, direction: Direction = "restore", store: str = "main", site: str = "", limit: int = 0,
    priority: int = 0, work: int = 0,
) -> Ask:  # fmt: skip
    return Ask(device, work or int(device[1:]), direction, "image", store, site, limit, priority)


def at(seconds: float) -> Instant:
    return Instant(seconds)


def begins(queue: Queue, wanted: Ask, job: int = 1, now: float = 0) -> None:
    """A device asks, is admitted, and its job begins."""
    assert isinstance(queue.ask(wanted, at(now)), Admitted)
    queue.began(wanted, at(now), job)


def limited(restores: int = 0, captures: int = 0) -> Queue:
    return Queue(Limits({"main": StoreLimit(restores, captures)}))


def waits(answer: Admitted | Waiting) -> Waiting:
    assert isinstance(answer, Waiting)
    return answer


def test_without_limits_everybody_begins() -> None:
    queue = Queue()
    assert all(queue.ask(ask(f"d{number}"), at(0)) == Admitted() for number in range(1, 100))


def test_a_full_store_makes_devices_wait_in_turns() -> None:
    queue = limited(2)
    for device in ("d1", "d2"):
        begins(queue, ask(device))
    first = waits(queue.ask(ask("d3"), at(1)))
    assert (first.position, first.of, first.retry_s, first.reason) == (1, 1, 2, "store main: 2 of 2 restores")
    second = waits(queue.ask(ask("d4"), at(1)))
    assert (second.position, second.of) == (2, 2)
    queue.over("d1", 1)
    assert isinstance(queue.ask(ask("d4"), at(2)), Waiting), "d3 was there before"
    assert queue.ask(ask("d3"), at(3)) == Admitted(2)
    assert [each.ask.device for each in queue.waiting(at(3))] == ["d4"]
    assert {each.device for each in queue.busy(at(3))} == {"d2", "d3"}


def test_captures_have_slots_of_their_own_and_stores_too() -> None:
    queue = limited(1, 1)
    assert isinstance(queue.ask(ask("d1"), at(0)), Admitted)
    assert isinstance(queue.ask(ask("d2", direction="capture"), at(0)), Admitted)
    assert isinstance(queue.ask(ask("d3", store="other"), at(0)), Admitted)
    assert "captures" in waits(queue.ask(ask("d4", direction="capture"), at(0))).reason


def test_a_site_has_its_own_limit_and_does_not_stop_others() -> None:
    queue = limited(3)
    assert isinstance(queue.ask(ask("d1", site="/lab", limit=1), at(0)), Admitted)
    assert waits(queue.ask(ask("d2", site="/lab", limit=1), at(0))).reason == "site /lab: 1 of 1 jobs"
    assert isinstance(queue.ask(ask("d3"), at(0)), Admitted), "who waits for a site keeps no slot of the store"
    assert isinstance(queue.ask(ask("d2", site="/lab", limit=2), at(1)), Admitted), "the limit was raised"


def test_a_higher_priority_goes_first() -> None:
    queue = limited(1)
    begins(queue, ask("d1"))
    queue.ask(ask("d2"), at(0))
    assert waits(queue.ask(ask("d3", priority=5), at(1))).position == 1
    queue.over("d1", 1)
    assert isinstance(queue.ask(ask("d2"), at(2)), Waiting)
    assert isinstance(queue.ask(ask("d3", priority=5), at(2)), Admitted)


def test_who_is_silent_is_forgotten() -> None:
    queue = limited(1)
    queue.ask(ask("d1"), at(0))
    queue.ask(ask("d2"), at(0))
    later = waits(queue.ask(ask("d3"), at(1 + FORGOTTEN_S)))
    assert (later.position, later.of) == (1, 1), "d2 has not asked again"
    queue.heard(ask("d1"), at(SILENT_S - 1), 1)
    assert queue.waiting(at(SILENT_S)) == ()
    assert isinstance(queue.ask(ask("d3"), at(SILENT_S)), Waiting)
    assert isinstance(queue.ask(ask("d3"), at(2 * SILENT_S)), Admitted), "d1 has fallen silent"


def test_an_older_client_that_asks_every_half_minute_keeps_its_turn() -> None:
    queue = limited(1)
    begins(queue, ask("d1"))
    assert waits(queue.ask(ask("d2"), at(0))).first
    for again in (30, 60, 90):
        queue.heard(ask("d1"), at(again), 1)
        assert waits(queue.ask(ask("d3"), at(again - 1))).position == 2
        told = waits(queue.ask(ask("d2"), at(again)))
        assert (told.position, told.first, told.since) == (1, False, 0)
    queue.over("d1", 1)
    assert isinstance(queue.ask(ask("d3"), at(119)), Waiting), "the place is kept for d2"
    assert queue.ask(ask("d2"), at(120)) == Admitted(120)


def test_a_device_that_starts_again_keeps_its_slot_and_another_work_does_not() -> None:
    queue = limited(1, 1)
    queue.ask(ask("d1"), at(0))
    assert queue.ask(ask("d1"), at(5)) == Admitted()
    assert isinstance(queue.ask(ask("d1", direction="capture", work=9), at(6)), Admitted)
    assert isinstance(queue.ask(ask("d2"), at(6)), Admitted), "its slot for restores is free"


def test_who_was_at_work_before_this_process_keeps_on() -> None:
    queue = limited(1)
    queue.heard(ask("d1"), at(0), 1)
    queue.heard(ask("d2"), at(0), 2)
    assert waits(queue.ask(ask("d3"), at(0))).reason == "store main: 2 of 1 restores"


def test_jobs_of_a_device_at_the_same_time_have_their_slots_until_each_is_over() -> None:
    queue = limited(1, 1)
    for job in (1, 2):
        assert isinstance(queue.ask(ask("d1"), at(job)), Admitted)
        queue.began(ask("d1"), at(job), job)
    queue.ask(ask("d1", direction="capture"), at(3))
    queue.began(ask("d1", direction="capture"), at(3), 3)
    assert sorted(each.direction for each in queue.busy(at(3))) == ["capture", "restore"]
    queue.over("d1", 7)
    queue.over("d1", 1)
    assert isinstance(queue.ask(ask("d2"), at(4)), Waiting), "job 2 runs"
    queue.keep("d1", at(SILENT_S), 3)
    assert [each.direction for each in queue.busy(at(SILENT_S + 2))] == ["capture"], "job 2 has fallen silent"
    queue.over("d1", 3)
    assert queue.busy(at(SILENT_S + 2)) == ()


def test_a_slot_of_what_does_not_begin_is_free() -> None:
    queue = limited(1)
    queue.ask(ask("d1"), at(0))
    queue.ask(ask("d1"), at(1))
    queue.given_up(ask("d1"))
    assert isinstance(queue.ask(ask("d2"), at(2)), Waiting), "it was admitted twice"
    queue.given_up(ask("d1"))
    assert isinstance(queue.ask(ask("d2"), at(2)), Admitted)


def test_cancelled_work_waits_for_nothing() -> None:
    queue = limited(1)
    queue.ask(ask("d1"), at(0))
    queue.ask(ask("d2"), at(0))
    queue.gone("d2")
    assert queue.waiting(at(0)) == ()


def test_those_far_behind_ask_less_often() -> None:
    queue = limited(1)
    found = [queue.ask(ask(f"d{number}"), at(0)) for number in range(1, 40)][1:]
    times = [waits(each).retry_s for each in found]
    assert (times[0], times[3], times[-1]) == (2, 8, LONGEST_WAIT_S)


DEVICES = [f"d{number}" for number in range(1, 9)]
STORES = ["main", "other", "third"]
SITES = {"": 0, "/a": 1, "/b": 2}


class Machine(RuleBasedStateMachine):
    """Whatever devices do, no limit is passed, nobody is passed by, and who goes on asking begins."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.limits = Limits({"main": StoreLimit(2, 1), "other": StoreLimit(1, 0)})
        self.queue = Queue(self.limits)
        self.works = itertools.count(1)
        self.jobs: dict[str, list[int]] = {}

    @rule(
        device=st.sampled_from(DEVICES), direction=st.sampled_from(["restore", "capture"]),
        store=st.sampled_from(STORES), site=st.sampled_from(list(SITES)), priority=st.integers(-1, 1),
    )  # fmt: skip
    def asks_anew(self, device: str, direction: Direction, store: str, site: str, priority: int) -> None:
        wanted = ask(device, direction=direction, store=store, site=site, limit=SITES[site], priority=priority,
                     work=next(self.works))  # fmt: skip
        self.question(wanted)

    @precondition(lambda self: self.queue.waiting(at(self.now)))
    @rule(data=st.data())
    def asks_again(self, data: st.DataObject) -> None:
        self.question(data.draw(st.sampled_from([each.ask for each in self.queue.waiting(at(self.now))])))

    def question(self, wanted: Ask) -> None:
        busy = {each.device for each in self.queue.busy(at(self.now))}
        before = self.queue.waiting(at(self.now))
        new = wanted.device not in {each.ask.device for each in before}
        answer = self.queue.ask(wanted, at(self.now))
        if isinstance(answer, Waiting):
            assert 1 <= answer.position <= answer.of
            assert answer.reason
            return
        self.begins(wanted)
        if wanted.device in busy:  # it gave its slot up for another: whoever waited for that may go first now
            return
        still = {each.ask.device: each.reason for each in self.queue.waiting(at(self.now))}
        for each in before:  # who could begin, and goes before it, still can
            first = each.ask.priority > wanted.priority or (new and each.ask.priority == wanted.priority)
            if each.reason == "its turn" and each.ask.device != wanted.device and first:
                assert still[each.ask.device] == "its turn"

    def begins(self, wanted: Ask) -> None:
        """The job has the number of its work."""
        self.queue.began(wanted, at(self.now), wanted.work)
        self.jobs.setdefault(wanted.device, []).append(wanted.work)

    @rule(device=st.sampled_from(DEVICES))
    def ends(self, device: str) -> None:
        for job in self.jobs.pop(device, ()):  # those that other work took the place of have no slot any more
            self.queue.over(device, job)

    @rule(device=st.sampled_from(DEVICES))
    def is_cancelled(self, device: str) -> None:
        """It has no work any more, as the registry tells it."""
        self.queue.gone(device)
        self.queue.over(device)

    @rule(seconds=st.floats(0, 200))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def no_limit_is_passed(self) -> None:
        busy = self.queue.busy(at(self.now))
        assert len({each.device for each in busy}) == len(busy)
        for (store, direction), used in Counter((each.store, each.direction) for each in busy).items():
            assert used <= (self.limits.of(store, direction) or used)
        for site, used in Counter(each.site for each in busy).items():
            assert used <= (SITES[site] or used)
        waiting = {each.ask.device for each in self.queue.waiting(at(self.now))}
        assert not waiting & {each.device for each in busy}

    def teardown(self) -> None:
        """Everybody who waits begins in the end, in turns."""
        for _ in range(len(DEVICES) + 1):
            for each in self.queue.waiting(at(self.now)):
                if isinstance(self.queue.ask(each.ask, at(self.now)), Admitted):
                    self.begins(each.ask)
            for each in self.queue.busy(at(self.now)):
                self.ends(each.device)
        assert self.queue.waiting(at(self.now)) == ()


Machine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestQueue = Machine.TestCase
