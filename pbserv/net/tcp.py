"""Listening TCP sockets, and what the kernel knows of a connection."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from pbserv.errors import StartError
from pbserv.net.udp import bind_fault

IP_FREEBIND = 15  # linux/in.h; missing from the socket module of CPython 3.11


def listen(address: str, port: int, *, share: bool = False) -> socket.socket:
    """A listening, non-blocking IPv4 socket. A cluster address that this host does not have yet is fine.

    With ``share`` the port may be listened on by another socket of ours that sets the same option.
    Raises StartError with the remedy.
    """
    raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        raw.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        if share:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        raw.bind((address, port))
        raw.listen(1024)
        if share:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)  # for the moment of binding only
    except OSError as fault:
        raw.close()
        raise StartError(bind_fault("tcp", address, port, fault)) from None
    return raw


@contextlib.contextmanager
def sharing(bound: socket.socket) -> Iterator[None]:
    """Inside, another socket of this user may bind the port of ``bound``: a wildcard and one address, or the reverse.

    The option is taken back afterwards, so that no other program can ever share the port.
    """
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        yield
    finally:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def tcp_info(fd: int, size: int) -> bytes:
    """The first ``size`` bytes of struct tcp_info (linux/tcp.h) of a connection; raises OSError.

    Needs no descriptor of its own: it works also when the process has none left.
    """
    raw = socket.socket(
        socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd
    )  # said, so that nothing is asked of the kernel
    try:
        return raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    finally:
        raw.detach()
