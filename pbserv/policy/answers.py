"""The rulings that were made, and the line of journal and log that each question gets once.

One rule: a ruling stands until the device's record, an object, a setting or the time changes it; repeats of a question
cost a dictionary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pbserv.log import ServiceLog
from pbserv.policy.decide import Ruling
from pbserv.policy.ports import Journal
from pbserv.types import Decision, Verdict

REMEMBERED: Final = 16_384
MAX_TOLD: Final = 10_000
SAME_QUESTION_S: Final = 20.0
SAME_SCRIPT_S: Final = 2.0
"""A boot asks for its script once: sooner than this it is the same one (HEAD and GET)."""


@dataclass(slots=True)
class Answer:
    """A ruling that was made. It stands until ``until``; ``quiet``: by way of asking, when it is told again.

    ``mac`` is the address that asked: a device may have several. ``claimed``: a request that only says whose
    it is may tell us who has an address. Not for a refused device: anybody could name it, and shut out whoever has that
    address.
    """

    mac: str
    ruling: Ruling
    address: str
    until: float
    registered: bool
    claimed: bool
    quiet: dict[str, float]

    @property
    def decision(self) -> Decision:
        return self.ruling.decision


class Answers:
    """By the six bytes of the address that asked; the oldest goes when there are ``REMEMBERED``."""

    def __init__(self, journal: Journal, log: ServiceLog) -> None:
        self._journal = journal
        self._log = log
        self._answers: dict[bytes, Answer] = {}
        self._refused: dict[bytes, str] = {}
        self.decided = dict.fromkeys(Verdict, 0)
        self._told: dict[tuple[str, str, str, int | None], float] = {}

    def get(self, octets: bytes) -> Answer | None:
        return self._answers.get(octets)

    def put(self, octets: bytes, answer: Answer) -> None:
        if len(self._answers) >= REMEMBERED:
            del self._answers[next(iter(self._answers))]
        self._answers[octets] = answer
        self.decided[answer.decision.verdict] += 1
        if not answer.decision.later:
            self._refused.pop(octets, None)
            if answer.ruling.refused:
                if len(self._refused) >= REMEMBERED:
                    del self._refused[next(iter(self._refused))]
                self._refused[octets] = answer.ruling.refused

    def refusal(self, octets: bytes) -> str:
        """Why the device got nothing when it was asked about last, whatever became of that answer since; empty: it did,
        or nobody asked. Another server that decides is not asked anew for each file."""
        return self._refused.get(octets, "")

    def drop(self, macs: tuple[str, ...]) -> None:
        """What was answered to a device with these addresses is void."""
        for mac in macs:
            self._answers.pop(bytes.fromhex(mac.replace(":", "")), None)

    def clear(self) -> None:
        self._answers.clear()

    def forget(self, macs: tuple[str, ...]) -> None:
        """Nothing of such a device is remembered any more."""
        self.drop(macs)
        for mac in macs:
            self._refused.pop(bytes.fromhex(mac.replace(":", "")), None)
        self._told = {key: until for key, until in self._told.items() if key[0] not in macs}

    def tell(self, answer: Answer, via: str, now: float, seconds: float) -> None:
        """One line of journal and log per question; the repeats of one boot are level 3."""
        decision = answer.decision
        key = (answer.mac, via, decision.reason, decision.work)
        until = self._told.get(key, 0.0)
        if now < until:
            answer.quiet[via] = until
            return self.repeat(answer, via)
        if len(self._told) > MAX_TOLD:
            self._told.clear()
        self._told[key] = answer.quiet[via] = now + (SAME_QUESTION_S if via == "dhcp" else SAME_SCRIPT_S)
        if answer.registered:
            self._journal.add(answer.mac, f"asked by {via}", f"{decision.verdict.value}: {decision.reason}")
        if self._log.level >= 2:
            self._log.transaction("decided", device=answer.mac, via=via, verdict=decision.verdict.value,
                                  reason=decision.reason, seconds=round(seconds, 6))  # fmt: skip
        return None

    def repeat(self, answer: Answer, via: str) -> None:
        """Level 3 only: the caller has asked for the level."""
        decision = answer.decision
        self._log.request(
            "asked again", device=answer.mac, via=via, verdict=decision.verdict.value, reason=decision.reason
        )
