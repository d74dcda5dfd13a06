"""The shell of one transfer, whichever way it goes: what its core decides is done here, and its end is reported once.

One rule: a transfer that fails, by the client's fault, the file's or ours, ends alone.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from pbserv.log import ServiceLog
from pbserv.net.mmsg import Endpoint, Outbox
from pbserv.tftp.packet import ErrorCode, Request, encode_error
from pbserv.tftp.report import Ended, Reporter
from pbserv.tftp.transfer import Action, Outcome

ERROR_HEAD = b"\0\5"
Key = tuple[str, int, str]
"""Client address, client port, our address."""


class Link(Protocol):
    """One client, as a transfer reaches it."""

    mtu_bytes: int

    @property
    def endpoint(self) -> Endpoint:
        """The client, for the outbox."""

    @property
    def outbox(self) -> Outbox:
        """What is put there leaves with the batch; the memory must stay until then."""

    def attach(self, member: Session) -> None:
        """Datagrams of the client go to ``member`` from now on."""

    def poll(self) -> None:
        """Handle what has come in and was not looked at yet."""

    def send(self, data: bytes | memoryview) -> bool:
        """One datagram now; False when the kernel has no room or no route at the moment."""

    def send_flight(self, buffer: memoryview, size_bytes: int) -> bool:
        """``buffer`` as datagrams of ``size_bytes``, the last may be shorter; False as above."""

    def send_soon(self, data: bytes) -> bool:
        """One small datagram, with the batch that is being read."""

    def queue_flight(self, address: int, length: int, size_bytes: int) -> None:
        """As :meth:`send_flight`, with the batch."""

    def close(self) -> None: ...


class Core(Protocol):
    """The pure conversation: transfer.Transfer sends, reception.Reception receives."""

    outcome: Outcome | None
    detail: str
    deadline: float
    answered: bool

    def on_deadline(self, now: float) -> Action: ...
    def on_request_again(self, now: float) -> Action: ...
    def abandoned_for(self, now: float) -> bool: ...
    def on_unreachable(self) -> None: ...
    def on_unsent(self, now: float) -> None: ...
    def end(self, outcome: Outcome, detail: str = "") -> None: ...


class Session(ABC):
    """From an accepted request to its outcome; calls ``on_end`` exactly once."""

    __slots__ = ("_begun", "_collected", "_core", "_datagram", "_link", "_on_end", "_reporter", "_started_at", "_trace",
                 "ended", "expect", "key", "name")  # fmt: skip

    def __init__(
        self,
        key: Key,
        datagram: bytes,
        request: Request,
        link: Link,
        core: Core,
        reporter: Reporter,
        on_end: Callable[[Session], None],
    ) -> None:
        self.key = key
        self.name = request.name
        self.ended = False
        self.expect = -1
        self._begun = False  # the client has heard of us
        self._datagram = datagram
        self._link = link
        self._core = core
        self._reporter = reporter
        self._on_end = on_end
        self._collected: list[bytes] = []
        self._started_at = time.monotonic()
        self._trace: ServiceLog | None = reporter.log if reporter.log.level >= 4 else None
        link.attach(self)

    @property
    def client(self) -> str:
        address, port, _ = self.key
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    @property
    def answered(self) -> bool:
        """The client has said something after its request: it is where it says it is."""
        return self._core.answered

    @property
    def dallies(self) -> bool:
        """All is done and reported; what is left is to repeat the last packet. :meth:`fail` ends it silently."""
        return False

    @property
    def deadline(self) -> float:
        """When :meth:`on_deadline` wants to be called."""
        return self._core.deadline

    # -- what the channel sees ------------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """The datagram that ``expect`` names came. Only sessions that set it are called."""
        raise NotImplementedError

    def collect(self, datagram: bytes) -> bool:
        """A datagram of the client; True when it is the first since :meth:`act`."""
        if self._trace is not None:
            self._trace.debug("received", client=self.client, packet=datagram[:64].hex())
        if not self._begun and datagram[:2] != ERROR_HEAD:
            return False  # whoever acknowledges what we have not sent has guessed our port
        self._collected.append(datagram)
        return len(self._collected) == 1

    def act(self, now: float) -> None:
        """The batch has been read."""
        collected, self._collected = self._collected, []
        if not self.ended:
            self._guarded(lambda: self._perform(self._take(collected, now), now))

    def unreachable(self) -> None:
        if not self.ended:
            self._core.on_unreachable()
            self._settle()

    def unsent(self, now: float) -> None:
        self._core.on_unsent(now)

    # -- what the table and the desk see --------------------------------------------------------------------------

    def repeats(self, datagram: bytes) -> bool:
        """Whether this is the request that it was made for."""
        return datagram == self._datagram

    def take_request(self, datagram: bytes, now: float) -> bool:
        """A request from this client's port. False: it is a new one, and this session is over."""
        if datagram == self._datagram:
            if not self._begun:  # the content is still being read
                return True
            self._link.poll()  # the last ACK may be waiting, and its port be in use again already
            if self.ended:
                return False
            if not self._core.abandoned_for(now):
                self._guarded(lambda: self._perform(self._core.on_request_again(now), now))
                return True
        self._core.end(Outcome.REPLACED)
        self._finish()
        return False

    def on_deadline(self, now: float) -> None:
        if not self.ended:
            self._guarded(lambda: self._perform(self._core.on_deadline(now), now))

    def give_up(self, reason: str) -> None:
        """End it without a word to a client that never said one."""
        if not self.ended:
            self._core.end(Outcome.UNANSWERED, reason)
            self._finish()

    def supersede(self) -> None:  # noqa: B027
        """The same client asks for the same file in another transfer."""

    def fail(self, outcome: Outcome, text: str, code: int = ErrorCode.UNDEFINED) -> None:
        """End it from our side, with an ERROR to the client."""
        if self.ended:
            return
        self._core.end(outcome, text)
        try:
            self._link.send(encode_error(code, text))
        finally:
            self._finish()

    # -- what the two directions add ------------------------------------------------------------------------------

    @abstractmethod
    def _take(self, datagrams: list[bytes], now: float) -> Action:
        """Ask the core what to do about one batch."""

    @abstractmethod
    def _perform(self, action: Action, now: float) -> None:
        """Do what the core said."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of content or sink."""

    @abstractmethod
    def _facts(self, seconds: float) -> Ended:
        """For the report."""

    # -- shared ---------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Finish when the core has come to an end."""
        if self._core.outcome is not None:
            self._finish()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as fault:
            self.bug(fault)

    def bug(self, fault: Exception) -> None:
        """Our own fault ends this transfer and no other."""
        self._reporter.bug("transfer", fault)
        self.fail(Outcome.BUG, "internal error")

    def _finish(self) -> None:
        if self.ended:
            return
        self.ended = True
        self.expect = -1
        self._link.close()
        self._release()
        self._on_end(self)
        self._reporter.ended(self._facts(time.monotonic() - self._started_at))
        del self._link  # it knows this session: a ring would be left to the garbage collector
