"""The marks of every end-to-end module: never skipped silently, and with the time that virtual machines need."""

from __future__ import annotations

import os

import pytest

# How long is waited for what comes: two processors share the work of all that runs, firmware is emulated. What never
# comes costs the test its time, what comes costs none of it.
PATIENCE_S = 180
MARKS = [
    pytest.mark.root,
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces, tap devices, ports 67 and 69"),
]
