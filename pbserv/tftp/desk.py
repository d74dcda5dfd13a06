"""What happens to a datagram on the request port: ignored, refused, repeated, or a new transfer.

One rule: everything that can go wrong is found out before the first answer (PXELINUX hangs on an ERROR after an OACK).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from pbserv.errors import WireError
from pbserv.net.gso import ConnectedUdp, OffloadRoutes
from pbserv.net.udp import Datagram
from pbserv.tftp.catalogue import Catalogue, MadeFile, Overload, RealFile, Refusal
from pbserv.tftp.files import ContentStore, FileId, LaidOut
from pbserv.tftp.netascii import to_netascii
from pbserv.tftp.options import Limits, negotiate
from pbserv.tftp.packet import ErrorCode, Opcode, Request, decode, encode_error
from pbserv.tftp.report import Reporter
from pbserv.tftp.session import Session
from pbserv.tftp.table import TransferTable
from pbserv.tftp.transfer import Outcome

LARGEST_NETASCII = 4 << 20
Reply = Callable[[Datagram, bytes], None]


@dataclass(frozen=True, slots=True)
class Offer:
    """The settings that requests are judged by; running transfers keep those they began with."""

    block_size: int
    window: int
    timeout_s: float


class RequestDesk:
    """``reply`` sends one datagram from the request port: a refusal needs no port of its own, no session, no thread."""

    def __init__(
        self,
        offer: Offer,
        catalogue: Catalogue,
        store: ContentStore,
        table: TransferTable,
        reporter: Reporter,
        reply: Reply,
    ) -> None:
        self.offer = offer
        self.catalogue = catalogue
        self._store = store
        self._table = table
        self._reporter = reporter
        self._reply = reply
        self._routes = OffloadRoutes()

    def take(self, datagram: Datagram, now: float) -> None:
        """One datagram. Whatever goes wrong, the next one is served."""
        try:
            self._take(datagram, now)
        except Exception as fault:
            self._reporter.bug("request", fault)
            self._reply(datagram, encode_error(ErrorCode.UNDEFINED, "internal error"))

    def _take(self, datagram: Datagram, now: float) -> None:
        client = f"{datagram.peer}:{datagram.port}"
        self._reporter.metrics.requests += 1
        reason = _not_for_us(datagram)
        if reason:
            self._reporter.ignored(client, reason)
            return
        try:
            packet = decode(datagram.data)
        except WireError as fault:
            self._reporter.malformed(client, str(fault))
            self._reply(datagram, encode_error(ErrorCode.ILLEGAL, fault.why))
            return
        if not isinstance(packet, Request):
            # An ERROR is never answered, and neither is what may belong to a transfer of an earlier process.
            self._reporter.ignored(client, f"{type(packet).__name__} on the request port")
            return
        session = self._table.find((datagram.peer, datagram.port, datagram.local))
        if session is not None and session.take_request(datagram.data, now):
            self._reporter.ignored(client, "repeated request")
            return
        self._request(datagram, client, packet)

    def _request(self, datagram: Datagram, client: str, request: Request) -> None:
        self._reporter.asked(client, request)
        try:
            self._serve(datagram, request)
        except Refusal as refusal:
            self._reporter.refused(client, request, refusal.code, refusal.text)
            self._reply(datagram, encode_error(refusal.code, refusal.text))
        except Overload as overload:
            self._reporter.ignored(client, str(overload))

    def _serve(self, datagram: Datagram, request: Request) -> None:
        """Raises Refusal or Overload."""
        if request.opcode == Opcode.WRQ:
            raise Refusal(ErrorCode.ACCESS, "writes are not allowed")
        if request.mode not in ("octet", "netascii"):
            raise Refusal(ErrorCode.ILLEGAL, "mode is neither octet nor netascii")
        full = self._table.full_for(datagram.peer)
        if full:
            raise Overload(full)
        found = self.catalogue.find(request, datagram.peer, datagram.local, mac=lambda: None)
        if request.mode == "netascii":
            found = MadeFile(to_netascii(_whole(found)))
        try:
            session = self._open_session(datagram, request, found)
        except BaseException:
            if isinstance(found, RealFile):
                os.close(found.fd)
            raise
        try:
            if isinstance(found, MadeFile):
                session.begin(LaidOut.of_bytes(found.data, session.block_size))
            else:
                identity = FileId.of(found.facts)
                self._store.obtain(found.fd, identity, session.block_size, session.transfer.window, session.begin)
        except Exception:
            session.fail(Outcome.BUG, "internal error")
            raise

    def _open_session(self, datagram: Datagram, request: Request, found: RealFile | MadeFile) -> Session:
        try:
            link = ConnectedUdp(datagram.local, datagram.peer, datagram.port, self._routes)
        except OSError as fault:
            raise Overload(_socket_fault(fault)) from None
        size_bytes = found.facts.st_size if isinstance(found, RealFile) else len(found.data)
        offer = self.offer
        limits = Limits(offer.block_size, offer.window, link.mtu_bytes, offer.timeout_s)
        terms = negotiate(request.options, size_bytes, limits)
        key = (datagram.peer, datagram.port, datagram.local)
        session = Session(key, datagram.data, request, link, terms, size_bytes, self._reporter, self._table.remove)
        self._table.add(session)
        return session


def _not_for_us(datagram: Datagram) -> str:
    # RFC 1123 4.2.3.5: a request that was sent to a broadcast address is silently ignored.
    if datagram.destination != datagram.local:
        return "sent to a broadcast address"
    if datagram.port == 0:
        return "no source port"
    if len(datagram.data) < 2:
        return "shorter than an opcode"
    return ""


def _whole(found: RealFile | MadeFile) -> bytes:
    """All bytes of a small file, for conversion; takes a descriptor over. Raises Refusal."""
    if isinstance(found, MadeFile):
        return found.data
    try:
        if found.facts.st_size > LARGEST_NETASCII:
            raise Refusal(ErrorCode.ILLEGAL, "too large for netascii; use octet")
        return os.pread(found.fd, LARGEST_NETASCII, 0)
    except OSError:
        raise Refusal(ErrorCode.UNDEFINED, "file cannot be read") from None
    finally:
        os.close(found.fd)


def _socket_fault(fault: OSError) -> str:
    if fault.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
        return "no file descriptor left"
    return "no route to the client"
