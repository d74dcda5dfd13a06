"""A read: content on its way to a client.

One rule: an acknowledgement of a whole flight of a file in memory costs one step of the core and one entry in the
outbox; no byte of the file is touched.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable

from pbserv.tftp.files import HEADER_BYTES, Content, FileFault, LaidOut
from pbserv.tftp.options import Terms
from pbserv.tftp.packet import Request
from pbserv.tftp.report import Ended, Reporter
from pbserv.tftp.session import Key, Link, Session
from pbserv.tftp.transfer import PATIENCE_S, Action, Flight, Outcome, Transfer

ACK_WORDS = array("I", b"".join(b"\0\4" + number.to_bytes(2, "big") for number in range(65536)))
"""An ACK's four bytes as a machine word, by block number."""


class SendingSession(Session):
    """``begin`` it with its content."""

    __slots__ = ("_address", "_arrived", "_content", "_fast", "_length", "_owed", "_owed_since", "_put", "_stride",
                 "_to", "size_bytes", "terms", "transfer")  # fmt: skip

    def __init__(
        self,
        key: Key,
        datagram: bytes,
        request: Request,
        link: Link,
        terms: Terms,
        size_bytes: int,
        reporter: Reporter,
        on_end: Callable[[Session], None],
    ) -> None:
        self.transfer = Transfer(size_bytes, terms)
        self._arrived = self.transfer.flight_arrived
        self._put, self._to = link.outbox.put, link.endpoint
        super().__init__(key, datagram, request, link, self.transfer, reporter, on_end)
        self.size_bytes = size_bytes
        self.terms = terms
        self._stride = terms.block_size + HEADER_BYTES
        self._content: Content | None = None
        self._owed: Flight | None = None  # waits for the content
        self._fast = False
        self._owed_since = 0.0
        self._address = self._length = 0

    def begin(self, content: Content | FileFault) -> None:
        """The content is there (or is not): only now the client hears of us, so no ERROR ever follows an OACK."""
        if isinstance(content, FileFault):
            self.fail(Outcome.FILE_FAULT, str(content))
            return
        if self.ended:
            content.close()
            return
        self._content = content
        self.size_bytes = content.size_bytes
        self.transfer.resize(content.size_bytes)
        self._begun = True
        if isinstance(content, LaidOut):
            self._address, self._length = content.address, content.length
            self._fast = self._trace is None and not self.terms.rollover
        now = time.monotonic()
        self._guarded(lambda: self._perform(self.transfer.start(now), now))

    def advance(self, now: float) -> None:
        """The hot path."""
        count = self._arrived(now)
        if not count:
            self._finish()
            return
        high = self.transfer.high
        self.expect = ACK_WORDS[high & 0xFFFF]
        stride = self._stride
        start = (high - count) * stride
        left = self._length - start
        if count == 1:
            self._put(self._to, self._address + start, stride if left > stride else left)
        else:
            length = count * stride
            self._link.queue_flight(self._address + start, length if left > length else left, stride)

    def _take(self, datagrams: list[bytes], now: float) -> Action:
        return self.transfer.receive_burst(datagrams, now)

    def _perform(self, action: Action, now: float) -> None:
        if self._trace is not None and action is not None:
            self._trace.debug("sending", client=self.client, packet=_shown(action))
        if action is None:
            self._settle()
        elif isinstance(action, bytes):
            if not self._link.send_soon(action):
                self.transfer.on_unsent(now)
        else:
            self._send_flight(action, now)
        if self._fast and not self.ended:
            self.expect = ACK_WORDS[self.transfer.awaited]

    def _send_flight(self, flight: Flight, now: float) -> None:
        content = self._content
        if content is None or self._owed is not None:
            self._owed = flight  # the newest wish counts
            return
        try:
            buffer = content.flight(*flight, self._content_came)
        except FileFault as fault:
            self.fail(Outcome.FILE_FAULT, str(fault))
            return
        if buffer is None:
            self._owed, self._owed_since = flight, now
        elif not self._link.send_flight(buffer, self._stride):
            self.transfer.on_unsent(now)

    def _content_came(self) -> None:
        """A thread has read what was asked for last."""
        flight, self._owed = self._owed, None
        if self.ended or flight is None:
            return
        now = time.monotonic()
        self.transfer.on_delayed(now)
        self._guarded(lambda: self._perform(flight, now))

    def on_deadline(self, now: float) -> None:
        if self._owed is None:  # a slow disk is not the client's fault
            super().on_deadline(now)
        elif not self.ended and now >= self._owed_since + PATIENCE_S:
            self.fail(Outcome.FILE_FAULT, "the file cannot be read in time")

    def supersede(self) -> None:
        self.transfer.supersede()

    def _release(self) -> None:
        # The attribute stays: what is queued points into its memory until it has left.
        if self._content is not None:
            self._content.close()
        del self._put, self._to  # the link knows this session: a ring would be left to the garbage collector

    def _facts(self, seconds: float) -> Ended:
        transfer = self.transfer
        return Ended(
            kind="sent",
            client=self.client,
            name=self.name,
            size_bytes=self.size_bytes,
            block_size=self.terms.block_size,
            window=transfer.window,
            seconds=seconds,
            outcome=transfer.outcome or Outcome.BUG,
            detail=transfer.detail,
            bytes_moved=min(transfer.acknowledged * self.terms.block_size, self.size_bytes),
            blocks=transfer.blocks_sent,
            retransmissions=transfer.retransmissions,
            stale=transfer.stale_acks,
            rtt_s=transfer.rtt_s,
        )


def _shown(action: Flight | bytes) -> str:
    if isinstance(action, bytes):
        return action[:64].hex()
    first, count = action
    return f"DATA {first}" if count == 1 else f"DATA {first} to {first + count - 1}"
