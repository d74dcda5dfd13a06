"""The TFTP service: its listener, its settings, and its life. Decides nothing about the protocol.

One rule: a reload prepares everything that can fail first; running transfers keep their content and their terms.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable, Mapping

from pbserv.errors import StartError
from pbserv.log import ServiceLog
from pbserv.net.rebind import bind_beside
from pbserv.net.udp import Datagram, PacketInfoSocket
from pbserv.service import Reload
from pbserv.tftp.catalogue import Catalogue
from pbserv.tftp.config import TftpConf
from pbserv.tftp.desk import Offer, RequestDesk
from pbserv.tftp.files import ContentStore, FileFault, LaidOut
from pbserv.tftp.metrics import TftpMetrics
from pbserv.tftp.paths import Directory
from pbserv.tftp.ports import Observer, VirtualFiles
from pbserv.tftp.report import Reporter
from pbserv.tftp.table import TransferTable

__all__ = ["Observer", "TftpService", "VirtualFiles"]

GRACE_S = 2.0
DESCRIPTORS_FOR_OTHERS = 200
DESCRIPTORS_PER_TRANSFER = 2


class TftpService:
    """``aliases``: names that old configurations ask for, and the file that is sent when there is none of that name."""

    name = "tftp"
    title = "pbserv TFTP service"

    def __init__(
        self,
        log: ServiceLog,
        virtual: VirtualFiles,
        observer: Observer,
        aliases: Mapping[str, str],
    ) -> None:
        self._log = log
        self._virtual = virtual
        self._aliases = dict(aliases)
        self.metrics = TftpMetrics()
        self._reporter = Reporter(log, observer, self.metrics)
        self._room: _Room | None = None

    @property
    def running(self) -> bool:
        return self._room is not None

    @property
    def listeners(self) -> tuple[str, ...]:
        if self._room is None:
            return ()
        address, port = self._room.listener.name
        return (f"udp {address}:{port}",)

    async def start(self, settings: TftpConf) -> None:
        if self._room is not None:
            return
        catalogue = self._catalogue(settings)
        try:
            listener = PacketInfoSocket.bind((settings.interfaces or ("0.0.0.0",))[0], settings.port)
        except StartError:
            catalogue.close()
            raise
        self._room = _Room(settings, listener, catalogue, self._reporter)
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
        catalogue = self._catalogue(settings)
        listener = None
        try:
            if (settings.interfaces, settings.port) != (room.settings.interfaces, room.settings.port):
                listener = bind_beside(room.listener, (settings.interfaces or ("0.0.0.0",))[0], settings.port)
        except StartError:
            catalogue.close()
            raise
        return _Prepared(room, settings, listener, catalogue)

    def _catalogue(self, settings: TftpConf) -> Catalogue:
        return Catalogue(Directory(settings.directory), self._aliases, self._virtual)


class _Room:
    """Everything that exists between start and stop."""

    def __init__(
        self, settings: TftpConf, listener: PacketInfoSocket, catalogue: Catalogue, reporter: Reporter
    ) -> None:
        self.settings = settings
        self.listener = listener
        self._loop = asyncio.get_running_loop()
        self._reporter = reporter
        self._table = TransferTable(_transfer_limit(settings, reporter.log), reporter.metrics)
        self._store = ContentStore(settings.cache_size_mb << 20, self._in_thread)
        reporter.metrics.cache = self._store
        self._desk = RequestDesk(_offer(settings), catalogue, self._store, self._table, reporter, self._reply)
        self._loop.add_reader(listener.fileno(), self._requests)

    def adopt(self, settings: TftpConf, listener: PacketInfoSocket | None, catalogue: Catalogue) -> None:
        """The second half of a reload; cannot fail."""
        self.settings = settings
        old_catalogue, self._desk.catalogue = self._desk.catalogue, catalogue
        old_catalogue.close()
        self._desk.offer = _offer(settings)
        self._store.resize(settings.cache_size_mb << 20)
        self._table.limit = _transfer_limit(settings, self._reporter.log)
        if listener is not None:
            self._requests()  # what came in for the old address is still answered from it
            self._loop.remove_reader(self.listener.fileno())
            self.listener.close()
            self.listener = listener
            self._loop.add_reader(listener.fileno(), self._requests)

    async def close(self) -> None:
        self._loop.remove_reader(self.listener.fileno())
        await self._table.finish(GRACE_S)
        self.listener.close()
        self._desk.catalogue.close()
        self._reporter.metrics.cache = None

    def _requests(self) -> None:
        now = time.monotonic()
        for datagram in self.listener.receive():
            self._desk.take(datagram, now)

    def _reply(self, datagram: Datagram, data: bytes) -> None:
        self.listener.send(data, datagram.peer, datagram.port, source=datagram.local, ifindex=0)

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

    def __init__(
        self, room: _Room, settings: TftpConf, listener: PacketInfoSocket | None, catalogue: Catalogue
    ) -> None:
        self._room = room
        self._settings = settings
        self._listener = listener
        self._catalogue = catalogue

    def commit(self) -> None:
        self._room.adopt(self._settings, self._listener, self._catalogue)

    def abort(self) -> None:
        self._catalogue.close()
        if self._listener is not None:
            self._listener.close()


def _offer(settings: TftpConf) -> Offer:
    return Offer(settings.transfer_block_size, settings.max_window, float(settings.timeout_interval))


def _transfer_limit(settings: TftpConf, log: ServiceLog) -> int:
    """No more transfers than there are descriptors for."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return settings.max_transfers
    room = max(8, (soft - DESCRIPTORS_FOR_OTHERS) // DESCRIPTORS_PER_TRANSFER)
    if room < settings.max_transfers:
        log.warning("fewer transfers", wanted=settings.max_transfers, limit=room, reason=f"{soft} open files allowed")
    return min(room, settings.max_transfers)
