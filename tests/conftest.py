"""What holds for all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("pbserv", deadline=None)  # times are measured by bench/; a busy machine fails no test
settings.load_profile("pbserv")


@pytest.fixture(scope="session", autouse=True)
def open_way(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As root, servers of the tests run as another user, who must come through pytest's own directories."""
    if os.geteuid() == 0:
        base = tmp_path_factory.getbasetemp()
        for closed in (base, *base.parents):
            if closed.name.startswith(("pytest-", "popen-")):
                closed.chmod(0o755)
