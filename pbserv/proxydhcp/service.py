"""The shell of proxyDHCP: its ports in the event loop, its desk, start, stop and reload.

One rule: it opens, reads and hands on; what a packet means is decided in ``decide.py``, and done in ``desk.py``.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping

from pbserv.log import ServiceLog
from pbserv.net.dhcp_port import Port
from pbserv.net.interfaces import InterfaceTable
from pbserv.net.ready import ReadySet
from pbserv.proxydhcp import listening
from pbserv.proxydhcp.desk import Desk
from pbserv.proxydhcp.listening import Numbers, Ports
from pbserv.proxydhcp.loaders import Settings
from pbserv.proxydhcp.memory import Devices
from pbserv.proxydhcp.outcome import Listener
from pbserv.proxydhcp.ports import Journal, Policy
from pbserv.proxydhcp.settings import ProxyDhcpSettings, settings_of
from pbserv.service import Reload
from pbserv.types import Instant


class ProxyDhcpService:
    """A :class:`pbserv.service.Service` of ``ProxyDhcpSettings``; use it from one event loop."""

    name = "proxydhcp"
    title = "pbserv proxyDHCP service"

    def __init__(self, log: ServiceLog, policy: Policy, journal: Journal) -> None:
        self._log = log
        self._policy = policy
        self._journal = journal
        self._ports: Ports = {}
        self._wanted: Numbers = {}
        self._desk: Desk | None = None
        self._table: InterfaceTable | None = None
        self._devices = Devices()
        self._counters: Counter[str] = Counter()
        self._delayed: set[asyncio.TimerHandle] = set()
        self._ready: ReadySet | None = None

    @property
    def running(self) -> bool:
        return bool(self._ports)

    @property
    def listeners(self) -> tuple[str, ...]:
        names = (self._ports[listener].name for listener in Listener if listener in self._ports)
        return tuple(f"udp {address}:{port}" for address, port in names)

    @property
    def counters(self) -> Mapping[str, int]:
        """Since the process started: ``offer``, ``ack``, ``send_failed``, ``fault`` and each :class:`Reason`."""
        return self._counters

    # -- what others tell -------------------------------------------------------------------------------------------

    def remember(self, strategies: Mapping[str, str]) -> None:
        """Strategies that were found to work, by MAC address (``aa:bb:cc:dd:ee:ff``)."""
        self._devices.remember({bytes.fromhex(mac.replace(":", "")): name for mac, name in strategies.items()})

    def fetched(self, mac: str, name: str, *, complete: bool) -> None:
        """The device asked this server's TFTP or HTTP for a file; ``complete``: it has all of it."""
        octets = bytes.fromhex(mac.replace(":", ""))
        boots = self._devices.known(octets)
        if boots is None or self._desk is None:
            return
        self._desk.reached(octets)
        if not complete:
            return
        name = name.lstrip("/")  # clients may put one before the name that they were told
        if name != boots.loader.lstrip("/"):
            boots.progressed()
        else:
            now, limit = Instant(time.monotonic()), self._desk.settings.loop_limit
            looped = boots.loops(limit, now)
            boots.fetched_loader(name, now)
            if boots.loops(limit, now) and not looped:
                self._loops(mac, name, boots.fetches)

    def progressed(self, mac: str) -> None:
        """The device runs what it loaded: it asked for its boot script or for its work."""
        octets = bytes.fromhex(mac.replace(":", ""))
        boots = self._devices.known(octets)
        if boots is not None and self._desk is not None:
            boots.progressed()
            self._desk.reached(octets)

    def _loops(self, mac: str, name: str, count: int) -> None:
        text = f"{name} was fetched {count} times and led nowhere: it is sent to its local disk for a while"
        self._journal.add(mac, "loop", text)
        self._log.warning("loop", client=mac, file=name, times=count, reason="sent to its local disk for a while")
        self._counters["loops"] += 1

    # -- Service ----------------------------------------------------------------------------------------------------

    async def start(self, settings: ProxyDhcpSettings) -> None:
        if self.running:
            return
        listening.check(settings.conf)
        value = settings_of(settings)
        wanted = listening.numbers(settings.conf)
        ports, note = listening.bind(wanted, settings.conf.local_dhcp_flag)
        self._table = InterfaceTable()
        self.adopt(value, wanted, ports)
        self._log.critical("started", listeners=", ".join(self.listeners))
        self._note(note)

    async def stop(self) -> None:
        if not self.running:
            return
        self._listen({}, drop=tuple(self._ports))
        self._wanted = {}
        for handle in self._delayed:
            handle.cancel()
        self._delayed.clear()
        if self._ready is not None:
            self._ready.close()
            self._ready = None
        if self._table is not None:
            self._table.close()
            self._table = None
        self._log.critical("stopped")

    async def prepare(self, settings: ProxyDhcpSettings) -> Reload:
        listening.check(settings.conf)
        value = settings_of(settings)
        flag, wanted = settings.conf.local_dhcp_flag, listening.numbers(settings.conf)
        changed = {listener: port for listener, port in wanted.items() if self._differs(listener, port, flag)}
        ports, note = listening.bind(changed, flag) if self.running else ({}, "")
        return _Change(ports, functools.partial(self._commit, value, wanted, ports, note))

    def _differs(self, listener: Listener, port: int, flag: str) -> bool:
        if self._wanted.get(listener) != port:
            return True
        # A port that could not be had is tried again.
        return listener not in self._ports

    def _commit(self, settings: Settings, wanted: Numbers, ports: Ports, note: str) -> None:
        self.adopt(settings, wanted, ports)
        self._note(note)

    def adopt(self, settings: Settings, wanted: Numbers, ports: Ports) -> None:
        """Decide by ``settings`` from now on, and listen on ``ports`` in the place of those they replace."""
        self._wanted = wanted
        self._desk = Desk(
            settings, self._devices, self._counters, self._policy, self._journal, self._log, self._later
        )  # fmt: skip
        self._listen(ports, drop=tuple(listener for listener in self._ports if listener not in wanted))

    def _note(self, note: str) -> None:
        if note:
            self._log.warning("port 67", reason=note)

    def _listen(self, ports: Ports, drop: tuple[Listener, ...] = ()) -> None:
        """Put ``ports`` in the place of those that served the same purpose."""
        for listener in (*ports, *drop):
            old = self._ports.pop(listener, None)
            if old is not None:
                if self._ready is not None:
                    self._ready.remove(old.fileno())
                old.close()
        for listener, port in ports.items():
            self._ports[listener] = port
            if self._ready is None:
                self._ready = ReadySet()
            self._ready.add(port.fileno(), functools.partial(self._drain, listener, port))

    def _drain(self, listener: Listener, port: Port) -> None:
        """One batch; the set of ready ports asks again at once, and gives the loop its turn every few milliseconds."""
        datagrams = port.receive()
        if datagrams and self._desk is not None:
            now = Instant(time.monotonic())
            host = () if self._table is None else self._table.addresses(now)
            self._desk.take(listener, port, datagrams, host, now)

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        """A reply that is held back; it is dropped when the service stops."""

        def run() -> None:
            self._delayed.discard(handle)
            if self.running:
                call()

        handle = asyncio.get_running_loop().call_later(delay_s, run)
        self._delayed.add(handle)


class _Change:
    """A prepared reload: the ports that changed are bound already."""

    def __init__(self, ports: Ports, commit: Callable[[], None]) -> None:
        self._ports = ports
        self._commit = commit

    def commit(self) -> None:
        self._commit()

    def abort(self) -> None:
        for port in self._ports.values():
            port.close()
