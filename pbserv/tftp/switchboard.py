"""Which socket a new transfer uses: one of the channels of the address that was asked, or the listener itself.

One rule: RFC 1350 section 4 wants a port per transfer so that nothing is mixed up. A transfer is known by both ends'
ports, so many clients may share one of ours; a client that comes again gets another one than last time.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import OrderedDict
from collections.abc import Callable

from pbserv.net.gso import OffloadRoutes
from pbserv.net.mmsg import Endpoint, Inbox, Key, source_control
from pbserv.net.ready import ReadySet
from pbserv.net.sockets import RouteMtus, open_transfer_socket, sockaddr_of
from pbserv.net.udp import Datagram
from pbserv.tftp.channel import REQUESTS, Channel, Link
from pbserv.tftp.packet import ErrorCode, Opcode, encode_error

MOST_MEMBERS = 128
"""Transfers on one channel: their ACKs share a receive buffer, which is 208 KB on a stock kernel."""
SPARE_CHANNELS = 2
PROVEN_FOR_S = 600.0
PROVEN_KEPT = 4096
STRANGERS_ANSWERED = 20
"""ERROR packets to strangers per second: their source addresses can be forged."""
STRANGER = "no transfer of this sender"


class Switchboard:
    """Owns all sockets of the service except those it is given as listeners."""

    def __init__(self, ready: ReadySet, largest_block: int, ignored: Callable[[str, str], None]) -> None:
        """``ignored(client, reason)`` is told of datagrams that belong to no transfer."""
        self.port_range: tuple[int, int] | None = None
        self.single_port = False
        self.admits: Callable[[str], bool] = lambda _address: True
        """Whether an address may hear of us at all."""
        self.trusts = is_loopback
        """Whether an address cannot be forged."""
        self._ready = ready
        self._ignored = ignored
        self._routes = OffloadRoutes()
        self._mtus = RouteMtus()
        self._unflushed: list[Channel] = []
        self._channels: dict[str, list[Channel]] = {}
        self._listeners: list[Channel] = []
        self._private: set[Channel] = set()
        self._last: OrderedDict[Key, Channel] = OrderedDict()  # the shared one that a client had last time
        self._proven: OrderedDict[str, float] = OrderedDict()  # address: until when
        self._answered: tuple[int, int] = (0, 0)  # second, and strangers that got an ERROR in it
        self._inboxes: dict[tuple[int, bool], Inbox] = {}
        self._slot_bytes = 0
        self.resize(largest_block)

    def resize(self, largest_block: int) -> None:
        """Datagrams of uploads are at most this long; requests may be longer than RFC 2347's 512."""
        slot = max(2048, largest_block + 4)
        if slot > self._slot_bytes:
            self._slot_bytes = slot
            self._inboxes.clear()
            for listener in self._listeners:
                listener.inbox = self._inbox(listener.family, packet_info=True)
            for channels in (*self._channels.values(), self._private):
                for channel in channels:
                    channel.inbox = self._inbox(channel.family, packet_info=False)

    def _inbox(self, family: int, *, packet_info: bool) -> Inbox:
        key = (family, packet_info)
        if key not in self._inboxes:
            self._inboxes[key] = Inbox(family, self._slot_bytes, packet_info=packet_info)
        return self._inboxes[key]

    # -- listeners ------------------------------------------------------------------------------------------------

    def listen(self, raw: socket.socket, local: str, heard: Callable[[Datagram, Channel], None]) -> Channel:
        """Requests that come in on ``raw`` are handed to ``heard``; ``local`` is empty when it is bound to all."""

        def stranger(channel: Channel, n: int) -> None:
            inbox = channel.inbox
            if self._pass_on(channel, n):
                return
            answering = self._heir(channel) if channel.deaf else channel
            if answering is None:
                return
            peer, port = inbox.sender(n)
            local, destination, ifindex = inbox.destination(n)
            heard(Datagram(inbox.datagram(n), peer, port, local, destination, ifindex), answering)

        inbox = self._inbox(raw.family, packet_info=True)
        nothing: Callable[[Channel], None] = lambda _channel: None  # noqa: E731
        channel = Channel(raw, local, inbox, self._routes, stranger, nothing, self._flush_soon, listening=True)
        self._ready.add(channel.fileno(), channel.readable)
        self._listeners.append(channel)
        return channel

    @property
    def listeners(self) -> list[Channel]:
        """All that are open, those among them that only finish their transfers."""
        return self._listeners

    def _pass_on(self, channel: Channel, n: int) -> bool:
        """Single port: after a reload a transfer may run on another listener than the one that hears its client."""
        if len(self._listeners) < 2 or channel.inbox.datagram(n)[:2] in REQUESTS:
            return False
        key = channel.inbox.key(n)
        for other in self._listeners:
            member = other.members.get(key) if other is not channel else None
            if member is not None:
                if member.collect(channel.inbox.datagram(n)):
                    member.act(time.monotonic())
                return True
        return False

    def _heir(self, channel: Channel) -> Channel | None:
        """Who answers what still comes in for a listener that is going to close; None: its address is given up."""
        alive = [other for other in self._listeners if not other.deaf and other.family == channel.family]
        return next((other for other in alive if other.local in ("", channel.local)), None)

    def _flush_soon(self, channel: Channel) -> None:
        """First packets of transfers, which are queued while a listener's batch is read, leave after it."""
        if not self._unflushed:
            self._ready.after(self._flush_all)
        self._unflushed.append(channel)

    def _flush_all(self) -> None:
        channels, self._unflushed = self._unflushed, []
        for channel in channels:
            channel.flush()

    def hang_up(self, channel: Channel) -> None:
        """Close a channel or listener."""
        if not channel.closed:
            if channel in self._listeners:
                self._listeners.remove(channel)
            self._ready.remove(channel.fileno())
            channel.close()

    # -- transfers ------------------------------------------------------------------------------------------------

    def connect(self, datagram: Datagram, listener: Channel) -> Link:
        """The link of a new transfer; raises OSError: no port or descriptor left, or no way to the client."""
        mtu = self._mtus.of(datagram.local, datagram.peer)
        if self.single_port:
            source = b"" if listener.local else source_control(datagram.local)
            return Link(listener, datagram.peer, datagram.port, source, mtu)
        link = Link(listener, datagram.peer, datagram.port, b"", mtu)
        proven = self._is_proven(datagram.peer)
        channel = self._channel_for(datagram.local, link.key) if proven else self._open(datagram.local, private=True)
        link.move(channel)
        return link

    def _is_proven(self, peer: str) -> bool:
        """Whether this client has lately answered on a port that nobody else could know.

        Until then it gets a port of its own: shared ones are known to everybody who ever fetched a file, and with a
        known port one could acknowledge blocks in the name of a victim.
        """
        return self.trusts(peer) or time.monotonic() < self._proven.get(peer, 0.0)

    def _prove(self, peer: str) -> None:
        self._proven[peer] = time.monotonic() + PROVEN_FOR_S
        self._proven.move_to_end(peer)
        if len(self._proven) > PROVEN_KEPT:
            self._proven.popitem(last=False)

    def _channel_for(self, local: str, key: Key) -> Channel:
        channels = self._channels.get(local)
        if channels is None:
            channels = self._channels[local] = []
        last = self._last.get(key)
        for channel in channels:
            if len(channel.members) < MOST_MEMBERS and channel is not last and key not in channel.members:
                self._remember(key, channel)
                return channel
        try:
            channel = self._open(local)
        except OSError:
            # better the same port again than no answer: a small TFTPPortRange is used up quickly
            free = [channel for channel in channels if key not in channel.members]
            if not free:
                raise
            return min(free, key=lambda one: len(one.members))
        channels.append(channel)
        self._remember(key, channel)
        return channel

    def _remember(self, key: Key, channel: Channel) -> None:
        self._last[key] = channel
        self._last.move_to_end(key)
        if len(self._last) > PROVEN_KEPT:
            self._last.popitem(last=False)

    def _open(self, local: str, *, private: bool = False) -> Channel:
        raw = open_transfer_socket(local, self.port_range)
        inbox = self._inbox(raw.family, packet_info=False)
        emptied = self._private_emptied if private else self._emptied
        channel = Channel(raw, local, inbox, self._routes, self._stranger, emptied, self._flush_soon)
        if private:
            self._private.add(channel)
        self._ready.add(channel.fileno(), channel.readable)
        return channel

    def _emptied(self, channel: Channel) -> None:
        """A channel without transfers stays for the next ones, unless there are enough of its kind."""
        channels = self._channels.get(channel.local, [])
        if len(channels) <= SPARE_CHANNELS:
            return
        idle = [one for one in channels if not one.members]
        if channel in channels and len(idle) > SPARE_CHANNELS:
            channels.remove(idle[0])
            self.hang_up(idle[0])

    def _private_emptied(self, channel: Channel) -> None:
        if channel.last_answered:
            self._prove(channel.last_answered)
        self._private.discard(channel)
        self.hang_up(channel)

    def _stranger(self, channel: Channel, n: int) -> None:
        """RFC 1350 section 4: the packet is discarded, an ERROR goes to its sender, and no transfer is disturbed."""
        if channel.deaf:
            return
        inbox = channel.inbox
        if inbox.key(n) in channel.recent:
            return  # the last words of a transfer that is over
        sockaddr = inbox.sockaddr(n)
        host = f"[{sockaddr[0]}]" if ":" in sockaddr[0] else sockaddr[0]
        self._ignored(f"{host}:{sockaddr[1]}", STRANGER)
        if not self.admits(sockaddr[0]):
            return
        head = inbox.datagram(n)[:2]
        second, count = self._answered
        now = int(time.monotonic())
        if now != second:
            second, count = now, 0
        self._answered = (second, count + 1)
        if len(head) == 2 and head[1] != Opcode.ERROR and count < STRANGERS_ANSWERED:
            error = encode_error(ErrorCode.UNKNOWN_TID, "no transfer between these ports")
            channel.transmit(Endpoint(sockaddr), error, 0)

    @property
    def channels(self) -> int:
        """Sockets for transfers that are open."""
        return sum(map(len, self._channels.values())) + len(self._private)

    def renew(self) -> None:
        """New transfers take new sockets: the ports have changed."""
        for channels in self._channels.values():
            for channel in channels[:]:
                channels.remove(channel)
                self.retire(channel)

    def retire(self, channel: Channel) -> None:
        """Close it when its transfers are over; it takes no requests any more."""
        channel.deaf = True
        if not channel.members:
            self.hang_up(channel)
        else:
            channel.when_emptied(self.hang_up)

    def close(self) -> None:
        for channel in list(self._private):
            self.hang_up(channel)
        for listener in self._listeners[:]:
            self.hang_up(listener)
        for channels in self._channels.values():
            for channel in channels:
                self.hang_up(channel)
        self._channels.clear()


def reply(listener: Channel, datagram: Datagram, data: bytes) -> None:
    """One datagram from the port and address that were asked."""
    try:
        source = b"" if listener.local else source_control(datagram.local)
        endpoint = Endpoint(sockaddr_of(datagram.peer, datagram.port), source)
    except OSError:
        return  # its interface is gone
    listener.transmit(endpoint, data, 0)


def is_loopback(address: str) -> bool:
    """The kernel drops such addresses when they come from a network."""
    return address.startswith("127.") or address == "::1"


def no_descriptor(fault: OSError) -> bool:
    return fault.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
