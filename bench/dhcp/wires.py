"""A network namespace for the server, joined to the clients' one (that of this process) by a veth pair.

One rule: nothing is left. The server's namespace has no name; it lives as long as a process that waits for the end of
its standard input, which is when this process ends, however that happens, and then takes along what runs in there.
The clients' side has no address: what the load generator does not take, the kernel drops at once, for nobody there is
asked for.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.dhcp.work import PREFIX, SERVER, population

SERVER_DEVICE, CLIENT_DEVICE = "s0", "c0"
SERVER_MAC, CLIENT_MAC = "02:69:70:ff:00:01", "02:69:70:ff:00:02"
_HOLD = """
cat
own=$(readlink /proc/$$/ns/net)
for each in /proc/[0-9]*; do
  if [ "$(readlink $each/ns/net)" = "$own" ] && [ $each != /proc/$$ ]; then kill -9 ${each#/proc/}; fi
done
"""


class Wires:
    """``inside`` is the head of a command line that runs in the server's namespace."""

    def __init__(self, holder: int) -> None:
        self._holder = holder

    @property
    def inside(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._holder}/ns/net"]

    def build(self) -> None:
        pair = ["name", CLIENT_DEVICE, "address", CLIENT_MAC, "type", "veth", "peer", "name", SERVER_DEVICE]
        _run("ip", "link", "add", *pair, "address", SERVER_MAC, "netns", str(self._holder))
        _run("ip", "link", "set", CLIENT_DEVICE, "up")
        quiet = "for each in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $each; done"
        _run("sh", "-c", quiet)
        for words in (
            ["sh", "-c", quiet],
            ["ip", "link", "set", "lo", "up"],
            ["ip", "address", "add", f"{SERVER}/{PREFIX}", "brd", "+", "dev", SERVER_DEVICE],
            ["ip", "link", "set", SERVER_DEVICE, "up"],
        ):
            _run(*self.inside, *words)
        # Nobody answers ARP: the machines are frames of the load generator.
        known = "".join(
            f"neighbour add {address} lladdr {mac} dev {SERVER_DEVICE} nud permanent\n" for mac, address in population()
        )
        _run(*self.inside, "ip", "-batch", "-", given=known)


@contextmanager
def wires() -> Iterator[Wires]:
    """The pair of namespaces; this process must be in one of its own already."""
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", _HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_apart(holder)
        room = Wires(holder.pid)
        room.build()
        yield room
    finally:
        holder.communicate()


def _wait_apart(holder: subprocess.Popen[bytes]) -> None:
    """Until the process is in its own namespace."""
    ours = os.readlink("/proc/self/ns/net")
    until = time.monotonic() + 10
    while os.readlink(f"/proc/{holder.pid}/ns/net") == ours:
        if holder.poll() is not None or time.monotonic() > until:
            raise SystemExit("no network namespace for the server; run the bench as root")
        time.sleep(0.005)


def _run(*command: str, given: str | None = None) -> None:
    words: Sequence[str] = command
    done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.strip()}")
