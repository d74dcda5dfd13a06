"""Whose request is this, and may it be answered? Asked by TFTP and HTTP for every request.

One rule: an address speaks for the device that the kernel sees there; behind a router, for who was seen there last.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pbserv.policy.answers import Answers
from pbserv.policy.attribution import Attribution
from pbserv.policy.decide import Query, refusal
from pbserv.policy.ports import Journal, Neighbours, Progress
from pbserv.policy.register import Register
from pbserv.types import MacAddress


class Gate:
    """``today`` is now, in the site's zone. :meth:`open` and :meth:`close` come with start and stop of the service."""

    def __init__(
        self, register: Register, answers: Answers, journal: Journal, clock: Callable[[], float],
        today: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._register = register
        self._answers = answers
        self._journal = journal
        self._clock = clock
        self._today = today
        self._whose: Attribution | None = None
        self._watchers: list[Progress] = []

    def open(self, neighbours: Neighbours) -> None:
        self._whose = Attribution(neighbours, self._journal.mac_of)

    def close(self) -> None:
        if self._whose is not None:
            self._whose.close()
            self._whose = None

    def watch(self, progress: Progress) -> None:
        self._watchers.append(progress)

    def mac_at(self, peer: str) -> str | None:
        """The address of the device at ``peer``; None: nobody can say."""
        return self._journal.mac_of(peer) if self._whose is None else self._whose.mac_of(peer, self._clock())

    def refuses(self, peer: str, *, strict: bool) -> str:
        """Why ``peer`` gets nothing; empty when it may ask. ``strict``: UnattributedRequests = nothing."""
        snapshot = self._register.snapshot
        if not snapshot.refused and not strict and not snapshot.zone.elsewhere:
            return ""
        mac = self.mac_at(peer)
        if mac is None:
            return f"nobody can say whose address {peer} is (UnattributedRequests = nothing)" if strict else ""
        return self.refusal(mac)

    def refusal(self, mac: str) -> str:
        """Why the device with this address gets nothing; empty when it may ask."""
        snapshot = self._register.snapshot
        reason = refusal(Query(mac, snapshot.device(mac)), snapshot, self._today())
        if not reason and snapshot.zone.elsewhere:
            reason = self._answers.refusal(MacAddress.parse(mac).octets)
        return reason

    def contradicts(self, mac: str, peer: str, *, strict: bool) -> str:
        """Why a request from ``peer`` cannot speak for ``mac``: the kernel knows the address as another device's, or,
        where ``strict``, nobody but the request says that it is this one's."""
        whose = self._whose.neighbour(peer, self._clock()) if self._whose is not None else None
        if whose is None and strict:
            whose = self.mac_at(peer)
            if whose is None:
                return f"nobody can say that {peer} is {mac} (UnattributedRequests = nothing)"
        if whose is None or whose == mac:
            return ""
        device, claimed = self._register.snapshot.device(whose), self._register.snapshot.device(mac)
        if device is not None and claimed is not None and device.mac == claimed.mac:
            return ""
        return f"{peer} is the address of {whose}, which is not {mac}"

    def progressed(self, mac: str, peer: str) -> None:
        """What the device loaded runs: it asked for its configuration. Nobody gets on for another."""
        if self.mac_at(peer) in (None, mac):
            for watcher in self._watchers:
                watcher.progressed(mac)

    def ended(self, what: str, peer: str, name: str, outcome: str, size: int) -> None:
        """``what`` is tftp or http; the journal of the device at ``peer`` keeps what it got."""
        mac = self.mac_at(peer)
        device = None if mac is None else self._register.snapshot.device(mac)
        if mac is None or (device is None and self._journal.mac_of(peer) != mac):
            return  # a neighbour that is no boot client
        for watcher in self._watchers:
            watcher.fetched(mac, name, complete=outcome.startswith("completed"))
        text = f"{outcome}, {size} bytes"
        if outcome == "refused":
            why = self.refusal(mac)
            text = f"refused, {why}" if why else "refused"
        self._journal.add(mac, what, f"{name}: {text}")
