"""The firmware of the machines is set up once; each module has the network that it is about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.proxydhcp.site import Firmwares, set_up
from tests.support.netns import room


@pytest.fixture(scope="session")
def firmwares(place: Path) -> Firmwares:
    directory = place / "firmware"
    directory.mkdir()
    with room() as lan:
        return set_up(lan, directory)


@pytest.fixture(scope="module")
def directory(place: Path, request: pytest.FixtureRequest) -> Path:
    """A directory of the module, for its server and the consoles of its machines."""
    made = place / request.module.__name__.rpartition(".test_")[2]
    made.mkdir()
    return made


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows the ends of the server's logs too."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    found = getattr(item, "funcargs", {}).get("site")
    if report.when == "call" and report.failed and found is not None:
        report.sections.append(("server logs", found.server.report()))
