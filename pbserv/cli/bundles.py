"""`pbserv bundle`: verbs to exit codes."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from pbserv.cli.options import Booting, Capturing, Gathering, Restoring, Target, Texts, Turn, spread, stated
from pbserv.cli.shared import AsJson, Title, group

app = group("Bundles: what devices can be told to do.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="name of the bundle")]


class KindName(enum.StrEnum):
    RESTORE = "restore"
    MULTICAST = "multicast"
    CACHE = "cache"
    DEPLOY = "deploy"
    CAPTURE = "capture"
    SCRIPT = "script"
    MAINTENANCE = "maintenance"
    LINUX = "linux"
    INSTALL = "install"
    EFI = "efi"
    ISO = "iso"
    IPXE = "ipxe"
    CHAIN = "chain"
    MEMTEST = "memtest"
    WINPE = "winpe"
    LOCAL = "local"
    NOTHING = "nothing"


@app.command("list")
def bundle_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List bundles."""
    from pbserv.commands import objects

    columns = {
        "Name": lambda each: each["name"], "Kind": lambda each: each["kind"], "Title": lambda each: each["title"],
        "What": lambda each: each["image"] or each["kernel"] or each["file"] or each["url"] or "",
    }  # fmt: skip
    objects.listed(context.obj, "bundle", columns, as_json)


@app.command("kinds")
def bundle_kinds(as_json: AsJson = False) -> None:
    """List the kinds of bundles, with the options that each needs and may have."""
    from pbserv.commands import kinds

    kinds.show(as_json)


@app.command("show")
def bundle_show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show a bundle with its scripts and answer files."""
    from pbserv.commands import objects

    objects.show(context.obj, "bundle", name, as_json)


@app.command("set")
@spread
def bundle_set(
    context: typer.Context,
    name: Name,
    *,
    kind: Annotated[
        KindName | None, typer.Option(metavar="KIND", help="What it does, such as restore; see: pbserv bundle kinds")
    ] = None,
    title: Title = None,
    image: Annotated[
        str | None, typer.Option(metavar="NAME", help="The image that is written, fetched or taken.")
    ] = None,
    target: Target,
    restoring: Restoring,
    capturing: Capturing,
    gathering: Gathering,
    booting: Booting,
    texts: Texts,
    turn: Turn,
    as_json: AsJson = False,
) -> None:
    """Make a bundle, or change the fields that are named.

    \b
    Examples:
      pbserv bundle set rescue --kind linux --kernel rescue/vmlinuz
             --initrd rescue/initrd.img
      pbserv bundle set classroom --kind restore --image classroom --retries 2
      pbserv bundle set debian --kind install --kernel debian/linux
             --initrd debian/initrd.gz --installer preseed --answer preseed.cfg
    """
    from pbserv.commands import objects

    given: dict[str, object] = {"kind": kind and kind.value, "title": title, "image": image}
    given |= stated(target, restoring, capturing, gathering, booting, texts, turn)
    objects.put(context.obj, "bundle", name, given, as_json)


@app.command("delete")
def bundle_delete(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Delete a bundle that no assignment, rule or menu names; work that waits keeps its own copy."""
    from pbserv.commands import objects

    objects.delete(context.obj, "bundle", name, as_json)
