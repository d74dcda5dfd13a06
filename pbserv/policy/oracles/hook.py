"""PolicyHook: a server that speaks the API of pixiecore says what a device boots, or leaves it to our own policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import httpx

from pbserv.log import ServiceLog
from pbserv.policy.decide import Ruling
from pbserv.policy.oracles.exchange import exchange, json_of, new_client
from pbserv.policy.oracles.pixiecore import bundle_of
from pbserv.policy.oracles.ports import Answer
from pbserv.policy.oracles.questions import NoAnswer, Questions, Spawn
from pbserv.policy.oracles.trouble import Trouble
from pbserv.types import Decision, Sighting, Verdict

MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HookSettings:
    """``url`` has ``{mac}`` in its path or query. ``failure``: what counts while there is no answer."""

    url: str
    timeout_s: float
    failure: Literal["open", "closed"]


class Hook:
    """An :class:`~pbserv.policy.oracles.ports.Oracle`.

    200 boots the device; 5xx, a redirect to another server and a 200 that cannot be used are failures; all else leaves
    it to our own policy.
    """

    def __init__(
        self, settings: HookSettings, spawn: Spawn, log: ServiceLog, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._name = f"PolicyHook {httpx.URL(settings.url.replace('{mac}', 'mac')).netloc.decode()}"
        self._trouble = Trouble(log, self._name, clock)
        self._client = new_client(settings.timeout_s)
        self._questions = Questions(self._put, self._instead, spawn, clock, settings.timeout_s, labels=False)

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
        self._questions.forget(bytes.fromhex(mac.replace(":", "")))

    async def open(self) -> None:
        return None

    async def close(self) -> None:
        await self._questions.close()
        await self._client.aclose()

    async def _put(self, sighting: Sighting) -> Answer:
        url = httpx.URL(self._settings.url.replace("{mac}", str(sighting.mac)))
        if sighting.arch is not None:
            url = url.copy_add_param("arch", str(int(sighting.arch)))
        if sighting.uuid:
            url = url.copy_add_param("uuid", sighting.uuid)
        reply = await exchange(self._client, self._client.build_request("GET", url), MOST_BYTES)
        if reply.status >= 500:
            raise NoAnswer(f"answers {reply.status}")
        if reply.status != 200:
            self._trouble.over()
            return Answer(None, f"{self._name} answers {reply.status}: left to our own policy")
        try:
            bundle = bundle_of(json_of(reply), reply.url)
        except ValueError as fault:
            raise NoAnswer(f"answers what cannot be used: {' '.join(str(fault).split())[:200]}") from None
        self._trouble.over()
        reason = f"{self._name}: {bundle.kind} {bundle.title or bundle.kernel}".rstrip()
        return Answer(Ruling(Decision(Verdict.BOOT, reason, bundle=bundle.name), bundle=bundle), reason)

    def _instead(self, sighting: Sighting, reason: str) -> Answer:
        self._trouble.met(str(sighting.mac), reason)
        why = f"{self._name} {reason}; PolicyHookFailure = {self._settings.failure}"
        if self._settings.failure == "open":
            return Answer(None, why, failed=True)
        return Answer(Ruling(Decision(Verdict.SILENT, why)), why, failed=True)
