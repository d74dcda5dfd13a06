"""The variables of PXELINUX, GRUB, Raspberry Pi and settings files. Pure.

One rule: what such a loader cannot do itself is left to iPXE, which it loads; iPXE asks again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final

from pbserv.policy.decide import Ruling
from pbserv.policy.model import Bundle
from pbserv.policy.rendering.facts import BootFacts, grub_text, grub_words, one_line
from pbserv.policy.rendering.menus import shown
from pbserv.policy.rendering.places import Places
from pbserv.policy.rendering.plan import LINUX_KINDS, MEMTEST_BIOS, MEMTEST_EFI, MEMTEST_IA32, Load
from pbserv.registry.records import BundleKind, Finish
from pbserv.types import ClientArch, Verdict

IPXE_BIOS: Final = "undionly.kpxe"
IPXE_BIOS_KERNEL: Final = "ipxe.lkrn"
IPXE_EFI: Final = "snponly.efi"
IPXE_ARM64: Final = "ipxe-arm64.efi"
_VENDORS: Final = ("debian", "ubuntu", "fedora", "redhat", "centos", "rocky", "almalinux", "opensuse", "sles")
LOCAL_LOADERS: Final = (
    *(f"/EFI/{vendor}/shimx64.efi" for vendor in _VENDORS),
    "/EFI/debian/grubx64.efi", "/EFI/Microsoft/Boot/bootmgfw.efi", "/EFI/systemd/systemd-bootx64.efi",
    "/EFI/debian/shimaa64.efi", "/EFI/ubuntu/shimaa64.efi", "/EFI/BOOT/BOOTX64.EFI", "/EFI/BOOT/BOOTAA64.EFI",
    "/EFI/BOOT/BOOTIA32.EFI",
)  # fmt: skip
"""What GRUB looks for on the disks of a UEFI machine: firmware that GRUB returns to may open its boot manager."""
Clean = Callable[[str], str]


def _common(ruling: Ruling, facts: BootFacts, clean: Clean) -> dict[str, object]:
    return {
        "verdict": ruling.decision.verdict.value, "reason": clean(ruling.decision.reason), "mac": facts.mac,
        "mac_hyphens": facts.hyphens, "name": clean(facts.name), "uuid": clean(facts.uuid),
        "serial": clean(facts.serial), "asset": clean(facts.asset), "arch": str(facts.arch or ""),
        "labels": {name: clean(value) for name, value in facts.labels.items()}, "url": facts.url,
        "files": Places(facts).files, "server": facts.server, "session": facts.session, "token": facts.token,
        "menu": None,
    }  # fmt: skip


def _menu(ruling: Ruling, clean: Clean, config: Clean) -> dict[str, object]:
    """``config``: the place of an item's configuration. A command line such as iPXE's is not to be had here."""
    menu = shown(ruling)
    entries = [
        {"label": each.label, "title": clean(each.title), "does": each.does, "config": config(each.item)}
        for each in menu.entries
        if each.does != "shell"
    ]
    return {
        "title": clean(menu.title), "timeout_s": menu.timeout_s, "key": menu.key, "entries": entries,
        "default": {"label": menu.default.label},
    }  # fmt: skip


def pxelinux_values(ruling: Ruling, facts: BootFacts, load: Load | None) -> dict[str, object]:
    places = Places(facts)
    common = _common(ruling, facts, one_line) | {"ipxe": places.pxelinux(IPXE_BIOS)}
    if ruling.decision.verdict is Verdict.MENU:
        leaf = f"pxelinux.cfg/01-{facts.hyphens}"
        return common | {"menu": _menu(ruling, one_line, lambda item: f"::{places.item(item, leaf)}")}
    if load is None or load.kind in (BundleKind.LOCAL, BundleKind.NOTHING):
        return common | {"does": _plain(ruling, load)}
    boot: dict[str, object] = {"title": one_line(load.title), "arguments": one_line(load.arguments)}
    kernel, initrd = _files(load, places.pxelinux)
    if load.kind is BundleKind.CHAIN and not load.reports and (url := places.pxelinux(load.url)):
        return common | {"does": "chain", "boot": boot | {"url": url}}
    if load.kind is BundleKind.MEMTEST:
        kernel, initrd = places.pxelinux(load.file or MEMTEST_BIOS), []
    elif load.kind not in LINUX_KINDS:
        kernel = ""
    if not kernel or "" in initrd:
        return common | {"does": "ipxe", "boot": boot}
    done = [f"::{_done(places)}"] if load.reports else []
    return common | {"does": "linux", "boot": boot | {"kernel": kernel, "initrd": [*initrd, *done]}}


def grub_values(ruling: Ruling, facts: BootFacts, load: Load | None) -> dict[str, object]:
    places = Places(facts)
    ipxe = {
        "bios": places.grub(IPXE_BIOS_KERNEL), "efi": places.grub(IPXE_EFI), "arm64": places.grub(IPXE_ARM64),
    }  # fmt: skip
    common = _common(ruling, facts, grub_text) | {"ipxe": ipxe, "local_loaders": LOCAL_LOADERS, "what": "iPXE"}
    if ruling.decision.verdict is Verdict.MENU:
        leaf = f"grub.cfg-01-{facts.hyphens}"
        where = f"(tftp,{facts.server})/"
        return common | {"menu": _menu(ruling, grub_text, lambda item: where + places.item(item, leaf))}
    if load is None or load.kind in (BundleKind.LOCAL, BundleKind.NOTHING):
        return common | {"does": _plain(ruling, load)}
    done = f"(tftp,{facts.server})/{_done(places)}" if load.reports else ""
    boot: dict[str, object] = {"title": grub_text(load.title), "arguments": grub_words(load.arguments)}
    common |= {"boot": boot, "done": done, "what": grub_text(load.title)}
    if load.kind in LINUX_KINDS:
        kernel, initrd = _files(load, places.grub)
        if kernel and "" not in initrd:
            boot |= {"kernel": kernel, "initrd": [*initrd, done] if done else initrd}
            return common | {"does": "linux"}
    if load.kind is BundleKind.MEMTEST:
        ia32 = facts.arch in (ClientArch.EFI_IA32, ClientArch.HTTP_IA32)
        bios, efi = load.file or MEMTEST_BIOS, load.file or (MEMTEST_IA32 if ia32 else MEMTEST_EFI)
        boot |= {"bios": places.grub(bios), "efi": places.grub(efi)}
        return common | {"does": "memtest"}
    program = {BundleKind.EFI: load.file, BundleKind.CHAIN: load.url}.get(load.kind, "")
    if program.lower().endswith(".efi") and (file := places.grub(program)):
        boot |= {"file": file}
        return common | {"does": "efi"}
    return common | {"does": "ipxe"}


def _plain(ruling: Ruling, load: Load | None) -> str:
    local = ruling.decision.verdict is Verdict.LOCAL if load is None else load.kind is BundleKind.LOCAL
    return "local" if local else "leave"


def _done(places: Places) -> str:
    """Fetched last, as a further initrd: PXELINUX and GRUB have no other way to say that they hand over."""
    return places.tftp(f"boot/done/{places.facts.token}")


def _files(load: Load, where: Clean) -> tuple[str, list[str]]:
    """Kernel and initrd; empty places are those that the loader cannot reach."""
    folder = "client/" if load.client else ""
    return where(folder + load.kernel) if load.kernel else "", [where(folder + each) for each in load.initrd]


def pi_values(ruling: Ruling, facts: BootFacts, load: Load | None) -> dict[str, object] | None:
    """Paths are from the directory from which the Pi boots. None: what a Pi's firmware cannot do, or is not to do."""
    if load is None or load.kind not in (BundleKind.LINUX, BundleKind.INSTALL):
        return None
    if any("://" in place for place in (load.kernel, *load.initrd)):
        return None
    leaf = PurePosixPath(load.kernel).name
    boot = {"kernel": load.kernel, "initrd": load.initrd, "arguments": one_line(load.arguments)}
    arm64 = leaf.startswith(("kernel8", "kernel_2712")) or not leaf.startswith("kernel")
    return _common(ruling, facts, one_line) | {"boot": boot, "arm64": arm64}


def settings_values(ruling: Ruling, facts: BootFacts, bundle: Bundle | None) -> dict[str, object]:
    return _common(ruling, facts, one_line) | {
        "maintenance": bundle is not None and bundle.kind is BundleKind.MAINTENANCE,
        "manual_reboot": bundle is not None and bundle.finish is Finish.NONE,
        "bundle": bundle.name if bundle is not None else "",
    }
