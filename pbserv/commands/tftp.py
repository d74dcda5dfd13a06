"""`pbserv tftp map-test`: what becomes of the names that clients ask for, without a client and without a server.

One rule: names go through the very code that serves them; nothing is sent, made or changed.
"""

from __future__ import annotations

import ipaddress
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pbserv.errors import UsageError
from pbserv.net.neighbours import NeighbourTable
from pbserv.settings import LOADER_ALIASES, load_settings
from pbserv.tftp import mapfile
from pbserv.tftp.catalogue import Catalogue, MadeFile, Overload, Refusal
from pbserv.tftp.config import TftpConf
from pbserv.tftp.names import shown
from pbserv.tftp.packet import Opcode, Request
from pbserv.tftp.paths import Directory
from pbserv.tftp.rewrite import Step
from pbserv.types import Instant, MacAddress


def map_test(conf: Path, map_file: Path | None, client: str, mac: str | None, put: bool, names: list[str]) -> int:
    """Print each name's steps and result; 0 when every name leads somewhere. No names: the lines of stdin."""
    address, known_mac = _checked_client(client), _checked_mac(mac)
    settings: TftpConf = load_settings(conf).tftp
    rules = map_file or settings.map_file
    catalogue = Catalogue(
        Directory(settings.directory),
        LOADER_ALIASES,
        _NothingMade(),
        rewrite=mapfile.load(rules) if rules is not None else None,
        client_directories=settings.client_directories,
    )
    if rules is None:
        print("no TFTPMapFile is set: names are taken as they come")
    if put and not settings.allow_writes:
        print("TFTPAllowWrites is 0: every upload is refused as long as it is")
    opcode = Opcode.WRQ if put else Opcode.RRQ
    try:
        results = [
            _one(catalogue, Request(opcode, name, "octet"), address, lambda: known_mac or _neighbour(address))
            for name in (map(os.fsencode, names) if names else _lines())
        ]
    finally:
        catalogue.close()
    return 0 if all(results) else 1


def _checked_mac(text: str | None) -> str | None:
    """``text`` as our neighbour table writes it; raises UsageError."""
    try:
        return str(MacAddress.parse(text)) if text is not None else None
    except ValueError as fault:
        raise UsageError(f"--mac {fault}") from None


class _NothingMade:
    """Files that services make on demand need the server."""

    def path_of(self, name: str, peer: str) -> str:
        return name

    def find(self, name: str, peer: str, local: str) -> bytes | None:
        return None


def _one(catalogue: Catalogue, request: Request, client: str, mac: Callable[[], str | None]) -> bool:
    print(shown(request.name))

    def show(step: Step) -> None:
        print(f"  line {step.rule.line}: {step.rule.text}: {shown(step.before)} -> {shown(step.after)}, {step.note}")

    try:
        if request.opcode == Opcode.WRQ:
            target = catalogue.target(request, client, "", mac, show)
            known = _size(target.folder_fd, target.name)
            os.close(target.folder_fd)
            print(f"  = {shown(target.shown)}, {'a new file' if known is None else f'replaces {known} bytes'}")
            return True
        found = catalogue.find(request, client, "", mac, show)
    except (Refusal, Overload) as refusal:
        made = " (files that services make are not looked at)"
        note = made if isinstance(refusal, Refusal) and refusal.text == "file not found" else ""
        code = f"ERROR {refusal.code} " if isinstance(refusal, Refusal) else ""
        print(f"  = {code}{refusal}{note}")
        return False
    if not isinstance(found, MadeFile):
        os.close(found.fd)
        print(f"  = {shown(found.shown)}, {found.facts.st_size} bytes")
    return True


def _size(folder_fd: int, name: bytes) -> int | None:
    try:
        return os.stat(name, dir_fd=folder_fd).st_size
    except OSError:
        return None


def _lines() -> Iterable[bytes]:
    return (name for line in sys.stdin.buffer if (name := line.rstrip(b"\n")))


def _checked_client(text: str) -> str:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        raise UsageError(f"--client {text}: not an address; write it as 10.0.0.7 or 2001:db8::7") from None
    return text


def _neighbour(address: str) -> str | None:
    table = NeighbourTable()
    try:
        return table.mac_of(address, Instant(time.monotonic()))
    finally:
        table.close()
