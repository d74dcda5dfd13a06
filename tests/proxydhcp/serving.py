"""A service that is started for a test, with a policy, a journal and a log of its own; and who calls it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pbserv.log import ServiceLog
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.proxydhcp.packet import Packet, decode, encode
from pbserv.proxydhcp.service import ProxyDhcpService
from pbserv.proxydhcp.settings import ProxyDhcpSettings
from pbserv.types import Decision, Sighting, Verdict
from tests.proxydhcp.samples import Book, asks
from tests.proxydhcp.wires import Wires
from tests.support import process

WAIT_S = 10.0
LOOPBACK = bytes((127, 0, 0, 1))
MAC = "52:54:00:aa:bb:cc"
ASK = asks(dhcp.REQUEST, 7, ciaddr=LOOPBACK)
DISCOVER = asks(arch=7, ciaddr=LOOPBACK)


class Rules:
    """A policy of two lists: who is to be left alone, and who trips it."""

    def __init__(self) -> None:
        self.silent: set[str] = set()
        self.trips: set[str] = set()
        self.seen: list[Sighting] = []

    def decide(self, sighting: Sighting) -> Decision:
        self.seen.append(sighting)
        if str(sighting.mac) in self.trips:
            raise RuntimeError("tripped")
        if str(sighting.mac) in self.silent:
            return Decision(Verdict.SILENT, "pending: pbserv device accept 52:54:00:aa:bb:cc")
        return Decision(Verdict.BOOT, "restore win11")


def conf(directory: Path | None = None, **changes: Any) -> ProxyDhcpSettings:
    """A configuration with free ports; ``directory`` is that of the configuration."""
    return ProxyDhcpSettings(ProxyDhcpConf(**{"proxydhcp_port": 0, "boot_server_port": 0} | changes), 8067, directory)


class Running:
    """A started service and what belongs to it."""

    def __init__(self, service: ProxyDhcpService, policy: Rules, book: Book, log_file: Path) -> None:
        self.service = service
        self.policy = policy
        self.book = book
        self._log_file = log_file

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(int(listener.rsplit(":", 1)[1]) for listener in self.service.listeners)

    @property
    def lines(self) -> list[str]:
        return self._log_file.read_text().splitlines() if self._log_file.exists() else []

    async def reload(self, given: ProxyDhcpSettings) -> None:
        (await self.service.prepare(given)).commit()


@contextlib.asynccontextmanager
async def running(
    given: ProxyDhcpSettings, directory: Path, level: int = 3, room: Wires | None = None
) -> AsyncIterator[Running]:
    log, policy, book, log_file = ServiceLog("proxydhcp"), Rules(), Book(), directory / "proxydhcp.log"
    log.configure(level, log_file, 1, quiet=True)
    service = ProxyDhcpService(log, policy, book)
    with room.server() if room else contextlib.nullcontext():
        await service.start(given)
    try:
        yield Running(service, policy, book, log_file)
    finally:
        await service.stop()
        log.close()


class Caller:
    """A client with an address, on one UDP socket."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.raw.bind((address, port))

    async def ask(self, packet: Packet, port: int, server: str = "127.0.0.1") -> tuple[Packet, tuple[str, int]]:
        self.send(encode(packet), port, server)
        return await self.hear()

    def send(self, data: bytes, port: int, server: str = "127.0.0.1") -> None:
        self.raw.sendto(data, (server, port))

    async def hear(self) -> tuple[Packet, tuple[str, int]]:
        loop = asyncio.get_running_loop()
        data, peer = await asyncio.wait_for(loop.sock_recvfrom(self.raw, 2048), WAIT_S)
        return decode(data), peer


def free_port() -> int:
    return process.free_port(socket.SOCK_DGRAM)
