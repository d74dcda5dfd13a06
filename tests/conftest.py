"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("pbserv", deadline=None)  # times are measured by bench/; a busy machine fails no test
settings.load_profile("pbserv")
