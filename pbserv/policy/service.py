"""The policy service: answers what a device is to do, registers those seen for the first time, keeps refused ones out.

One rule: one decision for DHCP, TFTP and HTTP, made once and remembered until the device's record or a setting changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pbserv.errors import PbservError
from pbserv.log import ServiceLog
from pbserv.net.neighbours import NeighbourTable
from pbserv.policy.attribution import Attribution
from pbserv.policy.decide import decide, refusal
from pbserv.policy.devices import DeviceTable
from pbserv.policy.ports import Journal, Neighbours, Progress
from pbserv.policy.scripts import BootScripts, PolicySettings
from pbserv.policy.sightings import Sightings
from pbserv.registry.records import Device, DeviceState
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import WorkTokens
from pbserv.service import Reload
from pbserv.types import Decision, MacAddress, Sighting, Verdict

__all__ = ["PolicyService", "PolicySettings", "Refused"]

MAX_PENDING = 10_000
MAX_DEVICES = 100_000
REMEMBERED: Final = 16_384
SEEN_EVERY_S: Final = 60.0
STRANGER_S: Final = 5.0
"""How long the answer to a device stands that is not registered: there may be room for it again."""
SAME_QUESTION_S: Final = 20.0
SAID_FULL_S: Final = 60.0
SAME_SCRIPT_S = 2.0
"""A boot asks for its script once: sooner than this it is the same one (HEAD and GET)."""


class Refused(PbservError):
    """The device gets nothing; the message says why. Over HTTP that is 403."""

    status = 403


@dataclass(slots=True)
class _Answer:
    """A decision that was made. It stands until ``until``; ``quiet``: by way of asking, when it is told again.

    ``claimed``: a request that only says whose it is may tell us who has an address. Not for a refused device:
    anybody could name it, and shut out whoever has that address.
    """

    mac: str
    decision: Decision
    address: str
    until: float
    registered: bool
    claimed: bool
    quiet: dict[str, float]


class PolicyService:
    """``Service[PolicySettings]``; also the port that proxyDHCP, TFTP and web ask. Answers come from memory.

    ``clock`` is monotonic and measures, ``calendar`` dates the records; both are asked in the event loop only.
    """

    name = "policy"
    title = "pbserv preboot policy service"

    def __init__(
        self,
        log: ServiceLog,
        registry: Registry,
        journal: Journal,
        tokens: WorkTokens,
        *,
        neighbours: Callable[[], Neighbours] = NeighbourTable,
        clock: Callable[[], float] = time.monotonic,
        calendar: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._registry = registry
        self._journal = journal
        self._tokens = tokens
        self._neighbours = neighbours
        self._clock = clock
        self._calendar = calendar
        self._scripts: BootScripts | None = None  # None: stopped
        self._engine = ""
        self._devices = DeviceTable()
        self._sightings = Sightings(registry, log)
        self._answers: dict[bytes, _Answer] = {}
        self._told: dict[tuple[str, str, str, int | None], float] = {}
        self._whose: Attribution | None = None
        self._watchers: list[Progress] = []
        self._said_full = float("-inf")
        registry.subscribe(self._changed)

    def watch(self, progress: Progress) -> None:
        """``progress`` is told how far devices come."""
        self._watchers.append(progress)

    @property
    def running(self) -> bool:
        return self._scripts is not None

    @property
    def listeners(self) -> tuple[str, ...]:
        return ()

    @property
    def devices(self) -> DeviceTable:
        """The picture that decisions are made on."""
        return self._devices

    async def start(self, settings: PolicySettings) -> None:
        await self.flush()
        self._devices = DeviceTable(await self._registry.devices())
        self._whose = Attribution(self._neighbours(), self._journal.mac_of)
        self.adopt(settings)
        self._log.critical("started", devices=len(self._devices), new_devices=settings.conf.new_devices,
                           zone_default=settings.conf.zone_default, engine=self._engine or None)  # fmt: skip

    async def stop(self) -> None:
        if self._scripts is None:
            return
        self._scripts = None
        self._answers.clear()
        if self._whose is not None:
            self._whose.close()
            self._whose = None
        await self.flush()
        self._log.critical("stopped")

    async def prepare(self, settings: PolicySettings) -> Reload:
        return _PolicyReload(self, settings)

    def adopt(self, settings: PolicySettings) -> None:
        self._scripts = BootScripts.under(settings, self._tokens)
        self._engine = self._scripts.engine
        self._answers.clear()

    # the port of proxyDHCP

    def decide(self, sighting: Sighting) -> Decision:
        """In memory and without waiting; a device that was never seen is registered in the background."""
        scripts = self._scripts
        if scripts is None:
            return Decision(Verdict.SILENT, "the policy service is not running")
        now = self._clock()
        address = sighting.address
        answer = self._answers.get(sighting.mac.octets)
        if answer is None or now >= answer.until or (address and address != answer.address):
            answer = self._answer(scripts.settings, sighting, now)
        if address and (answer.claimed or sighting.via == "dhcp"):
            self._journal.learn(address, answer.mac)
        if now >= answer.quiet.get(sighting.via, 0.0):
            self._tell(answer, sighting.via, now)
        elif self._log.level >= 3:
            self._repeat(answer, sighting.via)
        return answer.decision

    def _answer(self, settings: PolicySettings, sighting: Sighting, now: float) -> _Answer:
        mac = str(sighting.mac)
        today = self._calendar()
        device = self._see(mac, sighting, settings.conf.new_devices, today)
        fresh_s = STRANGER_S
        if device is not None:
            fresh_s = SEEN_EVERY_S - max(0.0, (today - device.last_seen).total_seconds())
        answer = _Answer(
            mac,
            decide(mac, device, settings.conf.zone_default, self._engine),
            sighting.address,
            now + fresh_s,
            registered=device is not None,
            claimed=not refusal(mac, device, self._engine),
            quiet={},
        )
        if len(self._answers) >= REMEMBERED:
            del self._answers[next(iter(self._answers))]
        self._answers[sighting.mac.octets] = answer
        return answer

    def _see(self, mac: str, sighting: Sighting, new_devices: str, today: datetime) -> Device | None:
        """The device's record, with what was seen now where that is news."""
        device = self._devices.get(mac)
        address = _known_address(sighting.address)
        arch = None if sighting.arch is None else int(sighting.arch)
        if device is None:
            if self._engine or new_devices == "ignore" or self._full(new_devices):
                return None
            state = DeviceState.KNOWN if new_devices == "accept" else DeviceState.PENDING
            device = Device(mac, sighting.uuid, "", arch, state, address, today, today)
            self._journal.add(mac, "registered", f"{state} by {sighting.via}")
            todo = f"pbserv device accept {mac}" if state is DeviceState.PENDING else "none"
            self._log.warning("new device", device=mac, state=state.value, todo=todo)
        elif _seen_lately(device, today) and address in ("", device.address):
            return device
        else:
            device = Device(
                mac,
                sighting.uuid or device.uuid,
                device.name,
                device.arch if arch is None else arch,
                device.state,
                address or device.address,
                device.first_seen,
                today,
                device.work,
            )
        self._devices.put(device)
        self._sightings.put(device)
        return device

    def _full(self, new_devices: str) -> bool:
        """Whether one more device would be too many; a flood of made-up addresses must not fill the registry."""
        count, limit = (
            (len(self._devices), MAX_DEVICES) if new_devices == "accept" else (self._devices.pending, MAX_PENDING)
        )
        if count >= limit and self._clock() >= self._said_full + SAID_FULL_S:
            self._said_full = self._clock()
            self._log.warning("new device refused", reason=f"{count} devices are registered; see: pbserv device forget")
        return count >= limit

    def _tell(self, answer: _Answer, via: str, now: float) -> None:
        """One line of journal and log per question; the repeats of one boot are level 3."""
        decision = answer.decision
        key = (answer.mac, via, decision.verdict.value, decision.work)
        until = self._told.get(key, 0.0)
        if now < until:
            answer.quiet[via] = until
            return self._repeat(answer, via)
        if len(self._told) > MAX_PENDING:
            self._told.clear()
        self._told[key] = answer.quiet[via] = now + (SAME_QUESTION_S if via == "dhcp" else SAME_SCRIPT_S)
        if answer.registered:
            self._journal.add(answer.mac, f"asked by {via}", f"{decision.verdict.value}: {decision.reason}")
        if self._log.level >= 2:
            self._log.transaction("decided", device=answer.mac, via=via, verdict=decision.verdict.value,
                                  reason=decision.reason, seconds=round(self._clock() - now, 6))  # fmt: skip
        return None

    def _repeat(self, answer: _Answer, via: str) -> None:
        decision = answer.decision
        self._log.request(
            "asked again", device=answer.mac, via=via, verdict=decision.verdict.value, reason=decision.reason
        )

    # the gate of TFTP and HTTP

    def refuses(self, peer: str) -> str:
        """Why the device at the address ``peer`` gets nothing; empty when it may ask, or nobody knows whose it is."""
        if self._scripts is None or not self._devices.refused:
            return ""
        mac = self._mac_at(peer)
        return refusal(mac, self._devices.get(mac), self._engine) if mac is not None else ""

    def _mac_at(self, peer: str) -> str | None:
        if self._whose is None:
            return self._journal.mac_of(peer)
        return self._whose.mac_of(peer, self._clock())

    # the ports of TFTP and web

    def find(self, name: str, peer: str, local: str) -> bytes | None:
        """The virtual files of the TFTP server: ``boot.ipxe``, ``autoexec.ipxe`` and ``boot/<mac>.ipxe``.

        Raises PermissionError for the script of a device that gets nothing.
        """
        if self._scripts is None:
            return None
        folder, _, leaf = name.rpartition("/")
        if name == "boot.ipxe" or leaf == "autoexec.ipxe":
            return self.first_script(local).encode()
        if folder == "boot" and leaf.endswith(".ipxe"):
            try:
                mac = MacAddress.parse(leaf.removesuffix(".ipxe"))
            except ValueError:
                return None
            try:
                return self.script(Sighting(mac, via="tftp", address=peer), local).encode()
            except Refused as fault:
                raise PermissionError(str(fault)) from None
        return None

    def transferred(self, peer: str, name: str, outcome: str, size: int) -> None:
        """TFTP tells what it sent; the device's journal keeps it."""
        self._ended("tftp", peer, name, outcome, size)

    def fetched(self, peer: str, name: str, outcome: str, size: int) -> None:
        """The HTTP server tells what it sent; ``outcome`` as in :meth:`transferred`."""
        self._ended("http", peer, name, outcome, size)

    def _ended(self, what: str, peer: str, name: str, outcome: str, size: int) -> None:
        mac = self._mac_at(peer)
        if mac is None or (self._devices.get(mac) is None and self._journal.mac_of(peer) != mac):
            return  # a neighbour that is no boot client
        for watcher in self._watchers:
            watcher.fetched(mac, name, complete=outcome.startswith("completed"))
        text = f"{outcome}, {size} bytes"
        if outcome == "refused":
            why = refusal(mac, self._devices.get(mac), self._engine)
            text = f"refused, {why}" if why else "refused"
        self._journal.add(mac, what, f"{name}: {text}")

    def uploaded(self, peer: str, name: str, path: Path, size: int) -> None:
        """TFTP tells what a device sent; its journal keeps it."""
        self._ended("tftp", peer, name, "uploaded", size)

    def url(self, local: str) -> str:
        """The server's base URL in scripts, for a client that reached us at ``local``; empty while it is stopped."""
        return "" if self._scripts is None else self._scripts.url(local)

    def first_script(self, local: str) -> str:
        """The script that is the same for everybody; raises RuntimeError while the service is stopped."""
        return self._running().first(local)

    def script(self, sighting: Sighting, local: str, *, sent: bool = False) -> str:
        """The decision for one device as an iPXE script; raises Refused. ``sent``: see :meth:`BootScripts.of`."""
        scripts = self._running()
        mac = str(sighting.mac)
        decision = self.decide(sighting)
        if self._mac_at(sighting.address) in (None, mac):  # nobody gets on for another
            for watcher in self._watchers:
                watcher.progressed(mac)
        device = self._devices.get(mac)
        reason = refusal(mac, device, self._engine)
        if reason:
            raise Refused(reason)
        return scripts.of(mac, device, decision, local, sent=sent)

    def _running(self) -> BootScripts:
        if self._scripts is None:
            raise RuntimeError("the policy service is not running")
        return self._scripts

    # the registry

    def note(self, mac: str, what: str, detail: str) -> None:
        """Add a line to a device's journal."""
        self._journal.add(mac, what, detail)

    async def flush_history(self) -> None:
        await self._journal.flush_events()

    def forget(self, mac: str) -> None:
        """The device was removed from the registry."""
        self._sightings.forget(mac)
        self._devices.remove(mac)
        self._answers.pop(MacAddress.parse(mac).octets, None)
        self._told = {key: until for key, until in self._told.items() if key[0] != mac}
        self._journal.forget(mac)

    def _changed(self, device: Device) -> None:
        """The registry's record wins, except for what was seen and is not written yet."""
        self._devices.put(self._sightings.merged(device))
        self._answers.pop(MacAddress.parse(device.mac).octets, None)

    async def run(self) -> None:
        """Write what was seen, until cancelled."""
        await self._sightings.run()

    async def flush(self) -> bool:
        """Write what was seen now; False when the registry could not be written (nothing is lost)."""
        return await self._sightings.flush()


class _PolicyReload:
    """Nothing can fail: the devices stay, only the settings change."""

    def __init__(self, service: PolicyService, settings: PolicySettings) -> None:
        self._service, self._settings = service, settings

    def commit(self) -> None:
        self._service.adopt(self._settings)

    def abort(self) -> None:
        pass


def _seen_lately(device: Device, today: datetime) -> bool:
    """False also when the calendar was set back."""
    return timedelta(0) <= today - device.last_seen < timedelta(seconds=SEEN_EVERY_S)


def _known_address(address: str) -> str:
    return "" if address == "0.0.0.0" else address
