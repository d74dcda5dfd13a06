"""Reading a file straight into the blocks of a buffer, each behind its header: preadv2(2).

One rule: an address handed to the kernel belongs to the object that made it, and lives as long.
"""

from __future__ import annotations

import ctypes
import errno
import os
from array import array

from pbserv.net.mmsg import address_of
from pbserv.tftp.content import HEADER_BYTES, write_opcodes

NOWAIT: int = os.RWF_NOWAIT
IOVECS = 1024  # IOV_MAX
_IN_MEMORY = frozenset({0x01021994, 0x858458F6})  # tmpfs, ramfs: statfs(2)

_libc = ctypes.CDLL(None, use_errno=True)
_preadv2 = getattr(_libc, "preadv2", None)  # musl has it since 1.2.5
if ctypes.sizeof(ctypes.c_long) != 8 and hasattr(_libc, "preadv64v2"):
    _preadv2 = _libc.preadv64v2
if _preadv2 is not None:
    _preadv2.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int)
    _preadv2.restype = ctypes.c_ssize_t


class Slots:
    """A buffer as a row of blocks with headers; the last may be shorter. 16 bytes per block go to the iovecs."""

    __slots__ = ("_data_bytes", "_iovecs", "_iovecs_at", "address", "buffer", "count", "stride", "view")

    def __init__(self, buffer: bytearray, block_size: int) -> None:
        self.buffer = buffer
        self.view = memoryview(buffer)
        self.address = address_of(buffer)
        self.stride = block_size + HEADER_BYTES
        write_opcodes(buffer, self.stride)
        starts = range(HEADER_BYTES, len(buffer) + 1, self.stride)
        self.count = len(starts)
        word = "L"  # an unsigned long is as wide as a pointer and as size_t on Linux
        self._iovecs = array(word, bytes(2 * self.count * array(word).itemsize))
        self._iovecs[0::2] = array(
            word, range(self.address + HEADER_BYTES, self.address + len(buffer) + 1, self.stride)
        )
        self._iovecs[1::2] = array(word, [block_size]) * self.count
        self._iovecs[-1] = min(block_size, len(buffer) - starts[-1])
        self._iovecs_at = self._iovecs.buffer_info()[0]
        self._data_bytes = 2 * self._iovecs.itemsize

    def read(self, fd: int, slot: int, count: int, offset: int, flags: int = 0) -> int:
        """One read into at most IOVECS blocks: the number of bytes. Raises OSError."""
        count = min(count, IOVECS)
        if _preadv2 is None:
            return os.preadv(fd, [self.data(place) for place in range(slot, slot + count)], offset, flags)
        got: int = _preadv2(fd, self._iovecs_at + slot * self._data_bytes, count, offset, flags)
        while got < 0:
            code = ctypes.get_errno()
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code))
            got = _preadv2(fd, self._iovecs_at + slot * self._data_bytes, count, offset, flags)
        return got

    def data(self, slot: int) -> memoryview:
        start = slot * self.stride
        return self.view[start + HEADER_BYTES : start + self.stride]


def in_memory(fd: int) -> bool:
    """Whether ``fd`` is on a file system that never waits for a device (unless it was swapped out)."""
    facts = ctypes.create_string_buffer(256)  # struct statfs begins with the type, as a long
    if _libc.fstatfs(fd, facts):
        return False
    return ctypes.c_ulong.from_buffer(facts).value & 0xFFFFFFFF in _IN_MEMORY


def at_hand(fd: int, size_bytes: int) -> bool:
    """Whether all of a file that is not large can be read now without waiting for a disk."""
    if in_memory(fd):
        return True
    if len(_scratch) < size_bytes:
        _scratch.extend(bytes(size_bytes - len(_scratch)))
    try:
        with memoryview(_scratch) as view:
            return os.preadv(fd, [view[:size_bytes]], 0, NOWAIT) == size_bytes
    except OSError:  # also where the file system cannot tell (see without_waiting)
        return False


_scratch = bytearray()


def without_waiting(fault: OSError) -> bool | None:
    """What a failed read with NOWAIT says: True, the pages are not in memory now; False, this file system cannot
    tell (tmpfs, overlayfs, FUSE, NFS: EOPNOTSUPP; kernels before 4.14: EINVAL or ENOSYS); None, it is a real fault."""
    if fault.errno == errno.EAGAIN:
        return True
    if fault.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
        return False
    return None
