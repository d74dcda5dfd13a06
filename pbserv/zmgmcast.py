"""`zmgmcast -status`: the imaging statistics of the running server (manual, table D-18)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pbserv.errors import PbservError

ROWS = (("PXE Requests", "pxe_requests"), ("Images Sent", "images_sent"), ("Images Received", "images_received"))


def main() -> None:
    """Print the three figures; they start from nought with the server."""
    parser = argparse.ArgumentParser(prog="zmgmcast", description="Imaging statistics of the running pbserv server.")
    parser.add_argument("-status", "--status", action="store_true", help="print the statistics since the last start")
    parser.add_argument("--conf", type=Path, default=Path("/etc/pbserv"), metavar="DIR", help="configuration directory")
    arguments = parser.parse_args()
    if not arguments.status:
        parser.print_help()
        raise SystemExit(2)
    try:
        print_status(arguments.conf)
    except PbservError as fault:
        print(f"zmgmcast: {fault}", file=sys.stderr)
        raise SystemExit(1) from None


def print_status(conf: Path) -> None:
    from pbserv.commands.locate import run_directory
    from pbserv.daemon.control import CONTROL_SOCKET_NAME, Request, ask

    answer = ask(run_directory(conf) / CONTROL_SOCKET_NAME, Request("statistics"))
    if not answer.ok:
        raise PbservError("; ".join(answer.errors))
    print(f"Imaging request statistics since {answer.data['since']}")
    for title, key in ROWS:
        print(f"{title:<16} {answer.data[key]}")
