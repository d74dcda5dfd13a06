"""The networks that a proxyDHCP meets: another host's DHCP server, one on its own host, a relay, two network cards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.proxydhcp.site import Firmwares, Site
from tests.support.dhcp import plain_dhcp
from tests.support.netns import room
from tests.support.relay import relay_program, routed
from tests.support.server import CHECKOUT, Server, running

_RELAY = CHECKOUT / ".cache/relay"


def _server(server: Server, **keys: str) -> Server:
    """Everything that boots is taken in, and gets a menu: its script, whatever it is made of."""
    server.configure("preboot-policy.conf", NewDevices="accept", ZoneDefault="menu")
    server.configure("proxydhcp.conf", **keys)
    server.ok("loaders", "install")
    return server


@contextlib.contextmanager
def plain(place: Path, firmwares: Firmwares, **keys: str) -> Iterator[Site]:
    """The DHCP server is another host and knows nothing of booting; ``keys`` are proxydhcp.conf's."""
    with room() as lan, plain_dhcp(lan.host("dhcp", 1), place):
        server = _server(Server(lan.host("pbserv", 2), place), NBPHTTPx64="snponly.efi", **keys)
        with running(server):
            yield Site(server, place, firmwares, [lan], [server.host.address])


@contextlib.contextmanager
def same_host(place: Path, firmwares: Firmwares, flag: str, *option60: str) -> Iterator[Site]:
    """The DHCP server holds port 67 of our own host; ``option60`` are its lines for LocalDHCPFlag = 1."""
    with room() as lan:
        host = lan.host("pbserv", 2)
        with plain_dhcp(host, place, option60), running(_server(Server(host, place), LocalDHCPFlag=flag)) as server:
            yield Site(server, place, firmwares, [lan], [host.address])


@contextlib.contextmanager
def relayed(place: Path, firmwares: Firmwares) -> Iterator[Site]:
    """The machines are behind a router whose relay agent asks the DHCP server and us, each on a host of its own."""
    with room() as near, room() as far, contextlib.ExitStack() as stack:
        dhcp, host = near.host("dhcp", 1), near.host("pbserv", 2)
        pool = (f"--dhcp-range=set:far,{far.net}.100,{far.net}.200,255.255.255.0,1h",
                f"--dhcp-option=tag:far,option:router,{far.net}.254")  # fmt: skip
        stack.enter_context(routed(near, far, [dhcp.address, host.address], relay_program(_RELAY), place))
        stack.enter_context(plain_dhcp(dhcp, place, pool))
        server = stack.enter_context(running(_server(Server(host, place))))
        yield Site(server, place, firmwares, [far], [host.address])


@contextlib.contextmanager
def two_networks(place: Path, firmwares: Firmwares) -> Iterator[Site]:
    """Our server has a card in each of two networks with a DHCP server each; nothing routes between them."""
    with room() as one, room() as two, contextlib.ExitStack() as stack:
        for number, lan in enumerate((one, two)):
            directory = place / f"dhcp{number}"
            directory.mkdir()
            stack.enter_context(plain_dhcp(lan.host("dhcp", 1), directory))
        host = one.host("pbserv", 2)
        second = two.join(host, 3)
        server = stack.enter_context(running(_server(Server(host, place))))
        yield Site(server, place, firmwares, [one, two], [host.address, second])
