"""RFC 2090: one file for a group of clients, of which one at a time, the master, asks for blocks. Pure.

One rule: only the master's ACKs move the transfer, and no block is sent before the first master has answered.
An ACK is a request here: the master names the blocks that it has without a gap, and gets the next one. When it is
done, or silent, the next oldest member is called. Block numbers never roll over.
"""

from __future__ import annotations

from pbserv.errors import WireError
from pbserv.tftp.multicast_member import Member, MemberKey
from pbserv.tftp.packet import Error, ErrorCode, decode, encode_error
from pbserv.tftp.transfer import (
    FINAL_RESENDS,
    GUARD_FLOOR_S,
    NEVER,
    OPENING_INTERVAL_S,
    OPENING_SENDS,
    PATIENCE_S,
    RTO_FLOOR_S,
    Outcome,
)

MOST_BLOCKS = 65_535
"""Clients keep a map of 65536 bits (atftp tftp_file.c NB_BLOCK), and an ACK must name its block without doubt."""
MOST_MEMBERS = 256
MOST_SILENT_TURNS = 3
FINAL_TURN_RESENDS = 3

Action = int | tuple[MemberKey, bytes]
"""A block for the group, or a datagram for one member."""


class MulticastTransfer:
    """The server's side of one group. Members that leave are put into ``departed``; the shell takes them from there.

    ``deadline`` is the instant at which :meth:`on_deadline` wants to be called.
    """

    __slots__ = ("_block", "_clean", "_quiet_since", "_sent_at", "_unsent", "calling", "deadline", "departed", "last",
                 "master", "members", "strays")  # fmt: skip

    def __init__(self, size_bytes: int, block_size: int) -> None:
        self.last = size_bytes // block_size + 1
        self.members: dict[MemberKey, Member] = {}  # the next one to be called is first
        self.departed: list[Member] = []
        self.master: Member | None = None
        self.calling = False  # the master's OACK is not answered yet
        self.deadline = NEVER
        self.strays = 0
        self._block = 0
        self._clean = True  # the running block was sent once: Karn's rule
        self._unsent = False
        self._sent_at = self._quiet_since = 0.0

    # -- events ---------------------------------------------------------------------------------------------------

    def join(self, member: Member, now: float) -> list[Action]:
        """A new member: called at once when it is alone, else told to listen."""
        self.members[member.key] = member
        if self.master is None:
            return self._elect(now)
        # From now on somebody waits for the master.
        self.deadline = min(self.deadline, max(now, self._quiet_since + self.master.turn_s))
        return self._tell(member, now)

    def on_request_again(self, key: MemberKey, now: float) -> list[Action]:
        """The same request from the same port: our OACK was lost, or no block came (atftp asks again after 5 s)."""
        member = self.members[key]
        if now - member.told_at < RTO_FLOOR_S:
            return []
        if member is self.master and self.calling and member.calls < OPENING_SENDS:
            return self._call(member, now)
        return [] if member is self.master else self._tell(member, now)

    def abandoned_for(self, key: MemberKey, now: float) -> bool:
        """A repeated request of a client that had answered means that it was restarted, and has nothing."""
        member = self.members[key]
        return member.answered and now - member.joined_at >= RTO_FLOOR_S

    def receive(self, key: MemberKey, datagram: bytes, now: float) -> list[Action]:
        """One datagram that came to the group's port."""
        member = self.members.get(key)
        if member is None:
            self.strays += 1
            return []
        if len(datagram) >= 4 and datagram[:2] == b"\0\4":
            return self._acknowledge(member, datagram[2] << 8 | datagram[3], now)
        return self._other(member, datagram, now)

    def on_deadline(self, now: float) -> list[Action]:
        """The deadline may have passed."""
        master = self.master
        if now < self.deadline or master is None:
            return []
        if not master.answered and master.calls >= OPENING_SENDS:
            return self.leave(master, Outcome.UNANSWERED, now, f"called {master.calls} times")
        if len(self.members) > 1 and now >= self._quiet_since + master.turn_s:
            return self._turn_over(master, now)
        if master.final_resends >= FINAL_RESENDS:
            # RFC 1350 section 6: the transfer may still have been completed successfully.
            return self.leave(master, Outcome.UNACKNOWLEDGED, now)
        if now >= self._quiet_since + PATIENCE_S:
            return self._drop(master, now)
        if self._unsent:
            self._unsent = False
            return self.send_again(now)
        return self._resend(master, now)

    def on_unsent(self, now: float) -> None:
        """The kernel had no room for the last packet: try again soon, without backing off."""
        self._unsent = True
        self.deadline = min(self.deadline, now + GUARD_FLOOR_S)

    def send_again(self, now: float) -> list[Action]:
        """The packet that could not be sent when it was due."""
        if self.master is None:
            return []
        self._sent_at = now
        self._await_until(now + self.master.rto_s)
        return [(self.master.key, self.master.oack_master)] if self.calling else [self._block]

    def leave(self, member: Member, outcome: Outcome, now: float, detail: str = "") -> list[Action]:
        """It is done, or given up."""
        del self.members[member.key]
        member.outcome, member.detail = outcome, detail
        self.departed.append(member)
        return self._elect(now) if member is self.master else []

    def end(self, outcome: Outcome, text: str) -> list[Action]:
        """End it from our side, with an ERROR to every member."""
        told: list[Action] = [(key, encode_error(ErrorCode.UNDEFINED, text)) for key in self.members]
        for member in self.members.values():
            member.outcome, member.detail = outcome, text
        self.departed += self.members.values()
        self.members.clear()
        self.master, self.deadline = None, NEVER
        return told

    # -- acknowledgements -----------------------------------------------------------------------------------------

    def _acknowledge(self, member: Member, number: int, now: float) -> list[Action]:
        if number >= self.last:
            if number == self.last:
                # RFC 2090: it has everything; a listener may say so as well.
                member.position = number
                return self.leave(member, Outcome.COMPLETED, now)
            member.stale += 1
            return []
        progress = number > member.position or not member.answered
        if progress:
            member.answered = True
            member.silent_turns = 0
        if member is not self.master:
            member.position = max(member.position, number)
            member.stale += 1
            # It was the master, and did not hear that it no longer is.
            return self._tell(member, now) if now - member.told_at >= RTO_FLOOR_S else []
        if number < member.position or not (progress or self.calling):
            # RFC 1123 4.2.3.1: a duplicate ACK never causes a resend (sorcerer's apprentice); the timer does.
            member.stale += 1
            return []
        if number == self._block and self._clean and not self.calling:
            member.measure(now - self._sent_at)
        member.position = number
        return self._send(member, number + 1, now)

    def _send(self, master: Member, block: int, now: float) -> list[Action]:
        self._clean = block != self._block
        self._block = block
        self.calling = False
        self._sent_at = self._quiet_since = now
        master.final_sent = block == self.last
        master.blocks += 1
        self._await_until(now + master.rto_s)
        return [block]

    def _tell(self, member: Member, now: float) -> list[Action]:
        if member.tells >= OPENING_SENDS and not member.answered:
            return []  # its address may be forged
        member.told_at = now
        member.tells += 1
        return [(member.key, member.oack_listener)]

    # -- the master -----------------------------------------------------------------------------------------------

    def _elect(self, now: float) -> list[Action]:
        """RFC 2090: the oldest member is called; it answers with an ACK of what it has."""
        self.master = next(iter(self.members.values()), None)
        self.calling, self._unsent = self.master is not None, False
        self._quiet_since = now
        self.deadline = NEVER
        if self.master is None:
            return []
        self.master.begin_turn()
        return self._call(self.master, now)

    def _call(self, master: Member, now: float) -> list[Action]:
        master.calls += 1
        master.told_at = self._sent_at = now
        self._await_until(now + min(master.rto_s, OPENING_INTERVAL_S))
        return [(master.key, master.oack_master)]

    def _await_until(self, instant: float) -> None:
        if self.master is not None and len(self.members) > 1:
            instant = min(instant, self._quiet_since + self.master.turn_s)
        self.deadline = instant

    def _resend(self, master: Member, now: float) -> list[Action]:
        master.back_off()
        master.retransmissions += 1
        if master.final_sent:
            master.final_resends += 1
        if self.calling:
            return self._call(master, now)
        again: list[Action] = [self._block]
        if not self._clean:
            # An OACK that took its role away may have overtaken the one that gave it, so it is said again.
            again.append((master.key, master.oack_master))
        self._clean = False
        self._sent_at = now
        master.blocks += 1
        self._await_until(now + master.rto_s)
        return again

    def _turn_over(self, master: Member, now: float) -> list[Action]:
        """RFC 2090: who does not answer is passed over, asked again when the others are done, and at last given up."""
        master.silent_turns += 1
        if master.final_resends >= FINAL_TURN_RESENDS:
            return self.leave(master, Outcome.UNACKNOWLEDGED, now)
        if master.silent_turns >= MOST_SILENT_TURNS:
            return self._drop(master, now)
        self.members[master.key] = self.members.pop(master.key)
        told = self._tell(master, now) if master.answered else []
        return told + self._elect(now)

    def _drop(self, master: Member, now: float) -> list[Action]:
        if not master.answered:
            return self.leave(master, Outcome.UNANSWERED, now, f"called {master.calls} times")
        # A client that answers but gets no block is told, or it would wait for long: its switch or route is at fault.
        text = f"no ACK after block {master.position} of {self.last}; does multicast reach you?"
        error: list[Action] = [(master.key, encode_error(ErrorCode.UNDEFINED, text))]
        return error + self.leave(master, Outcome.TIMED_OUT, now, text.partition(";")[0])

    # -- everything that is not an ACK ----------------------------------------------------------------------------

    def _other(self, member: Member, datagram: bytes, now: float) -> list[Action]:
        try:
            packet = decode(datagram)
        except WireError:
            return []
        if not isinstance(packet, Error):
            return []
        if not member.answered and packet.code in (ErrorCode.UNDEFINED, ErrorCode.OPTION):
            return self.leave(member, Outcome.PROBE, now, packet.text)
        if packet.code == ErrorCode.UNDEFINED:
            return self.leave(member, Outcome.CLOSED, now, packet.text)
        return self.leave(member, Outcome.CLIENT_ERROR, now, f"error {packet.code} {packet.text}")
