"""A simulated link between the sender's core and a model of a client, on a clock that only jumps."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from pbserv.tftp.options import Terms
from pbserv.tftp.packet import encode_ack
from pbserv.tftp.transfer import Transfer


@dataclass
class Receiver:
    """A client: in-order blocks only, ACK after a window and at the end (RFC 7440).

    ``nacks``: "each" answers every unexpected block (EDK2), "once" one per gap (U-Boot), "none" waits for its timer.
    ``every_block``: acknowledges each block inside a window too.
    """

    last: int
    window: int = 1
    nacks: str = "each"
    every_block: bool = False
    timeout_s: float = 4.0
    final_ack: bool = True
    expected: int = 1
    since_ack: int = 0
    nacked: int = -1
    got: list[int] = field(default_factory=list)
    duplicates: int = 0

    def block(self, number: int) -> list[int]:
        """Block numbers that are acknowledged in answer."""
        if number == self.expected and not self.done:
            self.got.append(number)
            self.expected += 1
            self.since_ack += 1
            if self.done:
                return [number] if self.final_ack else []
            if self.since_ack == self.window or self.every_block:
                self.since_ack = 0
                return [number]
            return []
        self.duplicates += number < self.expected
        if self.done:
            return [self.last] if self.final_ack else []
        if self.nacks == "none" or (self.nacks == "once" and self.nacked == self.expected):
            return []
        self.nacked = self.expected
        self.since_ack = 0
        return [self.expected - 1]

    @property
    def done(self) -> bool:
        return self.expected > self.last


class Link:
    """``fate(kind, number, nth)`` says when a packet arrives: delays in seconds, an empty tuple for a lost packet."""

    def __init__(
        self, transfer: Transfer, receiver: Receiver, fate: Callable[[str, int, int], tuple[float, ...]]
    ) -> None:
        self.transfer = transfer
        self.receiver = receiver
        self.now = 100.0
        self.sent_blocks: list[int] = []
        self.sent_controls = 0
        self._fate = fate
        self._events: list[tuple[float, int, str, int]] = []
        self._order = count()
        self._packets = count()
        self._act(transfer.start(self.now))

    def _act(self, action: object) -> None:
        if isinstance(action, bytes):
            self.sent_controls += 1
            self._send("oack", 0)
        elif isinstance(action, tuple):
            first, number = action
            for block in range(first, first + number):
                self.sent_blocks.append(block)
                self._send("data", block)

    def _send(self, kind: str, number: int) -> None:
        for delay in self._fate(kind, number, next(self._packets)):
            heapq.heappush(self._events, (self.now + delay, next(self._order), kind, number))

    def run(self, patience_s: float = 600.0) -> None:
        """Until the transfer has an outcome."""
        stop = self.now + patience_s
        quiet_until = self.now + self.receiver.timeout_s
        while self.transfer.outcome is None:
            arrival = self._events[0][0] if self._events else float("inf")
            due = min(arrival, self.transfer.deadline, float("inf") if self.receiver.done else quiet_until)
            assert due < stop, "the conversation never ends"
            self.now = max(self.now, due)
            if arrival <= self.now:
                _, _, kind, number = heapq.heappop(self._events)
                if kind == "ack":
                    self._act(self.transfer.receive(encode_ack(number), self.now))
                    continue
                quiet_until = self.now + self.receiver.timeout_s
                for block in [0] if kind == "oack" else self.receiver.block(number):
                    self._send("ack", block)
            elif self.transfer.deadline <= self.now:
                self._act(self.transfer.on_deadline(self.now))
            else:
                quiet_until = self.now + self.receiver.timeout_s
                self._send("ack", self.receiver.expected - 1)


def terms(window: int = 1, block_size: int = 512, timeout_s: float = 1.0, *, oack: bool = True) -> Terms:
    return Terms(block_size, window, timeout_s, False, ((b"blksize", b"%d" % block_size),) if oack else ())


def steady(delay_s: float) -> Callable[[str, int, int], tuple[float, ...]]:
    return lambda kind, number, nth: (delay_s,)


def losing(*lost: tuple[str, int], delay_s: float = 0.0005) -> Callable[[str, int, int], tuple[float, ...]]:
    """The first packet of each kind and number in ``lost`` does not arrive."""
    left = list(lost)

    def fate(kind: str, number: int, nth: int) -> tuple[float, ...]:
        if (kind, number) in left:
            left.remove((kind, number))
            return ()
        return (delay_s,)

    return fate


def chaos(seed: int, loss: float, double: float, jitter_s: float) -> Callable[[str, int, int], tuple[float, ...]]:
    dice = random.Random(seed)

    def fate(kind: str, number: int, nth: int) -> tuple[float, ...]:
        if dice.random() < loss:
            return ()
        delays = [0.0005 + dice.random() * jitter_s]
        if dice.random() < double:
            delays.append(0.0005 + dice.random() * jitter_s)
        return tuple(delays)

    return fate


class BadLine:
    """A fate that loses, doubles and delays packets, and counts them: ``disturbed`` is how many."""

    def __init__(self, seed: int, loss: float, double: float, late: float) -> None:
        self.lost = self.disturbed = 0
        self._dice = random.Random(seed)
        self._loss, self._double, self._late = loss, double, late

    def __call__(self, kind: str, number: int, nth: int) -> tuple[float, ...]:
        dice = self._dice.random
        lost, late, doubled = dice() < self._loss, dice() < self._late, dice() < self._double
        self.lost += lost
        self.disturbed += lost or late + doubled
        if lost:
            return ()
        first = 0.0005 + late * dice() * 0.004  # longer than a flight and its answer take
        return (first, 0.0005 + dice() * 0.004) if doubled else (first,)


def overtaking(seed: int, share: float) -> Callable[[str, int, int], tuple[float, ...]]:
    """A ``share`` of the packets is overtaken by the rest of its flight."""
    dice = random.Random(seed)

    def fate(kind: str, number: int, nth: int) -> tuple[float, ...]:
        return (0.0005 + (0.00004 if dice.random() < share else 0.0),)

    return fate
