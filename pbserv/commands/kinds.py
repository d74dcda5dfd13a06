"""`pbserv bundle kinds`: what each kind of bundle is, needs and may have."""

from __future__ import annotations

from typing import Final

from pbserv.commands.tables import print_json, show_table
from pbserv.policy.model import fields_of
from pbserv.registry.records import BundleKind

ABOUT: Final = {
    BundleKind.RESTORE: "write an image to a disk",
    BundleKind.MULTICAST: "write an image to the disks of many devices; for now each restores alone, over unicast",
    BundleKind.CACHE: "put an image into the cache that the device keeps, and leave its disk as it is",
    BundleKind.DEPLOY: "write an image to a disk by way of that cache: what is in it already is not sent again",
    BundleKind.CAPTURE: "take an image of a disk",
    BundleKind.SCRIPT: "run a shell script on the imaging client",
    BundleKind.MAINTENANCE: "a shell on the imaging client",
    BundleKind.LINUX: "boot a Linux kernel",
    BundleKind.INSTALL: "install a system with an answer file that is rendered for the device",
    BundleKind.EFI: "start an EFI binary or a unified kernel image",
    BundleKind.ISO: "boot an ISO image over HTTP",
    BundleKind.IPXE: "run an iPXE script",
    BundleKind.CHAIN: "hand over to another server",
    BundleKind.MEMTEST: "test the memory",
    BundleKind.WINPE: "boot Windows PE through wimboot",
    BundleKind.LOCAL: "boot from the local disk",
    BundleKind.NOTHING: "no answer; other servers may give one",
}
_OPTIONS: Final = {"target_disk": "disk", "partitions": "partition", "addons": "addon"}
"""Options that are not called as their fields."""


def show(as_json: bool) -> None:
    if as_json:
        return print_json({
            kind.value: {"about": about, "needs": list(fields_of(kind)[0]), "may": list(fields_of(kind)[1])}
            for kind, about in ABOUT.items()
        })  # fmt: skip
    rows = ((kind.value, about, *(options_of(names) for names in fields_of(kind))) for kind, about in ABOUT.items())
    return show_table(("Kind", "What it does", "Needs", "May have"), rows, "")


def options_of(names: tuple[str, ...]) -> str:
    """The options of ``bundle set`` for fields of a bundle, spaces between them."""
    return " ".join(f"--{_OPTIONS.get(name, name.replace('_', '-'))}" for name in names)
