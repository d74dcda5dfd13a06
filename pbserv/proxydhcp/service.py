"""The shell of proxyDHCP: two sockets, one policy, one log line per packet.

One rule: it gathers facts, asks, sends and counts; what a packet means is decided in ``decide.py``.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final, Protocol

from pbserv.errors import StartError, WireError
from pbserv.log import ServiceLog
from pbserv.net.interfaces import InterfaceTable, address_on_host, name_of
from pbserv.net.udp import Datagram, PacketInfoSocket
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.proxydhcp.decide import Query, decide, screen
from pbserv.proxydhcp.facts import gather
from pbserv.proxydhcp.memory import HandedLoaders, Quiet
from pbserv.proxydhcp.outcome import ClientKind, Ignore, Listener, Reason, Reply
from pbserv.proxydhcp.packet import decode, describe
from pbserv.proxydhcp.strategy import Loader, Settings
from pbserv.service import Reload
from pbserv.types import ClientArch, Decision, Instant, Sighting

_PER_WAKE_UP: Final = 64  # datagrams, so that a storm cannot keep the other services from the loop
_QUIET_S: Final = 60.0
_TO_REPAIR: Final = frozenset((Reason.ARCH_NOT_SERVED, Reason.NO_LOCAL_ADDRESS, Reason.REPLY_TOO_LONG))

Sockets = dict[Listener, PacketInfoSocket]
Ports = dict[Listener, int]


class Policy(Protocol):
    """What decides about a device. Asked once per packet of a PXE client; must answer from memory."""

    def decide(self, sighting: Sighting) -> Decision: ...


class ProxyDhcpService:
    """A :class:`pbserv.service.Service` of ``ProxyDhcpConf``; use it from one event loop."""

    name = "proxydhcp"
    title = "pbserv proxyDHCP service"

    def __init__(self, log: ServiceLog, policy: Policy) -> None:
        self._log = log
        self._policy = policy
        self._sockets: Sockets = {}
        self._ports: Ports = {}
        self._settings = Settings({})
        self._table: InterfaceTable | None = None
        self._handed = HandedLoaders()
        self._quiet = Quiet(_QUIET_S)
        self._counters: Counter[str] = Counter()

    @property
    def running(self) -> bool:
        return bool(self._sockets)

    @property
    def listeners(self) -> tuple[str, ...]:
        names = (self._sockets[listener].name for listener in Listener if listener in self._sockets)
        return tuple(f"udp {address}:{port}" for address, port in names)

    @property
    def counters(self) -> Mapping[str, int]:
        """Since the process started: ``offer``, ``ack``, ``send_failed``, ``fault`` and each :class:`Reason`."""
        return self._counters

    async def start(self, settings: ProxyDhcpConf) -> None:
        if self.running:
            return
        _check(settings)
        ports = _ports(settings)
        sockets = _bind(ports)
        self._table = InterfaceTable()
        self.adopt(settings_of(settings), ports, sockets)
        self._log.critical("started", listeners=", ".join(self.listeners))

    async def stop(self) -> None:
        if not self.running:
            return
        self._listen({}, drop=tuple(self._sockets))
        if self._table is not None:
            self._table.close()
            self._table = None
        self._log.critical("stopped")

    async def prepare(self, settings: ProxyDhcpConf) -> Reload:
        _check(settings)
        ports = _ports(settings)
        changed = {listener: port for listener, port in ports.items() if self._ports.get(listener) != port}
        return _Change(self, settings_of(settings), ports, _bind(changed if self.running else {}))

    def adopt(self, settings: Settings, ports: Ports, sockets: Sockets) -> None:
        """Decide by ``settings`` from now on, and listen on ``sockets`` in the place of those they replace."""
        self._settings = settings
        self._ports = ports
        self._listen(sockets)

    def _listen(self, sockets: Sockets, drop: tuple[Listener, ...] = ()) -> None:
        """Put ``sockets`` in the place of those that served the same purpose."""
        loop = asyncio.get_running_loop()
        for listener in (*sockets, *drop):
            old = self._sockets.pop(listener, None)
            if old is not None:
                loop.remove_reader(old.fileno())
                old.close()
        for listener, socket in sockets.items():
            self._sockets[listener] = socket
            loop.add_reader(socket.fileno(), functools.partial(self._drain, listener, socket))

    def _drain(self, listener: Listener, socket: PacketInfoSocket) -> None:
        now = Instant(time.monotonic())
        for datagram in socket.receive(_PER_WAKE_UP):
            try:
                self._serve(listener, socket, datagram, now)
            except Exception as fault:
                self._faulted(fault, datagram, now)

    def _serve(self, listener: Listener, socket: PacketInfoSocket, datagram: Datagram, now: Instant) -> None:
        begun = time.perf_counter()
        host = () if self._table is None else self._table.addresses(now)
        facts = gather(datagram, listener, host, self._settings.local_interface)
        if isinstance(facts, Ignore):
            return self._ignored(listener, datagram, facts, now)
        query: Query | Ignore
        try:
            packet = decode(datagram.data)
            if self._log.level >= 4:
                self._log.debug("packet", source=f"{datagram.peer}:{datagram.port}", decoded=describe(packet))
            query = screen(packet, facts)
        except WireError as fault:
            query = Ignore(Reason.BAD_PACKET, str(fault))
        if isinstance(query, Ignore):
            return self._ignored(listener, datagram, query, now)
        decision = self._policy.decide(query.sighting)
        chained = self._handed.chained(query.mac, query.packet.xid, now)
        reply = decide(query, facts, self._settings, decision, chained)
        if isinstance(reply, Ignore):
            return self._ignored(listener, datagram, reply, now)
        return self._reply(socket, query, reply, decision, begun, now)

    def _reply(
        self, socket: PacketInfoSocket, query: Query, reply: Reply, decision: Decision, begun: float, now: Instant
    ) -> None:
        summary = reply.summary
        if not socket.send(reply.data, reply.destination, reply.port, source=reply.source, ifindex=reply.ifindex):
            self._counters["send_failed"] += 1
            if self._quiet.allows(("send", reply.destination, reply.ifindex), now):
                self._log.warning(
                    "reply not sent", client=str(summary.mac), to=f"{reply.destination}:{reply.port}",
                    interface=name_of(reply.ifindex), reason="the kernel refused: see the routes and the firewall",
                )  # fmt: skip
            return
        self._counters[summary.message.lower()] += 1
        if summary.loader:
            self._handed.record(summary.mac, query.packet.xid, summary.kind is ClientKind.IPXE, now)
        if self._log.level < 2:
            return
        say = self._log.transaction if summary.acknowledged else self._log.request
        say(
            "boot file acknowledged" if summary.acknowledged else "boot file offered",
            client=str(summary.mac), kind=summary.kind.value, arch=str(summary.arch), file=summary.file,
            strategy=summary.strategy, server=summary.server, to=f"{reply.destination}:{reply.port}",
            verdict=decision.verdict.value, reason=decision.reason, seconds=round(time.perf_counter() - begun, 6),
        )  # fmt: skip

    def _ignored(self, listener: Listener, datagram: Datagram, ignored: Ignore, now: Instant) -> None:
        reason = ignored.reason
        self._counters[reason.value] += 1
        client = datagram.data[28:34]  # chaddr, if it is a DHCP message at all
        loud = reason in _TO_REPAIR and self._quiet.allows((reason, client), now)
        if not loud and self._log.level < 3:
            return
        say = self._log.warning if loud else self._log.request
        more = {"remedy": ignored.remedy} if ignored.remedy else {}
        say(
            "ignored", client=client.hex(":"), source=f"{datagram.peer}:{datagram.port}", listener=listener.value,
            interface=name_of(datagram.ifindex), verdict=reason.value, reason=ignored.detail, **more,
        )  # fmt: skip

    def _faulted(self, fault: Exception, datagram: Datagram, now: Instant) -> None:
        """Our own bug: say where, go on serving."""
        self._counters["fault"] += 1
        if self._quiet.allows(("fault", repr(fault)), now):
            self._log.critical("fault", source=f"{datagram.peer}:{datagram.port}", exc_info=fault)


class _Change:
    """A prepared reload: the sockets of changed ports are bound already."""

    def __init__(self, service: ProxyDhcpService, settings: Settings, ports: Ports, sockets: Sockets) -> None:
        self._service = service
        self._settings = settings
        self._ports = ports
        self._sockets = sockets

    def commit(self) -> None:
        self._service.adopt(self._settings, self._ports, self._sockets)

    def abort(self) -> None:
        for socket in self._sockets.values():
            socket.close()


def settings_of(conf: ProxyDhcpConf) -> Settings:
    """The part of the configuration that decides about packets."""
    x64 = Loader("NBPx64", conf.nbp_x64)
    loaders = {
        ClientArch.BIOS: Loader("NBPx86", conf.nbp_x86),
        ClientArch.EFI_IA32: Loader("NBPIA32", conf.nbp_ia32),
        ClientArch.EFI_X64: x64,
        ClientArch.EFI_EBC: x64,  # RFC 4578 gave 7 and 9 the wrong way round at first: clients use both
        ClientArch.EFI_ARM64: Loader("NBPARM64", conf.nbp_arm64),
        ClientArch.HTTP_X64: Loader("NBPHTTPx64", conf.nbp_http_x64),
    }
    local = None if conf.local_interface is None else str(conf.local_interface)
    return Settings(loaders, conf.nbp_ipxe, local)


def _ports(conf: ProxyDhcpConf) -> Ports:
    return {Listener.DHCP: conf.proxydhcp_port, Listener.BOOT_SERVER: conf.boot_server_port}


def _check(conf: ProxyDhcpConf) -> None:
    """Raise StartError for what cannot be served on this host."""
    if conf.local_interface is not None and not address_on_host(str(conf.local_interface)):
        raise StartError(f"LocalInterface: this host has no address {conf.local_interface}; see: ip address")
    if conf.proxydhcp_port == conf.boot_server_port != 0:  # 0: any free one
        raise StartError(f"ProxyDHCPPort and BootServerPort are both {conf.proxydhcp_port}; they must differ")


def _bind(ports: Mapping[Listener, int]) -> Sockets:
    """All sockets or none; they hear broadcasts, so they are bound to no address."""
    bound: Sockets = {}
    try:
        for listener, port in ports.items():
            bound[listener] = PacketInfoSocket.bind("0.0.0.0", port, broadcast=True)
    except StartError as fault:
        for socket in bound.values():
            socket.close()
        if listener is Listener.BOOT_SERVER:
            raise StartError(f"{fault} (BootServerPort in proxydhcp.conf, but clients know only 4011)") from None
        raise StartError(
            f"{fault} (ProxyDHCPPort in proxydhcp.conf, but clients know only 67: a DHCP server that holds it has to "
            "move to another host, or proxyDHCP does)"
        ) from None
    return bound
