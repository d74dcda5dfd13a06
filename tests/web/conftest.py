from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.process import Installed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.set("pbserv.conf", AllowImageOverwrite="NO")
    installed.ok("start")
    yield installed
    installed.finish()


@pytest.fixture
def admin(server: Installed) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as client:
        yield client


@pytest.fixture
def nobody(server: Installed) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client
