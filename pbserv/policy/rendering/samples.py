"""Sample rulings, one for each way a template can go: what templates are tried with at the start. Pure.

One rule: every branch of every shipped template is taken by one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pbserv.policy.decide import Ruling
from pbserv.policy.model import Bundle, Installer, Menu, MenuItem
from pbserv.policy.rendering.facts import BootFacts
from pbserv.registry.records import BundleKind
from pbserv.types import ClientArch, Decision, Verdict

FACTS = BootFacts(
    mac="52:54:00:12:34:56", name="lab-01", uuid="1f2e3d4c-0000-1111-2222-333344445555", serial="S-4711", asset="A 12",
    arch=ClientArch(ClientArch.EFI_X64), labels={"product": "Standard PC"}, url="http://192.0.2.1:8080",
    server="192.0.2.1", session="525400123456aabbccddeeff", token="17.5ec2e7",  # noqa: S106 - a sample
    arguments="console=tty0",
)  # fmt: skip


def bundles() -> dict[str, Bundle]:
    """One of each kind and each installer, by a name for each."""
    made = [
        Bundle(name="restore", kind=BundleKind.RESTORE, image="office"),
        Bundle(name="multicast", kind=BundleKind.MULTICAST, image="office"),
        Bundle(name="cache", kind=BundleKind.CACHE, image="office"),
        Bundle(name="deploy", kind=BundleKind.DEPLOY, image="office"),
        Bundle(name="capture", kind=BundleKind.CAPTURE, image="office"),
        Bundle(name="script", kind=BundleKind.SCRIPT, script="echo hello\n"),
        Bundle(name="maintenance", kind=BundleKind.MAINTENANCE, arguments="quiet"),
        Bundle(
            name="linux", kind=BundleKind.LINUX, title="Rescue", kernel="debian/vmlinuz",
            initrd=("debian/initrd.img", "http://192.0.2.9/extra.cpio"), arguments='quiet name="a b" when=$x;y',
        ),
        Bundle(name="bare-linux", kind=BundleKind.LINUX, kernel="debian/vmlinuz"),
        *(
            Bundle(name=each.value, kind=BundleKind.INSTALL, installer=each, answer="host {{ hostname }}\n",
                   arguments="inst.text", kernel="debian/vmlinuz", initrd=("debian/initrd.img",))
            for each in Installer
        ),
        Bundle(name="efi", kind=BundleKind.EFI, file="uki/rescue.efi", arguments="quiet"),
        Bundle(name="iso", kind=BundleKind.ISO, file="iso/rescue.iso"),
        Bundle(name="ipxe", kind=BundleKind.IPXE, script="#!ipxe\nset where {{ files }}\nchain ${where}/x\n"),
        Bundle(name="chain", kind=BundleKind.CHAIN, url="tftp://192.0.2.7/bios/pxelinux.0"),
        Bundle(name="chain-https", kind=BundleKind.CHAIN, url="https://boot.example.org/boot.ipxe"),
        Bundle(name="memtest", kind=BundleKind.MEMTEST),
        Bundle(name="own-memtest", kind=BundleKind.MEMTEST, file="tests/memory.bin", arguments="keyboard=both"),
        Bundle(
            name="winpe", kind=BundleKind.WINPE,
            files=("winpe/bootmgr", "winpe/BCD", "winpe/boot.sdi", "winpe/boot.wim"),
        ),
        Bundle(name="local", kind=BundleKind.LOCAL),
        Bundle(name="nothing", kind=BundleKind.NOTHING),
    ]  # fmt: skip
    return {bundle.name: bundle for bundle in made}


def booting(bundle: Bundle) -> Ruling:
    reason = f"assignment a to the device: {bundle.kind} {bundle.name}"
    return Ruling(Decision(Verdict.BOOT, reason, bundle=bundle.name), bundle=bundle, arguments="folder=1 device=2")


def menus() -> dict[str, Ruling]:
    """The default menu, one of all actions that opens by a key, and one in which nothing stands for the decision."""
    restore = bundles()["restore"]
    decision = Decision(Verdict.MENU, "menu default; by itself rule r: restore restore")
    rich = Menu(
        name="rich", title="Lab", show="key", timeout_s=0,
        items=(
            MenuItem(name="go", title="What was decided", action="decision"),
            MenuItem(name="Big restore", title="Restore 100%", bundle="other"),
            MenuItem(name="local", title="Bob's disk", action="local"),
            MenuItem(name="shell", title="Shell", action="shell"),
            MenuItem(name="reboot", title="Restart", action="reboot"),
            MenuItem(name="off", title="Power off", action="poweroff"),
            MenuItem(name="exit", title="Exit", action="exit"),
        ),
    )  # fmt: skip
    bare = Menu(name="bare", timeout_s=0, items=(MenuItem(name="exit", title="Exit", action="exit"),))
    shown = Ruling(decision, bundle=restore, menu=Menu(name="default"), without_menu=Verdict.BOOT)
    return {
        "menu": shown,
        "menu-key": replace(shown, menu=rich),
        "menu-without-item": replace(shown, menu=bare),
        "menu-undecided": Ruling(Decision(Verdict.MENU, "nothing assigned; ZoneDefault = menu"), menu=Menu(name="m")),
    }


def named() -> dict[str, Ruling]:
    """All of them, by a name for each."""
    plain = {
        verdict.value: Ruling(Decision(verdict, f"nothing assigned; ZoneDefault = {verdict.value}"))
        for verdict in (Verdict.SILENT, Verdict.LOCAL, Verdict.LOADER)
    }
    found = {f"verdict-{name}": ruling for name, ruling in plain.items()}
    return found | menus() | {f"bundle-{name}": booting(bundle) for name, bundle in bundles().items()}


def rulings() -> Iterator[tuple[Ruling, BootFacts]]:
    """Each with work and without."""
    for ruling in named().values():
        yield ruling, FACTS
        yield ruling, replace(FACTS, token="", session="", name="")


def first() -> tuple[Ruling, BootFacts]:
    return next(rulings())
