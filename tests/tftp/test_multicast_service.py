"""Real atftp clients, as Point-of-Service terminals use them, against the real server: RFC 2090 over a bridge.

atftp joins its group by the routing table, so each client has a route for 224.0.0.0/4 (as SLEPOS sets one).
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.netns import Host, room
from tests.support.server import Server, running

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

BLOCKS_512 = 60_000
"""Some 3 s of a group: long enough to do something to a client in the middle."""


@dataclass
class Fetch:
    """One atftp that runs."""

    process: subprocess.Popen[bytes]
    target: Path

    @property
    def size(self) -> int:
        return self.target.stat().st_size if self.target.exists() else 0

    def has(self, size: int) -> bool:
        """Whether its file has reached ``size``; it fails when the client ended before."""
        assert self.process.poll() is None, "the client ended too early"
        return self.size >= size


class Terminals:
    """A server and five clients around one bridge."""

    def __init__(self, server: Server, hosts: list[Host], place: Path) -> None:
        self.server = server
        self.hosts = hosts
        self.place = place
        self._count = 0

    def put(self, name: str, size: int) -> bytes:
        data = random.Random(size).randbytes(size)
        (self.server.tftp / name).write_bytes(data)
        return data

    def fetch(self, host: Host, name: str, *options: str) -> Fetch:
        self._count += 1
        target = self.place / f"got{self._count}"
        words = [word for option in ("multicast", *options) for word in ("--option", option)]
        command = ["atftp", "--get", *words, "-r", name, "-l", target, self.server.host.address, "69"]
        return Fetch(host.popen(*command, log=self.place / "atftp.log"), target)

    def sent_bytes(self) -> int:
        """What left the server's network card: a multicast packet counts once."""
        shown = self.server.host.run("ip", "-j", "-s", "link", "show", "dev", "eth0")
        return int(json.loads(shown)[0]["stats64"]["tx"]["bytes"])

    def groups(self, name: str, count: int = 1) -> list[tuple[int, int]]:
        """Clients and blocks of the groups that ended."""
        lines = self.server.logged("tftp", "group ended", f"file={name} ", count=count)
        return [tuple(map(int, re.findall(r"(?:clients|blocks)=(\d+)", line))) for line in lines]  # type: ignore[misc]


@pytest.fixture(scope="module")
def terminals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminals]:
    assert shutil.which("atftp"), "atftp is not installed"
    place = tmp_path_factory.mktemp("multicast")
    place.chmod(0o755)
    with room() as net:
        server = Server(net.host("server", 1), place)
        server.configure("pbserv.conf", Services="tftp")
        hosts = [net.host(f"c{number}", 10 + number) for number in range(5)]
        for host in hosts:
            host.run("ip", "route", "add", "224.0.0.0/4", "dev", "eth0")
        with running(server):
            yield Terminals(server, hosts, place)


def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


def finish(fetches: list[Fetch], data: bytes) -> None:
    for fetch in fetches:
        assert fetch.process.wait(60) == 0
        assert fetch.target.read_bytes() == data


@pytest.mark.parametrize("clients", [1, 3, 5])
def test_clients_that_start_together_share_one_stream(terminals: Terminals, clients: int) -> None:
    name, size = f"together{clients}", 12_000_000
    data = terminals.put(name, size)
    before = terminals.sent_bytes()
    finish([terminals.fetch(host, name, "blksize 1428") for host in terminals.hosts[:clients]], data)
    # A block costs 46 bytes of headers. What a client missed before it listened is sent twice.
    assert terminals.sent_bytes() - before < 1.5 * size
    assert [joined for joined, _blocks in terminals.groups(name)] == [clients]
    assert len(terminals.server.logged("tftp", " sent ", f"file={name} ", "result=completed", count=clients)) == clients


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 512 * 100])
def test_odd_sizes_arrive(terminals: Terminals, size: int) -> None:
    data = terminals.put(f"odd{size}", size)
    finish([terminals.fetch(host, f"odd{size}") for host in terminals.hosts[:2]], data)


def test_other_options_stay_as_they_were_asked_for(terminals: Terminals) -> None:
    data = terminals.put("options", 50_000)
    finish([terminals.fetch(terminals.hosts[0], "options", "tsize", "blksize 600", "timeout 3")], data)
    (line,) = terminals.server.logged("tftp", " sent ", "file=options ")
    assert "blksize=600" in line


def test_a_client_that_joins_late_gets_the_rest_by_listening(terminals: Terminals) -> None:
    data = terminals.put("late", 512 * BLOCKS_512)
    first = terminals.fetch(terminals.hosts[0], "late")
    until(lambda: first.has(len(data) // 3))
    second = terminals.fetch(terminals.hosts[1], "late")
    finish([first, second], data)
    ((clients, blocks),) = terminals.groups("late")
    assert clients == 2
    assert 1.3 * BLOCKS_512 < blocks < 1.9 * BLOCKS_512


def test_the_others_finish_when_the_master_is_killed(terminals: Terminals) -> None:
    data = terminals.put("killed", 512 * BLOCKS_512)
    master = terminals.fetch(terminals.hosts[0], "killed")
    until(lambda: master.has(1))
    others = [terminals.fetch(host, "killed") for host in terminals.hosts[1:3]]
    until(lambda: all(other.has(1) for other in others))
    began = time.monotonic()
    master.process.send_signal(signal.SIGKILL)
    master.process.wait(10)
    finish(others, data)
    assert time.monotonic() - began < 20
    assert len(terminals.server.logged("tftp", " sent ", "file=killed ", "result=completed", count=2)) == 2


def test_a_listener_that_could_not_keep_up_fetches_what_it_missed(terminals: Terminals) -> None:
    data = terminals.put("stopped", 512 * BLOCKS_512)
    master = terminals.fetch(terminals.hosts[0], "stopped")
    until(lambda: master.has(1))
    listener = terminals.fetch(terminals.hosts[1], "stopped")
    until(lambda: listener.has(1))
    listener.process.send_signal(signal.SIGSTOP)
    reached = master.size
    until(lambda: master.has(reached + 512 * 10_000))  # much more than a socket holds
    listener.process.send_signal(signal.SIGCONT)
    finish([master, listener], data)
    ((_clients, blocks),) = terminals.groups("stopped")
    assert BLOCKS_512 + 1000 < blocks < 1.9 * BLOCKS_512


def test_a_master_that_slept_is_passed_over_and_finishes_later(terminals: Terminals) -> None:
    data = terminals.put("slept", 512 * BLOCKS_512)
    master = terminals.fetch(terminals.hosts[0], "slept")
    until(lambda: master.has(1))
    other = terminals.fetch(terminals.hosts[1], "slept")
    until(lambda: other.has(1))
    master.process.send_signal(signal.SIGSTOP)
    reached = other.size
    until(lambda: other.process.poll() is not None or other.size > reached + 512 * 1000)
    master.process.send_signal(signal.SIGCONT)
    finish([other, master], data)


def test_a_client_on_the_servers_own_host_is_served_too(terminals: Terminals) -> None:
    data = terminals.put("own", 300_000)
    terminals.server.host.run("ip", "route", "add", "224.0.0.0/4", "dev", "eth0")
    finish([terminals.fetch(host, "own") for host in (terminals.server.host, terminals.hosts[0])], data)
    assert len(terminals.server.logged("tftp", " sent ", "file=own ", "blksize=512 windowsize=1", count=2)) == 2


def test_two_files_at_once_use_two_groups(terminals: Terminals) -> None:
    one, two = terminals.put("one", 3_000_000), terminals.put("two", 3_000_001)
    first = [terminals.fetch(host, "one") for host in terminals.hosts[:2]]
    second = [terminals.fetch(host, "two") for host in terminals.hosts[2:4]]
    finish(first, one)
    finish(second, two)


def test_more_blocks_than_the_clients_can_count_go_by_unicast(terminals: Terminals) -> None:
    data = terminals.put("large", 512 * 65_535)
    fetch = terminals.fetch(terminals.hosts[0], "large")
    finish([fetch], data)
    assert terminals.groups("large", count=0) == []


def test_the_largest_file_of_a_group_arrives(terminals: Terminals) -> None:
    data = terminals.put("largest", 512 * 65_535 - 1)
    finish([terminals.fetch(host, "largest") for host in terminals.hosts[:2]], data)
    assert [clients for clients, _blocks in terminals.groups("largest")] == [2]
