"""PrebootServer: another pbserv resolves the policies of this one's devices, and is asked over its API.

One rule: a link that is down costs no device its way: what was last said counts, but for work, which is done there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pbserv.log import ServiceLog
from pbserv.net.trust import fingerprint_of, pinning, trusting
from pbserv.policy.decide import Ruling
from pbserv.policy.oracles.exchange import Reply, Unreachable, exchange, new_client
from pbserv.policy.oracles.last_known import Known, LastKnown
from pbserv.policy.oracles.ports import Answer
from pbserv.policy.oracles.questions import NoAnswer, Questions, Spawn
from pbserv.policy.oracles.trouble import Trouble
from pbserv.policy.oracles.wire import WireFault, question_of, read_ruling, write_ruling
from pbserv.types import Decision, Sighting, Verdict

PATH: Final = "/api/v1/policy/resolve"
MOST_BYTES: Final = 1024 * 1024
TIMEOUT_S: Final = 1.2
CONNECT_S: Final = 0.8
DOWN_S: Final = 5.0
"""After a connection that failed nobody waits for the next one so long."""
WRITE_AFTER_S: Final = 5.0
FILE: Final = "preboot-server-answers.jsonl"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """``server``: ``host:port`` or ``https://host:port``. ``token``: of role site there. ``file``: where answers are
    kept; None: nowhere. ``trust``: over https, the fingerprint of its certificate, or certificates in PEM; empty: those
    that this host trusts.
    """

    server: str
    token: str
    file: Path | None
    trust: str = ""

    @property
    def url(self) -> str:
        return f"{self.server if self.secure else f'http://{self.server}'}{PATH}"

    @property
    def secure(self) -> bool:
        return self.server.startswith("https://")

    def context(self) -> ssl.SSLContext | None:
        """Whom to believe. Raises ssl.SSLError, ValueError for certificates that are none."""
        if not self.secure:
            return None
        fingerprint = fingerprint_of(self.trust)
        return pinning(fingerprint) if fingerprint else trusting(self.trust)


class PrebootServer:
    """An :class:`~pbserv.policy.oracles.ports.Oracle` that never leaves a device to our own policy."""

    def __init__(
        self, settings: ServerSettings, spawn: Spawn, log: ServiceLog, clock: Callable[[], float] = time.monotonic,
        calendar: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._name = f"PrebootServer {settings.server}"
        self._url = settings.url
        self._spawn = spawn
        self._log = log
        self._clock = clock
        self._calendar = calendar
        self._trouble = Trouble(log, self._name, clock)
        self._client = new_client(CONNECT_S, settings.context())
        self._client.headers["Authorization"] = f"Bearer {settings.token}"
        self._questions = Questions(self._put, self._instead, spawn, clock, TIMEOUT_S, labels=True)
        self._known = LastKnown(settings.file, settings.server)
        self._writer: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._down: tuple[float, str] = (float("-inf"), "")

    @property
    def name(self) -> str:
        return self._name

    @property
    def counters(self) -> Mapping[str, int]:
        return self._questions.counters

    def known(self, sighting: Sighting, now: float) -> Answer | None:
        return self._questions.known(sighting, now)

    def ask(self, sighting: Sighting) -> None:
        self._questions.ask(sighting)

    async def wait(self, sighting: Sighting, timeout_s: float) -> Answer:
        return await self._questions.wait(sighting, timeout_s)

    def forget(self, mac: str) -> None:
        """For this boot; what was last said stays for a link that is down."""
        self._questions.forget(bytes.fromhex(mac.replace(":", "")))

    async def open(self) -> None:
        fault = await asyncio.to_thread(self._known.load)
        if fault:
            self._log.warning("answers of another server are lost", server=self._name, reason=fault)

    async def close(self) -> None:
        await self._questions.close()
        await self._client.aclose()
        self._closing.set()
        if self._writer is not None:
            await asyncio.wait({self._writer})
        await self._write()

    # asking

    async def _put(self, sighting: Sighting) -> Answer:
        until, why = self._down
        if self._clock() < until:
            raise NoAnswer(why)
        request = self._client.build_request("POST", self._url, json=question_of(sighting))
        try:
            reply = await exchange(self._client, request, MOST_BYTES)
        except Unreachable as fault:
            self._down = (self._clock() + DOWN_S, str(fault))
            raise
        ruling = self._read(reply)
        self._trouble.over()
        self._keep(str(sighting.mac), ruling)
        decision = ruling.decision
        steps = (*(f"{self._name}: {step}" for step in decision.steps), f"{self._name} decides")
        return Answer(replace(ruling, decision=replace(decision, steps=steps)), f"{self._name} decides")

    def _read(self, reply: Reply) -> Ruling:
        if reply.status in (401, 403):
            raise NoAnswer(f"answers {reply.status}: {_told(reply)} (PrebootServerToken names a file with a token"
                           " of role site of that server)")  # fmt: skip
        if reply.status != 200:
            raise NoAnswer(f"answers {reply.status}")
        try:
            return read_ruling(reply.body)
        except WireFault as fault:
            raise NoAnswer(f"answers what cannot be used: {' '.join(str(fault).split())[:200]}") from None

    def _instead(self, sighting: Sighting, reason: str) -> Answer:
        mac = str(sighting.mac)
        self._trouble.met(mac, reason)
        last = self._known.get(mac)
        if last is None:
            why = f"{self._name} {reason}; it was never asked about this device before"
            return Answer(Ruling(Decision(Verdict.SILENT, why, (why,))), why, failed=True)
        at = datetime.fromtimestamp(last.at, UTC).astimezone()
        why = f"from the cache of {at:%Y-%m-%d %H:%M:%S}; the imaging server does not decide: {self._name} {reason}"
        ruling = read_ruling(last.text)
        decision = replace(ruling.decision, reason=f"{ruling.decision.reason} ({why})", steps=(why,))
        return Answer(replace(ruling, decision=decision), why, failed=True)

    # what is kept

    def _keep(self, mac: str, ruling: Ruling) -> None:
        text = write_ruling(without_there(ruling))
        last = self._known.get(mac)
        self._known.put(mac, Known(self._calendar().timestamp(), text))
        if self._writer is None or self._writer.done():
            self._writer = self._spawn("keep answers of the imaging server", self._write_later(last is None))

    async def _write_later(self, new: bool) -> None:
        """Soon what is news; that an answer was given again is not worth a write for each boot."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), WRITE_AFTER_S if new else 12 * WRITE_AFTER_S)
        await self._write()

    async def _write(self) -> None:
        if not self._known.changed:
            return
        entries = self._known.take()
        try:
            await asyncio.to_thread(self._known.save, entries)
        except OSError as fault:
            self._known.changed = True
            self._log.warning("answers of another server are not kept", server=self._name,
                              reason=f"{fault.filename}: {fault.strerror}")  # fmt: skip


def _told(reply: Reply) -> str:
    """Why it refuses, in its own words."""
    try:
        return " ".join(str(json.loads(reply.body)["error"]).split())[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "the token is not, or no longer, a good one"


def without_there(ruling: Ruling) -> Ruling:
    """What of a ruling can be done without the server that made it: files come from this one, a menu is its default
    item, because a choice is made there, and there is no work."""
    decision = ruling.decision
    if ruling.work is not None:
        why = f"its work is done with the imaging server only, else its own disk: {decision.reason}"
        return Ruling(Decision(Verdict.LOCAL, why), ruling.refused)
    if ruling.menu is not None:
        decision = replace(decision, verdict=ruling.without_menu or Verdict.LOCAL)
    return replace(ruling, decision=decision, menu=None, without_menu=None, url="", token="")
