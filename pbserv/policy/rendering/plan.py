"""What the ruling makes the loader load, said without any loader's language. Pure.

One rule: the imaging client, a kernel and an installation differ here and nowhere after.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from pbserv.policy.decide import Ruling
from pbserv.policy.documents import PolicyError, read_object
from pbserv.policy.model import Bundle, Report
from pbserv.policy.rendering.facts import BootFacts, one_line
from pbserv.policy.rendering.installers import installer_arguments
from pbserv.policy.rendering.places import Places
from pbserv.registry.records import CLIENT_KINDS, BundleKind, Work

MEMTEST_BIOS: Final = "memtest86+x64.bin"
MEMTEST_EFI: Final = "memtest86+x64.efi"
MEMTEST_IA32: Final = "memtest86+ia32.efi"
WIMBOOT: Final = "wimboot"
LINUX_KINDS: Final = frozenset((*CLIENT_KINDS, BundleKind.LINUX, BundleKind.INSTALL))


@dataclass(frozen=True, slots=True)
class Load:
    """``kernel``, ``initrd``, ``file`` and ``files`` are places: paths below TFTPDirectory or URLs. Of the imaging
    client (``client``) they are the names of its files. ``reports``: the loader itself says that the work is done."""

    kind: BundleKind
    title: str
    kernel: str = ""
    initrd: tuple[str, ...] = ()
    arguments: str = ""
    file: str = ""
    files: tuple[str, ...] = ()
    url: str = ""
    script: str = ""
    client: bool = False
    reports: bool = False


def bundle_of(ruling: Ruling) -> Bundle | None:
    """What is to be booted. Raises PolicyError for work of a newer pbserv."""
    return ruling.bundle or (None if ruling.work is None else _of_work(ruling.work))


def _of_work(work: Work) -> Bundle | None:
    if not work.document:
        return Bundle(
            name=f"work {work.id}", kind=work.kind, image=work.image or "-", target_disk=work.target_disk,
            finish=work.finish, overwrite=work.overwrite,
        )  # fmt: skip
    found = read_object("bundle", work.bundle, json.loads(work.document))
    if not isinstance(found, Bundle):
        raise PolicyError(f"work {work.id}: {work.bundle} is no bundle")
    return found


def load_of(bundle: Bundle, ruling: Ruling, facts: BootFacts) -> Load:
    """The bundle for this device."""
    title = bundle.title or bundle.name
    if bundle.kind in CLIENT_KINDS:
        return Load(
            bundle.kind, title, "vmlinuz", ("initrd.img",), _client_arguments(bundle, ruling, facts), client=True
        )
    return Load(
        bundle.kind, title, bundle.kernel, bundle.initrd, _arguments(bundle, ruling, facts), bundle.file, bundle.files,
        bundle.url, bundle.script, reports=bundle.reporter is Report.LOADER and bool(facts.token),
    )  # fmt: skip


def _client_arguments(bundle: Bundle, ruling: Ruling, facts: BootFacts) -> str:
    token = f"pb.token={facts.token}" if facts.token else ""
    own = f"boot=pbclient pb.url={facts.url} {token} pb.mac={facts.mac} BOOTIF=01-{facts.hyphens}"
    return one_line(f"{own} {facts.arguments} {bundle.arguments} {ruling.arguments}")


def _arguments(bundle: Bundle, ruling: Ruling, facts: BootFacts) -> str:
    if bundle.kind not in (BundleKind.LINUX, BundleKind.INSTALL):
        return one_line(f"{bundle.arguments} {ruling.arguments}")
    where = installer_arguments(bundle.installer, Places(facts).answers) if bundle.installer else ""
    return one_line(f"BOOTIF=01-{facts.hyphens} {where} {bundle.arguments} {ruling.arguments}")
