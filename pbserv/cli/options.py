"""Options that several verbs share: a frozen dataclass is a group of them, each field an option.

One rule: an option is written once, and its field is called as the API calls it; None says that it was not given.
"""

from __future__ import annotations

import copy
import enum
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Final, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from pbserv.cli.shared import Arguments, CacheName, FinishName, VerifyName

PLACE: Final = "path below TFTPDirectory, or a URL"
Finish = Annotated[FinishName | None, typer.Option(help="What the device does afterwards; usually reboot.")]
Version = Annotated[
    int | None, typer.Option(metavar="N", help="Version of the image; 0: the one that is served, as usual.")
]


class InstallerName(enum.StrEnum):
    KICKSTART = "kickstart"
    AUTOYAST = "autoyast"
    PRESEED = "preseed"
    AUTOINSTALL = "autoinstall"


class ReportName(enum.StrEnum):
    SYSTEM = "system"
    LOADER = "loader"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """``panel``: the head that the options of the group have in the help."""

    panel: ClassVar[str] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target(Group):
    panel: ClassVar[str] = "The disk of the device"
    target_disk: Annotated[
        str | None,
        typer.Option(
            "--disk",
            metavar="DISK",
            help="/dev/X, by-id:NAME, serial:S, model:M or size:BYTES; usually the only disk that fits.",
        ),
    ] = None
    finish: Finish = None
    dry_run: Annotated[
        bool | None,
        typer.Option("--dry-run/--no-dry-run", help="Check everything and say what would be done; write nothing."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoring(Group):
    panel: ClassVar[str] = "Restore and deploy"
    version: Version = None
    partitions: Annotated[
        list[int] | None,
        typer.Option(
            "--partition",
            metavar="N",
            help="Only this partition of the image; the table of the disk stays. May be repeated.",
        ),
    ] = None
    target_partition: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The partition of the disk that one partition of the image goes into; 0: the one with its"
            " number, as usual.",
        ),
    ] = None
    resize: Annotated[bool | None, typer.Option("--resize/--no-resize", help="Fit the last partition to the disk.")] = (
        None
    )
    verify: Annotated[
        VerifyName | None,
        typer.Option(
            help="Verify while it is written (stream), or also by reading the disk back (read); usually stream."
        ),
    ] = None
    addons: Annotated[
        list[str] | None,
        typer.Option(
            "--addon",
            metavar="IMAGE",
            help="Image of a file tree that is laid over the restored system. May be repeated.",
        ),
    ] = None
    efi_entry: Annotated[
        bool | None,
        typer.Option(
            "--efi-entry/--no-efi-entry", help="Make a boot entry in the firmware of UEFI machines; usually yes."
        ),
    ] = None
    cache: Annotated[
        CacheName | None,
        typer.Option(
            help="The cache that the device keeps on its disk: use what is in it, or give it up where it is in the way."
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capturing(Group):
    panel: ClassVar[str] = "Capture"
    overwrite: Annotated[
        bool | None,
        typer.Option(
            "--overwrite/--no-overwrite",
            help="Make a new version of an image that exists; needs AllowImageOverwrite in pbserv.conf.",
        ),
    ] = None
    store: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The store that the image goes into; usually the image's own, or the first."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathering(Group):
    panel: ClassVar[str] = "Multicast"
    clients: Annotated[int | None, typer.Option(metavar="N", help="It is to begin when so many devices wait ...")] = (
        None
    )
    wait_min: Annotated[int | None, typer.Option(metavar="MINUTES", help="... or after so many minutes.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Booting(Group):
    panel: ClassVar[str] = "What is booted"
    kernel: Annotated[str | None, typer.Option(metavar="FILE", help=f"Kernel: {PLACE}.")] = None
    initrd: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help=f"Initial RAM disk: {PLACE}. May be repeated.")
    ] = None
    arguments: Arguments = None
    file: Annotated[
        str | None, typer.Option(metavar="FILE", help=f"EFI binary, unified kernel image or ISO: {PLACE}.")
    ] = None
    files: Annotated[
        list[str] | None,
        typer.Option("--files", metavar="FILE", help=f"For wimboot (winpe): {PLACE}. May be repeated."),
    ] = None
    url: Annotated[str | None, typer.Option(metavar="URL", help="The other server (chain).")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts(Group):
    panel: ClassVar[str] = "Scripts and answer files, read from this host"
    script: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Shell script (script), or script of iPXE (ipxe).")
    ] = None
    before: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Shell script that the imaging client runs before its work ...")
    ] = None
    after: Annotated[Path | None, typer.Option(metavar="FILE", help="... and after it.")] = None
    installer: Annotated[InstallerName | None, typer.Option(help="Whose answer file it is (install).")] = None
    answer: Annotated[Path | None, typer.Option(metavar="FILE", help="The answer file, a Jinja2 template.")] = None
    meta: Annotated[Path | None, typer.Option(metavar="FILE", help="Autoinstall's meta-data, a Jinja2 template.")] = (
        None
    )
    report: Annotated[
        ReportName | None,
        typer.Option(help="Who says that the work is done: the installed system (install), or the loader."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Group):
    panel: ClassVar[str] = "When it is done"
    priority: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Who gets a place in the queue first: -100 to 100, the highest; usually 0, or the"
            " bundle's.",
        ),
    ] = None  # fmt: skip
    retries: Annotated[
        int | None,
        typer.Option(metavar="N", help="Further runs after one that failed, 0 to 100; usually 0, or the bundle's."),
    ] = None
    wake: Annotated[
        bool | None, typer.Option("--wake/--no-wake", help="Wake the device over the network (wake-on-LAN).")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Once(Turn):
    """For work, which does not wait for ever."""

    panel: ClassVar[str] = Turn.panel
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="By when the device must have begun: so many s, m, h, d or w from now, such as 8h; or a time with its"
            " zone, such as 2027-01-31T18:00+01:00; within a year.",
        ),
    ] = None


def spread(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb as typer is to see it: each parameter that is a :class:`Group` is replaced by the options in it."""
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, type[Group]] = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, Group)
    }
    shown: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(verb).parameters.items():
        if name in groups:
            shown += _options(groups[name])
        else:
            shown.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(verb)
    def called(**given: object) -> None:
        for name, group in groups.items():
            given[name] = group(**{each.name: given.pop(each.name) for each in fields(group)})
        verb(**given)

    called.__annotations__ = {each.name: each.annotation for each in shown}
    vars(called)["__signature__"] = inspect.Signature(shown)
    return called


def _options(group: type[Group]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for each in fields(group):
        kind, told = get_args(hints[each.name])
        option: OptionInfo = copy.copy(told)
        option.rich_help_panel = group.panel
        yield inspect.Parameter(
            each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=Annotated[kind, option]
        )


def stated(*groups: Group) -> dict[str, object]:
    """Field -> value as the API takes it, of the options that were given. Raises PbservError for a file that cannot be
    read."""
    from pbserv.commands import objects

    found: dict[str, object] = {}
    for group in groups:
        for each in fields(group):
            value = getattr(group, each.name)
            if isinstance(value, Path):
                value = objects.text_of(value)
            if value is not None and value != []:
                found[each.name] = value.value if isinstance(value, enum.Enum) else value
    return found
