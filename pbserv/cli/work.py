"""`pbserv work`: verbs to exit codes."""

from __future__ import annotations

from typing import Annotated

import typer

from pbserv.cli.shared import AsJson, CacheName, FinishName, ForGroup, Mac, VerifyName, group

app = group("Work: what a device is to do once, at its next boot.")

Disk = Annotated[
    str,
    typer.Option(
        metavar="DISK", help="/dev/X, by-id:NAME, serial:S, model:M or size:BYTES; none: the only disk that fits"
    ),
]
Finish = Annotated[FinishName, typer.Option(help="What the device does afterwards.")]
Image = Annotated[str, typer.Argument(metavar="IMAGE", help="name of the image")]
Number = Annotated[int, typer.Argument(metavar="NUMBER", help="number of the work; see: pbserv work list")]
Expires = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="By when the device must have begun: so many s, m, h, d or w from now, such as 8h, or a time such as"
        " 2027-01-31T18:00:00+01:00; within a year.",
    ),
]
Retries = Annotated[
    int | None, typer.Option(metavar="N", help="Further runs after one that failed, 0 to 100; none, or the bundle's.")
]
Priority = Annotated[
    int | None,
    typer.Option(metavar="N", help="Who gets a place in the queue first, -100 to 100; none: 0 or the bundle's."),
]
Version = Annotated[int, typer.Option(metavar="N", help="Version of the image; none: the one that is served.")]
Wake = Annotated[bool, typer.Option("--wake", help="Wake the device over the network (wake-on-LAN).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done; write nothing.")]

Partitions = Annotated[
    list[int] | None,
    typer.Option(
        "--partition",
        metavar="N",
        help="Only this one of the image; the table of the disk stays. May be repeated.",
    ),
]
TargetPartition = Annotated[
    int, typer.Option(metavar="N", help="The partition of the disk that one partition of the image goes into.")
]
Resize = Annotated[bool, typer.Option("--resize", help="Fit the last partition to the disk.")]
Verify = Annotated[
    VerifyName, typer.Option(help="While it is written (stream), or by reading the disk back, too (read).")
]
Addons = Annotated[
    list[str] | None,
    typer.Option("--addon", metavar="IMAGE", help="A file tree to lay over the restored system. May be repeated."),
]
Cache = Annotated[
    CacheName | None,
    typer.Option(help="Of the cache that the device keeps: use what is in it, or give it up where it is in the way."),
]
NoEntry = Annotated[bool, typer.Option("--no-efi-entry", help="Make no boot entry in the firmware of UEFI machines.")]


@app.command("restore")
def work_restore(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="[MAC] IMAGE", help="device and image; with --group the image")],
    group: ForGroup = None,
    disk: Disk = "",
    finish: Finish = FinishName.REBOOT,
    expires: Expires = None,
    retries: Retries = None,
    version: Version = 0,
    partition: Partitions = None,
    target_partition: TargetPartition = 0,
    resize: Resize = False,
    verify: Verify = VerifyName.STREAM,
    addon: Addons = None,
    no_efi_entry: NoEntry = False,
    cache: Cache = None,
    dry_run: DryRun = False,
    priority: Priority = None,
    wake: Wake = False,
    as_json: AsJson = False,
) -> None:
    """Write IMAGE to the device's disk at its next network boot. What the disk holds is lost.

    \b
    Examples:
      pbserv work restore 52:54:00:12:34:56 classroom
      pbserv work restore --group "lab 1" classroom --expires 12h --retries 1 --wake
      pbserv work restore 52:54:00:12:34:56 classroom --partition 2 --verify read
      pbserv work restore 52:54:00:12:34:56 classroom --dry-run
    """
    from pbserv.commands import work

    mac, image = _words(words, group)
    body = {
        "mac": mac, "group": group, "kind": "restore", "image": image, "target_disk": disk, "finish": finish.value,
        "expires": expires, "retries": retries, "version": version, "partitions": partition or [],
        "target_partition": target_partition, "resize": resize, "verify": verify.value, "addons": addon or [],
        "efi_entry": not no_efi_entry, "cache": cache and cache.value, "dry_run": dry_run, "priority": priority,
        "wake": wake,
    }  # fmt: skip
    work.order(context.obj, body, as_json)


@app.command("cache")
def work_cache(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="[MAC] IMAGE", help="device and image; with --group the image")],
    group: ForGroup = None,
    finish: Finish = FinishName.REBOOT,
    expires: Expires = None,
    retries: Retries = None,
    version: Version = 0,
    priority: Priority = None,
    wake: Wake = False,
    as_json: AsJson = False,
) -> None:
    """Put IMAGE into the cache that the device keeps, at its next network boot. Nothing else of its disk changes.

    \b
    Examples:
      pbserv work cache --group "lab 1" classroom --finish poweroff --wake
      pbserv work deploy --group "lab 1" classroom
    """
    from pbserv.commands import work

    mac, image = _words(words, group)
    body = {
        "mac": mac, "group": group, "kind": "cache", "image": image, "finish": finish.value, "expires": expires,
        "retries": retries, "version": version, "priority": priority, "wake": wake,
    }  # fmt: skip
    work.order(context.obj, body, as_json)


@app.command("deploy")
def work_deploy(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="[MAC] IMAGE", help="device and image; with --group the image")],
    group: ForGroup = None,
    disk: Disk = "",
    finish: Finish = FinishName.REBOOT,
    expires: Expires = None,
    retries: Retries = None,
    version: Version = 0,
    partition: Partitions = None,
    target_partition: TargetPartition = 0,
    resize: Resize = False,
    verify: Verify = VerifyName.STREAM,
    addon: Addons = None,
    no_efi_entry: NoEntry = False,
    cache: Cache = None,
    dry_run: DryRun = False,
    priority: Priority = None,
    wake: Wake = False,
    as_json: AsJson = False,
) -> None:
    """Write IMAGE to the device's disk by way of the cache that it keeps: what is there already is not sent again.

    Without a cache, or with one that is too small, it is a restore.

    \b
    Example:
      pbserv work deploy --group "lab 1" classroom --wake
    """
    from pbserv.commands import work

    mac, image = _words(words, group)
    body = {
        "mac": mac, "group": group, "kind": "deploy", "image": image, "target_disk": disk, "finish": finish.value,
        "expires": expires, "retries": retries, "version": version, "partitions": partition or [],
        "target_partition": target_partition, "resize": resize, "verify": verify.value, "addons": addon or [],
        "efi_entry": not no_efi_entry, "cache": cache and cache.value, "dry_run": dry_run, "priority": priority,
        "wake": wake,
    }  # fmt: skip
    work.order(context.obj, body, as_json)


@app.command("capture")
def work_capture(
    context: typer.Context,
    mac: Mac,
    image: Image,
    disk: Disk = "",
    finish: Finish = FinishName.REBOOT,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Make a new version of an image that exists (needs AllowImageOverwrite)."),
    ] = False,
    expires: Expires = None,
    retries: Retries = None,
    store: Annotated[
        str, typer.Option(metavar="NAME", help="The store that it goes into; none: the image's own, or the first.")
    ] = "",
    dry_run: DryRun = False,
    priority: Priority = None,
    wake: Wake = False,
    as_json: AsJson = False,
) -> None:
    """Take IMAGE from the device's disk at its next network boot.

    \b
    Example:
      pbserv work capture 52:54:00:12:34:56 classroom
    """
    from pbserv.commands import work

    body = {
        "mac": mac, "kind": "capture", "image": image, "target_disk": disk, "finish": finish.value,
        "overwrite": overwrite, "expires": expires, "retries": retries, "store": store, "dry_run": dry_run,
        "priority": priority, "wake": wake,
    }  # fmt: skip
    work.order(context.obj, body, as_json)


@app.command("bundle")
def work_bundle(
    context: typer.Context,
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="name of the bundle")],
    mac: Annotated[str | None, typer.Argument(metavar="[MAC]", help="device; or use --group")] = None,
    group: ForGroup = None,
    expires: Expires = None,
    retries: Retries = None,
    priority: Priority = None,
    wake: Annotated[
        bool | None,
        typer.Option("--wake/--no-wake", help="Wake the device over the network; none: as the bundle says."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Do what a bundle says, once, at the next network boot of a device or of all devices of a group.

    \b
    Examples:
      pbserv work bundle debian 52:54:00:12:34:56
      pbserv work bundle debian --group "lab 1" --expires 2d
    """
    from pbserv.commands import work

    body = {
        "mac": mac, "group": group, "bundle": bundle, "expires": expires, "retries": retries, "priority": priority,
        "wake": wake,
    }  # fmt: skip
    work.order(context.obj, body, as_json)


@app.command("list")
def work_list(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Also what is done, held, failed or cancelled.")] = False,
    as_json: AsJson = False,
) -> None:
    """List work with the progress of its newest job."""
    from pbserv.commands import work

    work.listed(context.obj, everything, as_json)


@app.command("show")
def work_show(context: typer.Context, number: Number, as_json: AsJson = False) -> None:
    """Show one piece of work with its runs."""
    from pbserv.commands import work

    work.show(context.obj, number, as_json)


@app.command("cancel")
def work_cancel(context: typer.Context, number: Number, as_json: AsJson = False) -> None:
    """Cancel work; a device that is at it stops within seconds.

    \b
    Example:
      pbserv work cancel 17
    """
    from pbserv.commands import work

    work.cancel(context.obj, number, as_json)


@app.command("retry")
def work_retry(context: typer.Context, number: Number, as_json: AsJson = False) -> None:
    """Queue work again that is held, or that failed, expired or was cancelled; what it has expired by is forgotten.

    \b
    Example:
      pbserv work retry 17
    """
    from pbserv.commands import work

    work.retry(context.obj, number, as_json)


def _words(words: list[str], group: str | None) -> tuple[str | None, str]:
    """Device and image; the image alone where a group is named."""
    if len(words) != (2 if group is None else 1):
        raise typer.BadParameter("write MAC IMAGE, or --group NAME IMAGE")
    return (words[0] if group is None else None), words[-1]
