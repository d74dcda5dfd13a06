"""`pbserv store`: verbs to exit codes."""

from __future__ import annotations

from typing import Annotated

import typer

from pbserv.cli.shared import AsJson, group

app = group("Stores: the directories that images are kept in (ImageStores of pbserv.conf).")

Store = Annotated[str, typer.Argument(metavar="STORE", help="name of the store; see: pbserv store list")]


@app.command("list")
def store_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List stores with what they hold and what room they have."""
    from pbserv.commands import stores

    stores.listed(context.obj, as_json)


@app.command("show")
def store_show(context: typer.Context, store: Store, as_json: AsJson = False) -> None:
    """Show one store: limits, room, and what in it is damaged and therefore not served."""
    from pbserv.commands import stores

    stores.show(context.obj, store, as_json)
