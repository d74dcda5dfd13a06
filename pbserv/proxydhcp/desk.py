"""What happens to one packet: read, limited, decided on, answered, told to log and journal.

One rule: equal packets of equal clients are read and answered from what is prepared; only what differs between two
machines of a room (xid, MAC address, UUID) is looked at each time.
"""

from __future__ import annotations

import functools
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from pbserv.errors import WireError
from pbserv.journal.steps import DhcpStep, Told, answering
from pbserv.log import ServiceLog
from pbserv.net.dhcp_port import Port, Unsent, Way
from pbserv.net.interfaces import InterfaceAddress, name_of
from pbserv.net.udp import Datagram
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.answers import Answers, Prepared
from pbserv.proxydhcp.asked import Asked, AskedOf
from pbserv.proxydhcp.client import system_uuid
from pbserv.proxydhcp.decide import LOCAL_MENU, Query, Target, ladder, plan, query_of, sender
from pbserv.proxydhcp.facts import Facts, gather
from pbserv.proxydhcp.labels import labels_of
from pbserv.proxydhcp.lanes import RELAYS_KEPT, Lane, Wire
from pbserv.proxydhcp.loaders import Settings
from pbserv.proxydhcp.memory import Boots, Devices, Quiet
from pbserv.proxydhcp.outcome import ClientKind, Ignore, Listener, Reason, Summary
from pbserv.proxydhcp.packet import dotted
from pbserv.proxydhcp.ports import Journal, Policy
from pbserv.proxydhcp.waiting import Later, Waiting
from pbserv.types import Decision, Instant, MacAddress, Sighting, Verdict

QUIET_S: Final = 60.0
SAID_S: Final = 20.0
WIRES_KEPT: Final = 1024
REPEATED: Final = Ignore(Reason.REPEATED)
_ETHERNET: Final = b"\1\1\6"  # a BOOTREQUEST with six bytes of hardware address
_NO_MAC: Final = bytes(6)
_XID_SECS: Final = struct.Struct("!IH")
# To look a member up takes longer than to use it.
_SILENT, _LOCAL, _IPXE = Verdict.SILENT, Verdict.LOCAL, ClientKind.IPXE
_TO_REPAIR: Final = frozenset((Reason.ARCH_NOT_SERVED, Reason.NO_LOCAL_ADDRESS, Reason.REPLY_TOO_LONG))
_WORDS: Final = {reason: reason.value for reason in Reason}

Host = tuple[InterfaceAddress, ...]


class Desk:
    """Serves the packets of one value of the settings; ``devices`` and ``counters`` outlive it."""

    def __init__(
        self,
        settings: Settings,
        devices: Devices,
        counters: Counter[str],
        policy: Policy,
        journal: Journal,
        log: ServiceLog,
        later: Later,
    ) -> None:
        """``later(seconds, call)`` runs ``call`` after that time."""
        self.settings = settings
        self._devices = devices
        self._counters = counters
        self._policy = policy
        self._journal = journal
        self._log = log
        self._later = later
        self._asked = AskedOf(settings.table.vendors)
        self._answers = Answers(settings)
        self._personal = settings.table.personal
        self._names: dict[int, str] = {}
        self._wires: dict[tuple[object, ...], Wire | Ignore] = {}
        self._host: Host = ()
        self._quiet = Quiet(QUIET_S)
        self._waiting = Waiting(later)
        self._second, self._answered = 0, Counter[int]()

    # -- a batch ----------------------------------------------------------------------------------------------------

    def take(self, listener: Listener, port: Port, datagrams: Sequence[Datagram], host: Host, now: Instant) -> None:
        """Serve the packets of one batch; whatever goes wrong with one, the next is served."""
        if host is not self._host:
            self._host = host
            self._wires.clear()
            self._names.clear()
        clock = time.time()
        for datagram in datagrams:
            try:
                self._serve(listener, port, datagram, now, clock)
            except Exception as fault:
                self._faulted(fault, datagram, now)
        self.flushed(port.flush(), now)

    def _serve(self, listener: Listener, port: Port, datagram: Datagram, now: Instant, clock: float) -> None:
        data = datagram.data
        try:
            dhcp.check(data)
            asked = self._asked.read(data)
        except WireError as fault:
            return self._ignored(listener, datagram, Ignore(Reason.BAD_PACKET, str(fault)), now)
        if self._log.level >= 4:
            self._show("packet", datagram, data)
        wire = self._wire(listener, datagram)
        if isinstance(wire, Ignore):
            return self._ignored(listener, datagram, wire, now)
        lane = wire.lanes.get(asked)
        if lane is None:
            lane = wire.lane(asked)
        mac = data[28:34]
        if data[:3] != _ETHERNET or data[28] & 1 or mac == _NO_MAC:  # not what nearly all packets are
            found = sender(data, dhcp.head_of(data))
            if isinstance(found, Ignore):
                return self._ignored(listener, datagram, found, now)
            mac = found
        if lane.ignored is not None:
            self._ignored(listener, datagram, lane.ignored, now)
            if asked.client is not None:
                self._tell_ignored(mac, asked, wire.facts, datagram, lane.ignored, clock)
            return None
        boots = self._devices.of(mac)
        xid, secs = _XID_SECS.unpack_from(data, 4)
        refusal = self._limited(boots, lane, (lane, xid, secs, data[24:28]), secs, now)
        if refusal is None:
            return self._answer(port, datagram, xid, secs, asked, mac, lane, boots, now, clock)
        if refusal.reason is Reason.STANDBY:
            self._ignored(listener, datagram, refusal, now)
            return self._tell(datagram, mac, lane.facts, _WORDS[refusal.reason], refusal.detail, clock)
        return self._refused(mac, refusal, now)

    def _wire(self, listener: Listener, datagram: Datagram) -> Wire | Ignore:
        key = (listener, datagram.ifindex, datagram.local, datagram.destination)
        wire = self._wires.get(key)
        if wire is None:
            facts = gather(datagram, listener, self._host, self.settings.local_interface, self.settings.advertised)
            if len(self._wires) >= WIRES_KEPT:
                self._wires.clear()
            wire = self._wires[key] = facts if isinstance(facts, Ignore) else Wire(facts)
        return wire

    def _limited(self, boots: Boots, lane: Lane, packet: object, secs: int, now: Instant) -> Ignore | None:
        """Limits per device and interface, repetitions of ``packet``, and what a standby server leaves to others."""
        settings = self.settings
        if boots.too_many(settings.per_device, now):
            return Ignore(Reason.TOO_MANY, f"more than RequestsPerDevice = {settings.per_device} in a second")
        if settings.per_interface and self._busy(lane.facts.ifindex, now):
            return Ignore(Reason.TOO_MANY, f"more than RequestsPerInterface = {settings.per_interface} in a second")
        if boots.repeated(packet, now):
            return REPEATED
        if lane.answer == dhcp.OFFER and secs < settings.minimum_secs:
            return Ignore(Reason.STANDBY, f"secs {secs} is below MinimumSecs = {settings.minimum_secs}")
        return None

    def _busy(self, ifindex: int, now: Instant) -> bool:
        second = int(now)
        if second != self._second:
            self._second = second
            self._answered.clear()
        self._answered[ifindex] += 1
        return self._answered[ifindex] > self.settings.per_interface

    def _refused(self, mac: bytes, refusal: Ignore, now: Instant) -> None:
        self._counters[_WORDS[refusal.reason]] += 1
        if refusal.reason is Reason.TOO_MANY and self._quiet.allows((refusal.reason, mac), now):
            self._log.warning("ignored", client=mac.hex(":"), verdict=refusal.reason.value, reason=refusal.detail)

    # -- one answer -------------------------------------------------------------------------------------------------

    def _answer(
        self, port: Port, datagram: Datagram, xid: int, secs: int, asked: Asked, mac: bytes, lane: Lane, boots: Boots,
        now: Instant, clock: float,
    ) -> None:  # fmt: skip
        data = datagram.data
        uuid = data[asked.uuid_at : asked.uuid_at + 17] if asked.uuid_at else b""
        # htype and hlen, flags and ciaddr, giaddr and chaddr: all that Prepared.fill takes but the xid
        kin = (lane, datagram.peer, datagram.port, uuid, data[1:3], data[10:16], data[24:44])
        sighting = boots.sighting
        if sighting is None or boots.kin != kin:
            sighting = self._met(datagram, asked, uuid, mac, lane, boots)
            boots.kin = kin
        decision = self._policy.decide(sighting)
        if decision.later:
            again = functools.partial(self._again, port, datagram, xid, secs, asked, mac, lane, boots, now, clock)
            return self._wait(datagram, mac, lane, decision, again, now, clock)
        if self._waiting:
            self._waited(mac, datagram)
        prepared = self._prepared(data, xid, secs, asked, mac, lane, boots, decision, now)
        target = boots.target
        if isinstance(prepared, Ignore) or isinstance(target, Ignore):
            return self._not_answered(prepared, target, datagram, mac, lane, clock, now)
        summary = prepared.summary
        ended = summary.strategy == LOCAL_MENU and decision.verdict is not _LOCAL
        reason = f"{boots.fetched} was fetched again and again" if ended else decision.reason
        told = boots.told
        if told is None or boots.prepared is not prepared or boots.reason != reason:
            reply = prepared.fill(data, uuid, target.flag)
            told = self._told(datagram, lane, boots, prepared, target, reply, reason)
        else:
            reply = answering(boots.reply, data)
        self._send(port, reply, boots.way or lane.way_to(target), summary)
        self._remember(mac, xid, boots, summary, decision, now)
        self._counters[told[6]] += 1
        self._say(mac, boots, prepared, decision, target, now)
        if self._log.level >= 4:
            self._show("reply", datagram, reply)
        return self._journal.packet(mac, clock, told, data)

    def _wait(
        self, datagram: Datagram, mac: bytes, lane: Lane, decision: Decision, again: Callable[[float], None],
        now: Instant, clock: float,
    ) -> None:  # fmt: skip
        """Another server is being asked about the device."""
        held = self._waiting.packet_of(mac)
        refusal = self._waiting.hold(mac, datagram, decision.reason, again)
        if refusal is not None:
            self._not_answered(refusal, refusal, datagram, mac, lane, clock, now)
        elif held is None:
            self._journal.add(mac.hex(":"), "waits", decision.reason)
        elif held is not datagram:
            self._counters[_WORDS[Reason.REPEATED]] += 1

    def _again(
        self, port: Port, datagram: Datagram, xid: int, secs: int, asked: Asked, mac: bytes, lane: Lane, boots: Boots,
        now: Instant, clock: float, passed_s: float,
    ) -> None:  # fmt: skip
        """The same question of the same packet, ``passed_s`` later."""
        now = Instant(now + passed_s)
        try:
            self._answer(port, datagram, xid, secs, asked, mac, lane, boots, now, clock + passed_s)
        except Exception as fault:
            self._waiting.over(mac)
            self._faulted(fault, datagram, now)
        self.flushed(port.flush(), now)

    def _waited(self, mac: bytes, datagram: Datagram) -> None:
        """What is to do is known now; an older packet of the device waits no more."""
        held = self._waiting.packet_of(mac)
        seconds = self._waiting.over(mac)
        if held is datagram:
            self._counters["waited"] += 1
            self._log.request("waited", client=mac.hex(":"), seconds=round(seconds, 3))
        elif held is not None:
            self._counters[_WORDS[Reason.REPEATED]] += 1

    def _met(self, datagram: Datagram, asked: Asked, uuid: bytes, mac: bytes, lane: Lane, boots: Boots) -> Sighting:
        """It asks in another way than last time: where the answer goes, and what the policy is asked with."""
        data = datagram.data
        head = dhcp.head_of(data)
        boots.target = target = lane.target(head, datagram.peer, datagram.port)
        boots.way = None if isinstance(target, Ignore) else lane.way_to(target)
        boots.told = None
        # Whose an address is decides who gets files. Anybody can name another's: only what came from it says so.
        address = "" if head.ciaddr == dhcp.ZERO or dotted(head.ciaddr) != datagram.peer else datagram.peer
        sighting = boots.sighting
        way = (asked, uuid, address, lane.facts.ifindex, head.giaddr)
        if sighting is None or boots.sighted != way:
            relay = "" if head.giaddr == dhcp.ZERO else dotted(head.giaddr)
            sighting = self._sighting(query_of(data, head, asked, mac, lane.answer), address, lane, relay)
            boots.sighting, boots.sighted = sighting, way
        return sighting

    def _told(
        self, datagram: Datagram, lane: Lane, boots: Boots, prepared: Prepared, target: Target, reply: bytes,
        reason: str,
    ) -> Told:  # fmt: skip
        """What all packets are told from now on that are of the same kin and answered alike."""
        facts, summary, word = lane.facts, prepared.summary, "ack" if prepared.acknowledges else "offer"
        told = (lane.port, facts.ifindex, datagram.peer, datagram.port, facts.local, datagram.destination, word,
                reason, summary.strategy, summary.file, reply, target.address, target.port, True)  # fmt: skip
        boots.told, boots.prepared, boots.reason, boots.reply = told, prepared, reason, reply
        return told

    def _not_answered(
        self, prepared: Prepared | Ignore, target: Target | Ignore, datagram: Datagram, mac: bytes, lane: Lane,
        clock: float, now: Instant,
    ) -> None:  # fmt: skip
        for ignored in (prepared, target):
            if isinstance(ignored, Ignore):
                self._ignored(lane.facts.listener, datagram, ignored, now)
                self._tell(datagram, mac, lane.facts, _WORDS[ignored.reason], ignored.detail, clock)
                break

    def _interface(self, ifindex: int) -> str:
        """Asked of the kernel once, until the interfaces change."""
        name = self._names.get(ifindex)
        if name is None:
            name = self._names[ifindex] = name_of(ifindex)
        return name

    def _sighting(self, query: Query, address: str, lane: Lane, relay: str) -> Sighting:
        """What the policy is asked with; the same as long as the device asks in the same way."""
        client, details = query.client, lane.details.get(relay)
        if details is None:
            details = labels_of(client, query.asked, self._interface(lane.facts.ifindex), relay)
            if len(lane.details) < RELAYS_KEPT:
                lane.details[relay] = details
        return Sighting(MacAddress(query.mac), system_uuid(query.uuid), client.arch, "dhcp", address, details)

    def _prepared(
        self, data: bytes, xid: int, secs: int, asked: Asked, mac: bytes, lane: Lane, boots: Boots,
        decision: Decision, now: Instant,
    ) -> Prepared | Ignore:  # fmt: skip
        """The reply to everybody who asks like this and is to be answered like this."""
        settings = self.settings
        verdict, looping, strategy, chained = decision.verdict, False, "", False
        if lane.ipxe:
            chained = boots.chained(xid, now)
        elif lane.firmware and verdict is not _SILENT and verdict is not _LOCAL:
            looping = boots.loops(settings.loop_limit, now)
            if settings.escalation and lane.answer == dhcp.OFFER and boots.discovers(secs, xid, now):
                self._escalates(query_of(data, dhcp.head_of(data), asked, mac, lane.answer), lane.facts, boots)
            strategy = boots.strategy
        shared = not self._personal and verdict is not _SILENT
        key = (verdict._value_, chained, strategy, looping, decision.file)  # hashing an Enum is slow
        prepared = lane.prepared.get(key) if shared else None
        if prepared is None:
            query = query_of(data, dhcp.head_of(data), asked, mac, lane.answer)
            prepared = self._made(query, lane.facts, decision, chained, strategy, looping)
            if shared:
                lane.prepared[key] = prepared
        return prepared

    def _made(
        self, query: Query, facts: Facts, decision: Decision, chained: bool, strategy: str, looping: bool
    ) -> Prepared | Ignore:
        if strategy and strategy not in ladder(query, facts, self.settings):
            strategy = ""  # learned before the administrator's rule, which knows better
        chosen = plan(
            query, facts, self.settings, decision.verdict, decision.reason, chained=chained, strategy=strategy,
            looping=looping, own=decision.file,
        )  # fmt: skip
        return chosen if isinstance(chosen, Ignore) else self._answers.prepare(query, facts, chosen)

    def _send(self, port: Port, reply: bytes, way: Way, summary: Summary) -> None:
        delay_s = 0.0 if summary.acknowledged else self.settings.reply_delay_s
        if not delay_s:
            port.queue(reply, way)
            return

        def send() -> None:
            port.queue(reply, way)
            self.flushed(port.flush(), Instant(time.monotonic()))

        self._later(delay_s, send)

    def _remember(self, mac: bytes, xid: int, boots: Boots, summary: Summary, decision: Decision, now: Instant) -> None:
        if summary.loader:
            boots.handed(summary.file, xid, summary.kind is _IPXE, now)
        if summary.acknowledged or summary.kind is _IPXE:
            self._reached(mac, boots)  # an iPXE that asks was loaded, or is a ROM that takes offers as they are
        elif summary.loader and decision.verdict is not _LOCAL:
            boots.offered()

    # -- what a device did after our answer ---------------------------------------------------------------------------

    def reached(self, mac: bytes) -> None:
        """The device got further than our offer."""
        boots = self._devices.known(mac)
        if boots is not None:
            self._reached(mac, boots)

    def _reached(self, mac: bytes, boots: Boots) -> None:
        news = boots.reached()
        if news is not None:
            text = mac.hex(":")
            self._journal.strategy_learned(text, news)
            self._journal.add(text, "strategy learned", news or "the usual one works again")
            self._log.warning("strategy learned", client=text, strategy=news or "the usual one")

    def _escalates(self, query: Query, facts: Facts, boots: Boots) -> None:
        """It stopped right after our offer twice: the next strategy has its turn."""
        steps = ladder(query, facts, self.settings)
        name, text = boots.escalate(steps), query.mac.hex(":")
        if len(steps) < 2:
            return  # its rule knows no other
        reason = "it stopped right after our offer twice"
        self._journal.add(text, "next strategy", f"{name}: {reason}")
        self._log.warning("next strategy", client=text, strategy=name, reason=reason)

    # -- telling ------------------------------------------------------------------------------------------------------

    def flushed(self, unsent: Sequence[Unsent], now: Instant) -> None:
        """What the kernel refused to send."""
        for one in unsent:
            self._counters["send_failed"] += 1
            if self._quiet.allows(("send", one.peer, one.ifindex), now):
                self._log.warning("reply not sent", to=f"{one.peer}:{one.port}", interface=name_of(one.ifindex),
                                  reason=f"{one.reason}; see: pbserv doctor")  # fmt: skip

    def _tell(self, datagram: Datagram, mac: bytes, facts: Facts, verdict: str, reason: str, clock: float) -> None:
        self._journal.dhcp(
            mac,
            DhcpStep(clock, facts.listener.value, facts.ifindex, datagram.peer, datagram.port, facts.local,
                     datagram.destination, datagram.data, verdict, reason),
        )  # fmt: skip

    def _tell_ignored(
        self, mac: bytes, asked: Asked, facts: Facts, datagram: Datagram, ignored: Ignore, clock: float
    ) -> None:
        """A packet of a boot client that is none of ours still says how its boot goes on."""
        if self._devices.known(mac) is None:
            return  # only those that ask proxies are kept: the rest of the LAN is not our concern
        if ignored.reason is Reason.ORDINARY_REQUEST_ON_67 and asked.wanted:
            self._journal.learn(dotted(asked.wanted), mac.hex(":"), sure=False)
        self._tell(datagram, mac, facts, _WORDS[ignored.reason], ignored.detail, clock)

    def _say(
        self, mac: bytes, boots: Boots, prepared: Prepared, decision: Decision, target: Target, now: Instant
    ) -> None:
        """Level 2 for what a boot was told, once; level 3 for offers and for what is said again."""
        summary, level = prepared.summary, 3
        if summary.acknowledged and (boots.said is not prepared or now - boots.said_at > SAID_S):
            boots.said, boots.said_at, level = prepared, now, 2
        if self._log.level < level:
            return
        say = self._log.transaction if level == 2 else self._log.request
        say(
            "boot file acknowledged" if summary.acknowledged else "boot file offered",
            client=mac.hex(":"), kind=summary.kind.value, arch=str(summary.arch), file=summary.file,
            strategy=summary.strategy, server=summary.server, to=f"{target.address}:{target.port}",
            verdict=decision.verdict.value, reason=decision.reason,
        )  # fmt: skip

    def _show(self, what: str, datagram: Datagram, data: bytes) -> None:
        self._log.debug(what, source=f"{datagram.peer}:{datagram.port}", decoded=dhcp.describe(dhcp.decode(data)))

    def _ignored(self, listener: Listener, datagram: Datagram, ignored: Ignore, now: Instant) -> None:
        reason = ignored.reason
        self._counters[_WORDS[reason]] += 1
        client = datagram.data[28:34]  # chaddr, if it is a DHCP message at all
        loud = reason in _TO_REPAIR and self._quiet.allows((reason, client), now)
        if not loud and self._log.level < 3:
            return
        say = self._log.warning if loud else self._log.request
        more = {"remedy": ignored.remedy} if ignored.remedy else {}
        say(
            "ignored", client=client.hex(":"), source=f"{datagram.peer}:{datagram.port}", listener=listener.value,
            interface=name_of(datagram.ifindex), verdict=reason.value, reason=ignored.detail, **more,
        )  # fmt: skip

    def _faulted(self, fault: Exception, datagram: Datagram, now: Instant) -> None:
        """Our own bug: say where, go on serving."""
        self._counters["fault"] += 1
        if self._quiet.allows(("fault", repr(fault)), now):
            self._log.critical("fault", source=f"{datagram.peer}:{datagram.port}", exc_info=fault)
