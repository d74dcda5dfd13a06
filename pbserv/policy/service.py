"""The policy service: keeps the snapshot, answers what a device is to do, registers devices seen for the first time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from pbserv.journal.history import History
from pbserv.log import ServiceLog
from pbserv.policy.config import PolicyConf
from pbserv.policy.decide import decide
from pbserv.policy.render import BootFacts, boot_script, bootstrap
from pbserv.policy.snapshot import Snapshot
from pbserv.registry.records import Device, DeviceState
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import WorkTokens
from pbserv.service import Reload
from pbserv.types import Decision, MacAddress, Sighting, Verdict

MAX_PENDING = 10_000
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

    def __init__(self, log: ServiceLog, registry: Registry, history: History, tokens: WorkTokens) -> None:
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
        return self._snapshot

    async def start(self, settings: PolicySettings) -> None:
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
        mac = str(sighting.mac)
        device = self._see(mac, sighting, settings.conf.new_devices)
        self._history.learn(sighting.address, mac)
        decision = decide(mac, device, settings.conf.zone_default)
        self._note(mac, sighting, decision)
        return decision

    def _see(self, mac: str, sighting: Sighting, new_devices: str) -> Device | None:
        now = datetime.now(UTC)
        device = self._snapshot.get(mac)
        if device is None:
            if new_devices == "ignore" or self._snapshot.pending >= MAX_PENDING:
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

    def _note(self, mac: str, sighting: Sighting, decision: Decision) -> None:
        """One line of history and log per question; the repeats of one boot are level 3."""
        now = datetime.now(UTC)
        key = (mac, f"{sighting.via} {decision.verdict.value} {decision.work}")
        fresh = now - self._asked.get(key, now - timedelta(days=1)) > SAME_QUESTION
        fields = {"device": mac, "via": sighting.via, "verdict": decision.verdict.value, "reason": decision.reason}
        if not fresh:
            self._log.request("asked again", **fields)
            return
        if len(self._asked) > MAX_PENDING:
            self._asked.clear()
        self._asked[key] = now
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
        await self._history.flush()

    def _changed(self, device: Device) -> None:
        waiting = self._waiting.pop(device.mac, None)
        if waiting is not None:
            device = replace(device, address=waiting.address, last_seen=waiting.last_seen)
        self._snapshot = self._snapshot.having(device)

    async def run(self) -> None:
        """Write what was seen, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what was seen of devices; a full or locked database is logged and tried again later."""
        while self._waiting:
            mac, device = self._waiting.popitem()
            try:
                await self._registry.see(device)
            except SQLAlchemyError as fault:
                self._waiting.setdefault(mac, device)
                self._log.critical("registry cannot be written", reason=str(fault).splitlines()[0])
                await asyncio.sleep(1)
                return


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
