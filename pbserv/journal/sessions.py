"""The boot sessions of devices in memory: which step belongs to which session, and what is given up for room. Pure.

One rule: everything is bounded (devices, steps, bytes, what waits to be written), and ``packet`` does next to nothing:
packets are read when a session is written or looked at.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Container, Iterable
from typing import Any, Final

from pbserv.journal.steps import (
    IFINDEX,
    REPLY,
    Describe,
    DhcpLine,
    DhcpStep,
    DhcpText,
    Line,
    Step,
    Told,
    glance,
    step_of,
    told_of,
)

GAP_S: Final = 300.0
MOST_DEVICES: Final = 2048
MOST_STEPS: Final = 200
MOST_BYTES: Final = 32 << 20
_ROOM_BYTES: Final = MOST_BYTES // 64  # what one search for room frees
_LATER = ("imaging", "registry")  # what may come long after the boot that it belongs to

Name = Callable[[int], str]
"""The name of an interface by its index."""


Event = tuple[str, str, str]
"""A :class:`Step` without its time."""
Fresh = tuple[float, Told | Event, bytes]
"""When, what, and the bytes of the packet."""
Kept = tuple[float, Any, bytes, tuple[Any, ...], str]
"""The same with the text and the interface of a :class:`DhcpLine`; an event has none.

All of it is plain: the collector looks away from plain tuples of texts and numbers for good. Half a million named
ones, in a storm, would hold the loop for tens of milliseconds each time that it looks at them.
"""
SPARED: Final = 8
_BATCH_S: Final = 0.1
_EVENT: Final = len(Step._fields) - 1


def _in_order(steps: Iterable[Fresh]) -> list[Fresh]:
    """A packet's time is that of its batch, and what it caused is noted before it is: cause before effect."""
    found: list[Fresh] = []
    for step in steps:
        place = len(found)
        while place and 0 < found[place - 1][0] - step[0] < _BATCH_S:
            place -= 1
        found.insert(place, step)
    return found


class Session:
    """One boot of one device. ``fresh`` are steps that nobody has read yet, ``kept`` those before them.

    ``fresh`` is flat, three places for each :data:`Fresh`: a packet that is noted makes nothing that stays but its
    bytes. ``told`` is that of the newest packet; packets that share it have one reply between them.
    ``hot``: it is known that this session has to be written and that it holds bytes.
    """

    __slots__ = ("fresh", "hot", "kept", "last", "mac", "seen", "size", "started", "told")

    def __init__(self, mac: bytes, started: float) -> None:
        self.mac = mac
        self.started = started
        self.last = started
        self.hot = False
        self.fresh: deque[Any] = deque(maxlen=3 * MOST_STEPS)
        self.kept: list[Kept] = []
        self.told: Told | None = None
        self.seen = 0
        self.size = 0

    @property
    def lost(self) -> int:
        """How many earlier steps are not kept. Settle first."""
        return self.seen - len(self.kept)

    @property
    def lines(self) -> list[Line]:
        """The steps as they are shown. Settle first."""
        return [
            Step(at, *told)
            if len(told) == _EVENT
            else DhcpLine(step_of(at, told, data), DhcpText._make(text), interface)
            for at, told, data, text, interface in self.kept
        ]

    def packet(self, at: float, told: Told, data: bytes) -> int:
        """Note a packet; how many bytes more are held now (the hot path)."""
        self.seen += 1
        self.fresh.extend((at, told, data))
        size = len(data)
        if told is not self.told:
            self.told = told
            size += len(told[REPLY] or b"")
        self.size += size
        return size

    def event(self, step: Step) -> None:
        """Note anything else."""
        self.seen += 1
        self.fresh.extend((step.at, tuple(step[1:]), b""))

    def _fresh(self) -> list[Fresh]:
        flat = iter(self.fresh)
        return list(zip(flat, flat, flat, strict=True))

    def settle(self, describe: Describe, name_of: Name, packets: int) -> None:
        """Read the fresh steps and keep the bytes of the newest ``packets`` of all."""
        fresh = self._fresh()
        self.fresh.clear()
        for at, told, data in _in_order(fresh):
            if len(told) == _EVENT:
                self.kept.append((at, told, data, (), ""))
            else:
                ifindex: Any = told[IFINDEX]
                self.kept.append((at, told, data, tuple(describe(data)), name_of(ifindex)))
        del self.kept[:-MOST_STEPS]
        self._strip(packets)

    def _strip(self, packets: int) -> None:
        whole = 0
        for index in range(len(self.kept) - 1, -1, -1):
            at, told, data, text, interface = self.kept[index]
            if data:
                whole += 1
                if whole > packets:
                    self.kept[index] = (at, _bare(told), b"", text, interface)
        self.weigh()

    def thin(self) -> int:
        """Forget all fresh packets but the newest ``SPARED``; how many bytes that were."""
        before = self.size
        steps = self._fresh()
        self.fresh.clear()
        for number, step in enumerate(steps, SPARED - len(steps)):
            if number >= 0 or len(step[1]) == _EVENT:
                self.fresh.extend(step)
        self.weigh()
        return before - self.size

    def weigh(self) -> None:
        """Find out ``size``, the bytes of the packets that it holds."""
        self.size, self.told = 0, None
        for _at, told, data in [*(one[:3] for one in self.kept), *self._fresh()]:
            if len(told) == _EVENT:
                continue
            self.size += len(data)
            if told is not self.told:
                self.told = told
                self.size += len(told[REPLY] or b"")


def _bare(told: Any) -> Told:
    """Without the bytes of the reply; that there was one is still known."""
    bare: Told = told if told[REPLY] is None else (*told[:REPLY], b"", *told[REPLY + 1 :])
    return bare


class SessionTable:
    """All sessions that are open or wait to be written. ``changed`` is called when one has to be written.

    It holds ``MOST_DEVICES`` devices; those that are not written yet stay beyond that, up to as many again.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._live: OrderedDict[bytes, Session] = OrderedDict()  # the device that was heard longest ago comes first
        self._dirty: OrderedDict[Session, None] = OrderedDict()
        self._heavy: OrderedDict[Session, None] = OrderedDict()  # those with bytes
        self._closed: OrderedDict[Session, None] = OrderedDict()  # dirty, and followed by another session
        self._size = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._live)

    @property
    def size_bytes(self) -> int:
        """Bytes of packets that are held."""
        return self._size

    @property
    def waiting(self) -> int:
        """How many sessions have to be written."""
        return len(self._dirty)

    def packet(self, mac: bytes, at: float, told: Told, data: bytes) -> None:
        """The hot path: about half a microsecond while the device's session is open and waits to be written."""
        session = self._live.get(mac)
        if session is None or not session.hot or at - session.last > GAP_S:
            session = self._touch(mac, at)
        session.last = at
        self._size += session.packet(at, told, data)
        if self._size > MOST_BYTES:
            self._make_room()

    def dhcp(self, mac: bytes, step: DhcpStep) -> None:
        """A packet that shares nothing with others."""
        self.packet(mac, step.at, told_of(step), step.data)

    def add(self, mac: bytes, step: Step) -> None:
        """Anything but a DHCP packet. What an administrator does to a device that is not booting begins no session."""
        live = self._live.get(mac)
        if live is None and step.what == "state":
            return
        later = live is not None and step.source in _LATER
        session = self._touch(mac, live.last if live is not None and later else step.at)
        session.last = max(session.last, step.at)
        session.event(step)

    def _touch(self, mac: bytes, at: float) -> Session:
        """The session that a step at this time belongs to, marked as one to be written."""
        session = self._live.get(mac)
        if session is None or at - session.last > GAP_S:
            if session is not None:
                self._close(session)
            session = self._live[mac] = Session(mac, at)
        self._live.move_to_end(mac)
        session.hot = True
        self._dirty[session] = None
        self._heavy[session] = None
        self._heavy.move_to_end(session)
        self._leave()
        self._changed()
        return session

    def _close(self, session: Session) -> None:
        """Its device has begun another session; it is needed until it is written."""
        if session not in self._dirty:
            self._discard(session)
            return
        self._closed[session] = None
        if len(self._closed) > MOST_DEVICES:
            self._discard(self._closed.popitem(last=False)[0])
            self.dropped += 1

    def _leave(self) -> None:
        """Let the devices go that were heard longest ago, when there are too many."""
        while len(self._live) > MOST_DEVICES:
            mac, oldest = next(iter(self._live.items()))
            unwritten = oldest in self._dirty
            if unwritten and len(self._live) <= 2 * MOST_DEVICES:
                return
            del self._live[mac]
            self._discard(oldest)
            self.dropped += unwritten

    def _discard(self, session: Session) -> None:
        for table in (self._dirty, self._heavy, self._closed):
            table.pop(session, None)
        self._size -= session.size
        session.size = 0
        session.hot = False

    def _make_room(self) -> None:
        """The devices that were heard longest ago give up the bytes of their packets; of a device that sends and sends
        only the newest packets are kept at all."""
        wanted = MOST_BYTES - _ROOM_BYTES
        while self._size > wanted and self._heavy:
            chatty = next(iter(self._heavy))
            freed = chatty.thin() if len(chatty.fresh) > 3 * SPARED else 0
            if freed:
                self._size -= freed
                self._heavy.move_to_end(chatty)
                continue
            session = self._heavy.popitem(last=False)[0]
            self._settle(session, glance, lambda ifindex: f"if{ifindex}", 0)
            session.hot = False

    def _settle(self, session: Session, describe: Describe, name_of: Name, packets: int) -> None:
        before = session.size
        session.settle(describe, name_of, packets)
        self._size += session.size - before

    # what the writer and the readers need

    def take(self, most: int) -> list[Session]:
        """Sessions to be written, oldest first; from now on they count as written."""
        taken: list[Session] = []
        while self._dirty and len(taken) < most:
            session = self._dirty.popitem(last=False)[0]
            session.hot = False
            if session in self._closed:
                self._discard(session)
            taken.append(session)
        self._leave()
        return taken

    def put_back(self, sessions: list[Session]) -> None:
        """They could not be written."""
        for session in sessions:
            self._dirty[session] = None
            if self._live.get(session.mac) is not session:
                session.weigh()
                self._size += session.size
                self._heavy[session] = None
                self._close(session)

    def settle(self, session: Session, describe: Describe, name_of: Name, packets: int) -> None:
        """See :meth:`Session.settle`; for sessions in the table or taken from it."""
        if self._live.get(session.mac) is session or session in self._dirty:
            self._settle(session, describe, name_of, packets)
        else:
            session.settle(describe, name_of, packets)

    def unwritten(self, macs: Container[bytes] | None = None) -> list[Session]:
        """Sessions of which the registry does not know everything."""
        return [session for session in self._dirty if macs is None or session.mac in macs]

    def forget(self, mac: bytes) -> None:
        for session in [*self.unwritten((mac,)), *filter(None, (self._live.pop(mac, None),))]:
            self._discard(session)
