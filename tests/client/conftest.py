"""The real server for the tests in which the client works with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import disks
from tests.client.disks import MEBIBYTE
from tests.client.machine import Fixture
from tests.client.site import MAC, Site
from tests.support.process import Installed


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.ok("start")
    installed.ok("device", "accept", MAC)
    yield installed
    installed.finish()


@pytest.fixture
def site(real_server: Installed, tmp_path: Path) -> Iterator[Site]:
    """The device has no work at first, and none afterwards."""
    made = Site(real_server, tmp_path)
    yield made
    for work in made.api("GET", "/work"):
        made.cancel(work["id"])


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Fixture]:
    """``loop(name, size_mib, sector=..., table=..., scan=...)`` gives the path of a loop device."""
    with contextlib.ExitStack() as stack:

        def make(name: str, size_mib: int, sector: int = 512, table: str = "", scan: bool = True) -> str:
            file = tmp_path / f"{name}.img"
            return stack.enter_context(disks.loop(file, size_mib * MEBIBYTE, sector=sector, table=table, scan=scan))

        yield make
