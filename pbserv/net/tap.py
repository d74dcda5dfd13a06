"""DHCP beside a DHCP server that holds the port: packet(7) to hear what it hears, raw(7) to answer from its port.

A second socket on the port would need the first one's consent (socket(7), SO_REUSEADDR), and answers to broadcasts
are expected to come from the server's port.

One rule: the tap hears what a socket bound to the port would, once and on the interface where IP begins. A packet
socket for ETH_P_IP on all interfaces stands at that very place (linux net/core/dev.c, ``__netif_receive_skb_core``):
ports of bridges and bonds have handed their frames to the master by then, VLAN tags have become interfaces or made
the frame somebody else's, and what this host sends does not pass. A member of a VRF keeps its frames and addresses.

Limits: no reassembly, no firewall (a packet socket hears what nftables drops later), no check of UDP checksums,
which are unfinished between virtual machines of one host.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pbserv.errors import StartError, WireError
from pbserv.net.interfaces import InterfaceAddress, InterfaceTable
from pbserv.net.mmsg import BATCH, IP_PKTINFO, address_of
from pbserv.net.roomy import force_room
from pbserv.net.udp import Datagram
from pbserv.types import Instant

ETH_P_IP = 0x0800
SO_ATTACH_FILTER = 26  # asm-generic/socket.h; missing from the socket module
SLOT_BYTES = 9_216
"""The longest packet that is heard whole: a jumbo frame."""
MAX_DATA_BYTES = 65_507

_NAME_BYTES = 64  # a sockaddr_ll has 20, and more where hardware addresses are long (InfiniBand)
_MESSAGE_WORDS = 8  # struct mmsghdr in words of 8 bytes
_SOCKADDR_LL = struct.Struct("=H2siHBB8s")
_PKTINFO = struct.Struct("=I4s4s")
_IP = struct.Struct("!BxHxxHxBxx4s4s")  # version and length, total length, fragment, protocol, source, destination
_IP_OUT = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_PSEUDO = struct.Struct("!4s4sxBH")  # RFC 768: source, destination, protocol, UDP length
_LIMITED_BROADCAST = "255.255.255.255"

_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]


class UdpPacket(NamedTuple):
    """What an IPv4 packet carries."""

    source: str
    source_port: int
    destination: str
    data: bytes


def unwrap(packet: bytes, port: int) -> UdpPacket:
    """The UDP datagram to ``port`` in an IPv4 packet, which padding may follow; raises WireError. Pure."""
    if len(packet) < _IP.size:
        raise WireError(len(packet), "IP header", "cut short")
    first, total, fragment, protocol, source, destination = _IP.unpack_from(packet)
    start = (first & 15) * 4
    if first >> 4 != 4 or start < _IP.size:
        raise WireError(0, "IP header", f"version {first >> 4} with {start} bytes")
    if not start + _UDP.size <= total <= len(packet):
        raise WireError(2, "IP total length", f"{total} of {len(packet)} bytes")
    if fragment & 0x3FFF:  # RFC 791: more fragments, and the offset; "don't fragment" may be set
        raise WireError(6, "IP fragment", "not put together here")
    if protocol != socket.IPPROTO_UDP:
        raise WireError(9, "IP protocol", f"{protocol} is not UDP")
    if int.from_bytes(packet[:start], "big") % 0xFFFF:  # RFC 1071: 16-bit words, added in ones' complement
        raise WireError(10, "IP checksum", "wrong")
    if source[0] >= 224:  # RFC 1122 3.2.1.3: broadcasts and groups are never a source
        raise WireError(12, "IP source", f"{socket.inet_ntoa(source)} is no host")
    source_port, to_port, length, _checksum = _UDP.unpack_from(packet, start)
    if to_port != port:
        raise WireError(start + 2, "UDP port", f"{to_port}")
    if not _UDP.size <= length <= total - start:
        raise WireError(start + 4, "UDP length", f"{length} of {total - start} bytes")
    data = packet[start + _UDP.size : start + length]
    return UdpPacket(socket.inet_ntoa(source), source_port, socket.inet_ntoa(destination), data)


def wrap(data: bytes, source: str | None, source_port: int, destination: str, port: int) -> bytes:
    """An IPv4 packet; identification, checksum and a missing source are left to the kernel (raw(7), IP_HDRINCL).

    ``data``: at most MAX_DATA_BYTES. Raises OSError for what is no address. Pure.
    """
    length = _UDP.size + len(data)
    own, peer = socket.inet_aton(source or "0.0.0.0"), socket.inet_aton(destination)
    checksum = 0  # RFC 768: none, because we do not know what it would cover
    if source:
        covered = _PSEUDO.pack(own, peer, socket.IPPROTO_UDP, length)
        covered += _UDP.pack(source_port, port, length, 0) + data + bytes(length & 1)
        checksum = 0xFFFF - int.from_bytes(covered, "big") % 0xFFFF  # never 0, which means: none
    head = _IP_OUT.pack(0x45, 0, _IP_OUT.size + length, 0, 0, 64, socket.IPPROTO_UDP, 0, own, peer)
    return head + _UDP.pack(source_port, port, length, checksum) + data


@dataclass(frozen=True, slots=True)
class Places:
    """Which packets are meant for this host, and which of its addresses a client sees there. Pure."""

    own: frozenset[str]
    loopbacks: frozenset[int]
    broadcasts: Mapping[int, frozenset[str]]
    primary: Mapping[int, str]

    @classmethod
    def of(cls, addresses: Sequence[InterfaceAddress]) -> Places:
        """``addresses``: the primary one of each interface first, as InterfaceTable has them."""
        broadcasts: dict[int, frozenset[str]] = {}
        primary: dict[int, str] = {}
        for entry in addresses:
            primary.setdefault(entry.ifindex, entry.address)
            broadcasts[entry.ifindex] = broadcasts.get(entry.ifindex, frozenset()) | frozenset(_broadcasts(entry))
        loopbacks = frozenset(entry.ifindex for entry in addresses if _is_loopback(entry.address))
        return cls(frozenset(entry.address for entry in addresses), loopbacks, broadcasts, primary)

    def local(self, ifindex: int, source: str, destination: str) -> str | None:
        """As ``Datagram.local``: "0.0.0.0" on an interface without an address; None for what is not for us."""
        if (source in self.own or _is_loopback(source)) and ifindex not in self.loopbacks:
            return None  # RFC 1812 5.3.7: our own address comes from a wire only when something echoes or lies
        if destination in self.own:
            return destination
        if destination == _LIMITED_BROADCAST or destination in self.broadcasts.get(ifindex, ()):
            return self.primary.get(ifindex, "0.0.0.0")
        return None


def _broadcasts(entry: InterfaceAddress) -> Iterator[str]:
    """The kernel takes the subnet's last address for a broadcast even when none was set (fib_add_ifaddr)."""
    if entry.broadcast is not None:
        yield entry.broadcast
    if entry.prefix_length < 31:
        network = ipaddress.IPv4Network((entry.address, entry.prefix_length), strict=False)
        yield str(network.broadcast_address)


def _is_loopback(address: str) -> bool:
    return address.startswith("127.")


class PacketTap:
    """Hears and sends as :class:`pbserv.net.dhcp_port.BatchPort` does, on a port that somebody else holds."""

    def __init__(self, heard: socket.socket, raw: socket.socket, table: InterfaceTable, port: int) -> None:
        self._heard = heard
        self._raw = raw
        self._table = table
        self._port = port
        self._inbox = _Inbox()
        self._addresses: tuple[InterfaceAddress, ...] | None = None
        self._places = Places.of(())
        self.malformed = 0
        """Packets that no socket would have heard: broken, or cut short."""
        self.foreign = 0
        """Packets that were not for this host, though the frame was."""

    @classmethod
    def open(cls, port: int = 67, *, receive_buffer: int = 1 << 22) -> PacketTap:
        """Listen on all interfaces of this network namespace; raises StartError with the remedy."""
        heard: socket.socket | None = None
        raw: socket.socket | None = None
        try:
            heard = _open_packet(port, receive_buffer)
            raw = _open_raw()
            return cls(heard, raw, InterfaceTable(), port)
        except OSError as fault:
            for one in (heard, raw):
                if one is not None:
                    one.close()
            raise StartError(_open_fault(port, fault)) from None

    def fileno(self) -> int:
        return self._heard.fileno()

    @property
    def name(self) -> tuple[str, int]:
        return "0.0.0.0", self._port

    def receive(self, limit: int = BATCH) -> list[Datagram]:
        """What is waiting, at most ``limit`` packets and never more than BATCH, without those that are not for us.

        An empty list does not say that nothing waits any more; the descriptor stays readable then.
        """
        packets = self._inbox.receive(self._heard.fileno(), limit)
        if not packets:
            return []
        self._look_around()
        found: list[Datagram] = []
        for ifindex, packet in packets:
            try:
                source, source_port, destination, data = unwrap(packet, self._port)
            except WireError:
                self.malformed += 1
                continue
            local = self._places.local(ifindex, source, destination)
            if local is None:
                self.foreign += 1
            else:
                found.append(Datagram(data, source, source_port, local, destination, ifindex))
        return found

    def _look_around(self) -> None:
        """Learn this host's addresses again when they are older than a second."""
        try:
            addresses = self._table.addresses(Instant(time.monotonic()))
        except OSError:  # the kernel did not answer: what we knew is still likely
            return
        if addresses is not self._addresses:
            self._addresses = addresses
            self._places = Places.of(addresses)

    def send(self, data: bytes, peer: str, port: int, *, source: str | None = None, ifindex: int = 0) -> bool:
        """Send from ``source`` and the tap's port out of interface ``ifindex`` (0: by route).

        False when the kernel refused, when ``source`` is not ours, or when it would take fragments: boot ROMs cannot
        put them together.
        """
        if source == "0.0.0.0":
            source = None
        if len(data) > MAX_DATA_BYTES or (source and not self._is_own(source)):
            return False
        try:
            packet = wrap(data, source, self._port, peer, port)
            info = _PKTINFO.pack(ifindex, packet[12:16], b"\0\0\0\0")
            self._raw.sendmsg([packet], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, (peer, 0))
        except OSError:
            return False
        return True

    def _is_own(self, source: str) -> bool:
        """What the kernel checks for other sockets; a raw one may say anything."""
        if source not in self._places.own:
            self._look_around()
        return source in self._places.own

    def close(self) -> None:
        self._heard.close()
        self._raw.close()
        self._table.close()


def _open_packet(port: int, receive_buffer: int) -> socket.socket:
    """Without a protocol the socket hears nothing, so no packet comes before the filter is in place."""
    heard = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        force_room(heard, receive_buffer)
        _attach(heard, _filter(port))
        # The socket module can bind to an interface, not to all of them (index 0).
        everywhere = _SOCKADDR_LL.pack(socket.AF_PACKET, ETH_P_IP.to_bytes(2, "big"), 0, 0, 0, 0, bytes(8))
        if _libc.bind(heard.fileno(), everywhere, len(everywhere)) != 0:
            raise OSError(ctypes.get_errno(), "bind of a packet socket")
    except OSError:
        heard.close()
        raise
    return heard


def _open_raw() -> socket.socket:
    """raw(7): "An IPPROTO_RAW socket is send only", so nothing can fill it."""
    raw = socket.socket(
        socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW
    )
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return raw


def _filter(port: int) -> bytes:
    """A classic BPF program (linux/filter.h): unfragmented UDP to ``port`` in frames for us or for all.

    It sees the packet from the IP header on, because the socket is of type SOCK_DGRAM.
    """
    program = (
        (0x20, 0, 0, 0xFFFFF004),  # A = type of the packet (SKF_AD_OFF + SKF_AD_PKTTYPE)
        (0x25, 8, 0, 1),  # above PACKET_HOST (0) and PACKET_BROADCAST (1): drop
        (0x30, 0, 0, 9),  # A = protocol
        (0x15, 0, 6, socket.IPPROTO_UDP),
        (0x28, 0, 0, 6),  # A = flags and fragment offset
        (0x45, 4, 0, 0x3FFF),
        (0xB1, 0, 0, 0),  # X = length of the IP header
        (0x48, 0, 0, 2),  # A = destination port
        (0x15, 0, 1, port),
        (0x06, 0, 0, 0x40000),  # keep it whole
        (0x06, 0, 0, 0),  # drop it
    )
    return b"".join(struct.pack("=HBBI", *step) for step in program)


def _attach(raw: socket.socket, program: bytes) -> None:
    steps = ctypes.create_string_buffer(program, len(program))
    raw.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(steps))
    )  # fmt: skip


def _open_fault(port: int, fault: OSError) -> str:
    """One line that says what could not be opened, why, and what to do."""
    what = f"packet socket for udp port {port}"
    match fault.errno:
        case errno.EPERM | errno.EACCES:
            return f"{what}: needs CAP_NET_RAW; start as root, or give the unit AmbientCapabilities=CAP_NET_RAW"
        case errno.EAFNOSUPPORT:
            return f"{what}: not allowed here; give the unit RestrictAddressFamilies=AF_PACKET besides the others"
        case _:
            return f"{what}: {fault.strerror or fault}"


class _Inbox:
    """Room for one batch of packets; recvmmsg(2), because the socket module looks up a name for every packet."""

    def __init__(self) -> None:
        self._data = bytearray(BATCH * SLOT_BYTES)
        self._names = bytearray(BATCH * _NAME_BYTES)
        self._vectors = bytearray(BATCH * 16)
        self._headers = bytearray(BATCH * _MESSAGE_WORDS * 8)
        self._view = memoryview(self._data)
        self._indices = memoryview(self._names).cast("i")  # a sockaddr_ll has the interface in its second word
        self._lengths = memoryview(self._headers).cast("I")
        self._start = address_of(self._headers)
        data, names, vectors = address_of(self._data), address_of(self._names), address_of(self._vectors)
        vector_words, words = memoryview(self._vectors).cast("Q"), memoryview(self._headers).cast("Q")
        for n in range(BATCH):
            vector_words[2 * n], vector_words[2 * n + 1] = data + n * SLOT_BYTES, SLOT_BYTES
            at = n * _MESSAGE_WORDS
            words[at], words[at + 1] = names + n * _NAME_BYTES, _NAME_BYTES
            words[at + 2], words[at + 3] = vectors + 16 * n, 1

    def receive(self, fd: int, limit: int) -> list[tuple[int, bytes]]:
        """Interface and packet of what is waiting; a packet longer than its slot is cut, and its header tells."""
        count: int = _recvmmsg(fd, self._start, min(limit, BATCH), socket.MSG_DONTWAIT, None)
        lengths, view, indices = self._lengths, self._view, self._indices
        return [
            (
                indices[n * (_NAME_BYTES // 4) + 1],
                bytes(view[n * SLOT_BYTES : n * SLOT_BYTES + lengths[16 * n + 14]]),
            )
            for n in range(max(count, 0))
        ]
