"""`pbserv token`: who may use the API, and as what. A token itself is shown once, when it is made."""

from __future__ import annotations

import sys
from pathlib import Path

from pbserv.commands.api import Api
from pbserv.commands.tables import clock, print_json, said, show_table


def create(conf: Path, name: str, role: str, as_json: bool) -> None:
    """The token alone goes to stdout, so that a script can keep it."""
    made = Api(conf).post("/tokens", {"name": name, "role": role})
    if as_json:
        return print_json(made)
    print(
        f"token {made['id']}: {made['name']} may do what a {made['role']} may; it is shown this once:", file=sys.stderr
    )
    return print(made["token"])


def listed(conf: Path, as_json: bool) -> None:
    tokens = Api(conf).get("/tokens")
    if as_json:
        return print_json(tokens)
    rows = ((str(t["id"]), t["name"], t["role"], clock(t["created"])) for t in tokens)
    return show_table(("No.", "Name", "Role", "Created"), rows, "no tokens")


def revoke(conf: Path, number: int, as_json: bool) -> None:
    Api(conf).delete(f"/tokens/{number}")
    said({"id": number, "revoked": True}, f"token {number} revoked: it opens nothing any more", as_json)
