"""The console's first page: what runs, and, with the administrator's token, devices, work, jobs and images."""

from __future__ import annotations

from importlib.resources import files


def console_page() -> str:
    """One static page; it talks to /api/v1 with the token that the administrator types in."""
    return files("pbserv.web").joinpath("console.html").read_text(encoding="utf-8")
