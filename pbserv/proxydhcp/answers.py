"""Replies from prepared bytes: what equal clients have in common is encoded once. Pure.

One rule: the bytes that leave are those of :func:`decide`, with the fields of the request in their places.
"""

from __future__ import annotations

from typing import Final

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.asked import Asked
from pbserv.proxydhcp.decide import Plan, Query, decide, summary_of
from pbserv.proxydhcp.facts import Facts
from pbserv.proxydhcp.loaders import Settings
from pbserv.proxydhcp.outcome import Ignore, Summary

KEPT: Final = 4096


class Prepared:
    """A reply with holes: htype, hlen, xid, flags, ciaddr (in an ACK), giaddr, chaddr and UUID are the request's."""

    __slots__ = ("_after", "_before", "_head", "_middle", "_with_uuid", "acknowledges", "summary")

    def __init__(self, data: bytes, uuid_at: int, acknowledges: bool, summary: Summary) -> None:
        """``uuid_at`` is where option 97's value stands in ``data``; 0: there is none."""
        self._head, self._middle = data[:1], data[16:24]
        self._with_uuid = uuid_at > 0
        self._before = data[44:uuid_at] if uuid_at else data[44:]
        self._after = data[uuid_at + 17 :] if uuid_at else b""
        self.acknowledges = acknowledges
        self.summary = summary

    def fill(self, request: bytes, uuid: bytes, flag: bool) -> bytes:
        """The reply to ``request``. ``flag``: the broadcast flag is to be set."""
        flags = request[10:12]
        if flag and flags[0] < 0x80:
            flags = bytes((flags[0] | 0x80, flags[1]))
        return b"".join(
            (
                self._head, request[1:3], b"\0", request[4:8], b"\0\0", flags,
                request[12:16] if self.acknowledges else dhcp.ZERO, self._middle, request[24:44], self._before,
                uuid if self._with_uuid else b"", self._after,
            )
        )  # fmt: skip


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
        # Without the addresses of this one, who may be nobody that can be answered: that says nothing about others.
        anybody = query._replace(head=query.head._replace(ciaddr=dhcp.ZERO, giaddr=dhcp.ZERO))
        reply = decide(anybody, facts, self._settings, plan)
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
