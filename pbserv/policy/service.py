"""The policy service: answers what a device is to do, registers those seen for the first time, keeps refused ones out.

One rule: one decision for DHCP, TFTP and HTTP, made once and remembered until the device's record or a setting changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pbserv.errors import PbservError, StartError
from pbserv.garbage import held_off
from pbserv.log import ServiceLog
from pbserv.net.neighbours import NeighbourTable
from pbserv.policy.answers import Answer, Answers
from pbserv.policy.boots import BootTokens
from pbserv.policy.choices import Order, chosen
from pbserv.policy.config import PolicyConf
from pbserv.policy.decide import Query, Ruling, decide
from pbserv.policy.documents import PolicyError
from pbserv.policy.gate import Gate
from pbserv.policy.identity import device_name
from pbserv.policy.oracles.build import oracle_of
from pbserv.policy.oracles.ports import Oracle
from pbserv.policy.oracles.questions import Spawn
from pbserv.policy.orders import Orders, bundle_of
from pbserv.policy.ports import Journal, Neighbours, Progress
from pbserv.policy.register import SEEN_EVERY_S, Register, Seen
from pbserv.policy.rendering.facts import BootFacts
from pbserv.policy.rendering.renderer import RenderError
from pbserv.policy.scripts import BootScripts, PolicySettings
from pbserv.policy.sightings import Sightings
from pbserv.policy.snapshot import Snapshot
from pbserv.registry.records import Device, DeviceState, Document
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import WorkTokens
from pbserv.service import Reload
from pbserv.types import ClientArch, Decision, MacAddress, Sighting, Verdict

__all__ = ["PolicyService", "PolicySettings", "Refused"]

STRANGER_S: Final = 5.0
"""How long the answer to a device stands that is not registered: there may be room for it again."""
MINUTE_S: Final = 60.0
ELSEWHERE_S: Final = 1.5
"""How long a loader waits for another server that is asked; after that the settings say what it gets."""
NOT_RUNNING: Final = "the policy service is not running"


class Refused(PbservError):
    """The device gets nothing; the message says why. Over HTTP that is 403."""

    status = 403


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
        spawn: Spawn | None = None,
        neighbours: Callable[[], Neighbours] = NeighbourTable,
        clock: Callable[[], float] = time.monotonic,
        calendar: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._registry = registry
        self._journal = journal
        self._tokens = tokens
        self._boots = BootTokens(tokens.key("boot"))
        self._spawn = spawn
        self._oracle: Oracle | None = None
        self._neighbours = neighbours
        self._clock = clock
        self._calendar = calendar
        self._scripts: BootScripts | None = None  # None: stopped
        self._sightings = Sightings(registry, log)
        self._sightings.namer, self._sightings.named = self._name_of, self._changed
        self._register = Register(self._sightings, journal, log, clock)
        self._orders = Orders(registry, log)
        self._due: dict[str, Order] = {}
        self._wake = asyncio.Event()
        self._answers = Answers(journal, log)
        self._gate = Gate(self._register, self._answers, journal, clock, self._today)
        registry.subscribe(self._changed)
        registry.subscribe_documents(self._objects_changed)

    def watch(self, progress: Progress) -> None:
        """``progress`` is told how far devices come."""
        self._gate.watch(progress)

    @property
    def running(self) -> bool:
        return self._scripts is not None

    @property
    def listeners(self) -> tuple[str, ...]:
        return ()

    @property
    def snapshot(self) -> Snapshot:
        """What decisions are made on."""
        return self._register.snapshot

    @property
    def pending_days(self) -> int:
        """How long a pending device is remembered that is not seen any more."""
        return (self._scripts.settings.conf if self._scripts is not None else PolicyConf()).pending_days

    @property
    def decided(self) -> Mapping[Verdict, int]:
        """Decisions that were made since the start, by their verdict."""
        return self._answers.decided

    @property
    def scripts(self) -> BootScripts:
        """Raises RuntimeError while the service is stopped."""
        if self._scripts is None:
            raise RuntimeError(NOT_RUNNING)
        return self._scripts

    async def start(self, settings: PolicySettings) -> None:
        await self.flush()
        scripts = self._under(settings)
        with held_off():
            self._register.load(await self._registry.devices(), await self._registry.documents(), scripts.zone)
        self._gate.open(self._neighbours())
        self.adopt(scripts, await self._opened(scripts))
        self._log.critical("started", devices=len(self.snapshot), new_devices=settings.conf.new_devices,
                           zone_default=settings.conf.zone_default, engine=scripts.engine or None)  # fmt: skip

    async def stop(self) -> None:
        if self._scripts is None:
            return
        self._scripts = None
        self._answers.clear()
        self._gate.close()
        if self._oracle is not None:
            await self._oracle.close()
            self._oracle = None
        await self.flush()
        self._log.critical("stopped")

    async def prepare(self, settings: PolicySettings) -> Reload:
        scripts = self._under(settings)
        same = self._scripts is not None and self._scripts.oracle == scripts.oracle
        return _PolicyReload(self, scripts, self._oracle if same else await self._opened(scripts))

    async def _opened(self, scripts: BootScripts) -> Oracle | None:
        """The other server that is asked about devices, ready to be asked."""
        if self._spawn is None:
            return None
        oracle = oracle_of(scripts.oracle, self._spawn, self._log, self._clock, self._calendar)
        if oracle is not None:
            await oracle.open()
        return oracle

    def close(self, oracle: Oracle | None) -> None:
        """In the background: its answers are not wanted any more."""
        if oracle is not None and self._spawn is not None:
            self._spawn("closing a policy server", oracle.close())

    def _under(self, settings: PolicySettings) -> BootScripts:
        try:
            return BootScripts.under(settings, self._tokens, self._render_failed)
        except RenderError as fault:
            raise StartError(str(fault)) from None

    @property
    def oracle(self) -> Oracle | None:
        return self._oracle

    def adopt(self, scripts: BootScripts, oracle: Oracle | None) -> None:
        self._scripts, self._oracle = scripts, oracle
        self._register.adopt(scripts.zone)
        self._answers.clear()

    def _render_failed(self, fault: RenderError) -> None:
        self._log.critical("a template or text cannot be rendered", reason=str(fault))

    # decisions

    def decide(self, sighting: Sighting) -> Decision:
        """In memory and without waiting; a device that was never seen is registered in the background."""
        return self.ruling(sighting).decision

    def ruling(self, sighting: Sighting) -> Ruling:
        """As :meth:`decide`, with all that rendering needs."""
        if self._scripts is None:
            return Ruling(Decision(Verdict.SILENT, NOT_RUNNING))
        now = self._clock()
        address = sighting.address
        answer = self._answers.get(sighting.mac.octets)
        if answer is None or now >= answer.until or (address and address != answer.address):
            answer = self._answer(self._scripts.settings, sighting, now)
        if address and (answer.claimed or sighting.via == "dhcp"):
            self._journal.learn(address, answer.mac)
        if answer.decision.later:
            return answer.ruling
        if now >= answer.quiet.get(sighting.via, 0.0):
            self._answers.tell(answer, sighting.via, now, self._clock() - now)
        elif self._log.level >= 3:
            self._answers.repeat(answer, sighting.via)
        return answer.ruling

    def _answer(self, settings: PolicySettings, sighting: Sighting, now: float) -> Answer:
        today = self._today()
        elsewhere = self.snapshot.zone.elsewhere
        device = self._register.see(sighting, "ignore" if elsewhere else settings.conf.new_devices, today)
        mac = str(sighting.mac)
        query = Query(mac, device, dict(sighting.details))
        ruling = self._elsewhere(sighting, self._filled(decide(query, self.snapshot, today)), now)
        until = now if ruling.decision.later else now + self._fresh_s(device, today)
        ours = device is not None or (elsewhere and ruling.decision.verdict is not Verdict.SILENT)
        answer = Answer(mac, ruling, sighting.address, until, registered=ours, claimed=not ruling.refused, quiet={})
        self._answers.put(sighting.mac.octets, answer)
        if device is not None and ruling.order and not ruling.menu and ruling.bundle and sighting.via == "dhcp":
            self._due[device.mac] = Order(ruling.bundle, ruling.order)
            self._wake.set()
        return answer

    def _elsewhere(self, sighting: Sighting, ruling: Ruling, now: float, *, explained: bool = False) -> Ruling:
        """What the other server says, where one is asked; denied devices and one-shot work are ours alone.
        ``explained``: nobody is asked, what was said earlier counts."""
        oracle = self._oracle
        if oracle is None or ruling.refused or ruling.work is not None:
            return ruling
        answer = oracle.known(sighting, now)
        steps = ruling.decision.steps
        if answer is None and explained:
            steps = (f"{oracle.name} is asked when the device boots; nothing that it said is known now", *steps)
            return replace(ruling, decision=replace(ruling.decision, steps=steps))
        if answer is None:
            oracle.ask(sighting)
            return Ruling(Decision(Verdict.SILENT, f"asking {oracle.name}", steps, later=True))
        if answer.ruling is None:
            return replace(ruling, decision=replace(ruling.decision, steps=(answer.why, *steps)))
        return answer.ruling

    def _fresh_s(self, device: Device | None, today: datetime) -> float:
        """How long a ruling stands: until the device's record is due again, or a schedule may change its mind."""
        fresh_s = STRANGER_S
        if device is not None:
            fresh_s = SEEN_EVERY_S - max(0.0, (today - device.last_seen).total_seconds())
        timed = self.snapshot.objects.scheduled or (device is not None and device.work is not None)
        if self._oracle is not None:
            fresh_s = min(fresh_s, STRANGER_S)  # it remembers by itself, and knows when its answer is too old
        return min(fresh_s, MINUTE_S - today.second) if timed else fresh_s

    def _filled(self, ruling: Ruling) -> Ruling:
        """With the bundle that a piece of work was made of."""
        if ruling.work is None or ruling.bundle is not None:
            return ruling
        try:
            return replace(ruling, bundle=bundle_of(ruling.work))
        except PolicyError as fault:
            return Ruling(Decision(Verdict.LOCAL, str(fault), ruling.decision.steps))

    def _today(self) -> datetime:
        """Now, in the zone that schedules mean."""
        return self._calendar().astimezone()

    def explain(
        self, mac: str, *, uuid: str | None = None, arch: ClientArch | None = None,
        labels: Mapping[str, str] | None = None, everything: bool = True,
    ) -> Ruling:  # fmt: skip
        """What the device would get, with every step; nothing is changed by asking."""
        device = self._register.owner(mac, uuid)
        live = dict(labels or {})
        if arch is not None:
            live["arch"] = str(arch)
        query = Query(mac if device is None else device.mac, device, live)
        ruling = self._filled(decide(query, self.snapshot, self._today(), everything=everything))
        sighting = Sighting(MacAddress.parse(mac), uuid, arch, "explain", details=tuple(live.items()))
        return self._elsewhere(sighting, ruling, self._clock(), explained=True)

    async def settle(self, sighting: Sighting) -> Ruling:
        """The ruling with the work that it needs: made now, where it was not yet."""
        ruling = self.ruling(sighting)
        if ruling.decision.later and self._oracle is not None:
            await self._oracle.wait(sighting, ELSEWHERE_S)
            ruling = self.ruling(sighting)
        if not ruling.order or ruling.menu is not None or ruling.bundle is None:
            return ruling
        made = await self._orders.make(self._owner(sighting), ruling.bundle, ruling.order)
        return self.ruling(sighting) if made else ruling

    def _owner(self, sighting: Sighting) -> str:
        device = self.snapshot.device(str(sighting.mac))
        return str(sighting.mac) if device is None else device.mac

    def chosen(self, sighting: Sighting, ruling: Ruling, item: str) -> Ruling | Order:
        """What the item of the ruling's menu means, which somebody chose on the device."""
        mac = str(sighting.mac)
        query = Query(mac, self.snapshot.device(mac), dict(sighting.details))
        self._journal.add(mac, "menu", f"chosen: {item}")
        return chosen(query, ruling, item, self.snapshot)

    async def choose(self, sighting: Sighting, item: str) -> Ruling:
        """As :meth:`settle`, for an item of the device's menu."""
        found = self.chosen(sighting, await self.settle(sighting), item)
        if isinstance(found, Ruling):
            return found
        if not await self._orders.make(self._owner(sighting), found.bundle, found.assignment):
            why = f"{found.bundle.name}: no work could be made; see: pbserv work list"
            return Ruling(Decision(Verdict.LOCAL, why))
        return self.ruling(sighting)

    # the gate of TFTP and HTTP

    def refuses(self, peer: str) -> str:
        """Why the device at the address ``peer`` gets nothing; empty when it may ask."""
        return "" if self._scripts is None else self._gate.refuses(peer, strict=self._strict)

    def refusal(self, mac: str) -> str:
        """Why the device with this address gets nothing; empty when it may ask."""
        return self._gate.refusal(mac)

    @property
    def _strict(self) -> bool:
        return self._scripts is not None and self._scripts.settings.conf.unattributed == "nothing"

    def contradicts(self, mac: str, peer: str, *, proven: bool = False) -> str:
        """Why a request from ``peer`` cannot speak for ``mac``; ``proven``: it shows the token of the device's boot."""
        return self._gate.contradicts(mac, peer, strict=self._strict and not proven)

    def progressed(self, mac: str, peer: str) -> None:
        """The device asked for its configuration: what it loaded runs."""
        self._gate.progressed(mac, peer)

    # the ports of TFTP and web

    def boot_of(self, token: str) -> str | None:
        """The address that boots with this token in its paths; None: it is not ours, or too old."""
        return self._boots.mac_of(token, self._calendar().timestamp())

    def show(self, token: str, peer: str) -> None:
        """Whoever shows the token of a boot says whose boot it is: the address is known from then on.

        Raises PermissionError for a token that is not ours or too old, or that another device shows.
        """
        mac = self.boot_of(token)
        if mac is None:
            raise PermissionError("the token in the path is not one of ours, or its boot began long ago")
        reason = self.contradicts(mac, peer, proven=True) or self.refusal(mac)
        if reason:
            raise PermissionError(reason)
        self._journal.learn(peer, mac)

    def mac_at(self, peer: str) -> str | None:
        """The address of the device at ``peer``; None: nobody can say."""
        return self._gate.mac_at(peer)

    def order_soon(self, sighting: Sighting, order: Order) -> None:
        """Make the work in the background, for who cannot wait."""
        self._due[self._owner(sighting)] = order
        self._wake.set()

    def report_soon(self, token: str) -> bool:
        """One-shot work is done, says a loader that cannot wait; False: the token is none of work."""
        work = self._tokens.work_of(token)
        if work is None or self._spawn is None:
            return False
        self._spawn(f"report of work {work}", self.reported(work, ok=True, reason=""))
        return True

    def facts(self, sighting: Sighting, ruling: Ruling, local: str) -> BootFacts:
        """What rendering the ruling for this boot needs; ``local``: our address that the client asked."""
        mac = str(sighting.mac)
        token = self._boots.mint(mac, self._calendar().timestamp())
        return self.scripts.facts(mac, self.snapshot.device(mac), ruling, local, token)

    def transferred(self, peer: str, name: str, outcome: str, size: int) -> None:
        """TFTP tells what it sent; the device's journal keeps it."""
        self._gate.ended("tftp", peer, name, outcome, size)

    def fetched(self, peer: str, name: str, outcome: str, size: int) -> None:
        """The HTTP server tells what it sent; ``outcome`` as in :meth:`transferred`."""
        self._gate.ended("http", peer, name, outcome, size)

    def uploaded(self, peer: str, name: str, path: Path, size: int) -> None:
        """TFTP tells what a device sent; its journal keeps it."""
        self._gate.ended("tftp", peer, name, "uploaded", size)

    def url(self, local: str) -> str:
        """The server's base URL in scripts, for a client that reached us at ``local``; empty while it is stopped."""
        return "" if self._scripts is None else self._scripts.url(local)

    # the registry

    def learn(
        self, mac: str, labels: Mapping[str, str], *, serial: str = "", asset: str = "", uuid: str | None = None
    ) -> None:
        """What the loader or the imaging client told of the machine; nothing for one that is not registered."""
        device = self.snapshot.device(mac)
        if device is not None and self._register.learn(device, Seen(serial, asset, uuid, labels)) is not device:
            self._answers.drop((device.mac, *device.macs))

    def note(self, mac: str, what: str, detail: str) -> None:
        """Add a line to a device's journal."""
        self._journal.add(mac, what, detail)

    async def reported(self, work_id: int, *, ok: bool, reason: str) -> None:
        """The loader or the installed system says how one-shot work ended."""
        work = await self._registry.finish_work(work_id, ok=ok, reason=reason)
        self._journal.add(work.mac, "work", f"{work.id}: {work.state} {reason}".rstrip())

    async def flush_history(self) -> None:
        await self._journal.flush_events()

    def forget(self, mac: str) -> None:
        """The device was removed from the registry: nothing of it is to be written any more."""
        for address in self.joined(mac):
            self._journal.forget(address)

    def joined(self, mac: str) -> tuple[str, ...]:
        """No device has ``mac`` as its first address any more; the addresses that were its own."""
        device = self.snapshot.devices.get(mac)
        addresses = (mac, *(device.macs if device else ()))
        self._register.forget(mac)
        if self._oracle is not None:
            self._oracle.forget(mac)
        self._answers.forget(addresses)
        return addresses

    def _changed(self, device: Device) -> None:
        before = self.snapshot.devices.get(device.mac)
        self._register.device_changed(device)
        self._answers.drop((device.mac, *device.macs, *(before.macs if before else ())))

    def _objects_changed(self, changed: Sequence[Document], deleted: Sequence[tuple[str, str]]) -> None:
        self._register.documents_changed(changed, deleted)
        self._answers.clear()

    async def _name_of(self, device: Device) -> str:
        """By NewDeviceName; empty while a part of it is not known."""
        template = self._scripts.settings.conf.device_name if self._scripts is not None else ""
        if not template or device.state is DeviceState.DENIED:
            return ""
        number = await self._registry.next_number("device") if "{counter" in template else 0
        return device_name(template, mac=device.mac, serial=device.serial, asset=device.asset, number=lambda: number)

    async def run(self) -> None:
        """Write what was seen and make the work that is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sightings.run())
            group.create_task(self._make_work())

    async def _make_work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, {}
            if due:
                await self._sightings.flush()  # a device must be in the registry before it can have work
            for mac, order in due.items():
                await self._orders.make(mac, order.bundle, order.assignment)

    async def flush(self) -> bool:
        """Write what was seen now; False when the registry could not be written (nothing is lost)."""
        return await self._sightings.flush()


class _PolicyReload:
    """Nothing can fail: the devices stay, only the settings change."""

    def __init__(self, service: PolicyService, scripts: BootScripts, oracle: Oracle | None) -> None:
        self._service, self._scripts, self._oracle = service, scripts, oracle

    def commit(self) -> None:
        before = self._service.oracle
        self._service.adopt(self._scripts, self._oracle)
        if before is not self._oracle:
            self._service.close(before)

    def abort(self) -> None:
        if self._oracle is not self._service.oracle:
            self._service.close(self._oracle)
