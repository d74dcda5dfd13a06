"""`pbserv token`: verbs to exit codes."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from pbserv.cli.shared import AsJson, group

app = group("API tokens: who may use this server, and as what.")


class RoleName(enum.StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    SITE = "site"
    IMAGES = "images"


@app.command("create")
def token_create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="who or what it is for")],
    role: Annotated[
        RoleName,
        typer.Option(
            help="viewer looks; operator changes devices and work too; admin everything; site: another pbserv that"
            " resolves its policies here; images: another pbserv that refers its callers to images here."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Make a token. It is printed this once, alone on stdout.

    \b
    Example:
      pbserv token create helpdesk --role operator
    """
    from pbserv.commands import tokens

    tokens.create(context.obj, name, role.value, as_json)


@app.command("list")
def token_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List tokens; not what they are, which nobody knows."""
    from pbserv.commands import tokens

    tokens.listed(context.obj, as_json)


@app.command("revoke")
def token_revoke(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="number of the token; see: pbserv token list")],
    as_json: AsJson = False,
) -> None:
    """Make a token worthless at once.

    \b
    Example:
      pbserv token revoke 3
    """
    from pbserv.commands import tokens

    tokens.revoke(context.obj, number, as_json)
