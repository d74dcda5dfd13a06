"""Names that boot loaders ask for: each loader's own way to spell a machine, and ordinary files beside them."""

from __future__ import annotations

import timeit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pbserv.policy.names import Asked, parse_name

MAC = "52:54:00:12:34:56"
UUID = "1f2e3d4c-0000-1111-2222-333344445555"
SESSION = "525400123456aabbccddeeff"

NAMES = [
    ("boot.ipxe", Asked("bootstrap", leaf="boot.ipxe")),
    ("/boot.ipxe", Asked("bootstrap", leaf="boot.ipxe")),
    ("autoexec.ipxe", Asked("bootstrap", leaf="autoexec.ipxe")),
    ("x86_64-sb/autoexec.ipxe", Asked("bootstrap", folder="x86_64-sb", leaf="autoexec.ipxe")),
    ("boot/52-54-00-12-34-56.ipxe", Asked("ipxe", mac=MAC, folder="boot", leaf="52-54-00-12-34-56.ipxe")),
    ("boot/525400123456.ipxe", Asked("ipxe", mac=MAC, folder="boot", leaf="525400123456.ipxe")),
    (f"s/{SESSION}/boot.ipxe", Asked("bootstrap", session=SESSION, leaf="boot.ipxe")),
    (f"pxelinux.cfg/{UUID}", Asked("pxelinux", uuid=UUID, leaf=UUID)),
    (f"pxelinux.cfg/{UUID.upper()}", Asked("pxelinux", uuid=UUID, leaf=UUID.upper())),
    ("pxelinux.cfg/01-52-54-00-12-34-56", Asked("pxelinux", mac=MAC, leaf="01-52-54-00-12-34-56")),
    ("bios/pxelinux.cfg/C000025B", Asked("pxelinux", address="192.0.2.91", digits="C000025B", folder="bios",
                                         leaf="C000025B")),
    ("pxelinux.cfg/c00002", Asked("pxelinux", digits="C00002", leaf="c00002")),
    ("pxelinux.cfg/C", Asked("pxelinux", digits="C", leaf="C")),
    ("pxelinux.cfg/default", Asked("pxelinux", leaf="default")),
    (f"s/{SESSION}/item/Big%20restore/pxelinux.cfg/default",
     Asked("pxelinux", session=SESSION, item="Big restore", leaf="default")),
    (f"grub/x86_64-efi/grub.cfg-{UUID}", Asked("grub", uuid=UUID, folder="grub/x86_64-efi", leaf=f"grub.cfg-{UUID}")),
    ("/grub.cfg-01-52-54-00-12-34-56", Asked("grub", mac=MAC, leaf="grub.cfg-01-52-54-00-12-34-56")),
    ("grub/grub.cfg-C000025B", Asked("grub", address="192.0.2.91", digits="C000025B", folder="grub",
                                     leaf="grub.cfg-C000025B")),
    ("grub/grub.cfg-C0", Asked("grub", digits="C0", folder="grub", leaf="grub.cfg-C0")),
    ("grub/grub.cfg", Asked("grub", folder="grub", leaf="grub.cfg")),
    ("item/local/grub.cfg", Asked("grub", item="local", leaf="grub.cfg")),
    ("1234abcd/config.txt", Asked("raspberrypi", serial="1234abcd", folder="1234abcd", leaf="config.txt")),
    ("dc-a6-32-01-02-03/cmdline.txt",
     Asked("raspberrypi", mac="dc:a6:32:01:02:03", folder="dc-a6-32-01-02-03", leaf="cmdline.txt")),
    ("config.txt", Asked("raspberrypi", leaf="config.txt")),
    ("settings.txt", Asked("settings", leaf="settings.txt")),
    (f"s/{SESSION}/boot/done/17.abcdef", Asked("done", session=SESSION, folder="boot/done", leaf="17.abcdef",
                                               token="17.abcdef")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "asked"), NAMES, ids=[name for name, _asked in NAMES])
def test_virtual_names(name: str, asked: Asked) -> None:
    assert parse_name(name) == asked


@pytest.mark.parametrize("name", [
    "", "/", "undionly.kpxe", "grub/x86_64-efi/command.lst", "grub/x86_64-efi/normal.mod", "grubx64.efi",
    "revocations.efi",
    "pxelinux.cfg", "pxelinux.cfg/", "pxelinux.cfg/C000025B1", "pxelinux.cfg/menu.cfg", "pxelinux.cfg/xyz",
    "grub.cfg-", "grub.cfgC0", "grub.cfg.bak", "grub.cfg-xyz", "boot/x.ipxe", "scripts/boot.ipxe", "my.ipxe",
    "firmware/config.txt", "12345/config.txt", "readme.txt", "boot/done/", "a" * 600 + "/grub.cfg",
    f"s/{SESSION}/kernel",
])  # fmt: skip
def test_ordinary_files(name: str) -> None:
    assert parse_name(name) is None


@given(st.text() | st.from_regex(r"(s/[a-f]{4}/)?(item/.{0,9}/)?(pxelinux\.cfg/|grub\.cfg-?|[0-9a-f]{8}/).{0,30}"))
@example("s/x/\n/grub.cfg")
@example("pxelinux.cfg/١")
def test_any_name_has_an_answer(name: str) -> None:
    asked = parse_name(name)
    assert asked is None or asked.leaf in name or asked.leaf in name.lower()


def test_ordinary_names_are_cheap() -> None:
    names = ["grub/x86_64-efi/normal.mod", "images/debian/vmlinuz", f"s/{SESSION}/images/initrd.img"]
    seconds = min(timeit.repeat(lambda: [parse_name(name) for name in names], number=2_000, repeat=5))
    assert seconds / 6_000 < 3e-6, "1 us on an idle machine"
