"""A small room: one bridge and a few network namespaces around it, made of veth pairs and taps.

The bridge and the taps stand in the room's switch namespace, and so do the virtual machines; each host (the DHCP
server, our server) has a namespace of its own. Nothing here touches the network of the machine that runs the tests.

Rule: a name carries the process id of its maker, so that a later run can tell a leftover from a room in use.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PREFIX = "pbroom"


class RoomError(RuntimeError):
    """A command that builds the room failed; the message holds what it printed."""


def run(*command: str | Path, check: bool = True, timeout_s: float = 60) -> str:
    """Run a command and return what it printed on stdout; raises RoomError with its stderr when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout_s)
    if check and done.returncode != 0:
        words = " ".join(str(part) for part in command)
        raise RoomError(f"{words}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Host:
    """One namespace with one network card, ``eth0``, on the room's bridge."""

    def __init__(self, namespace: str, address: str) -> None:
        self.namespace = namespace
        self.address = address

    def command(self, words: Sequence[str | Path]) -> list[str]:
        """The command line that runs ``words`` inside this namespace."""
        return ["ip", "netns", "exec", self.namespace, *(str(word) for word in words)]

    def run(self, *words: str | Path, check: bool = True, timeout_s: float = 60) -> str:
        """Run a command inside this namespace and return its stdout."""
        return run(*self.command(words), check=check, timeout_s=timeout_s)

    def popen(self, *words: str | Path, log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a long-running command inside this namespace; its output goes to the file ``log``."""
        with log.open("ab") as sink:
            return subprocess.Popen(
                self.command(words), stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env
            )


class Room:
    """The switch and its hosts. Use it through ``room()``, which removes everything again."""

    def __init__(self, subnet: int | None = None) -> None:
        suffix = secrets.token_hex(2)
        self.name = f"{PREFIX}{os.getpid()}-{suffix}"
        self.net = f"10.77.{secrets.randbelow(250) + 1 if subnet is None else subnet}"
        self.switch = Host(f"{self.name}-sw", "")
        self._taps = 0
        self._hosts = 0

    def build(self) -> None:
        """Create the switch namespace and its bridge."""
        _add_namespace(self.switch.namespace)
        self.switch.run("ip", "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0")
        self.switch.run("ip", "link", "set", "br0", "up")

    def host(self, label: str, last_octet: int) -> Host:
        """Add a namespace with ``eth0`` at ``<net>.<last_octet>/24``; ``label`` has at most 8 characters."""
        self._hosts += 1
        port = f"port{self._hosts}"
        made = Host(f"{self.name}-{label}", f"{self.net}.{last_octet}")
        _add_namespace(made.namespace)
        # Both ends are born inside namespaces, so no name can clash with an interface of the machine.
        self.switch.run(
            "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", made.namespace
        )  # fmt: skip
        self.switch.run("ip", "link", "set", port, "master", "br0", "up")
        made.run("ip", "addr", "add", f"{made.address}/24", "brd", "+", "dev", "eth0")
        made.run("ip", "link", "set", "eth0", "up")
        made.run("ip", "route", "add", "default", "via", f"{self.net}.254", check=False)
        return made

    def join(self, host: Host, last_octet: int) -> str:
        """Give a host that has a card elsewhere one more on this bridge, and return its address here.

        The card is named ``eth1``, ``eth2`` and so on. The host's default route stays.
        """
        self._hosts += 1
        port = f"port{self._hosts}"
        card = f"eth{len(host.run('ip', '-o', 'link', 'show', 'type', 'veth').splitlines())}"
        self.switch.run("ip", "link", "add", port, "type", "veth", "peer", "name", card, "netns", host.namespace)
        self.switch.run("ip", "link", "set", port, "master", "br0", "up")
        host.run("ip", "addr", "add", f"{self.net}.{last_octet}/24", "brd", "+", "dev", card)
        host.run("ip", "link", "set", card, "up")
        return f"{self.net}.{last_octet}"

    def tap(self) -> str:
        """Add a tap device to the bridge and return its name; the virtual machine must run in ``switch``."""
        self._taps += 1
        name = f"tap{self._taps}"
        self.switch.run("ip", "tuntap", "add", "dev", name, "mode", "tap")
        self.switch.run("ip", "link", "set", name, "master", "br0", "up")
        return name

    def capture(self, path: Path) -> subprocess.Popen[bytes]:
        """Record the bridge's traffic to a pcap file until the returned process is ended."""
        return self.switch.popen("tcpdump", "-i", "br0", "-U", "-s", "600", "-w", path, log=path.with_suffix(".log"))

    def destroy(self) -> None:
        """End what still runs in the room's namespaces and remove them."""
        for namespace in _namespaces():
            if namespace.startswith(f"{self.name}-"):
                _remove_namespace(namespace)


@contextlib.contextmanager
def room(subnet: int | None = None) -> Iterator[Room]:
    """A room that is gone afterwards, whatever happens; leftovers of crashed runs are removed first."""
    remove_stale()
    made = Room(subnet)
    try:
        made.build()
        yield made
    finally:
        made.destroy()


def remove_stale() -> list[str]:
    """Remove the namespaces of makers that no longer live, and return their names."""
    stale = [name for name in _namespaces() if name.startswith(PREFIX) and not _maker_lives(name)]
    for name in stale:
        _remove_namespace(name)
    return stale


def stop(process: subprocess.Popen[bytes], grace_s: float = 10) -> int:
    """Ask a process to end, insist after ``grace_s`` seconds, and return its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(30)


def _maker_lives(namespace: str) -> bool:
    pid = namespace.removeprefix(PREFIX).split("-", 1)[0]
    return pid.isdigit() and Path(f"/proc/{pid}").exists()


def _namespaces() -> list[str]:
    return [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.strip()]


def _add_namespace(name: str) -> None:
    run("ip", "netns", "add", name)
    inside = ("ip", "netns", "exec", name)
    run(*inside, "ip", "link", "set", "lo", "up")
    # IPv6 autoconfiguration would only add noise to the captures of an IPv4 room.
    run(*inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6", check=False)


def _remove_namespace(name: str) -> None:
    for sig in (signal.SIGTERM, signal.SIGKILL):
        pids = [int(word) for word in run("ip", "netns", "pids", name, check=False).split()]
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)
        _await_empty(name, 3)
    run("ip", "netns", "del", name, check=False)


def _await_empty(name: str, limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end and run("ip", "netns", "pids", name, check=False).strip():
        time.sleep(0.05)
