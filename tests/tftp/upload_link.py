"""A simulated link between the receiver's core and a model of a client that uploads, on a clock that only jumps."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from pbserv.tftp.packet import Ack, Error, OptionAck, decode
from pbserv.tftp.reception import Reception

Fate = Callable[[str, int, int], tuple[float, ...]]


@dataclass
class Uploader:
    """A client: a window of blocks after each ACK (RFC 7440), its own timer, a few tries.

    ``duplicates``: what an ACK of the base does in a window: "resend" the flight each time, "once" per timer, "ignore".
    ``sorcerer``: also sends the next block on a duplicate ACK in lock-step (what RFC 1123 4.2.3.1 forbids).
    """

    content: bytes
    block_size: int = 512
    window: int = 1
    duplicates: str = "once"
    sorcerer: bool = False
    timeout_s: float = 1.0
    tries: int = 8
    base: int = -1
    high: int = 0
    failures: int = 0
    resent_at: int = -1
    error: Error | None = None

    @property
    def last(self) -> int:
        return len(self.content) // self.block_size + 1

    @property
    def done(self) -> bool:
        return self.base == self.last or self.error is not None

    def payload(self, block: int) -> bytes:
        return self.content[(block - 1) * self.block_size : block * self.block_size]

    def flight(self) -> list[int]:
        self.high = min(self.base + self.window, self.last)
        return list(range(self.base + 1, self.high + 1))

    def hear(self, data: bytes) -> list[int] | None:
        """Blocks to send; None: nothing that sets the timer anew."""
        packet = decode(data)
        if isinstance(packet, Error):
            self.error = packet
            return None
        if isinstance(packet, OptionAck):
            if self.base >= 0:
                return None
            self.base = 0
            return self.flight()
        assert isinstance(packet, Ack)
        near = max(self.base, 0)
        block = near + ((packet.block - near + 0x8000) & 0xFFFF) - 0x8000
        assert block <= self.high, "acknowledged what was never sent"
        if block > self.base:
            self.base, self.failures = block, 0
            return self.flight() if not self.done else None
        if block < self.base or (self.window == 1 and not self.sorcerer):
            return None
        if self.duplicates == "ignore" or (self.duplicates == "once" and self.resent_at == self.base):
            return None
        self.resent_at = self.base
        return self.flight()

    def silence(self) -> list[int] | None:
        """Its timer: the request again (block 0 stands for it), or the flight. None: it gives up."""
        self.failures += 1
        if self.failures > self.tries:
            return None
        self.resent_at = -1
        return [0] if self.base < 0 else self.flight()


class UploadLink:
    """``fate(kind, number, nth)`` says when a packet arrives: delays in seconds, an empty tuple for a lost packet.

    ``commit_s`` is what the disk needs; ``line_s`` the time between two packets of a flight.
    """

    def __init__(
        self, reception: Reception, uploader: Uploader, fate: Fate, *, commit_s: float = 0.0, line_s: float = 0.0
    ) -> None:
        self.reception = reception
        self.uploader = uploader
        self.now = 100.0
        self.file: list[bytes] = []
        self.sent_blocks: list[int] = []
        self.acks: list[bytes] = []
        self.writes = 0
        self.committed_with_acks: int | None = None
        self.completed_at = 0.0
        self._fate, self._commit_s, self._line_s = fate, commit_s, line_s
        self._commit_at = float("inf")
        self._events: list[tuple[float, int, str, bytes]] = []
        self._order, self._packets = count(), count()
        self._timer = self.now + uploader.timeout_s
        self._gave_up = False
        self._answer(reception.start(self.now))

    def _answer(self, action: bytes | None) -> None:
        if action is None:
            return
        self.acks.append(action)
        self._send("ack", action[2] << 8 | action[3], action, self.now)

    def _upload(self, blocks: list[int] | None) -> None:
        for place, block in enumerate(blocks or []):
            data = b"\0\2" if block == 0 else b"\0\3" + (block & 0xFFFF).to_bytes(2, "big")
            if block:
                self.sent_blocks.append(block)
                data += self.uploader.payload(block)
            self._send("data" if block else "wrq", block, data, self.now + place * self._line_s)

    def _send(self, kind: str, number: int, data: bytes, at: float) -> None:
        for delay in self._fate(kind, number, next(self._packets)):
            heapq.heappush(self._events, (at + delay, next(self._order), kind, data))

    def run(self, patience_s: float = 900.0) -> None:
        """Until the receiver says nothing more."""
        stop = self.now + patience_s
        while not self.reception.over:
            arrival = self._events[0][0] if self._events else float("inf")
            timer = float("inf") if self.uploader.done or self._gave_up else self._timer
            due = min(arrival, self.reception.deadline, timer, self._commit_at)
            assert due < stop, "the conversation never ends"
            self.now = max(self.now, due)
            if self._commit_at <= self.now:
                self._commit_at = float("inf")
                self.completed_at = self.now
                self.committed_with_acks = len(self.acks)
                self._answer(self.reception.committed(self.now))
            elif arrival <= self.now:
                self._arrive()
            elif self.reception.deadline <= self.now:
                self._answer(self.reception.on_deadline(self.now))
            else:
                blocks = self.uploader.silence()
                self._gave_up = blocks is None
                self._upload(blocks)
                self._timer = self.now + self.uploader.timeout_s

    def _arrive(self) -> None:
        """One packet for the client, or all that wait for the server."""
        waiting: list[bytes] = []
        while self._events and self._events[0][0] <= self.now:
            _, _, kind, data = heapq.heappop(self._events)
            if kind == "ack":
                blocks = self.uploader.hear(data)
                if blocks is not None:
                    self._timer = self.now + self.uploader.timeout_s
                    self._upload(blocks)
            elif kind == "wrq":
                self._answer(self.reception.on_request_again(self.now))
            else:
                waiting.append(data)
        if not waiting:
            return
        was_complete = self.reception.complete
        payloads, action = self.reception.receive_all(waiting, self.now)
        self.writes += bool(payloads)
        self.file += payloads
        self._answer(action)
        if self.reception.complete and not was_complete:
            assert action is None, "nothing is acknowledged before the commit"
            self._commit_at = self.now + self._commit_s
