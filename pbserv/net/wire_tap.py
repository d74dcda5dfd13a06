"""A network card as a client without an address sees it: whole Ethernet frames, both ways (packet(7)).

One rule: nothing of the host changes. No address is taken and no port is bound for good, so what this host's own
services and clients do on the same wire goes on, and is heard as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pbserv.errors import StartError
from pbserv.net.mmsg import IP_PKTINFO

ETHERNET: Final = 1  # ARPHRD_ETHER of if_arp.h
ETH_P_ALL: Final = 0x0003
_SOL_PACKET: Final = 263
_PACKET_ADD_MEMBERSHIP: Final = 1
_PACKET_AUXDATA: Final = 8
_MR_PROMISC: Final = 1
_SO_ATTACH_FILTER: Final = 26
_SIOCGIFFLAGS: Final = 0x8913
_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GLINK: Final = 0x0A
_AUXDATA: Final = struct.Struct("=IIIHHHH")  # tpacket_auxdata
_VLAN_VALID: Final = 0x10
_FRAME_BYTES: Final = 65_535
_PER_SOCKET: Final = 64
_PKTINFO: Final = struct.Struct("=I4s4s")


@dataclass(frozen=True, slots=True)
class Captured:
    """One frame. ``at`` is the monotonic clock and ``wall`` the time of day; ``own`` says that this host sent it."""

    frame: bytes
    at: float
    wall: float
    own: bool


class WireTap:
    """Hears IPv4 UDP to some ports on one interface, and on loopback, where this host's own services answer it."""

    def __init__(self, name: str, wire: socket.socket, loop: socket.socket, ip: socket.socket) -> None:
        self.name = name
        self.ifindex = socket.if_nametoindex(name)
        self._wire = wire
        self._loop = loop
        self._ip = ip
        self._poll = select.poll()
        for raw in (wire, loop):
            self._poll.register(raw, select.POLLIN)

    @classmethod
    def open(cls, interface: str, ports: Sequence[int]) -> WireTap:
        """Hear UDP to ``ports``; raises StartError that names the remedy."""
        _check(interface)
        with contextlib.ExitStack() as stack:
            try:
                wire = stack.enter_context(_listen(interface, ports, promiscuous=True))
                loop = stack.enter_context(_listen("lo", ports, promiscuous=False))
                ip = stack.enter_context(_ip_socket())
            except PermissionError:
                raise StartError(
                    f"{interface}: to hear and send whole frames needs root or CAP_NET_RAW; run it with sudo"
                ) from None
            except OSError as fault:
                raise StartError(f"{interface}: {fault.strerror or fault}") from None
            stack.pop_all()
        return cls(interface, wire, loop, ip)

    @property
    def mac(self) -> bytes:
        """The card's own address."""
        address: bytes = self._wire.getsockname()[4]
        return address

    def send_frame(self, frame: bytes) -> None:
        """Put an Ethernet frame on the wire; raises StartError. This host's own services do not hear it."""
        try:
            self._wire.send(frame)
        except OSError as fault:
            raise StartError(f"{self.name}: {fault.strerror or fault}") from None

    def send_packet(self, packet: bytes, destination: str, ifindex: int = 0) -> bool:
        """Send a whole IPv4 packet by the host's routes; False when the kernel refused.

        To one of this host's own addresses it never leaves the host, and with ``ifindex`` the listener there is told
        that interface: that is how services on this host hear what a card would bring them.
        """
        control = [(socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO.pack(ifindex, bytes(4), bytes(4)))]
        try:
            self._ip.sendmsg([packet], control, 0, (destination, 0))
        except OSError:
            return False
        return True

    def hear(self, until: float) -> list[Captured]:
        """What came; waits until the monotonic time ``until`` for the first frame, then returns an empty list."""
        found: list[Captured] = []
        while not found:
            left_s = until - time.monotonic()
            for fd, _event in self._poll.poll(max(0.0, left_s) * 1000):
                raw = self._wire if fd == self._wire.fileno() else self._loop
                found += _drain(raw, both_ways=raw is self._wire)
            if left_s <= 0:
                break
        return found

    @contextlib.contextmanager
    def holding(self, address: str, port: int) -> Iterator[None]:
        """Keep a UDP port meanwhile, where it is free, lest the kernel answers what comes there as unreachable.

        A DHCP client that begins meanwhile gets it all the same: such clients share it (SO_REUSEADDR).
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
            with contextlib.suppress(OSError):  # somebody has it: then nothing is unreachable either
                holder.bind((address, port))
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after the bind: we take from nobody
            yield

    def close(self) -> None:
        for raw in (self._wire, self._loop, self._ip):
            raw.close()


def _drain(raw: socket.socket, both_ways: bool) -> Iterator[Captured]:
    for _ in range(_PER_SOCKET):
        try:
            frame, control, _flags, (_name, _protocol, kind, _type, _address) = raw.recvmsg(
                _FRAME_BYTES, socket.CMSG_SPACE(_AUXDATA.size)
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError as fault:  # the interface went down
            raise StartError(f"{raw.getsockname()[0]}: {fault.strerror or fault}") from None
        own = kind == socket.PACKET_OUTGOING
        if (both_ways or not own) and not _tagged(control):
            yield Captured(frame, time.monotonic(), time.time(), own)


def _tagged(control: list[tuple[int, int, bytes]]) -> bool:
    """Whether the frame belongs to a VLAN on this wire: the kernel takes the tag off before we see the frame."""
    return any(
        level == _SOL_PACKET
        and kind == _PACKET_AUXDATA
        and len(value) >= _AUXDATA.size
        and _AUXDATA.unpack_from(value)[0] & _VLAN_VALID
        for level, kind, value in control
    )


def _listen(interface: str, ports: Sequence[int], promiscuous: bool) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        attach(raw, udp_filter(ports))  # before the bind: no frame comes past the filter
        raw.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        if promiscuous:  # replies go to a hardware address that this card does not have
            request = struct.pack("=iHH8s", socket.if_nametoindex(interface), _MR_PROMISC, 0, bytes(8))
            raw.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)
        # ETH_P_ALL, since with any other protocol frames that this host sends are not heard.
        raw.bind((interface, ETH_P_ALL))
        if promiscuous and raw.getsockname()[3] != ETHERNET:
            raise OSError(errno.EPROTOTYPE, "not an Ethernet interface, so no firmware boots through it")
    except OSError:
        raw.close()
        raise
    return raw


def _ip_socket() -> socket.socket:
    raw = socket.socket(
        socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW
    )
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return raw


def _check(interface: str) -> None:
    """Raise StartError when the interface is missing, down, or without a link."""
    names = [name for _index, name in socket.if_nameindex()]
    if interface not in names:
        there = ", ".join(name for name in names if name != "lo") or "none"
        raise StartError(f"{interface}: no such interface; this host has: {there}")
    flags = flags_of(interface)
    if flags & _IFF_LOOPBACK:
        raise StartError(f"{interface}: the loopback interface leads to no wire; name another")
    if not flags & _IFF_UP:
        raise StartError(f"{interface}: the interface is down; try: ip link set {interface} up")
    if not has_link(interface):
        raise StartError(f"{interface}: no link; look at the cable and the switch")


def flags_of(interface: str) -> int:
    """The flags of netdevice(7); raises OSError when there is no such interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        answer = fcntl.ioctl(raw, _SIOCGIFFLAGS, struct.pack("16sH22x", interface.encode(), 0))
    flags: int = struct.unpack_from("H", answer, 16)[0]
    return flags


def has_link(interface: str) -> bool:
    """Whether the card has a carrier now (IFF_RUNNING follows up to a second later); True when it cannot say."""
    question = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_GLINK, 1), 8)
    request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(question))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw, contextlib.suppress(OSError):
        fcntl.ioctl(raw, _SIOCETHTOOL, request)
    carrier: int = struct.unpack_from("I", question.raw, 4)[0]
    return carrier != 0


def attach(raw: socket.socket, program: bytes) -> None:
    """Give the socket a classic BPF filter (SO_ATTACH_FILTER)."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
    raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def udp_filter(ports: Sequence[int]) -> bytes:
    """A classic BPF program for Ethernet frames: whole IPv4 UDP datagrams to one of ``ports``."""
    count = len(ports)
    code = [
        (0x28, 0, 0, 12),  # ldh [12]: the Ethernet type
        (0x15, 0, 6 + count, 0x0800),
        (0x30, 0, 0, 23),  # ldb [23]: the protocol
        (0x15, 0, 4 + count, socket.IPPROTO_UDP),
        (0x28, 0, 0, 20),  # ldh [20]: MF and the fragment offset
        (0x45, 2 + count, 0, 0x3FFF),
        (0xB1, 0, 0, 14),  # ldxb 4*([14]&0xf): the length of the IP header
        (0x48, 0, 0, 16),  # ldh [x+16]: the destination port
        *((0x15, count - number, 0, port) for number, port in enumerate(ports)),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, _FRAME_BYTES),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
