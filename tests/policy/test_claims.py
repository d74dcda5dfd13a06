"""Whose an address is: a packet that only names another's address shuts nobody out."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pbserv.journal.journal import Journal
from pbserv.log import ServiceLog
from pbserv.net.udp import Datagram
from pbserv.policy.config import PolicyConf
from pbserv.policy.service import PolicyService, PolicySettings
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.outcome import Listener
from pbserv.proxydhcp.packet import encode
from pbserv.proxydhcp.service import ProxyDhcpService
from pbserv.registry.migrate import migrate
from pbserv.registry.records import DeviceState
from pbserv.registry.registry import DeviceChange, Registry
from pbserv.registry.tokens import WorkTokens
from pbserv.types import Instant
from tests.proxydhcp.samples import SETTINGS, asks
from tests.proxydhcp.served import HOST, Out

VICTIM, ADDRESS = "52:54:00:00:00:01", "10.77.0.5"
STRANGER = "0200000000ee"


class Router:
    """The kernel knows no client: all are behind a router."""

    def mac_of(self, address: str, now: Instant) -> str | None:
        return None

    def close(self) -> None: ...


class Site:
    def __init__(self, policy: PolicyService, journal: Journal) -> None:
        self.policy, self.journal = policy, journal
        self.service = ProxyDhcpService(ServiceLog("proxydhcp"), policy, journal)
        self.service.adopt(dataclasses.replace(SETTINGS), {}, {})
        self.now = 1000.0

    def hear(self, data: bytes, listener: Listener, peer: str) -> None:
        self.now += 1
        desk = self.service._desk
        assert desk is not None
        batch = [Datagram(data, peer, 68, "10.1.0.1", "10.1.0.1", 2)]
        desk.take(listener, Out(), batch, HOST, Instant(self.now))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    migrate(tmp_path / "registry.db")
    registry = Registry.open(tmp_path / "registry.db")
    journal = Journal(registry)
    policy = PolicyService(ServiceLog("policy"), registry, journal, WorkTokens(b"k" * 32), neighbours=Router)
    await policy.start(PolicySettings(PolicyConf(new_devices="accept"), "", 8067, None))
    site = Site(policy, journal)
    site.hear(encode(asks(arch=7, mac=VICTIM.replace(":", ""))), Listener.DHCP, "0.0.0.0")
    site.hear(encode(asks(arch=7, mac=STRANGER)), Listener.DHCP, "0.0.0.0")
    await policy.flush()
    await registry.change_device("02:00:00:00:00:ee", DeviceChange(state=DeviceState.DENIED))
    yield site
    await policy.stop()
    await registry.close()


def _from_itself(mac: str) -> bytes:
    return encode(asks(dhcp.REQUEST, 7, mac=mac, ciaddr=dhcp.undotted(ADDRESS)))


async def test_a_device_that_speaks_from_its_address_has_it(site: Site) -> None:
    site.hear(_from_itself(VICTIM.replace(":", "")), Listener.BOOT_SERVER, ADDRESS)
    assert (site.journal.mac_of(ADDRESS), site.policy.refuses(ADDRESS)) == (VICTIM, "")
    site.hear(_from_itself(STRANGER), Listener.BOOT_SERVER, ADDRESS)  # the lease went to the denied one
    assert site.policy.refuses(ADDRESS) == "device is denied"


async def test_a_denied_device_that_names_the_address_of_another_does_not_get_it(site: Site) -> None:
    site.hear(_from_itself(STRANGER), Listener.BOOT_SERVER, "192.0.2.66")
    assert site.journal.mac_of(ADDRESS) is None
    site.hear(_from_itself(VICTIM.replace(":", "")), Listener.BOOT_SERVER, ADDRESS)
    site.hear(_from_itself(STRANGER), Listener.BOOT_SERVER, "192.0.2.66")
    wants = encode(asks(dhcp.REQUEST, 7, mac=STRANGER, extra={50: dhcp.undotted(ADDRESS)}))
    site.hear(wants, Listener.DHCP, "192.0.2.66")
    assert (site.journal.mac_of(ADDRESS), site.policy.refuses(ADDRESS)) == (VICTIM, "")


async def test_what_a_denied_device_wants_through_a_relay_is_its_own_where_nobody_else_spoke(site: Site) -> None:
    wants = encode(asks(dhcp.REQUEST, 7, mac=STRANGER, extra={50: dhcp.undotted(ADDRESS)}, giaddr=b"\x0a\x4d\0\1"))
    site.hear(wants, Listener.DHCP, "10.77.0.1")
    assert site.policy.refuses(ADDRESS) == "device is denied"
