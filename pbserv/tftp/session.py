"""One transfer's shell: a connected socket, the content, and the pure core between them.

One rule: an acknowledgement costs one recv and one send of a prepared slice; everything else happens rarely.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from pbserv.log import ServiceLog
from pbserv.net.gso import ConnectedUdp
from pbserv.tftp.files import HEADER_BYTES, Content, FileFault
from pbserv.tftp.options import Terms
from pbserv.tftp.packet import ErrorCode, Request, encode_error
from pbserv.tftp.report import Ended, Reporter
from pbserv.tftp.transfer import Action, Outcome, Transfer

_now = time.monotonic

Key = tuple[str, int, str]
"""Client address, client port, our address."""

_RECEIVE_BYTES = 576
_BURST = 64


class Session:
    """From an accepted request to its outcome; calls ``on_end`` exactly once."""

    __slots__ = (
        "_content", "_datagram", "_flight", "_link", "_loop", "_on_end", "_receive", "_reporter", "_send",
        "_send_flight", "_started_at", "_terms", "_trace", "_windowed", "ended", "key", "name", "size_bytes",
        "transfer",
    )  # fmt: skip

    def __init__(
        self,
        key: Key,
        datagram: bytes,
        request: Request,
        link: ConnectedUdp,
        terms: Terms,
        size_bytes: int,
        reporter: Reporter,
        on_end: Callable[[Session], None],
    ) -> None:
        self.key = key
        self.name = request.name
        self.size_bytes = size_bytes
        self.transfer = Transfer(size_bytes, terms)
        self.ended = False
        self._datagram = datagram
        self._link = link
        self._receive, self._send, self._send_flight = link.recv, link.send_datagram, link.send_flight
        self._flight: Callable[[int, int], memoryview]  # set with the content; nothing is sent before
        self._windowed = terms.window > 1
        self._terms = terms
        self._reporter = reporter
        self._on_end = on_end
        self._content: Content | None = None
        self._loop = asyncio.get_running_loop()
        self._started_at = time.monotonic()
        self._trace: ServiceLog | None = reporter.log if reporter.log.level >= 4 else None

    @property
    def block_size(self) -> int:
        return self._terms.block_size

    @property
    def client(self) -> str:
        return f"{self.key[0]}:{self.key[1]}"

    def begin(self, content: Content | FileFault) -> None:
        """The content is there (or is not): only now the client hears of us, so no ERROR ever follows an OACK."""
        if isinstance(content, FileFault):
            self.fail(Outcome.FILE_FAULT, str(content))
            return
        if self.ended:
            content.close()
            return
        self._content = content
        self._flight = content.flight
        self._link.segment(self._terms.block_size + HEADER_BYTES, self._terms.window)
        self._loop.add_reader(self._link.fileno(), self.readable)
        now = time.monotonic()
        self._guarded(lambda: self._perform(self.transfer.start(now), now))

    def readable(self) -> None:
        """The hot path."""
        try:
            datagram = self._receive(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except ConnectionRefusedError:
            self.transfer.on_unreachable()
            self._finish()
            return
        except OSError:  # no route at the moment: the timer will tell
            return
        try:
            now = _now()
            if self._trace is not None:
                self._trace.debug("received", client=self.client, packet=datagram[:64].hex())
            transfer = self.transfer
            if self._windowed and not transfer.completes_flight(datagram):
                action = transfer.receive_burst(self._drain(datagram), now)
            else:
                action = transfer.receive(datagram, now)
            self._perform(action, now)
        except Exception as fault:
            self._bug(fault)

    def take_request(self, datagram: bytes, now: float) -> bool:
        """A request from this client's port. False: it is a new one, and this session is over."""
        if datagram == self._datagram:
            if self._content is None:  # the content is still being read
                return True
            self.readable()  # the last ACK may be waiting, and its port be in use again already
            if self.ended:
                return False
            if not self.transfer.abandoned_for(now):
                self._guarded(lambda: self._perform(self.transfer.on_request_again(now), now))
                return True
        self.transfer.end(Outcome.REPLACED)
        self._finish()
        return False

    def on_deadline(self, now: float) -> None:
        self._guarded(lambda: self._perform(self.transfer.on_deadline(now), now))

    def fail(self, outcome: Outcome, text: str) -> None:
        """End it from our side, with an ERROR to the client."""
        if self.ended:
            return
        self.transfer.end(outcome, text)
        try:
            self._link.send_datagram(encode_error(ErrorCode.UNDEFINED, text))
        except OSError:
            pass  # the client is gone as well
        finally:
            self._finish()

    def _drain(self, first: bytes) -> list[bytes]:
        waiting = [first]
        try:
            while len(waiting) < _BURST:
                waiting.append(self._receive(_RECEIVE_BYTES))
        except OSError:  # nothing left; a closed port shows again at the next send
            pass
        return waiting

    def _perform(self, action: Action, now: float) -> None:
        if action is None:
            if self.transfer.outcome is not None:
                self._finish()
            return
        if self._trace is not None:
            self._trace.debug("sending", client=self.client, packet=str(action))
        try:
            if not (self._send(action) if isinstance(action, bytes) else self._send_flight(self._flight(*action))):
                self.transfer.on_unsent(now)
        except ConnectionRefusedError:
            self.transfer.on_unreachable()
            self._finish()
        except FileFault as fault:
            self.fail(Outcome.FILE_FAULT, str(fault))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as fault:
            self._bug(fault)

    def _bug(self, fault: Exception) -> None:
        self._reporter.bug("transfer", fault)
        self.fail(Outcome.BUG, "internal error")

    def _finish(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._loop.remove_reader(self._link.fileno())
        self._link.close()
        if self._content is not None:
            self._content.close()
        self._on_end(self)
        transfer, block_size = self.transfer, self._terms.block_size
        self._reporter.ended(
            Ended(
                kind="sent",
                client=self.client,
                name=self.name,
                size_bytes=self.size_bytes,
                block_size=block_size,
                window=transfer.window,
                seconds=time.monotonic() - self._started_at,
                outcome=transfer.outcome or Outcome.BUG,
                detail=transfer.detail,
                bytes_moved=min(transfer.acknowledged * block_size, self.size_bytes),
                blocks=transfer.blocks_sent,
                retransmissions=transfer.retransmissions,
                stale=transfer.stale_acks,
                rtt_s=transfer.rtt_s,
            )
        )
