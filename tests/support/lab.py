"""A room that is ready for work: a LAN with a DHCP server that knows nothing of booting, and our server beside it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.support.dhcp import plain_dhcp
from tests.support.netns import Room, room
from tests.support.server import Server, running


@contextlib.contextmanager
def furnished(place: Path, client: Path, **policy: str) -> Iterator[tuple[Room, Server]]:
    """Our server runs in it, with loaders and a copy of the imaging ``client``; ``policy``: of preboot-policy.conf."""
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(room())
        stack.enter_context(plain_dhcp(lan.host("dhcp", 1), place))
        server = Server(lan.host("pbserv", 2), place)
        server.configure("preboot-policy.conf", **policy)
        server.ok("loaders", "install")
        stack.enter_context(running(server))
        shutil.copytree(client, server.state / "client", ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
        yield lan, server
