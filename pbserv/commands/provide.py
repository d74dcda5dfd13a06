"""`client build`, `loaders install` and `loaders list` with the paths of the configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pbserv.commands import client_build as builder
from pbserv.commands import loaders
from pbserv.proxydhcp.settings import boot_files
from pbserv.settings import LOADER_ALIASES, VIRTUAL_FILES, load_settings


def client_build(conf: Path, output: Path | None, force: bool) -> None:
    """Build into ``output`` or where the server looks for it."""
    settings = load_settings(conf)
    builder.build(output or settings.client_directory, _say, force=force)


def loaders_install(conf: Path, names: Sequence[str], suite: str, source: Path | None, sha256: str, name: str) -> None:
    """Put loaders where the TFTP server serves from; ``source`` is a file that has them."""
    directory = load_settings(conf).tftp.directory
    if source is not None:
        if suite:
            raise loaders.LoaderError("--suite is for Debian's packages: leave it out with --from")
        loaders.install_file(directory, _say, source, sha256, names, name)
    elif sha256 or name:
        raise loaders.LoaderError("--sha256 and --as are for a file: give --from FILE too")
    else:
        loaders.install(directory, _say, names, suite=suite)


def loaders_list(conf: Path, as_json: bool) -> int:
    """Print what TFTPDirectory has and lacks; exit code 1 when something is missing."""
    settings = load_settings(conf)
    named = {**boot_files(settings.proxydhcp), "NBPiPXE": settings.proxydhcp.nbp_ipxe}
    directory = settings.tftp.directory
    # A name of old configurations is served by the loader of ours that took its place.
    named = {
        key: name if (directory / name).is_file() else LOADER_ALIASES.get(name, name) for key, name in named.items()
    }
    entries = loaders.shelf(directory, named, VIRTUAL_FILES)
    if as_json:
        _say(json.dumps([asdict(entry) for entry in entries], indent=2))
    else:
        _table(entries)
    return int(any(not entry.present for entry in entries))


def _table(entries: Sequence[loaders.Entry]) -> None:
    from rich.table import Table

    from pbserv.commands.tables import console

    shown = Table(box=None, pad_edge=False)
    for title in ("File", "Bytes", "Serves", "Version", "Named by"):
        shown.add_column(title, overflow="fold", justify="right" if title == "Bytes" else "left")
    for entry in entries:
        size = str(entry.size) if entry.present else "missing"
        signed = " (signed)" if entry.signed else ""
        shown.add_row(entry.name, size, entry.serves, entry.version + signed, " ".join(entry.keys))
    out = console()
    out.print(shown)
    for entry in entries:
        if entry.advice:
            out.print(f"{entry.name}: {entry.advice}", soft_wrap=True, markup=False)


def _say(text: str) -> None:
    print(text, flush=True)
