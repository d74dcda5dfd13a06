from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import Installed


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Installed]:
    """A configured server that does not run yet, and runs no more afterwards."""
    installed = Installed(tmp_path)
    yield installed
    installed.finish()
