"""Who holds which port: proc_net(5) says the socket, /proc/PID/fd whose it is.

One rule: what belongs to other users is hidden from everybody but root, so a holder may have no name.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from pbserv.doctor.facts import Bound

PROC: Final = Path("/proc")
_TCP_LISTEN: Final = "0A"
_FILES: Final = (("udp", "udp"), ("udp6", "udp"), ("tcp", "tcp"), ("tcp6", "tcp"))


class Socket(NamedTuple):
    address: str
    port: int
    inode: str


def bound_sockets(ports: Collection[int]) -> tuple[Bound, ...]:
    """Everything that is bound to one of ``ports`` in this network namespace."""
    found = [
        (protocol, socket)
        for name, protocol in _FILES
        for socket in parse(_text(PROC / "net" / name), listening=protocol == "tcp")
        if socket.port in ports
    ]
    owners = _owners({socket.inode for _protocol, socket in found})
    return tuple(
        Bound(protocol, socket.address, socket.port, *owners.get(socket.inode, (None, "")))
        for protocol, socket in found
    )


def parse(text: str, *, listening: bool) -> Iterator[Socket]:
    """The lines of /proc/net/udp and its like; of TCP only what listens. Lines of another form are left out."""
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 10 or (listening and words[3] != _TCP_LISTEN):
            continue
        address, _, port = words[1].partition(":")
        try:
            yield Socket(_address(address), int(port, 16), words[9])
        except ValueError:
            continue


def _address(digits: str) -> str:
    """The kernel prints 32-bit words in its own byte order."""
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    octets = struct.pack(f"={len(words)}I", *words)
    if len(octets) == 4:
        return ".".join(map(str, octets))
    if not any(octets):
        return "::"
    return ":".join(octets[at : at + 2].hex() for at in range(0, 16, 2))


def _owners(inodes: Collection[str]) -> dict[str, tuple[int, str]]:
    """Process id and program of the sockets that we may see."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, tuple[int, str]] = {}
    for pid in processes() if wanted else ():
        try:
            names = os.listdir(PROC / str(pid) / "fd")
        except OSError:
            continue
        for name in names:
            link = _link(PROC / str(pid) / "fd" / name)
            if link in wanted and wanted[link] not in found:
                found[wanted[link]] = (pid, program_of(pid))
    return found


def processes() -> Iterator[int]:
    """Every process id that /proc shows."""
    return (int(name) for name in os.listdir(PROC) if name.isdigit())


def program_of(pid: int) -> str:
    """The program's name, at most 15 characters; empty when the process is gone."""
    return _text(PROC / str(pid) / "comm").strip()


def programs_here(names: Collection[str]) -> tuple[str, ...]:
    """Those of ``names`` that run in our network namespace."""
    home = _namespace("self")
    return tuple(
        name for name in names if any(program_of(pid) == name and _namespace(str(pid)) == home for pid in processes())
    )


def _namespace(pid: str) -> str:
    return _link(PROC / pid / "ns" / "net")


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
