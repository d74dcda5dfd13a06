"""Signals to the running server, through a pidfd, so that a recycled process id is never hit."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from pbserv.daemon.pidfile import read_state
from pbserv.errors import ControlError


def signal_server(path: Path, signum: signal.Signals) -> int:
    """Send one signal to the process that holds the pid file; its id. Raises ControlError when there is none."""
    with _opened(path) as server:
        if server is None:
            raise ControlError("pbserv is not running")
        _send(server, signum)
        return server[0]


def stop_server(path: Path, timeout_s: float = 60.0, *, kill: bool = False) -> int | None:
    """SIGTERM, then wait until the process is gone; its id, or None when nothing ran.

    After ``timeout_s`` raises ControlError, or with ``kill`` ends the process with SIGKILL.
    """
    with _opened(path) as server:
        if server is None:
            return None
        _send(server, signal.SIGTERM)
        if wait_for_end(server[1], timeout_s):
            return server[0]
        if not kill:
            raise ControlError(f"process {server[0]} did not end within {timeout_s:g} s")
        _send(server, signal.SIGKILL)
        wait_for_end(server[1], 10.0)
        return server[0]


def wait_for_end(pidfd: int, timeout_s: float) -> bool:
    """True as soon as the process of ``pidfd`` has ended (a zombie counts: its files and locks are released)."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        if poller.poll(left_s * 1000):
            return True
    return bool(poller.poll(0))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int] | None]:
    """(pid, pidfd) of the running server; the lock is tested again once the pidfd is open."""
    state = read_state(path)
    if state.reason:
        raise ControlError(state.reason)
    pid = state.pid
    if not state.running or pid is None:
        yield None
        return
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        again = read_state(path)
        yield (pid, pidfd) if again.running and again.pid == pid else None
    finally:
        os.close(pidfd)


def _send(server: tuple[int, int], signum: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(server[1], signum)
    except ProcessLookupError:
        return
    except PermissionError:
        raise ControlError(
            f"process {server[0]}: permission denied; run this command as root or as the service user"
        ) from None
