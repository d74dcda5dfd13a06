"""What happens to a datagram on the request port: ignored, refused, repeated, or a new transfer.

One rule: everything that can go wrong is found out before the first answer (PXELINUX hangs on an ERROR after an OACK).
"""

from __future__ import annotations

import errno
import ipaddress
import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from pbserv.errors import WireError
from pbserv.net.udp import Datagram
from pbserv.tftp.catalogue import Catalogue, MadeFile, Overload, RealFile, Refusal
from pbserv.tftp.channel import Channel, Link
from pbserv.tftp.files import ContentStore, FileId, LaidOut
from pbserv.tftp.multicast_desk import MulticastDesk
from pbserv.tftp.netascii import to_netascii
from pbserv.tftp.options import IPV4_OVERHEAD, IPV6_OVERHEAD, Limits, negotiate
from pbserv.tftp.packet import ErrorCode, Opcode, Request, decode, encode_error
from pbserv.tftp.ports import Gate
from pbserv.tftp.receiving import UploadDesk
from pbserv.tftp.report import Reporter
from pbserv.tftp.sending import SendingSession
from pbserv.tftp.switchboard import Switchboard, no_descriptor, reply
from pbserv.tftp.table import TransferTable
from pbserv.tftp.transfer import Outcome

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Offer(NamedTuple):
    """The settings that requests are judged by; running transfers keep those they began with."""

    block_size: int
    window: int
    timeout_s: float
    refused: frozenset[str] = frozenset()
    fragments: bool = False
    broadcasts: bool = False
    networks: tuple[Network, ...] = ()


class RequestDesk:
    """A refusal is sent from the port that was asked: it needs no port of its own, no session, no thread."""

    def __init__(
        self,
        offer: Offer,
        catalogue: Catalogue,
        store: ContentStore,
        table: TransferTable,
        switchboard: Switchboard,
        uploads: UploadDesk,
        multicast: MulticastDesk,
        reporter: Reporter,
        mac_of: Callable[[str], str | None],
        gate: Gate,
    ) -> None:
        """``mac_of`` an address, if it is on the link."""
        self._gate = gate
        self._uploads = uploads
        self.multicast = multicast
        self._mac_of = mac_of
        self.offer = offer
        self.catalogue = catalogue
        self._store = store
        self._table = table
        self._switchboard = switchboard
        self._reporter = reporter

    def take(self, datagram: Datagram, listener: Channel) -> None:
        """One datagram. Whatever goes wrong, the next one is served."""
        try:
            self._take(datagram, listener, time.monotonic())
        except Exception as fault:
            self._reporter.bug("request", fault)
            reply(listener, datagram, encode_error(ErrorCode.UNDEFINED, "internal error"))

    def _take(self, datagram: Datagram, listener: Channel, now: float) -> None:
        self._reporter.metrics.requests += 1
        reason = not_for_us(datagram, self.offer)
        if reason:
            self._reporter.ignored(label(datagram), reason)
            return
        try:
            packet = decode(datagram.data)
        except WireError as fault:
            self._reporter.malformed(label(datagram), str(fault))
            reply(listener, datagram, encode_error(ErrorCode.ILLEGAL, f"{fault.field} {fault.why}"))
            return
        if not isinstance(packet, Request):
            # An ERROR is never answered, and neither is what may belong to a transfer of an earlier process.
            self._reporter.ignored(label(datagram), f"{type(packet).__name__} on the request port")
            return
        if self.multicast.take_request(datagram, now):
            self._reporter.ignored(label(datagram), "repeated request")
            return
        session = self._table.find((datagram.peer, datagram.port, datagram.local))
        if (
            session is not None
            and not session.answered
            and not self._table.may_change_mind(session, datagram.data, now)
        ):
            self._reporter.ignored(label(datagram), "another request before an answer")
            return
        if session is not None and session.take_request(datagram.data, now):
            self._reporter.ignored(label(datagram), "repeated request")
            return
        self._request(datagram, listener, packet)

    def admits(self, address: str) -> bool:
        """Whether a client with this address is answered."""
        return admitted(address, self.offer)

    def _request(self, datagram: Datagram, listener: Channel, request: Request) -> None:
        client = label(datagram)
        self._reporter.asked(client, request)
        try:
            self._serve(datagram, listener, request)
        except Refusal as refusal:
            self._reporter.refused(client, request, refusal.code, refusal.why)
            reply(listener, datagram, encode_error(refusal.code, refusal.text))
        except Overload as overload:
            self._reporter.ignored(client, str(overload))

    def _serve(self, datagram: Datagram, listener: Channel, request: Request) -> None:
        """Raises Refusal or Overload."""
        self._let_in(datagram.peer)
        if request.mode not in ("octet", "netascii"):
            raise Refusal(ErrorCode.ILLEGAL, "mode is neither octet nor netascii")
        full = self._table.full_for(datagram.peer)
        if full:
            raise Overload(full)
        if request.opcode == Opcode.WRQ:
            self._receive(datagram, listener, request)
        else:
            self._send(datagram, listener, request)

    def _let_in(self, peer: str) -> None:
        """Raises Refusal for a client that gets nothing."""
        why = self._gate.refuses(peer)
        if why:
            raise Refusal(ErrorCode.ACCESS, "access denied", why)

    def look_up(self, name: bytes, peer: str, local: str) -> RealFile | MadeFile:
        """What a read request for ``name`` would be sent, for those who give it out in another way.

        Raises Refusal or Overload.
        """
        if not self.admits(peer):
            raise Refusal(ErrorCode.ACCESS, "access denied", "not in TFTPAllowedNetworks")
        self._let_in(peer)
        return self.catalogue.find(Request(Opcode.RRQ, name, "octet"), peer, local, lambda: self._mac_of(peer))

    def _receive(self, datagram: Datagram, listener: Channel, request: Request) -> None:
        self._uploads.begin(
            datagram.data,
            request,
            (datagram.peer, datagram.port, datagram.local),
            connect=lambda: self._connect(datagram, listener),
            target=lambda: self.catalogue.target(request, datagram.peer, datagram.local, self._mac(datagram)),
            limits=lambda link: self._limits(link.mtu_bytes, datagram),
        )

    def _mac(self, datagram: Datagram) -> Callable[[], str | None]:
        return lambda: self._mac_of(datagram.peer)

    def _send(self, datagram: Datagram, listener: Channel, request: Request) -> None:
        found = self.catalogue.find(request, datagram.peer, datagram.local, self._mac(datagram))
        limits: Callable[[int], Limits] = lambda mtu: self._limits(mtu, datagram)  # noqa: E731
        try:
            if self.multicast.take(datagram, request, found, limits, time.monotonic()):
                return
        except BaseException:
            _close(found)
            raise
        earlier = self._table.latest(datagram.peer, request.name)
        if earlier is not None:
            earlier.supersede()
        try:
            session = self._open_session(datagram, listener, request, found)
        except BaseException:
            _close(found)
            raise
        try:
            self._fill(session, found, text=request.mode == "netascii")
        except Exception:
            session.fail(Outcome.BUG, "internal error")
            raise

    def _open_session(
        self, datagram: Datagram, listener: Channel, request: Request, found: RealFile | MadeFile
    ) -> SendingSession:
        link = self._connect(datagram, listener)
        size_bytes = found.facts.st_size if isinstance(found, RealFile) else len(found.data)
        tsize = size_bytes if request.mode == "octet" else None  # what netascii makes of it is not known yet
        terms = negotiate(request.options, tsize, self._limits(link.mtu_bytes, datagram))
        key = (datagram.peer, datagram.port, datagram.local)
        session = SendingSession(
            key, datagram.data, request, link, terms, size_bytes, self._reporter, self._table.remove
        )
        self._table.add(session)
        return session

    def _fill(self, session: SendingSession, found: RealFile | MadeFile, *, text: bool) -> None:
        """Give the session its content, now or later; takes the descriptor over."""
        terms = session.terms
        if isinstance(found, MadeFile):
            data = to_netascii(found.data) if text else found.data
            session.begin(LaidOut.of_bytes(data, terms.block_size, terms.rollover))
            return
        obtain = self._store.obtain_netascii if text else self._store.obtain
        identity = FileId.of(found.facts)
        obtain(found.fd, identity, terms.block_size, terms.window, session.begin, terms.rollover)

    def _connect(self, datagram: Datagram, listener: Channel) -> Link:
        try:
            return self._switchboard.connect(datagram, listener)
        except OSError as fault:
            raise Overload(self._shortage(fault)) from None

    def _shortage(self, fault: OSError) -> str:
        """The reason, in words of our own: they are counters."""
        if fault.errno == errno.EADDRINUSE:
            reason = "no port of TFTPPortRange is free"
        elif no_descriptor(fault):
            reason = "no file descriptor left"
        else:
            return "no way to the client"
        self._reporter.shortage(reason)
        return reason

    def _limits(self, mtu_bytes: int, datagram: Datagram) -> Limits:
        return _limits(self.offer, mtu_bytes, ":" in datagram.peer)


@lru_cache(maxsize=64)
def _limits(offer: Offer, mtu_bytes: int, six: bool) -> Limits:
    return Limits(
        offer.block_size,
        offer.window,
        65_535 if offer.fragments else mtu_bytes,
        offer.timeout_s,
        IPV6_OVERHEAD if six else IPV4_OVERHEAD,
        offer.refused,
    )


def not_for_us(datagram: Datagram, offer: Offer) -> str:
    """Why it is ignored without an answer; empty when it is not."""
    # RFC 1123 4.2.3.5: a request that was sent to a broadcast address is silently ignored. Sun boxes send such.
    if datagram.destination != datagram.local and not (offer.broadcasts and datagram.local):
        return "sent to a broadcast address"
    if datagram.port == 0:
        return "no source port"
    if len(datagram.data) < 2:
        return "shorter than an opcode"
    return "" if admitted(datagram.peer, offer) else "not in TFTPAllowedNetworks"


def admitted(address: str, offer: Offer) -> bool:
    networks = offer.networks
    return not networks or any(ipaddress.ip_address(address) in network for network in networks)


def label(datagram: Datagram) -> str:
    """The client, for logs."""
    peer = datagram.peer
    return f"[{peer}]:{datagram.port}" if ":" in peer else f"{peer}:{datagram.port}"


def _close(found: RealFile | MadeFile) -> None:
    if isinstance(found, RealFile):
        os.close(found.fd)
