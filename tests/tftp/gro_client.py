"""A client for very large files, run as a program: the kernel hands it a whole flight at once (UDP_GRO, udp(7)).

One rule: every byte of every DATA packet is compared, headers included, with what was written down beforehand: zeroes,
and the marks at their offsets. Prints what it saw as JSON; any difference ends it with a traceback.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from collections.abc import Mapping

UDP_GRO = 104
LARGEST = 65535
HIGH = bytes(number >> 8 for number in range(65536)) * 2
LOW = bytes(number & 255 for number in range(65536)) * 2


class Expected:
    """The flights of a file of zeroes with ``marks`` in it, as they must arrive."""

    def __init__(self, size: int, block_size: int, window: int, marks: Mapping[int, bytes]) -> None:
        self.last = size // block_size + 1
        self._size, self._block_size, self._stride = size, block_size, block_size + 4
        self._zeroes = bytearray((b"\0\3\0\0" + bytes(block_size)) * window)
        self._marks = {at + n: byte for at, mark in marks.items() for n, byte in enumerate(mark)}
        self._marked = {place // block_size // window * window + 1 for place in self._marks}  # first blocks of flights

    def flight(self, first: int, count: int) -> bytearray:
        """The same buffer at each call, unless there are marks or an end in it."""
        stride, number, flight = self._stride, first % 65536, self._zeroes  # block 65536 has number 0
        if first in self._marked or first + count > self.last:
            flight = flight[: count * stride]
        flight[2::stride], flight[3::stride] = HIGH[number : number + count], LOW[number : number + count]
        if first in self._marked:
            start = (first - 1) * self._block_size
            for place, byte in self._marks.items():
                block, offset = divmod(place - start, self._block_size)
                if 0 <= block < count:
                    flight[block * stride + 4 + offset] = byte
        if first + count > self.last:
            del flight[len(flight) - (self.last * self._block_size - self._size) :]
        return flight


def fetch(port: int, name: str, size: int, block_size: int, window: int, marks: Mapping[int, bytes]) -> dict[str, int]:
    """The whole file. A ``timeout`` of 10 s is agreed on, so a busy machine alone causes no retransmission."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    wait(raw, 20)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    raw.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    asked = {"blksize": block_size, "windowsize": window, "tsize": 0, "timeout": 10}
    words = [name, "octet", *(str(word) for pair in asked.items() for word in pair)]
    raw.sendto(b"\0\1" + b"".join(word.encode() + b"\0" for word in words), ("127.0.0.1", port))
    answer, server = raw.recvfrom(LARGEST)
    found = answer[2:].split(b"\0")
    agreed = dict(zip(found[0::2], map(int, found[1::2]), strict=False))
    assert answer[:2] == b"\0\6", answer
    assert agreed == {b"blksize": block_size, b"windowsize": window, b"tsize": size, b"timeout": 10}, agreed
    raw.connect(server)
    raw.send(b"\0\4\0\0")
    seen = receive(raw, Expected(size, block_size, window, marks), block_size + 4, window)
    wait(raw, 0.3)
    try:
        raise AssertionError(f"more than the file: {raw.recv(LARGEST)[:4]!r}")
    except BlockingIOError:
        return seen


def wait(raw: socket.socket, seconds: float) -> None:
    """As settimeout(), which would poll(2) before each call."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6)))


def receive(raw: socket.socket, expected: Expected, stride: int, window: int) -> dict[str, int]:
    first, calls, rollovers = 1, 0, 0
    while first <= expected.last:
        count = min(window, expected.last + 1 - first)
        flight, place = expected.flight(first, count), 0
        while place < len(flight):
            got, control, _flags, _peer = raw.recvmsg(LARGEST, 64)
            calls += 1
            segment = int.from_bytes(control[0][2], sys.byteorder) if control else len(got)
            assert segment == stride or place + len(got) == len(flight), (first, place, segment)
            if place or len(got) != len(flight):
                assert got == flight[place : place + len(got)], difference(first, got, stride)
            else:
                assert got == flight, difference(first, got, stride)
            place += len(got)
        rollovers += (first + count - 1) // 65536 - (first - 1) // 65536
        first += count
        raw.send(b"\0\4" + (first - 1 & 0xFFFF).to_bytes(2, "big"))
    return {"blocks": first - 1, "calls": calls, "rollovers": rollovers}


def difference(first: int, got: bytes, stride: int) -> str:
    numbers = [high << 8 | low for high, low in zip(got[2::stride], got[3::stride], strict=False)]
    return f"a flight that starts with block {first} ({first & 0xFFFF}) differs; numbers in what came: {numbers}"


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    wanted["marks"] = {int(at): bytes.fromhex(mark) for at, mark in wanted["marks"].items()}
    print(json.dumps(fetch(**wanted)))
