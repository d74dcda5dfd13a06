"""The policy service: keeps the snapshot, answers what a device is to do, registers devices seen for the first time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from pbserv.journal.journal import Journal
from pbserv.log import ServiceLog
from pbserv.policy.config import PolicyConf
from pbserv.policy.decide import decide
from pbserv.policy.render import BootFacts, boot_script, bootstrap
from pbserv.policy.snapshot import Snapshot
from pbserv.registry.records import Device, DeviceState
from pbserv.registry.registry import Registry, first_line
from pbserv.registry.tokens import WorkTokens
from pbserv.service import Reload
from pbserv.types import Decision, MacAddress, Sighting, Verdict

MAX_PENDING = 10_000
MAX_DEVICES = 100_000
RETRY_S = 2.0
SEEN_EVERY = timedelta(minutes=1)
SAME_QUESTION = timedelta(seconds=20)


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """``url_address`` overrides the address in boot scripts; None means the one that the client asked."""

    conf: PolicyConf
    url_address: str | None
    http_port: int


class PolicyService:
    """``Service[PolicySettings]``; also the port that proxyDHCP and TFTP ask. All questions are answered in memory."""

    name = "policy"
    title = "pbserv preboot policy service"

    def __init__(self, log: ServiceLog, registry: Registry, history: Journal, tokens: WorkTokens) -> None:
        self._log = log
        self._registry = registry
        self._history = history
        self._tokens = tokens
        self._settings: PolicySettings | None = None
        self._snapshot = Snapshot.of(())
        self._waiting: dict[str, Device] = {}
        self._wake = asyncio.Event()
        self._asked: dict[tuple[str, str], datetime] = {}
        registry.subscribe(self._changed)

    @property
    def running(self) -> bool:
        return self._settings is not None

    @property
    def listeners(self) -> tuple[str, ...]:
        return ()

    @property
    def snapshot(self) -> Snapshot:
        """The picture that decisions are made on."""
        return self._snapshot

    async def start(self, settings: PolicySettings) -> None:
        await self.flush()
        self._snapshot = Snapshot.of(await self._registry.devices())
        self._settings = settings
        self._log.critical("started", devices=len(self._snapshot.devices), new_devices=settings.conf.new_devices,
                           zone_default=settings.conf.zone_default)  # fmt: skip

    async def stop(self) -> None:
        if self._settings is not None:
            self._settings = None
            await self.flush()
            self._log.critical("stopped")

    async def prepare(self, settings: PolicySettings) -> Reload:
        return _PolicyReload(self, settings)

    def adopt(self, settings: PolicySettings) -> None:
        self._settings = settings

    # the port of proxyDHCP

    def decide(self, sighting: Sighting) -> Decision:
        """In memory and without waiting; a device that was never seen is registered in the background."""
        settings = self._settings
        if settings is None:
            return Decision(Verdict.SILENT, "the policy service is not running")
        began = time.perf_counter()
        mac = str(sighting.mac)
        device = self._see(mac, sighting, settings.conf.new_devices)
        self._history.learn(sighting.address, mac)
        decision = decide(mac, device, settings.conf.zone_default)
        self._note(mac, sighting, decision, time.perf_counter() - began)
        return decision

    def _see(self, mac: str, sighting: Sighting, new_devices: str) -> Device | None:
        now = datetime.now(UTC)
        device = self._snapshot.get(mac)
        if device is None:
            if new_devices == "ignore" or self._full(new_devices):
                return None
            state = DeviceState.KNOWN if new_devices == "accept" else DeviceState.PENDING
            device = Device(mac, sighting.uuid, "", _arch(sighting), state, sighting.address, now, now)
            self._history.add(mac, "registered", f"{state} by {sighting.via}")
            todo = f"pbserv device accept {mac}" if state is DeviceState.PENDING else "none"
            self._log.warning("new device", device=mac, state=state.value, todo=todo)
        elif now - device.last_seen < SEEN_EVERY and not (sighting.address and sighting.address != device.address):
            return device
        device = replace(
            device,
            uuid=sighting.uuid or device.uuid,
            arch=device.arch if sighting.arch is None else int(sighting.arch),
            address=_known_address(sighting.address) or device.address,
            last_seen=now,
        )
        self._snapshot = self._snapshot.having(device)
        self._waiting[mac] = device
        self._wake.set()
        return device

    def _full(self, new_devices: str) -> bool:
        """Whether one more device would be too many; a flood of made-up addresses must not fill the registry."""
        count, limit = (
            (len(self._snapshot.devices), MAX_DEVICES)
            if new_devices == "accept"
            else (self._snapshot.pending, MAX_PENDING)
        )
        if count >= limit:
            self._log.warning("new device refused", reason=f"{count} devices are registered; see: pbserv device forget")
        return count >= limit

    def _note(self, mac: str, sighting: Sighting, decision: Decision, seconds: float) -> None:
        """One line of history and log per question; the repeats of one boot are level 3."""
        now = datetime.now(UTC)
        key = (mac, f"{sighting.via} {decision.verdict.value} {decision.work}")
        fresh = now - self._asked.get(key, now - timedelta(days=1)) > SAME_QUESTION
        fields = {"device": mac, "via": sighting.via, "verdict": decision.verdict.value, "reason": decision.reason,
                  "seconds": round(seconds, 6)}  # fmt: skip
        if not fresh:
            self._log.request("asked again", **fields)
            return
        if len(self._asked) > MAX_PENDING:
            self._asked.clear()
        self._asked[key] = now
        if self._snapshot.get(mac) is not None:
            self._history.add(mac, f"asked by {sighting.via}", f"{decision.verdict.value}: {decision.reason}")
        self._log.transaction("decided", **fields)

    # the port of TFTP

    def find(self, name: str, peer: str, local: str) -> bytes | None:
        """The virtual files of the TFTP server: ``boot.ipxe``, ``autoexec.ipxe`` and ``boot/<mac>.ipxe``."""
        if self._settings is None:
            return None
        folder, _, leaf = name.rpartition("/")
        if name == "boot.ipxe" or leaf == "autoexec.ipxe":
            return bootstrap(self.url(local)).encode()
        if folder == "boot" and leaf.endswith(".ipxe"):
            try:
                mac = MacAddress.parse(leaf.removesuffix(".ipxe"))
            except ValueError:
                return None
            return self.script(Sighting(mac, via="tftp", address=peer), local).encode()
        return None

    def transferred(self, peer: str, name: str, outcome: str, size: int) -> None:
        """TFTP tells what it sent; the device's history keeps it."""
        mac = self._history.mac_of(peer)
        if mac is not None:
            self._history.add(mac, "tftp", f"{name}: {outcome}, {size} bytes")

    def uploaded(self, peer: str, name: str, path: Path, size: int) -> None:
        """TFTP tells what a device sent; its history keeps it."""
        mac = self._history.mac_of(peer)
        if mac is not None:
            self._history.add(mac, "tftp", f"{name}: uploaded, {size} bytes")

    # HTTP

    def url(self, local: str) -> str:
        """The server's base URL in scripts, for a client that reached us at ``local``."""
        settings = self._settings
        if settings is None:
            return ""
        return f"http://{settings.conf.local_interface or settings.url_address or local}:{settings.http_port}"

    def script(self, sighting: Sighting, local: str) -> str:
        """The decision for one device as an iPXE script."""
        settings = self._settings
        if settings is None:
            raise RuntimeError("the policy service is not running")
        decision = self.decide(sighting)
        device = self._snapshot.get(str(sighting.mac))
        return boot_script(
            decision,
            BootFacts(
                mac=str(sighting.mac),
                name=device.name if device else "",
                url=self.url(local),
                server=local,
                token="" if decision.work is None else self._tokens.issue(decision.work),
                arguments=settings.conf.client_arguments,
            ),
        )

    # the registry

    def note(self, mac: str, what: str, detail: str) -> None:
        """Add a line to a device's history."""
        self._history.add(mac, what, detail)

    async def flush_history(self) -> None:
        await self._history.flush_events()

    def forget(self, mac: str) -> None:
        """The device was removed from the registry."""
        self._waiting.pop(mac, None)
        self._snapshot = self._snapshot.without(mac)
        self._history.forget(mac)

    def _changed(self, device: Device) -> None:
        """The registry's record wins, except for what was seen and is not written yet."""
        seen = self._waiting.get(device.mac)
        if seen is not None:
            device = replace(
                device,
                uuid=seen.uuid or device.uuid,
                arch=device.arch if seen.arch is None else seen.arch,
                address=seen.address or device.address,
                last_seen=seen.last_seen,
            )
            self._waiting[device.mac] = device
        self._snapshot = self._snapshot.having(device)

    async def run(self) -> None:
        """Write what was seen, until cancelled; a registry that cannot be written is tried again."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not await self.flush():
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def flush(self) -> bool:
        """Write what waits now, in one transaction; False when the registry could not be written (nothing is lost)."""
        batch, self._waiting = self._waiting, {}
        if not batch:
            return True
        try:
            await self._registry.see(list(batch.values()))
        except SQLAlchemyError as fault:
            self._waiting = batch | self._waiting
            self._log.critical("registry cannot be written", waiting=len(self._waiting), reason=first_line(fault))
            return False
        return True


class _PolicyReload:
    """Nothing can fail: the snapshot stays, only the settings change."""

    def __init__(self, service: PolicyService, settings: PolicySettings) -> None:
        self._service, self._settings = service, settings

    def commit(self) -> None:
        self._service.adopt(self._settings)

    def abort(self) -> None:
        pass


def _arch(sighting: Sighting) -> int | None:
    return None if sighting.arch is None else int(sighting.arch)


def _known_address(address: str) -> str:
    return "" if address == "0.0.0.0" else address
