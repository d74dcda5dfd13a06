"""What a boot client has done so far: the steps of a session counted and named, for the table of results. Pure.

One rule: nothing is judged here. Where firmware starts again after it had come further than an offer, counting begins
anew: what the device did before its restart explains nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pbserv.journal.steps import DhcpLine, Line, Step

_CLIENT_FILES: Final = ("vmlinuz", "initrd.img")
_SCRIPTS: Final = (".ipxe",)
_FETCHED: Final = ("completed", "closed by client")
_NOTHING: Final = ("size probe", "replaced by a new request", "uploaded")
_SIZE: Final = re.compile(r", \d+ bytes$")
_JOB: Final = re.compile(r"(\d+): (\w+) (\S+) (started|done|failed|cancelled)\b")
_NO_REQUEST: Final = ("ordinary_request_on_67", "message_not_for_proxy")


@dataclass(slots=True)
class Progress:
    """Of one attempt to boot. Pairs are (word, what was said about it) or (file, outcome)."""

    client: str = ""
    discovers: int = 0
    requests: int = 0
    """REQUESTs to a DHCP server: the client was offered an address."""
    first_secs: int = -1
    repeats: bool = False
    """A DISCOVER came again with more seconds on its clock."""
    offers: int = 0
    ipxe_offers: int = 0
    ipxe_file: str = ""
    acknowledged: bool = False
    strategy: str = ""
    file: str = ""
    reason: str = ""
    refusal: tuple[str, str] = ("", "")
    refusal_4011: tuple[str, str] = ("", "")
    send_fault: str = ""
    silence: str = ""
    decided: str = ""
    sent: list[str] = field(default_factory=list)
    """Names of the boot files that it has fetched, scripts apart."""
    times: dict[str, int] = field(default_factory=dict)
    """How often each was fetched, in earlier attempts too, since a boot script was asked for."""
    first_script: str = ""
    """The boot script that is the same for all was fetched."""
    loop: str = ""
    """What the loop breaker said."""
    tried: str = ""
    """The strategy that takes the place of one that led to nothing."""
    failed_file: tuple[str, str] = ("", "")
    client_files: int = 0
    script_verdict: str = ""
    script_reason: str = ""
    job: str = ""
    job_state: str = ""
    other: str = ""

    @property
    def went_on(self) -> bool:
        """Whether the client came further than DHCP."""
        further = self.sent or self.failed_file[0] or self.first_script or self.script_verdict or self.job
        return bool(further or self.acknowledged)

    @property
    def sent_to_disk(self) -> bool:
        """Whether the answer means the local disk: a menu that says so, a file that is not there, or silence."""
        if self.sent:
            return False
        absent = bool(self.file) and self.failed_file == (self.file, "missing")
        silent = not self.offers and self.refusal[0] == "no_local_boot_answer"
        return self.strategy == "local" or silent or (self.decided == "local" and absent)


def last_attempt(lines: Sequence[Line]) -> Progress:
    """Count the steps of the newest attempt in a session."""
    seen = Progress()
    for line in lines:
        if isinstance(line, DhcpLine):
            if _starts_again(seen, line):
                seen = Progress(
                    silence=seen.silence, decided=seen.decided, times=seen.times, loop=seen.loop, tried=seen.tried
                )
            _packet(seen, line)
        else:
            _EVENTS.get(line.what.partition(" ")[0].rstrip(":"), _other)(seen, line)
    return seen


def _starts_again(seen: Progress, line: DhcpLine) -> bool:
    """Firmware asks from the beginning; iPXE does so too as the loader that was just sent, and that is progress."""
    if line.text.kind != "DISCOVER":
        return False
    return bool(seen.script_verdict or seen.job) if line.text.client == "ipxe" else seen.went_on


def _packet(seen: Progress, line: DhcpLine) -> None:
    step, text = line.step, line.text
    seen.client = seen.client if text.client in ("", "ipxe") and seen.client else text.client or seen.client
    if text.kind == "DISCOVER":
        seen.discovers += 1
        seen.repeats = seen.repeats or 0 <= seen.first_secs < text.secs
        seen.first_secs = text.secs if seen.first_secs < 0 else min(seen.first_secs, text.secs)
    if text.kind == "REQUEST" and step.heard_on == 67:
        seen.requests += 1
    if step.verdict in ("offer", "ack"):
        _answered(seen, line)
    elif step.verdict == "not sent":
        seen.send_fault = step.reason
    else:
        _refused(seen, line)


def _answered(seen: Progress, line: DhcpLine) -> None:
    step = line.step
    seen.strategy, seen.file, seen.reason = step.strategy, step.file, step.reason
    seen.silence, seen.send_fault, seen.refusal_4011 = "", "", ("", "")
    if step.verdict == "ack":
        seen.acknowledged = True
    elif line.text.client == "ipxe" and seen.sent:
        seen.ipxe_offers += 1
        seen.ipxe_file = step.file
    else:
        seen.offers += 1


def _refused(seen: Progress, line: DhcpLine) -> None:
    step = line.step
    if step.verdict == "policy_silent":
        seen.silence = step.reason or "ZoneDefault = silent"
    elif step.verdict != "repeated" and step.heard_on == 4011:
        seen.refusal_4011 = (step.verdict, step.reason)
    elif step.verdict not in _NO_REQUEST or not seen.refusal[0]:
        seen.refusal = (step.verdict, step.reason)


def _asked(seen: Progress, step: Step) -> None:
    """``asked by dhcp`` tells the decision, ``asked by http`` and ``asked by tftp`` that a boot script carries it."""
    verdict, _, reason = step.detail.partition(": ")
    seen.decided = verdict
    seen.silence = reason if verdict == "silent" else ""
    if step.what != "asked by dhcp" and verdict != "silent":
        seen.script_verdict, seen.script_reason = verdict, reason
        seen.times.clear()
        seen.loop = ""


def _file(seen: Progress, step: Step) -> None:
    """``NAME: OUTCOME, N bytes``, or the name alone."""
    name, _, told = step.detail.partition(": ")
    outcome = _SIZE.sub("", told) or "completed"
    leaf = name.rpartition("/")[2]
    if outcome.startswith("refused, "):
        seen.silence = outcome.removeprefix("refused, ")
    elif leaf in _CLIENT_FILES:
        seen.client_files += 1
    elif outcome.startswith(_FETCHED):
        if leaf.endswith(_SCRIPTS):
            seen.first_script = name
        else:
            seen.sent.append(name)
            seen.times[name] = seen.times.get(name, 0) + 1
            seen.failed_file = ("", "")
    elif outcome not in _NOTHING and not (outcome == "missing" and seen.sent):
        seen.failed_file = (name, outcome)


def _job(seen: Progress, step: Step) -> None:
    found = _JOB.match(step.detail)
    if found is not None:
        seen.job, seen.job_state = step.detail, found[4]


def _loop(seen: Progress, step: Step) -> None:
    seen.loop = step.detail


def _next(seen: Progress, step: Step) -> None:
    seen.tried = step.detail.partition(": ")[0]


def _other(seen: Progress, step: Step) -> None:
    seen.other = f"{step.what} {step.detail}".strip()


_EVENTS: Final[dict[str, Callable[[Progress, Step], None]]] = {
    "asked": _asked, "tftp": _file, "http": _file, "job": _job, "loop": _loop, "next": _next,
}  # fmt: skip
