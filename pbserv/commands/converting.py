"""`pbserv image convert`: a task of the server makes a version in frames of one as it was imported."""

from __future__ import annotations

from pathlib import Path

from pbserv.commands.api import named
from pbserv.commands.task_watch import begin


def convert(conf: Path, image: str, version: int | None, *, wait: bool, as_json: bool) -> None:
    begin(conf, named("images", image, "convert"), {"version": version}, wait, as_json)
