"""Many UDP datagrams with one system call: recvmmsg(2) and sendmmsg(2), with UDP_SEGMENT (udp(7)) on top.

One rule: the memory that the kernel reads and writes belongs to objects of this module, which live as long as any
call that knows their addresses. What is queued in an Outbox keeps its memory until it has left.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

IP_PKTINFO = 8  # linux/in.h; these are missing from the socket module of CPython 3.11
IP_RECVERR = 11
IPV6_RECVERR = 25
UDP_SEGMENT = 103
BATCH = 64
"""Datagrams per system call."""
COPY_BYTES = 600
"""Room for a small datagram in an outbox."""

_MESSAGE_WORDS = 8  # struct mmsghdr in words of 8 bytes
_NAME_BYTES = 32  # a sockaddr_in6 has 28
_CONTROL_BYTES = 64
_CONTROL_HEAD = struct.Struct("=Qii")  # struct cmsghdr
_PKTINFO4 = struct.Struct("=I4s4s")
_PKTINFO6 = struct.Struct("=16sI")
_NAME4 = struct.Struct("=H2s4s8x")
_NAME6 = struct.Struct("=H2sI16sI")
_WORD = struct.Struct("=Q")

_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
_sendmmsg = _libc.sendmmsg
_sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]

Sockaddr = tuple[str, int] | tuple[str, int, int, int]
Key = int | bytes
"""A peer's address and port as the kernel writes them: one word for IPv4, all bytes for IPv6."""


def address_of(buffer: bytearray) -> int:
    """Where ``buffer`` lies, as long as its owner keeps it and does not resize it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class Endpoint:
    """One peer's address as the kernel wants it, and the control messages that go with what is sent to it."""

    __slots__ = ("_flight", "_name", "_source", "control", "control_bytes", "flight_bytes", "flight_control", "key",
                 "name", "segment_bytes", "sockaddr")  # fmt: skip

    def __init__(self, sockaddr: Sockaddr, source: bytes = b"") -> None:
        """``sockaddr`` as the socket module has it; ``source``: a control message that names our own address."""
        self.sockaddr = sockaddr
        raw = sockaddr_bytes(sockaddr)
        self._name = bytearray(raw)
        self.name = address_of(self._name)
        self.key: Key = _WORD.unpack_from(raw)[0] if len(raw) == 16 else raw
        self._source, self._flight = bytearray(source), bytearray()
        self.control, self.control_bytes = (address_of(self._source), len(source)) if source else (0, 0)
        self.flight_control = self.flight_bytes = self.segment_bytes = 0

    def segment(self, size_bytes: int) -> None:
        """Flights to this peer are cut into datagrams of ``size_bytes`` by the kernel."""
        head = _CONTROL_HEAD.pack(_CONTROL_HEAD.size + 2, socket.SOL_UDP, UDP_SEGMENT)
        self._flight = bytearray(bytes(self._source) + head + struct.pack("=H", size_bytes) + bytes(6))
        self.segment_bytes = size_bytes
        self.flight_control, self.flight_bytes = address_of(self._flight), len(self._flight)

    @property
    def source(self) -> list[tuple[int, int, bytes]]:
        """The control message that names our address, for sendmsg."""
        own = self._source
        if not own:
            return []
        size, level, kind = _CONTROL_HEAD.unpack_from(own)
        return [(level, kind, bytes(own[_CONTROL_HEAD.size : size]))]

    def unsent(self) -> None:
        """The kernel had no room for a queued datagram."""


def sockaddr_bytes(sockaddr: Sockaddr) -> bytes:
    """struct sockaddr_in or sockaddr_in6, as the kernel writes them."""
    if len(sockaddr) == 2:
        return _NAME4.pack(socket.AF_INET, sockaddr[1].to_bytes(2, "big"), socket.inet_aton(sockaddr[0]))
    host, port, flow, scope = sockaddr
    place = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return _NAME6.pack(socket.AF_INET6, port.to_bytes(2, "big"), flow, place, scope)


def source_control(local: str) -> bytes:
    """The control message that makes ``local`` the source of what an unbound socket sends; raises OSError when the
    interface of a link-local address is gone."""
    return _source_control(local) if "%" in local else _known_source(local)


def _source_control(local: str) -> bytes:
    if ":" in local:
        host, _, scope = local.partition("%")
        body = _PKTINFO6.pack(socket.inet_pton(socket.AF_INET6, host), _index(scope))
        level, kind = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO
    else:
        body = _PKTINFO4.pack(0, socket.inet_aton(local), b"\0\0\0\0")
        level, kind = socket.IPPROTO_IP, IP_PKTINFO
    size = _CONTROL_HEAD.size + len(body)
    return _CONTROL_HEAD.pack(size, level, kind) + body + bytes(-size % 8)


@lru_cache(maxsize=1024)
def route_control(local: str, ifindex: int) -> bytes:
    """The control message that makes ``local`` the source and interface ``ifindex`` the way out (0: by route); IPv4."""
    size = _CONTROL_HEAD.size + _PKTINFO4.size
    body = _PKTINFO4.pack(ifindex, socket.inet_aton(local), b"\0\0\0\0")
    return _CONTROL_HEAD.pack(size, socket.IPPROTO_IP, IP_PKTINFO) + body + bytes(-size % 8)


_known_source = lru_cache(maxsize=256)(_source_control)  # an interface may come back with another index


def _index(scope: str) -> int:
    return int(scope) if scope.isdigit() else socket.if_nametoindex(scope) if scope else 0


class Inbox:
    """Room for one batch of datagrams; shared by sockets of one family, because it is emptied before the next call."""

    def __init__(self, family: int, slot_bytes: int, *, packet_info: bool) -> None:
        """``slot_bytes``: the longest datagram that is kept whole; longer ones are cut."""
        self.family = family
        self.stride = (slot_bytes + 127) // 64 * 64  # not a power of two: those would share their cache lines
        self._packet_info = packet_info
        self._data = bytearray(BATCH * self.stride)
        self._names = bytearray(BATCH * _NAME_BYTES)
        self._controls = bytearray(BATCH * _CONTROL_BYTES)
        self._vectors = bytearray(BATCH * 16)
        self._headers = bytearray(BATCH * _MESSAGE_WORDS * 8)
        self._view = memoryview(self._data)
        self._header_words = memoryview(self._headers).cast("Q")
        self._lengths = memoryview(self._headers).cast("I")
        self._heads = memoryview(self._data).cast("I")
        self._head_stride = self.stride // 4
        self._name_words = memoryview(self._names).cast("Q")
        self._start = address_of(self._headers)
        self._used = BATCH
        self._prepare()

    def _prepare(self) -> None:
        vectors = memoryview(self._vectors).cast("Q")
        data, vector, name = address_of(self._data), address_of(self._vectors), address_of(self._names)
        for n in range(BATCH):
            vectors[2 * n], vectors[2 * n + 1] = data + n * self.stride, self.stride
            at = n * _MESSAGE_WORDS
            self._header_words[at] = name + n * _NAME_BYTES
            self._header_words[at + 1] = _NAME_BYTES if self.family == socket.AF_INET6 else 16
            self._header_words[at + 2], self._header_words[at + 3] = vector + 16 * n, 1
            if self._packet_info:
                self._header_words[at + 4] = address_of(self._controls) + n * _CONTROL_BYTES

    def receive(self, fd: int) -> int:
        """How many datagrams were waiting, at most BATCH; -1 for an error that waits in the error queue."""
        used = self._used * _MESSAGE_WORDS  # the kernel wrote lengths into those, and into no others
        if self._packet_info:
            words = self._header_words
            for at in range(5, used, _MESSAGE_WORDS):
                words[at] = _CONTROL_BYTES
        if self.family == socket.AF_INET6:
            words = self._header_words
            for at in range(1, used, _MESSAGE_WORDS):
                words[at] = _NAME_BYTES
        found: int = _recvmmsg(fd, self._start, BATCH, socket.MSG_DONTWAIT, None)
        # One more than were filled: the kernel may have begun with the next when it failed.
        self._used = BATCH if found < 0 else min(found + 1, BATCH)
        if found >= 0:
            return found
        return 0 if ctypes.get_errno() in (errno.EAGAIN, errno.EINTR) else -1

    def key(self, n: int) -> Key:
        """Compare with Endpoint.key."""
        if self.family == socket.AF_INET:
            return self._name_words[4 * n]
        return bytes(self._names[n * _NAME_BYTES : n * _NAME_BYTES + 28])

    def summaries(self, count: int) -> Iterator[tuple[int, Key, int, int]]:
        """Number, key, head and length of the first ``count`` datagrams.

        A head is the first four bytes as a machine word; what lies behind the length means nothing.
        """
        if self.family == socket.AF_INET:
            keys: Sequence[Key] = self._name_words[: 4 * count : 4].tolist()
        else:
            keys = [self.key(n) for n in range(count)]
        return zip(
            range(count),
            keys,
            self._heads[: self._head_stride * count : self._head_stride].tolist(),
            self._lengths[14 : 16 * count : 16].tolist(),
            strict=True,
        )

    def arrivals(self, count: int) -> Iterator[tuple[bytes, tuple[str, int], tuple[str, str, int]]]:
        """IPv4: :meth:`datagram`, :meth:`sender` and :meth:`destination` of the first ``count`` (the hot path)."""
        view, lengths, words, stride = self._view, self._lengths, self._header_words, self.stride
        names, controls = self._names, self._controls
        for n in range(count):
            start, name, control = n * stride, n * _NAME_BYTES, n * _CONTROL_BYTES
            yield (
                bytes(view[start : start + lengths[16 * n + 14]]),
                _sender4(bytes(names[name : name + 16])),
                _packet(bytes(controls[control : control + words[n * _MESSAGE_WORDS + 5]])),
            )

    def datagram(self, n: int) -> bytes:
        start = n * self.stride
        return bytes(self._view[start : start + self._lengths[16 * n + 14]])

    def sockaddr(self, n: int) -> Sockaddr:
        """The sender, as the socket module has it."""
        at = n * _NAME_BYTES
        if self.family == socket.AF_INET:
            _family, port, place = _NAME4.unpack_from(self._names, at)
            return socket.inet_ntoa(place), int.from_bytes(port, "big")
        _family, port, flow, place, scope = _NAME6.unpack_from(self._names, at)
        return socket.inet_ntop(socket.AF_INET6, place), int.from_bytes(port, "big"), flow, scope

    def sender(self, n: int) -> tuple[str, int]:
        """Address and port in words; a link-local address has its scope (``fe80::1%eth0``)."""
        if self.family == socket.AF_INET:
            at = n * _NAME_BYTES
            return _sender4(bytes(self._names[at : at + 16]))
        sockaddr = self.sockaddr(n)
        return (sockaddr[0] if len(sockaddr) == 2 else _with_scope(sockaddr[0], sockaddr[3])), sockaddr[1]

    def destination(self, n: int) -> tuple[str, str, int]:
        """This host's address on the wire that datagram ``n`` came by, the address that the sender wrote (which may
        be a broadcast), and the index of the interface; empty without packet info."""
        at = n * _CONTROL_BYTES
        held = self._header_words[n * _MESSAGE_WORDS + 5] if self._packet_info else 0
        local, written, ifindex = _packet(bytes(self._controls[at : at + held]))
        if ":" not in written:
            return local, written, ifindex
        return _with_scope(local, ifindex), _with_scope(written, ifindex), ifindex


@lru_cache(maxsize=8192)
def _sender4(name: bytes) -> tuple[str, int]:
    _family, port, place = _NAME4.unpack(name)
    return socket.inet_ntoa(place), int.from_bytes(port, "big")


@lru_cache(maxsize=256)
def _packet(control: bytes) -> tuple[str, str, int]:
    """Our address, the address written and the interface, from the first control message."""
    if len(control) < _CONTROL_HEAD.size:
        return "", "", 0
    size, level, kind = _CONTROL_HEAD.unpack_from(control)
    if size > len(control):
        return "", "", 0
    if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
        ifindex, spec, target = _PKTINFO4.unpack_from(control, _CONTROL_HEAD.size)
        return socket.inet_ntoa(spec), socket.inet_ntoa(target), ifindex
    if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
        target, ifindex = _PKTINFO6.unpack_from(control, _CONTROL_HEAD.size)
        written = socket.inet_ntop(socket.AF_INET6, target)
        return ("" if target[0] == 0xFF else written), written, ifindex
    return "", "", 0


def _with_scope(address: str, scope: int) -> str:
    if not address.startswith("fe80:"):
        return address
    try:
        return f"{address}%{socket.if_indextoname(scope)}"
    except OSError:
        return f"{address}%{scope}"


class Outbox:
    """Datagrams of one socket that will leave together.

    ``put`` and ``put_flight`` take addresses: their memory must stay until the flush. ``put_copy`` takes bytes.
    """

    def __init__(self, family: int, flush: Callable[[], None]) -> None:
        """``flush`` is called when the box is full; it must empty it."""
        self._flush = flush
        self._controls: list[int] = []  # where a control message is set; it is zero everywhere else
        self._headers = bytearray(BATCH * _MESSAGE_WORDS * 8)
        self._vectors = bytearray(BATCH * 16)
        self._copies = bytearray(BATCH * COPY_BYTES)
        self._header_words = memoryview(self._headers).cast("Q")
        self._vector_words = memoryview(self._vectors).cast("Q")
        self._start, vectors = address_of(self._headers), address_of(self._vectors)
        self._copies_start, self._copy_view = address_of(self._copies), memoryview(self._copies)
        for n in range(BATCH):
            at = n * _MESSAGE_WORDS
            self._header_words[at + 1] = _NAME_BYTES - 4 if family == socket.AF_INET6 else 16
            self._header_words[at + 2], self._header_words[at + 3] = vectors + 16 * n, 1
        self.waiting: list[Endpoint] = []

    def put(self, to: Endpoint, address: int, length: int) -> None:
        """One datagram (the hot path)."""
        waiting = self.waiting
        n = len(waiting)
        if n == BATCH:
            self._flush()
            n = 0
        self._header_words[n * _MESSAGE_WORDS] = to.name
        vectors, n = self._vector_words, n + n
        vectors[n] = address
        vectors[n + 1] = length
        waiting.append(to)
        if to.control:
            self._accompany(to.control, to.control_bytes)

    def _accompany(self, control: int, size: int) -> None:
        """The newest entry leaves with a control message."""
        at = (len(self.waiting) - 1) * _MESSAGE_WORDS
        self._header_words[at + 4], self._header_words[at + 5] = control, size
        self._controls.append(at)

    def put_copy(self, to: Endpoint, data: bytes | bytearray) -> None:
        """One datagram of at most COPY_BYTES, which may be forgotten at once."""
        waiting, length = self.waiting, len(data)
        n = len(waiting)
        if n == BATCH:
            self._flush()
            n = 0
        at, head = n * COPY_BYTES, n * _MESSAGE_WORDS
        self._copy_view[at : at + length] = data
        words, vectors = self._header_words, self._vector_words
        words[head] = to.name
        if to.control:
            words[head + 4], words[head + 5] = to.control, to.control_bytes
            self._controls.append(head)
        vectors[n + n] = self._copies_start + at
        vectors[n + n + 1] = length
        waiting.append(to)

    def put_flight(self, to: Endpoint, address: int, length: int) -> None:
        """Several datagrams in one; ``to.segment`` was called before."""
        self.put(to, address, length)
        self._accompany(to.flight_control, to.flight_bytes)

    def send(self, fd: int, first: int) -> tuple[int, int]:
        """Send from entry ``first`` on: how many left, and the errno that stopped the rest (0: none)."""
        wanted = len(self.waiting) - first
        sent: int = _sendmmsg(fd, self._start + first * _MESSAGE_WORDS * 8, wanted, socket.MSG_DONTWAIT)
        if sent < 0:
            return 0, ctypes.get_errno()
        return sent, 0

    def is_flight(self, n: int) -> bool:
        to = self.waiting[n]
        return to.flight_control != 0 and self._header_words[n * _MESSAGE_WORDS + 4] == to.flight_control

    def copy(self, n: int) -> bytes:
        """The bytes of entry ``n``."""
        return ctypes.string_at(self._vector_words[2 * n], self._vector_words[2 * n + 1])

    def clear(self) -> None:
        self.waiting.clear()
        for at in self._controls:
            self._header_words[at + 4] = self._header_words[at + 5] = 0
        self._controls.clear()


def unreachable_peers(raw: socket.socket) -> list[tuple[str, int] | tuple[str, int, int, int]]:
    """Empty the error queue (ip(7), IP_RECVERR): the peers whose port is closed."""
    found = []
    for _ in range(4 * BATCH):
        try:
            _data, control, _flags, sockaddr = raw.recvmsg(64, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError:
            break
        for _level, kind, body in control:
            if kind in (IP_RECVERR, IPV6_RECVERR) and len(body) >= 16:
                code = struct.unpack_from("=I", body)[0]
                if code == errno.ECONNREFUSED:
                    found.append(sockaddr)
    return found
