"""`client build` and `loaders install` with the paths of the configuration."""

from __future__ import annotations

from pathlib import Path

from pbserv.commands import client_build as builder
from pbserv.commands import loaders
from pbserv.settings import load_settings


def client_build(conf: Path, output: Path | None, force: bool) -> None:
    """Build into ``output`` or where the server looks for it."""
    settings = load_settings(conf)
    builder.build(output or settings.client_directory, _say, force=force)


def loaders_install(conf: Path) -> None:
    """Put the loaders where the TFTP server serves from."""
    loaders.install(load_settings(conf).tftp.directory, _say)


def _say(text: str) -> None:
    print(text, flush=True)
