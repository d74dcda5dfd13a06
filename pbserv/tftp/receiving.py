"""A write: a file on its way from a client to its sink.

One rule: a batch of datagrams costs one write and at most one ACK. The last ACK leaves when the file is committed.

The write goes to the page cache, in the event loop. What bounds its time is the batch (64 blocks at most) and the
kernel: it makes a writer wait only when the whole host has more dirty pages than vm.dirty_ratio allows, so keep
TFTPDirectory on a local disk. What has to wait for the disk (fsync, rename, counting) runs in threads; the client waits
for its last ACK meanwhile and repeats its last block, which is not answered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pbserv.tftp.catalogue import Refusal, Target
from pbserv.tftp.names import shown
from pbserv.tftp.netascii import NetasciiDecoder
from pbserv.tftp.options import Limits, Terms, negotiate_write
from pbserv.tftp.packet import ErrorCode, Request
from pbserv.tftp.ports import Uploads
from pbserv.tftp.reception import Action, Reception
from pbserv.tftp.report import Ended, Reporter
from pbserv.tftp.session import Key, Link, Session
from pbserv.tftp.sink import Sink
from pbserv.tftp.table import TransferTable
from pbserv.tftp.transfer import Flight, Outcome
from pbserv.tftp.uploads import UploadRoom


class ReceivingSession(Session):
    """``begin`` it; ``stored`` is told when the file is there, before the last ACK."""

    __slots__ = ("_decoder", "_room", "_sink", "_stored", "_terms", "_told", "reception")

    def __init__(
        self,
        key: Key,
        datagram: bytes,
        request: Request,
        link: Link,
        terms: Terms,
        sink: Sink,
        room: UploadRoom,
        stored: Callable[[], None],
        reporter: Reporter,
        on_end: Callable[[Session], None],
    ) -> None:
        self.reception = Reception(terms)
        super().__init__(key, datagram, request, link, self.reception, reporter, on_end)
        self._terms = terms
        self._sink = sink
        self._room = room
        self._stored = stored
        self._told = False
        self._decoder = NetasciiDecoder() if request.mode == "netascii" else None

    @property
    def dallies(self) -> bool:
        """The file is there and reported; what is left is to repeat the last ACK. :meth:`fail` ends it silently."""
        return self._told and not self.ended

    def begin(self) -> None:
        """Everything is settled: the OACK, or ACK 0."""
        self._begun = True
        now = time.monotonic()
        self._guarded(lambda: self._perform(self.reception.start(now), now))

    def _take(self, datagrams: list[bytes], now: float) -> Action:
        was_complete = self.reception.complete
        payloads, action = self.reception.receive_all(datagrams, now)
        try:
            if payloads:
                self._write(payloads)
            if self.reception.complete and not was_complete:
                self._commit()
        except Refusal as refusal:
            self._not_stored(refusal)
            return None
        return action

    def _write(self, payloads: list[bytes]) -> None:
        """Raises Refusal."""
        if self._decoder is None:
            self._sink.write(payloads)
            return
        text = self._decoder.feed(b"".join(payloads))
        self._sink.write([text, self._decoder.finish()] if self.reception.complete else [text])

    def _commit(self) -> None:
        """Raises Refusal."""
        announced, sizes = self._terms.tsize, (self.reception.received_bytes, self._sink.size_bytes)
        # RFC 2349 does not say which size netascii has: that on the wire or that of the file. Departs: 0 may be
        # anything, because curl announces it when it reads from a pipe (lib/tftp.c).
        if announced and announced not in sizes:
            text = f"{sizes[0]} bytes came, but {announced} were announced (tsize)"
            raise Refusal(ErrorCode.UNDEFINED, text)
        self._room.commit(self._sink, self._committed)

    def _committed(self, fault: BaseException | None) -> None:
        """The disk has answered."""
        if fault is None:
            self._guarded(self._stored)
        if self.ended:
            return
        if isinstance(fault, Refusal):
            self._not_stored(fault)
        elif fault is not None:
            self.bug(fault if isinstance(fault, Exception) else RuntimeError(repr(fault)))
        else:
            self._guarded(self._acknowledge_all)

    def _acknowledge_all(self) -> None:
        now = time.monotonic()
        self._perform(self.reception.committed(now), now)
        if not self.ended:  # it dallies; its end is told now
            self._told = True
            self._reporter.ended(self._facts(now - self._started_at))

    def _not_stored(self, refusal: Refusal) -> None:
        self.fail(Outcome.NOT_STORED, refusal.text, refusal.code)

    def _perform(self, action: Action | Flight, now: float) -> None:
        if isinstance(action, bytes):
            if self._trace is not None:
                self._trace.debug("sending", client=self.client, packet=action[:64].hex())
            if not self._link.send(action):
                self.reception.on_unsent(now)
        self._settle()

    def _settle(self) -> None:
        if self.reception.over:
            self._finish()

    def fail(self, outcome: Outcome, text: str, code: int = ErrorCode.UNDEFINED) -> None:
        if self._told:  # the client has its file: no ERROR
            self._finish()
        else:
            super().fail(outcome, text, code)

    def _finish(self) -> None:
        if not self._told:
            super()._finish()
        elif not self.ended:
            self.ended = True
            self._link.close()
            self._on_end(self)

    def _release(self) -> None:
        self._sink.abandon()

    def _facts(self, seconds: float) -> Ended:
        reception = self.reception
        return Ended(
            kind="received",
            client=self.client,
            name=self.name,
            size_bytes=self._sink.size_bytes,
            block_size=self._terms.block_size,
            window=reception.window,
            seconds=seconds,
            outcome=reception.outcome or Outcome.BUG,
            detail=reception.detail,
            bytes_moved=reception.received_bytes,
            blocks=reception.blocks,
            retransmissions=reception.retransmissions,
            stale=reception.stale,
            rtt_s=reception.rtt_s,
        )


class UploadDesk:
    """Makes a session of a write request."""

    def __init__(self, room: UploadRoom, uploads: Uploads, table: TransferTable, reporter: Reporter) -> None:
        self.room = room
        self._uploads = uploads
        self._table = table
        self._reporter = reporter

    def begin(
        self,
        datagram: bytes,
        request: Request,
        key: Key,
        connect: Callable[[], Link],
        target: Callable[[], Target],
        limits: Callable[[Link], Limits],
    ) -> ReceivingSession:
        """The session, which has answered already. ``connect``, ``limits`` and ``target`` are asked in this order, and
        only when writes are allowed. Raises Refusal or Overload, and then nothing is left of it.
        """
        if not self.room.rules.allow_writes:
            raise Refusal(ErrorCode.ACCESS, "writes are not allowed")
        link = connect()
        terms = negotiate_write(request.options, limits(link))
        place = target()
        sink = self.room.admit(place, terms.tsize, key[0])
        told = partial(self._stored, key[0], place.shown, self.room.root, sink)
        session = ReceivingSession(
            key, datagram, request, link, terms, sink, self.room, told, self._reporter, self._table.remove
        )
        self._table.add(session)
        session.begin()
        return session

    def _stored(self, peer: str, name: bytes, root: Path, sink: Sink) -> None:
        self._uploads.uploaded(peer, shown(name), root / os.fsdecode(name), sink.size_bytes)
