"""`pbserv bundle`: verbs to exit codes."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from pbserv.cli.shared import Arguments, AsJson, CacheName, FinishName, Title, VerifyName, group

app = group("Bundles: what devices can be told to do.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="name of the bundle")]
PLACE = "path below TFTPDirectory, or a URL"


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


class InstallerName(enum.StrEnum):
    KICKSTART = "kickstart"
    AUTOYAST = "autoyast"
    PRESEED = "preseed"
    AUTOINSTALL = "autoinstall"


class ReportName(enum.StrEnum):
    SYSTEM = "system"
    LOADER = "loader"


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
def bundle_set(
    context: typer.Context,
    name: Name,
    kind: Annotated[KindName | None, typer.Option(help="What it does; see: pbserv bundle kinds")] = None,
    title: Title = None,
    image: Annotated[str | None, typer.Option(metavar="NAME", help="Image of the server.")] = None,
    target_disk: Annotated[
        str | None,
        typer.Option("--disk", metavar="DISK", help="/dev/X, by-id:NAME, serial:S, model:M or size:BYTES."),
    ] = None,
    finish: Annotated[FinishName | None, typer.Option(help="What the device does afterwards.")] = None,
    overwrite: Annotated[
        bool | None, typer.Option("--overwrite/--no-overwrite", help="A new version of an image that exists.")
    ] = None,
    clients: Annotated[
        int | None, typer.Option(metavar="N", help="Multicast is to begin when so many devices wait ...")
    ] = None,
    wait_min: Annotated[int | None, typer.Option(metavar="MINUTES", help="... or after so many minutes.")] = None,
    kernel: Annotated[str | None, typer.Option(metavar="FILE", help=f"Kernel: {PLACE}.")] = None,
    initrd: Annotated[list[str] | None, typer.Option(metavar="FILE", help=f"May be repeated; {PLACE}.")] = None,
    arguments: Arguments = None,
    file: Annotated[str | None, typer.Option(metavar="FILE", help=f"EFI binary, UKI or ISO: {PLACE}.")] = None,
    files: Annotated[
        list[str] | None, typer.Option("--files", metavar="FILE", help=f"For wimboot; may be repeated; {PLACE}.")
    ] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="The other server, of kind chain.")] = None,
    script: Annotated[Path | None, typer.Option(metavar="FILE", help="File on this host with the script.")] = None,
    installer: Annotated[InstallerName | None, typer.Option(help="Whose answer file it is.")] = None,
    answer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File on this host with the answer file, a Jinja2 template.")
    ] = None,
    meta: Annotated[Path | None, typer.Option(metavar="FILE", help="The same with autoinstall's meta-data.")] = None,
    report: Annotated[
        ReportName | None,
        typer.Option(help="Who says that work is done: the installed system (install) or the loader."),
    ] = None,
    retries: Annotated[
        int | None, typer.Option(metavar="N", help="Further runs after one that failed, 0 to 100; usually 0.")
    ] = None,
    version: Annotated[int | None, typer.Option(metavar="N", help="Version of the image; 0: the one served.")] = None,
    partitions: Annotated[
        list[int] | None, typer.Option("--partition", metavar="N", help="Only this one of the image; may be repeated.")
    ] = None,
    target_partition: Annotated[
        int | None, typer.Option(metavar="N", help="Where one partition of the image goes; 0: where it was.")
    ] = None,
    resize: Annotated[
        bool | None, typer.Option("--resize/--no-resize", help="Fit the last partition to the disk.")
    ] = None,
    verify: Annotated[VerifyName | None, typer.Option(help="While it is written, or by reading back, too.")] = None,
    addons: Annotated[
        list[str] | None, typer.Option("--addon", metavar="IMAGE", help="A file tree laid over; may be repeated.")
    ] = None,
    efi_entry: Annotated[
        bool | None, typer.Option("--efi-entry/--no-efi-entry", help="Make a boot entry in the firmware (UEFI).")
    ] = None,
    cache: Annotated[
        CacheName | None, typer.Option(help="Of the cache of the device: use it, or give it up where it is in the way.")
    ] = None,
    store: Annotated[str | None, typer.Option(metavar="NAME", help="Where a captured image goes.")] = None,
    dry_run: Annotated[
        bool | None, typer.Option("--dry-run/--no-dry-run", help="Check everything, write nothing.")
    ] = None,
    before: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File on this host with a shell script to run before it.")
    ] = None,
    after: Annotated[Path | None, typer.Option(metavar="FILE", help="The same, after it.")] = None,
    priority: Annotated[
        int | None, typer.Option(metavar="N", help="Who gets a place in the queue first, -100 to 100.")
    ] = None,
    wake: Annotated[
        bool | None, typer.Option("--wake/--no-wake", help="Wake the device when work of this bundle is ordered.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a bundle, or change the fields that are named.

    \b
    Examples:
      pbserv bundle set rescue --kind linux --kernel rescue/vmlinuz --initrd rescue/initrd.img
      pbserv bundle set classroom --kind restore --image classroom --retries 2
      pbserv bundle set debian --kind install --kernel debian/linux --initrd debian/initrd.gz
             --installer preseed --answer preseed.cfg
    """
    from pbserv.commands import objects

    given = {
        "kind": kind and kind.value, "title": title, "image": image, "target_disk": target_disk,
        "finish": finish and finish.value, "overwrite": overwrite, "clients": clients, "wait_min": wait_min,
        "kernel": kernel, "initrd": initrd or None, "arguments": arguments, "file": file, "files": files or None,
        "url": url, "script": objects.text_of(script), "installer": installer and installer.value,
        "answer": objects.text_of(answer), "meta": objects.text_of(meta), "report": report and report.value,
        "retries": retries, "version": version, "partitions": partitions or None, "target_partition": target_partition,
        "resize": resize, "verify": verify and verify.value, "addons": addons or None, "efi_entry": efi_entry,
        "cache": cache and cache.value,
        "store": store, "dry_run": dry_run, "before": objects.text_of(before), "after": objects.text_of(after),
        "priority": priority, "wake": wake,
    }  # fmt: skip
    objects.put(context.obj, "bundle", name, given, as_json)


@app.command("delete")
def bundle_delete(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Delete a bundle that no assignment, rule or menu names; work that waits keeps its own copy."""
    from pbserv.commands import objects

    objects.delete(context.obj, "bundle", name, as_json)
