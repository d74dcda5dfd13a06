"""From root to the service user, with two capabilities left: bind low ports, open raw sockets. See capabilities(7).

The rule: after ``drop_privileges`` nothing in this process, and no program that it starts, can gain any other right.
It must be called while the process has one thread: capabilities belong to threads.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pbserv.errors import PbservError

CAP_SETPCAP = 8
CAP_NET_BIND_SERVICE = 10
CAP_NET_RAW = 13
KEPT_CAPABILITIES = frozenset({CAP_NET_BIND_SERVICE, CAP_NET_RAW})

_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECBIT_NOROOT = 1 << 0
_SECBIT_NOROOT_LOCKED = 1 << 1
_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True, slots=True)
class Account:
    """The user that the service runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class CapabilitySets:
    """Capability numbers of this thread."""

    effective: frozenset[int]
    permitted: frozenset[int]
    inheritable: frozenset[int]


def find_account(user: str) -> Account:
    """Look up a user by name; raises PbservError with what to do."""
    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise PbservError(
            f"User = {user}: there is no such user on this machine; `pbserv install` creates it, or name another one"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def require_root(what: str) -> None:
    """Raises PbservError unless we are root."""
    if os.geteuid() != 0:
        raise PbservError(f"{what} needs root rights: run it as root or with sudo")


def capabilities() -> CapabilitySets:
    """What this thread holds now."""
    header, data = _header(), (_CapabilityData * 2)()
    if _libc.capget(ctypes.byref(header), data) != 0:
        raise _failed("capget")
    return CapabilitySets(
        effective=_numbers(data[0].effective, data[1].effective),
        permitted=_numbers(data[0].permitted, data[1].permitted),
        inheritable=_numbers(data[0].inheritable, data[1].inheritable),
    )


def can_bind(port: int) -> bool:
    """Whether this process may bind ``port`` (not whether the port is free)."""
    try:
        first_free = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        first_free = 1024
    return port == 0 or port >= first_free or CAP_NET_BIND_SERVICE in capabilities().effective


def drop_privileges(user: str) -> Account:
    """As root become ``user`` and keep only KEPT_CAPABILITIES; the account that we run as now.

    ``User = root`` keeps the user id and loses the other capabilities all the same. Not root (systemd has done the
    work already, or a developer runs it): the user stays, and rights beyond the two are given up. Raises PbservError
    when the user is unknown or the kernel refuses; the process must then end, it may be half way.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("privileges are dropped before threads are started")
    if os.geteuid() != 0:
        _restrict(KEPT_CAPABILITIES & capabilities().permitted)
        return _own_account()
    account = find_account(user)
    held = capabilities().permitted
    _drop_bounding_set()
    try:
        os.setgroups(os.getgrouplist(account.name, account.gid))
        _prctl(_PR_SET_KEEPCAPS, 1)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        raise PbservError(f"cannot become user {user}: {error.strerror}") from error
    _restrict(KEPT_CAPABILITIES & held)
    _prctl(_PR_SET_KEEPCAPS, 0)
    # Secrets pass through our memory; another process of the same user has no business in it.
    _prctl(_PR_SET_DUMPABLE, 0)
    if os.getresuid() != (account.uid,) * 3 or os.getresgid() != (account.gid,) * 3:
        raise PbservError(f"the kernel did not make us user {user}")
    return account


def _own_account() -> Account:
    uid, gid = os.geteuid(), os.getegid()
    try:
        return Account(pwd.getpwuid(uid).pw_name, uid, gid)
    except KeyError:
        return Account(str(uid), uid, gid)


def _drop_bounding_set() -> None:
    """Programs that we start cannot get more than the two either, not even set-uid or as uid 0. Where possible."""
    if CAP_SETPCAP not in capabilities().effective:
        return
    _prctl(_PR_SET_SECUREBITS, _SECBIT_NOROOT | _SECBIT_NOROOT_LOCKED, tolerated=(errno.EPERM, errno.EINVAL))
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for number in range(last + 1):
        if number not in KEPT_CAPABILITIES:
            _prctl(_PR_CAPBSET_DROP, number, tolerated=(errno.EPERM, errno.EINVAL))


def _restrict(kept: frozenset[int]) -> None:
    """Permitted and effective become exactly ``kept``, inheritable and ambient empty; no program raises them again."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, tolerated=(errno.EINVAL,))
    header, data = _header(), (_CapabilityData * 2)()
    for number in kept:
        half = data[number // 32]
        half.effective |= 1 << number % 32
        half.permitted |= 1 << number % 32
    if _libc.capset(ctypes.byref(header), data) != 0:
        raise _failed("capset")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    held = capabilities()
    if held.effective != kept or held.permitted != kept or held.inheritable:
        raise PbservError("the kernel did not reduce our capabilities as asked")


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)


def _header() -> _CapabilityHeader:
    return _CapabilityHeader(_CAPABILITY_VERSION_3, 0)


def _numbers(low: int, high: int) -> frozenset[int]:
    mask = low | high << 32
    return frozenset(number for number in range(64) if mask >> number & 1)


def _prctl(option: int, value: int, tolerated: Iterable[int] = ()) -> None:
    arguments = (ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    if _libc.prctl(ctypes.c_int(option), *arguments) != 0 and ctypes.get_errno() not in tolerated:
        raise _failed(f"prctl({option}, {value})")


def _failed(call: str) -> PbservError:
    return PbservError(f"cannot give up rights: {call}: {os.strerror(ctypes.get_errno())}")
