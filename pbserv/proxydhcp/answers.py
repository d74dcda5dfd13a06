"""Replies from prepared bytes: what equal clients have in common is encoded once. Pure.

One rule: the bytes that leave are those of :func:`decide`, with the fields of the request in their places.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.asked import Asked
from pbserv.proxydhcp.decide import Plan, Query, decide, summary_of
from pbserv.proxydhcp.facts import Facts
from pbserv.proxydhcp.loaders import Settings
from pbserv.proxydhcp.outcome import Ignore, Summary

KEPT: Final = 4096


class Prepared(NamedTuple):
    """A reply with holes. ``uuid_at`` is where option 97's value stands; 0: there is none."""

    data: bytes
    uuid_at: int
    acknowledges: bool
    summary: Summary

    def fill(self, request: bytes, uuid: bytes, flag: bool) -> bytearray:
        """The reply to ``request``: htype, hlen, xid, flags, ciaddr (in an ACK), giaddr, chaddr and UUID are its own.

        ``flag``: the broadcast flag is to be set.
        """
        reply = bytearray(self.data)
        reply[1:3] = request[1:3]
        reply[4:8] = request[4:8]
        reply[10:12] = request[10:12]
        if flag:
            reply[10] |= 0x80
        if self.acknowledges:
            reply[12:16] = request[12:16]
        reply[24:44] = request[24:44]
        if self.uuid_at:
            reply[self.uuid_at : self.uuid_at + 17] = uuid
        return reply


class Answers:
    """Prepared replies for one value of the settings; bounded."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prepared: dict[tuple[Asked, str, str, bool, str, int], Prepared] = {}

    def prepare(self, query: Query, facts: Facts, plan: Plan) -> Prepared | Ignore:
        """What is sent to every client that asks like this one."""
        file = plan.file
        key = (query.asked, plan.strategy.name, file.name, file.is_loader, facts.advertised, query.message_type)
        prepared = self._prepared.get(key)
        if prepared is not None:
            return prepared
        reply = decide(query, facts, self._settings, plan)
        if isinstance(reply, Ignore):
            return reply
        places = dhcp.places(reply.data)
        uuid_at = next((value for at, value in places.items() if reply.data[at] == dhcp.CLIENT_UUID), 0)
        prepared = Prepared(
            reply.data, uuid_at, query.message_type == dhcp.ACK, summary_of(query, facts, plan)
        )  # fmt: skip
        if len(self._prepared) >= KEPT:
            self._prepared.clear()
        self._prepared[key] = prepared
        return prepared
