"""`pbserv menu`: verbs to exit codes."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from pbserv.cli.shared import AsJson, ForDevice, ForFolder, ForZone, Title, group

app = group("Preboot Menus: what people may choose when a device boots.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="name of the menu")]


class ShowName(enum.StrEnum):
    ALWAYS = "always"
    NEVER = "never"
    KEY = "key"


@app.command("list")
def menu_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List menus."""
    from pbserv.commands import objects

    columns = {
        "Name": lambda each: each["name"], "Title": lambda each: each["title"], "Shown": lambda each: each["show"],
        "Seconds": lambda each: each["timeout_s"] or "waits",
        "Items": lambda each: ", ".join(item["name"] for item in each["items"]),
    }  # fmt: skip
    objects.listed(context.obj, "menu", columns, as_json)


@app.command("show")
def menu_show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show a menu with its items."""
    from pbserv.commands import objects

    objects.show(context.obj, "menu", name, as_json)


@app.command("set")
def menu_set(
    context: typer.Context,
    name: Name,
    title: Title = None,
    show: Annotated[
        ShowName | None,
        typer.Option(
            help="Usually always; never: not even one of a folder above; key: it waits for a key that opens it."
        ),
    ] = None,
    timeout_s: Annotated[
        int | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            help="Until the default starts, 0 to 3600, usually 10; 0: it waits for ever.",
        ),
    ] = None,
    default: Annotated[
        str | None, typer.Option(metavar="ITEM", help="The default for devices for which nothing was decided.")
    ] = None,
    items: Annotated[
        list[str] | None,
        typer.Option(
            "--item",
            metavar="NAME:WHAT:TITLE",
            help="All items, one each time. WHAT is a bundle, or decision, imaging, maintenance, local, shell, reboot,"
            " poweroff or exit; bundle=NAME is always a bundle.",
        ),
    ] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Option("--item-arguments", metavar="NAME:TEXT", help="Kernel arguments of an item; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a menu, or change it.

    Without --item a new one has the usual items. The menu called default is shown where one is due and none is set.

    \b
    Example:
      pbserv menu set students --timeout 5 --item "disk:local:Start Windows"
             --item "rescue:rescue:Repair this computer" --item-arguments "rescue:quiet"
    """
    from pbserv.commands import objects

    given = {
        "title": title, "show": show and show.value, "timeout_s": timeout_s, "default": default,
        "items": objects.items_of(items or [], arguments or []),
    }  # fmt: skip
    objects.put(context.obj, "menu", name, given, as_json)


@app.command("delete")
def menu_delete(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Delete a menu that no device and no folder has."""
    from pbserv.commands import objects

    objects.delete(context.obj, "menu", name, as_json)


@app.command("assign")
def menu_assign(
    context: typer.Context,
    name: Name,
    device: ForDevice = None,
    folder: ForFolder = None,
    zone: ForZone = False,
    as_json: AsJson = False,
) -> None:
    """Give a menu to a device, to a folder and all below it, or to all devices; the nearest one counts.

    \b
    Example:
      pbserv menu assign students --folder /labs
    """
    from pbserv.commands import objects

    objects.menu_assign(context.obj, name, objects.place_of(device, None, folder, zone), as_json)


@app.command("unassign")
def menu_unassign(
    context: typer.Context,
    device: ForDevice = None,
    folder: ForFolder = None,
    zone: ForZone = False,
    as_json: AsJson = False,
) -> None:
    """Take the menu away again; what is nearest above counts then.

    \b
    Example:
      pbserv menu unassign --folder /labs
    """
    from pbserv.commands import objects

    objects.menu_assign(context.obj, "", objects.place_of(device, None, folder, zone), as_json)
