"""The TFTP service: its listener, its settings, and its life. Decides nothing about the protocol.

One rule: a reload prepares everything that can fail first; running transfers keep their content and their terms.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pbserv.errors import StartError
from pbserv.log import ServiceLog
from pbserv.net.neighbours import NeighbourTable
from pbserv.net.ready import ReadySet
from pbserv.service import Reload
from pbserv.tftp import mapfile
from pbserv.tftp.catalogue import Catalogue, MadeFile, Overload, Refusal
from pbserv.tftp.config import TftpConf
from pbserv.tftp.desk import Offer, RequestDesk
from pbserv.tftp.files import ContentStore, FileFault, LaidOut
from pbserv.tftp.listeners import Place, bind_all, listening
from pbserv.tftp.metrics import TftpMetrics
from pbserv.tftp.multicast_desk import GroupPlan, MulticastDesk
from pbserv.tftp.packet import ErrorCode
from pbserv.tftp.paths import Directory
from pbserv.tftp.ports import Gate, Observer, OpenGate, Uploads, VirtualFiles
from pbserv.tftp.receiving import UploadDesk
from pbserv.tftp.report import Reporter
from pbserv.tftp.switchboard import Switchboard
from pbserv.tftp.table import Caps, TransferTable
from pbserv.tftp.uploads import UploadRoom, rules_of
from pbserv.types import Instant

__all__ = ["Gate", "Observer", "TftpService", "Uploads", "VirtualFiles"]

GRACE_S = 2.0
DESCRIPTORS_FOR_OTHERS = 200
DESCRIPTORS_PER_TRANSFER = 2

# Built-in errors are what this service and those who take files from it have in common.
_FAULTS: Mapping[int, type[Exception]] = {
    ErrorCode.NOT_FOUND: FileNotFoundError,
    ErrorCode.ACCESS: PermissionError,
    ErrorCode.ILLEGAL: ValueError,
}


class TftpService:
    """``aliases``: names that old configurations ask for, and the file that is sent when there is none of that name.

    ``placed``: likewise, with files outside of TFTPDirectory.
    """

    name = "tftp"
    title = "pbserv TFTP service"

    def __init__(
        self,
        log: ServiceLog,
        virtual: VirtualFiles,
        observer: Observer,
        aliases: Mapping[str, str],
        uploads: Sequence[Uploads] = (),
        gate: Gate | None = None,
        placed: Mapping[str, Path] | None = None,
    ) -> None:
        self._log = log
        self._placed = dict(placed or {})
        self._gate = gate or OpenGate()
        self._virtual = virtual
        self._aliases = dict(aliases)
        self._subscribers = tuple(uploads)
        self.metrics = TftpMetrics()
        self._reporter = Reporter(log, observer, self.metrics)
        self._room: _Room | None = None

    @property
    def running(self) -> bool:
        return self._room is not None

    @property
    def listeners(self) -> tuple[str, ...]:
        return self._room.listeners if self._room is not None else ()

    async def start(self, settings: TftpConf) -> None:
        if self._room is not None:
            return
        means = self._means(settings, None)
        self._room = _Room(means, self, self._reporter, self._gate)
        self._log.critical("started", listens=", ".join(self.listeners), directory=str(settings.directory))

    async def stop(self) -> None:
        room, self._room = self._room, None
        if room is None:
            return
        await room.close()
        self._log.critical("stopped")

    async def prepare(self, settings: TftpConf) -> Reload:
        room = self._room
        if room is None:
            raise StartError("the TFTP service is not running")
        return _Prepared(room, self._means(settings, room))

    def _means(self, settings: TftpConf, room: _Room | None) -> _Means:
        """Raises StartError, and then nothing is left open."""
        plan = GroupPlan.of(settings)
        catalogue = self._catalogue(settings)
        places = None
        try:
            if room is None:
                places = bind_all(settings.interfaces, settings.port, ())
            elif (settings.interfaces, settings.port) != (room.settings.interfaces, room.settings.port):
                places = bind_all(settings.interfaces, settings.port, room.descriptors)
        except StartError:
            catalogue.close()
            raise
        return _Means(settings, catalogue, plan, places)

    def open(self, name: bytes, peer: str, local: str) -> tuple[int, os.stat_result] | bytes:
        """A file as a read request would get it: a descriptor that the caller owns with its facts, or made content.

        Raises FileNotFoundError, PermissionError with the reason, ValueError for what is no name, and another OSError
        when the file cannot be given out now.
        """
        if self._room is None:
            raise OSError("the TFTP service is not running")
        try:
            found = self._room.desk.look_up(name, peer, local)
        except Refusal as refusal:
            raise _FAULTS.get(refusal.code, OSError)(refusal.why) from None
        except Overload as overload:
            raise OSError(str(overload)) from None
        return found.data if isinstance(found, MadeFile) else (found.fd, found.facts)

    def uploaded(self, peer: str, name: str, path: Path, size: int) -> None:
        """A client placed a file: everybody who wants to know is told, whatever happens to the others."""
        for subscriber in self._subscribers:
            try:
                subscriber.uploaded(peer, name, path, size)
            except Exception as fault:
                self._reporter.bug("upload subscriber", fault)

    def _catalogue(self, settings: TftpConf) -> Catalogue:
        """Raises StartError: no directory, or a map file with faults."""
        rewrite = mapfile.load(settings.map_file) if settings.map_file is not None else None
        return Catalogue(
            Directory(settings.directory),
            self._aliases,
            self._virtual,
            rewrite=rewrite,
            client_directories=settings.client_directories,
            placed=self._placed,
        )


@dataclass(frozen=True, slots=True)
class _Means:
    """What settings need, and what can be missing on this host. ``places`` None: listen where we listen."""

    settings: TftpConf
    catalogue: Catalogue
    plan: GroupPlan | None
    places: list[Place] | None

    def close(self) -> None:
        self.catalogue.close()
        for place in self.places or ():
            place.raw.close()


class _Room:
    """Everything that exists between start and stop."""

    def __init__(self, means: _Means, subscribers: Uploads, reporter: Reporter, gate: Gate) -> None:
        self.settings = settings = means.settings
        self._loop = asyncio.get_running_loop()
        self._reporter = reporter
        self._ready = ReadySet()
        self._neighbours = NeighbourTable()
        self._table = TransferTable(_caps(settings, reporter.log), reporter.metrics)
        self._store = ContentStore(settings.cache_size_mb << 20, self._in_thread)
        reporter.metrics.cache = self._store
        offer = _offer(settings)
        self._switchboard = Switchboard(self._ready, offer.block_size, self._stray)
        self._switchboard.port_range, self._switchboard.single_port = settings.port_range, settings.single_port
        self._uploads = UploadRoom(settings.directory, rules_of(settings))
        self._multicast = MulticastDesk(means.plan, self._store, reporter)
        self._table.guests = self._multicast
        self.desk = RequestDesk(
            offer,
            means.catalogue,
            self._store,
            self._table,
            self._switchboard,
            UploadDesk(self._uploads, subscribers, self._table, reporter),
            self._multicast,
            reporter,
            self._mac_of,
            gate,
        )
        self._switchboard.admits = self.desk.admits
        self._listeners = listening(means.places or (), self._switchboard, self.desk.take)

    @property
    def listeners(self) -> tuple[str, ...]:
        names = (listener.name for listener in self._listeners)
        return tuple(f"udp [{host}]:{port}" if ":" in host else f"udp {host}:{port}" for host, port in names)

    @property
    def descriptors(self) -> list[int]:
        return [listener.fileno() for listener in self._switchboard.listeners]

    def adopt(self, means: _Means) -> None:
        """The second half of a reload; cannot fail."""
        before, self.settings = self.settings, means.settings
        settings = means.settings
        old_catalogue, self.desk.catalogue = self.desk.catalogue, means.catalogue
        old_catalogue.close()
        self.desk.offer = _offer(settings)
        self._store.resize(settings.cache_size_mb << 20)
        self._uploads.adopt(settings.directory, rules_of(settings))
        self._multicast.plan = means.plan
        self._table.caps = _caps(settings, self._reporter.log)
        switchboard = self._switchboard
        switchboard.resize(self.desk.offer.block_size)
        switchboard.port_range, switchboard.single_port = settings.port_range, settings.single_port
        if settings.port_range != before.port_range:
            switchboard.renew()
        if means.places is not None:
            for listener in self._listeners:
                listener.readable()  # what came in for the old address is still answered from it
                switchboard.retire(listener)
            self._listeners = listening(means.places, switchboard, self.desk.take)

    async def close(self) -> None:
        for listener in self._listeners:
            listener.deaf = True
        await self._table.finish(GRACE_S)
        self._multicast.close()
        self._reporter.metrics.cache = None
        self._uploads.close()
        for listener in self._listeners:
            self._switchboard.hang_up(listener)
        self._switchboard.close()
        self._ready.close()
        self._neighbours.close()
        self.desk.catalogue.close()

    def _mac_of(self, address: str) -> str | None:
        return self._neighbours.mac_of(address, Instant(time.monotonic()))

    def _stray(self, client: str, reason: str) -> None:
        self._reporter.metrics.strays += 1
        self._reporter.ignored(client, reason)

    def _in_thread(self, work: Callable[[], LaidOut], done: Callable[[LaidOut | FileFault], None]) -> None:
        future = self._loop.run_in_executor(None, work)

        def deliver(finished: asyncio.Future[LaidOut]) -> None:
            if finished.cancelled():
                done(FileFault("the server is stopping"))
                return
            fault = finished.exception()
            if fault is None:
                done(finished.result())
            elif isinstance(fault, FileFault):
                done(fault)
            else:
                self._reporter.bug("file", fault if isinstance(fault, Exception) else RuntimeError(repr(fault)))
                done(FileFault("internal error"))

        future.add_done_callback(deliver)


class _Prepared:
    """A reload that can no longer fail."""

    def __init__(self, room: _Room, means: _Means) -> None:
        self._room = room
        self._means = means

    def commit(self) -> None:
        self._room.adopt(self._means)

    def abort(self) -> None:
        self._means.close()


def _offer(settings: TftpConf) -> Offer:
    return Offer(
        settings.max_block_size or settings.transfer_block_size,
        settings.max_window,
        float(settings.timeout_interval),
        frozenset(settings.refused_options),
        settings.allow_fragments,
        settings.answer_broadcasts,
        tuple(map(ipaddress.ip_network, settings.allowed_networks)),
    )


def _caps(settings: TftpConf, log: ServiceLog) -> Caps:
    return Caps(_transfer_limit(settings, log), settings.max_per_address, settings.max_unanswered)


def _transfer_limit(settings: TftpConf, log: ServiceLog) -> int:
    """No more transfers than there are descriptors for."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return settings.max_transfers
    room = max(8, (soft - DESCRIPTORS_FOR_OTHERS) // DESCRIPTORS_PER_TRANSFER)
    if room < settings.max_transfers:
        log.warning("fewer transfers", wanted=settings.max_transfers, limit=room, reason=f"{soft} open files allowed")
    return min(room, settings.max_transfers)
