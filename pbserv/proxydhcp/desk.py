"""What happens to one packet: read, limited, decided on, answered, told to log and journal.

One rule: equal packets of equal clients are read and answered from what is prepared; only what differs between two
machines of a room (xid, MAC address, UUID) is looked at each time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from pbserv.errors import WireError
from pbserv.journal.steps import DhcpStep
from pbserv.log import ServiceLog
from pbserv.net.dhcp_port import Port, Unsent
from pbserv.net.interfaces import InterfaceAddress, name_of
from pbserv.net.udp import Datagram
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.answers import Answers, Prepared
from pbserv.proxydhcp.asked import Asked, AskedOf
from pbserv.proxydhcp.client import system_uuid
from pbserv.proxydhcp.decide import Plan, Query, Target, ladder, mac_of, plan, route, screen
from pbserv.proxydhcp.facts import Facts, gather
from pbserv.proxydhcp.loaders import Settings
from pbserv.proxydhcp.memory import Boots, Devices, Quiet, is_firmware
from pbserv.proxydhcp.outcome import ClientKind, Ignore, Listener, Reason, Summary
from pbserv.proxydhcp.packet import Head, dotted
from pbserv.proxydhcp.ports import Journal, Policy
from pbserv.types import Decision, Instant, MacAddress, Sighting, Verdict

QUIET_S: Final = 60.0
SAID_S: Final = 20.0
FACTS_KEPT: Final = 8192
_TO_REPAIR: Final = frozenset((Reason.ARCH_NOT_SERVED, Reason.NO_LOCAL_ADDRESS, Reason.REPLY_TOO_LONG))
_WORDS: Final = {reason: reason.value for reason in Reason}

Later = Callable[[float, Callable[[], None]], None]
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
        self._plans: dict[tuple[Asked, str, str, bool, str, bool], Plan | Ignore] = {}
        self._facts: dict[tuple[int, str, int, str, str, int], Facts | Ignore] = {}
        self._host: Host = ()
        self._quiet = Quiet(QUIET_S)
        self._second, self._answered = 0, Counter[int]()

    # -- a batch ----------------------------------------------------------------------------------------------------

    def take(self, listener: Listener, port: Port, datagrams: Sequence[Datagram], host: Host, now: Instant) -> None:
        """Serve the packets of one batch; whatever goes wrong with one, the next is served."""
        if host is not self._host:
            self._host = host
            self._facts.clear()
        clock = time.time()
        for datagram in datagrams:
            try:
                self._serve(listener, port, datagram, now, clock)
            except Exception as fault:
                self._faulted(fault, datagram, now)
        self.flushed(port.flush(), now)

    def _serve(self, listener: Listener, port: Port, datagram: Datagram, now: Instant, clock: float) -> None:
        data = datagram.data
        facts = self._facts_of(listener, datagram)
        try:
            head = dhcp.head_of(data)
            asked = self._asked.read(data)
        except WireError as fault:
            return self._ignored(listener, datagram, Ignore(Reason.BAD_PACKET, str(fault)), now)
        if self._log.level >= 4:
            self._show("packet", datagram, data)
        if isinstance(facts, Ignore):
            return self._ignored(listener, datagram, facts, now)
        query = screen(data, head, asked, facts)
        if isinstance(query, Ignore):
            self._ignored(listener, datagram, query, now)
            if asked.client is not None:
                self._tell_ignored(data, head, asked, facts, datagram, query, clock)
            return None
        boots = self._devices.of(query.mac)
        refusal = self._limited(boots, query, facts, now)
        if refusal is not None:
            self._counters[_WORDS[refusal.reason]] += 1
            if refusal.reason is not Reason.REPEATED and self._quiet.allows((refusal.reason, query.mac), now):
                self._log.warning("ignored", client=query.mac.hex(":"), verdict=refusal.reason.value,
                                  reason=refusal.detail)  # fmt: skip
            return None
        return self._answer(port, datagram, query, facts, boots, now, clock)

    def _facts_of(self, listener: Listener, datagram: Datagram) -> Facts | Ignore:
        """Those of all broadcasts on one wire are the same."""
        key = (listener, *datagram[1:])
        facts = self._facts.get(key)
        if facts is None:
            if len(self._facts) >= FACTS_KEPT:
                self._facts.clear()
            facts = self._facts[key] = gather(
                datagram, listener, self._host, self.settings.local_interface, self.settings.advertised
            )
        return facts

    def _limited(self, boots: Boots, query: Query, facts: Facts, now: Instant) -> Ignore | None:
        """Limits per device and interface, repetitions, and what a standby server leaves to others."""
        settings, head = self.settings, query.head
        if boots.too_many(settings.per_device, now):
            return Ignore(Reason.TOO_MANY, f"more than RequestsPerDevice = {settings.per_device} in a second")
        if settings.per_interface:
            second = int(now)
            if second != self._second:
                self._second = second
                self._answered.clear()
            self._answered[facts.ifindex] += 1
            if self._answered[facts.ifindex] > settings.per_interface:
                return Ignore(Reason.TOO_MANY, f"more than RequestsPerInterface = {settings.per_interface} in a second")
        offer = query.message_type == dhcp.OFFER
        if boots.repeated((query.message_type, head.xid, head.secs, head.giaddr, facts.ifindex), now):
            return Ignore(Reason.REPEATED)
        if offer and head.secs < settings.minimum_secs:
            return Ignore(Reason.STANDBY, f"secs {head.secs} is below MinimumSecs = {settings.minimum_secs}")
        return None

    # -- one answer -------------------------------------------------------------------------------------------------

    def _answer(
        self, port: Port, datagram: Datagram, query: Query, facts: Facts, boots: Boots, now: Instant, clock: float
    ) -> None:
        decision = self._policy.decide(self._sighting(query, boots))
        chosen = self._plan(query, facts, boots, decision, now)
        if isinstance(chosen, Ignore):
            self._ignored(facts.listener, datagram, chosen, now)
            return self._tell(datagram, query.mac, facts, _WORDS[chosen.reason], chosen.detail, clock)
        target = route(query.head, facts)
        prepared = target if isinstance(target, Ignore) else self._answers.prepare(query, facts, chosen)
        if isinstance(prepared, Ignore) or isinstance(target, Ignore):
            ignored = prepared if isinstance(prepared, Ignore) else Ignore(Reason.BAD_RETURN_ADDRESS)
            self._ignored(facts.listener, datagram, ignored, now)
            return self._tell(datagram, query.mac, facts, _WORDS[ignored.reason], ignored.detail, clock)
        reply = prepared.fill(datagram.data, query.uuid, target.flag)
        self._send(port, reply, target, facts, prepared.summary)
        self._remember(query.mac, query.head.xid, boots, prepared.summary, decision, now)
        word = "ack" if prepared.acknowledges else "offer"
        self._counters[word] += 1
        self._say(query.mac, boots, prepared, decision, target, now)
        if self._log.level >= 4:
            self._show("reply", datagram, bytes(reply))
        self._journal.dhcp(
            query.mac,
            DhcpStep(clock, facts.listener.value, facts.ifindex, datagram.peer, datagram.port, facts.local,
                     datagram.destination, datagram.data, word, decision.reason, prepared.summary.strategy,
                     prepared.summary.file, bytes(reply), target.address, target.port),
        )  # fmt: skip
        return None

    def _sighting(self, query: Query, boots: Boots) -> Sighting:
        """What the policy is asked with; the same as long as the device asks in the same way."""
        head, client = query.head, query.client
        sighted = (query.asked, query.uuid, head.ciaddr)
        if boots.sighting is None or boots.sighted != sighted:
            address = "" if head.ciaddr == dhcp.ZERO else dotted(head.ciaddr)
            details = (("kind", client.kind.value),)
            uuid = system_uuid(query.uuid)
            boots.sighting = Sighting(MacAddress(query.mac), uuid, client.arch, "dhcp", address, details)
            boots.sighted = sighted
        return boots.sighting

    def _plan(self, query: Query, facts: Facts, boots: Boots, decision: Decision, now: Instant) -> Plan | Ignore:
        settings, client = self.settings, query.client
        verdict, looping, strategy, chained = decision.verdict, False, "", False
        if client.kind is ClientKind.IPXE:
            chained = boots.chained(query.head.xid, now)
        elif is_firmware(client.kind) and verdict is not Verdict.SILENT and verdict is not Verdict.LOCAL:
            looping = boots.loops(settings.loop_limit, now)
            if (
                query.message_type == dhcp.OFFER
                and settings.escalation
                and boots.discovers(query.head.secs, query.head.xid, now)
            ):
                self._escalates(query, facts, boots)
            strategy = boots.strategy
            if strategy and strategy not in ladder(query, facts, settings):
                strategy = ""  # learned before the administrator's rule, which knows better
        if self._personal or verdict is Verdict.SILENT:
            return self._made(query, facts, decision, chained, strategy, looping)
        key = (query.asked, facts.advertised, verdict._value_, chained, strategy, looping)  # hashing an Enum is slow
        chosen = self._plans.get(key)
        if chosen is None:
            if len(self._plans) >= FACTS_KEPT:
                self._plans.clear()
            chosen = self._plans[key] = self._made(query, facts, decision, chained, strategy, looping)
        return chosen

    def _made(
        self, query: Query, facts: Facts, decision: Decision, chained: bool, strategy: str, looping: bool
    ) -> Plan | Ignore:
        return plan(query, facts, self.settings, decision.verdict, decision.reason, chained=chained,
                    strategy=strategy, looping=looping)  # fmt: skip

    def _send(self, port: Port, reply: bytearray, target: Target, facts: Facts, summary: Summary) -> None:
        delay_s = 0.0 if summary.acknowledged else self.settings.reply_delay_s
        if not delay_s:
            port.queue(reply, target.address, target.port, facts.local, target.ifindex)
            return

        def send() -> None:
            port.queue(reply, target.address, target.port, facts.local, target.ifindex)
            self.flushed(port.flush(), Instant(time.monotonic()))

        self._later(delay_s, send)

    def _remember(self, mac: bytes, xid: int, boots: Boots, summary: Summary, decision: Decision, now: Instant) -> None:
        if summary.loader:
            boots.handed(summary.file, xid, summary.kind is ClientKind.IPXE, now)
        if summary.acknowledged or summary.kind is ClientKind.IPXE:
            self._reached(mac, boots)  # an iPXE that asks was loaded, or is a ROM that takes offers as they are
        elif summary.loader and decision.verdict is not Verdict.LOCAL:
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
        self, data: bytes, head: Head, asked: Asked, facts: Facts, datagram: Datagram, ignored: Ignore, clock: float
    ) -> None:
        """A packet of a boot client that is none of ours still says how its boot goes on."""
        mac = mac_of(data, head)
        if mac is None or self._devices.known(mac) is None:
            return  # only those that ask proxies are kept: the rest of the LAN is not our concern
        if ignored.reason is Reason.ORDINARY_REQUEST_ON_67 and asked.wanted:
            self._journal.learn(dotted(asked.wanted), mac.hex(":"))
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
