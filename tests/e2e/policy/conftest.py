"""One network for all tests of this folder: their machines are new each time, its server is not."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import CACHE
from tests.e2e.policy.site import Site, fill, sends_here
from tests.support.dhcp import plain_dhcp
from tests.support.disks import Parts
from tests.support.netns import room
from tests.support.server import Server, running


@pytest.fixture(scope="session")
def site(place: Path, parts: Parts, client: Path) -> Iterator[Site]:
    """A DHCP server that knows nothing of booting (but for machines ``SENT``), and ours; a known device without
    assignment gets a menu."""
    directory = place / "policy"
    directory.mkdir()
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(room())
        host = lan.host("pbserv", 2)
        stack.enter_context(plain_dhcp(lan.host("dhcp", 1), directory, sends_here(host.address)))
        server = Server(host, directory)
        server.configure("preboot-policy.conf", NewDevices="accept", ZoneDefault="menu")
        fill(directory, server, parts, CACHE / "loaders")
        stack.enter_context(running(server))
        shutil.copytree(client, server.state / "client", ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
        made = Site(server, directory, lan)
        yield made
        for machine in made.machines:
            machine.power_off()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows the ends of the server's logs too."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    found = getattr(item, "funcargs", {}).get("site")
    if report.when == "call" and report.failed and found is not None:
        report.sections.append(("server logs", found.server.report()))
