"""The boot files that keys, devices and bundles name, in a real directory."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pbserv.commands.loaders.table import BY_NAME
from pbserv.doctor import handed_out
from pbserv.doctor.facts import Lacking
from pbserv.doctor.handed_out import COMPANIONS, Stock, stock_of
from pbserv.doctor.loaders import broken_loaders
from pbserv.hostcheck import host_problems
from pbserv.policy.documents import encode
from pbserv.policy.model import Bundle, Group
from pbserv.registry.records import BundleKind, Document
from pbserv.settings import VIRTUAL_FILES, Settings, is_virtual, load_settings
from tests.doctor.made_up import facts
from tests.doctor.test_loaders import image


@pytest.fixture
def tftp(tmp_path: Path) -> Path:
    (tmp_path / "tftp").mkdir()
    return tmp_path / "tftp"


def conf(tftp: Path, **keys: str) -> Settings:
    place = tftp.parent / "conf"
    place.mkdir(exist_ok=True)
    (place / "tftp.conf").write_text(f"TFTPDirectory = {tftp}\n")
    keys = {"NBPx86": "", "NBPx64": "", "NBPARM64": "", **keys}
    (place / "proxydhcp.conf").write_text("".join(f"{key} = {value}\n" for key, value in keys.items()))
    return load_settings(place)


def lacking(settings: Settings, stock: Stock = Stock()) -> list[tuple[str, str, str]]:
    keys = [each for each in handed_out.lacking(settings, stock) if each.named != "NBPiPXE"]
    return [(each.named, each.name, each.beside) for each in keys]


def test_what_shim_and_pxelinux_load_next(tftp: Path) -> None:
    (tftp / "sb").mkdir()
    (tftp / "sb" / "shimx64.efi").write_bytes(image(0x8664))
    (tftp / "pxelinux.0").write_bytes(bytes(512))
    settings = conf(tftp, NBPx64="sb/shimx64.efi", NBPx86="pxelinux.0")
    assert lacking(settings) == [
        ("NBPx86", "ldlinux.c32", "pxelinux.0"), ("NBPx64", "grubx64.efi", "sb/shimx64.efi"),
    ]  # fmt: skip
    (tftp / "sb" / "grubx64.efi").write_bytes(image(0xAA64))
    (tftp / "ldlinux.c32").write_bytes(bytes(512))
    assert lacking(settings) == []
    found = tuple(handed_out.loaders(settings))
    assert [(each.key, each.name) for each in found] == [
        ("NBPx86", "pxelinux.0"), ("NBPx86", "ldlinux.c32"), ("NBPx64", "sb/shimx64.efi"), ("NBPx64", "grubx64.efi"),
    ]  # fmt: skip
    (broken,) = broken_loaders(facts(loaders=found))
    assert "grubx64.efi is for arm64, not for x64" in broken.what


def test_the_loaders_of_devices(tftp: Path) -> None:
    (tftp / "shimx64.efi").write_bytes(b"")
    stock = Stock(loaders=("shimx64.efi", "gone.efi", "http://192.0.2.1/x.efi", "boot.ipxe"))
    assert lacking(conf(tftp), stock) == [
        ("the loader of a device", "grubx64.efi", "shimx64.efi"), ("the loader of a device", "gone.efi", ""),
    ]  # fmt: skip
    (empty,) = broken_loaders(facts(loaders=tuple(handed_out.loaders(conf(tftp), stock))))
    assert "is empty" in empty.what


def test_the_files_of_bundles(tftp: Path) -> None:
    (tftp / "live").mkdir()
    (tftp / "live" / "vmlinuz").write_bytes(b"x")
    url = "http://192.0.2.1/initrd"
    bundles = (
        Bundle(name="live", kind=BundleKind.LINUX, kernel="live/vmlinuz", initrd=("live/initrd", url)),
        Bundle(name="rescue", kind=BundleKind.LINUX, kernel="client/vmlinuz"),
        Bundle(name="uki", kind=BundleKind.EFI, file="uki.efi"),
        Bundle(name="pe", kind=BundleKind.WINPE, files=("boot.wim",)),
        Bundle(name="memory", kind=BundleKind.MEMTEST),
        Bundle(name="own memory", kind=BundleKind.MEMTEST, file="mt.bin"),
        Bundle(name="win", kind=BundleKind.RESTORE, image="win"),
        Bundle(name="elsewhere", kind=BundleKind.CHAIN, url="http://192.0.2.1/x"),
    )
    assert lacking(conf(tftp), Stock(bundles=bundles)) == [
        ("bundle live", "live/initrd", ""), ("bundle uki", "uki.efi", ""), ("bundle pe", "wimboot", ""),
        ("bundle pe", "boot.wim", ""), ("bundle memory", "memtest86+x64.bin", ""),
        ("bundle memory", "memtest86+x64.efi", ""), ("bundle own memory", "mt.bin", ""),
    ]  # fmt: skip


def test_a_directory_that_is_not_there_is_told_once(tftp: Path) -> None:
    settings = conf(tftp, NBPx64="shimx64.efi")
    tftp.rmdir()
    assert lacking(settings, Stock(loaders=("x.efi",))) == []


def test_documents(tftp: Path) -> None:
    bundle = Bundle(name="live", kind=BundleKind.LINUX, kernel="live/vmlinuz")
    now = datetime.now(UTC)
    documents = [
        Document("bundle", "live", encode(bundle), 1, now), Document("group", "lab", encode(Group(name="lab")), 1, now),
        Document("bundle", "newer", '{"kind": "teleport"}', 1, now),
    ]  # fmt: skip
    assert stock_of(["a"], documents) == Stock(("a",), (bundle,))


def test_what_is_made_when_it_is_asked_for(tftp: Path) -> None:
    names = (*VIRTUAL_FILES, "sub/autoexec.ipxe", "pxelinux.cfg/default", "grub/grub.cfg", "settings.txt")
    assert all(is_virtual(name) for name in names)
    assert not any(is_virtual(name) for name in ("shimx64.efi", "pxelinux.0", "own.ipxe", "undionly.kpxe"))
    problems = [each.key for each in host_problems(conf(tftp, NBPx64="grub/grub.cfg", NBPx86="none.0"))]
    assert "NBPx86" in problems
    assert "NBPx64" not in problems


def test_companions_are_those_that_are_installed_along() -> None:
    """One table says what is installed, the other what is looked for."""
    needed = {name: loader.needs[0] for name, loader in BY_NAME.items() if loader.needs and ".c32" not in name}
    assert needed.items() <= COMPANIONS.items()
    assert Lacking("a", "b").beside == ""
