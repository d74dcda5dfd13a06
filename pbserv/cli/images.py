"""`pbserv image`: verbs to exit codes."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from pbserv.cli.shared import AsJson, group

app = group("Images that the server keeps.")

Image = Annotated[str, typer.Argument(metavar="IMAGE", help="name of the image; see: pbserv image list")]
Version = Annotated[
    int | None, typer.Argument(metavar="[VERSION]", min=1, help="number of the version; none: the newest")
]
OneVersion = Annotated[
    int | None, typer.Option("--version", metavar="N", min=1, help="This version; none: the one that is served.")
]
Title = Annotated[str | None, typer.Option(metavar="TEXT", help="What people are shown.")]
Profile = Annotated[str | None, typer.Option(metavar="TEXT", help="The software on it, in your words.")]
Comment = Annotated[str | None, typer.Option(metavar="TEXT", help="What else there is to say; may have lines.")]
Owner = Annotated[
    str | None,
    typer.Option(metavar="STORE", help="It belongs to this store of another server (RemoteStores of pbserv.conf)."),
]
PartitionType = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What that partition is, in your words, such as ext4.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


class KindName(enum.StrEnum):
    PARTITION = "partition"
    DISK = "disk"
    TREE = "tree"
    BOOT = "boot"
    FILE = "file"


class StateName(enum.StrEnum):
    REGISTERED = "registered"
    VALIDATED = "validated"
    ENABLED = "enabled"
    DISABLED = "disabled"
    RETIRED = "retired"


Kind = Annotated[KindName | None, typer.Option(help="What it is of; none: as its newest version tells.")]


@app.command("list")
def image_list(
    context: typer.Context,
    store: Annotated[str | None, typer.Option(metavar="STORE", help="Only those of this store.")] = None,
    state: Annotated[
        StateName | None,
        typer.Option(help="enabled: what is served; registered: what has no version; others: of the newest version."),
    ] = None,
    kind: Annotated[KindName | None, typer.Option(help="Only those of this kind.")] = None,
    as_json: AsJson = False,
) -> None:
    """List images: what each is, its state, the version that is served.

    \b
    Examples:
      pbserv image list
      pbserv image list --store lab --state disabled
    """
    from pbserv.commands import images

    images.listed(context.obj, {"store": store, "state": state, "kind": kind}, as_json)


@app.command("show")
def image_show(
    context: typer.Context,
    image: Image,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", min=1, help="This version with its items.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show one image with the history of its versions, or one version with its items.

    \b
    Examples:
      pbserv image show classroom
      pbserv image show classroom --version 3
    """
    from pbserv.commands import images

    images.show(context.obj, image, version, as_json)


@app.command("register")
def image_register(
    context: typer.Context,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="name: 1 to 64 letters, digits, '_' or '-', no dots")],
    title: Title = None,
    kind: Kind = None,
    store: Annotated[
        str | None, typer.Option(metavar="STORE", help="Where its versions will be kept; none: the first store.")
    ] = None,
    profile: Profile = None,
    comment: Comment = None,
    keep: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="So many versions are kept, 0: all; none: as the store says."),
    ] = None,
    owner: Owner = None,
    partition: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The partition that it is said to be of, for people.")
    ] = None,
    partition_type: PartitionType = None,
    as_json: AsJson = False,
) -> None:
    """Register an image that has no bytes yet: its name is taken, and what is said of it stands.

    \b
    Example:
      pbserv image register classroom --title "Class room, autumn" --store lab --keep 3
    """
    from pbserv.commands import images

    body = {
        "name": image, "title": title, "kind": kind, "store": store, "profile": profile, "comment": comment,
        "keep": keep, "owner": owner, "partition": partition, "partition_type": partition_type,
    }  # fmt: skip
    images.register(context.obj, body, as_json)


@app.command("set")
def image_set(
    context: typer.Context,
    image: Image,
    title: Title = None,
    kind: Kind = None,
    profile: Profile = None,
    comment: Comment = None,
    keep: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=-1,
            help="So many versions are kept, older ones are retired by the next one that is stored; 0: all; -1: as the"
            " store says.",
        ),
    ] = None,
    owner: Owner = None,
    partition: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="The partition that it is said to be of; 0: none.")
    ] = None,
    partition_type: PartitionType = None,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", min=1, help="--comment is of this version, in one line.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change what is said of an image, or of one of its versions; '' empties a text.

    \b
    Examples:
      pbserv image set classroom --title "Class room, winter" --keep 3
      pbserv image set classroom --version 4 --comment "before the update of the office"
    """
    from pbserv.commands import images

    body = {
        "title": title, "kind": kind, "profile": profile, "comment": comment, "keep": keep, "owner": owner,
        "partition": partition, "partition_type": partition_type,
    }  # fmt: skip
    images.change(context.obj, image, version, body, as_json)


@app.command("enable")
def image_enable(context: typer.Context, image: Image, version: Version = None, as_json: AsJson = False) -> None:
    """Enable a version: the newest enabled one is served.

    \b
    Example:
      pbserv image enable classroom 3
    """
    from pbserv.commands import images

    images.move(context.obj, "enable", image, version, as_json)


@app.command("disable")
def image_disable(context: typer.Context, image: Image, version: Version = None, as_json: AsJson = False) -> None:
    """Disable a version: it is kept, and not served.

    \b
    Example:
      pbserv image disable classroom 4
    """
    from pbserv.commands import images

    images.move(context.obj, "disable", image, version, as_json)


@app.command("retire")
def image_retire(context: typer.Context, image: Image, version: Version = None, as_json: AsJson = False) -> None:
    """Retire a version: nobody needs it any more. It can be purged then, or restored.

    \b
    Example:
      pbserv image retire classroom 1
    """
    from pbserv.commands import images

    images.move(context.obj, "retire", image, version, as_json)


@app.command("restore-version")
def image_restore_version(
    context: typer.Context, image: Image, version: Version = None, as_json: AsJson = False
) -> None:
    """Keep a retired version after all; it is disabled then.

    \b
    Example:
      pbserv image restore-version classroom 1
    """
    from pbserv.commands import images

    images.move(context.obj, "restore", image, version, as_json)


@app.command("rollback")
def image_rollback(
    context: typer.Context,
    image: Image,
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="N", min=1, help="The version to serve; none: the enabled one before the served."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve an older version again. Newer ones are disabled, nothing is removed.

    \b
    Examples:
      pbserv image rollback classroom
      pbserv image rollback classroom --to 2
    """
    from pbserv.commands import images

    images.rollback(context.obj, image, to, as_json)


@app.command("purge")
def image_purge(
    context: typer.Context,
    image: Image,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", min=1, help="This version alone; none: the whole image.")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove a retired version, or an image whose versions are all retired, for ever.

    What is in use is refused, with the list of who needs it.

    \b
    Examples:
      pbserv image purge classroom --version 1
      pbserv image purge classroom --yes
    """
    from pbserv.commands import images

    images.purge(context.obj, image, version, yes, as_json)


@app.command("delete")
def image_delete(
    context: typer.Context,
    image: Image,
    now: Annotated[bool, typer.Option("--now", help="Also purge it: it is gone for ever.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Retire an image with all its versions: nobody gets it any more; with --now remove it for ever.

    \b
    Examples:
      pbserv image delete classroom
      pbserv image delete classroom --now --yes
    """
    from pbserv.commands import images

    images.delete(context.obj, image, now, yes, as_json)


@app.command("download")
def image_download(
    context: typer.Context,
    image: Image,
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="where to; none: a directory named as the image")
    ] = None,
    version: OneVersion = None,
    item: Annotated[
        list[str] | None, typer.Option("--item", metavar="NAME", help="This item alone; may be given again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch the items of an image as files, with its manifest; each is verified before it gets its name.

    A download that broke off goes on where it stood when the command is given again.

    \b
    Examples:
      pbserv image download classroom /mnt/usb/classroom
      pbserv image download classroom --version 3 --item p1.ext4.zst
    """
    from pbserv.commands import image_download as command

    command.download(context.obj, image, directory, version, item or [], as_json)


@app.command("upload")
def image_upload(
    context: typer.Context,
    image: Image,
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="a file, or a directory that pbserv image download made")
    ],
    store: Annotated[
        str, typer.Option(metavar="STORE", help="Where to; none: where the image is, or the first store.")
    ] = "",
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Make a new version of an image that exists (needs AllowImageOverwrite)."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the upload of this image that broke off, if there is one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Store a file, or what was downloaded of an image, as a version of IMAGE, byte by byte as it is.

    It goes in parts of 64 MiB. A part whose connection breaks is sent again by itself; an upload that was given up in
    the middle goes on with --resume, also after a restart of the server.

    \b
    Examples:
      pbserv image upload tools rescue.iso
      pbserv image upload classroom /mnt/usb/classroom --overwrite
    """
    from pbserv.commands import image_upload as command

    command.upload(
        context.obj, image, source, store=store, overwrite=overwrite, resume=resume, as_json=as_json
    )  # fmt: skip


@app.command("uploads")
def image_uploads(
    context: typer.Context,
    discard: Annotated[
        str | None, typer.Option("--discard", metavar="UPLOAD", help="Give this one up; what came is removed.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List uploads that have begun and are not committed, or give one up.

    \b
    Example:
      pbserv image uploads --discard 0123456789abcdef
    """
    from pbserv.commands import image_upload as command

    if discard is None:
        command.listed(context.obj, as_json)
    else:
        command.discard(context.obj, discard, as_json)


@app.command("info")
def image_info(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="image file, its first volume or the name before .aa or .000; or a directory of Clonezilla or FOG",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Say what an image file on this host is, by its content: tool, compressor, file system, sizes. No server is asked.

    Known are partclone, partimage, ntfsclone, fsarchiver, qcow2, VMDK, VDI, VHDX, raw disks and raw file systems,
    compressed with gzip, lzop, bzip2, xz, lz4, zstd or not at all, whole or in volumes. The first line is what
    OpenGnSys prints: tool, compressor, file system, and the KB that a restore needs.

    \b
    Examples:
      pbserv image info /opt/opengnsys/images/windows.img
      pbserv image info /home/partimag/classroom
      pbserv image info --json d1p1.img
    """
    from pbserv.commands import image_files

    image_files.info(path, as_json)
