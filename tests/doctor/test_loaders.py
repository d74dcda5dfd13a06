"""Boot files: empty, closed, or made for another machine."""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path

import pytest

from pbserv.doctor import loaders
from pbserv.doctor.facts import Loader, Place
from pbserv.doctor.finding import Severity
from tests.doctor.made_up import facts, only, settings

IPXE = Path("/usr/lib/ipxe")


def image(machine: int) -> bytes:
    """The head of a PE image."""
    head = bytearray(0x100)
    head[:2] = b"MZ"
    head[0x3C:0x40] = (0x80).to_bytes(4, "little")
    head[0x80:0x86] = b"PE\0\0" + machine.to_bytes(2, "little")
    return bytes(head)


def loader(key: str, head: bytes | None, size: int = 100_000) -> Loader:
    return Loader(key, "file", "/srv/tftp/file", size, head, (Place("/srv/tftp/file", stat.S_IFREG | 0o644, 0, 0),))


@pytest.mark.parametrize(
    ("key", "head"),
    [
        ("NBPx64", image(0x8664)),
        ("NBPIA32", image(0x014C)),
        ("NBPARM64", image(0xAA64)),
        ("NBPRISCV64", image(0x5064)),
        ("NBPLoongArch64", image(0x6264)),
        ("NBPHTTPx64", image(0x8664)),
        ("NBPHTTPx64", b"\0" * 512),  # a disk image
        ("NBPx64", image(0x0EBC)),
        ("NBPx86", b"\xeb\x3c" + bytes(510)),
        ("NBPx86", b"MZ"),
        ("NBPx64", None),
    ],
)
def test_what_fits(key: str, head: bytes | None) -> None:
    assert list(loaders.broken_loaders(facts(loaders=(loader(key, head),)))) == []


@pytest.mark.parametrize(
    ("key", "head", "words"),
    [
        ("NBPx64", image(0x014C), "is for ia32, not for x64"),
        ("NBPARM64", image(0x8664), "is for x64, not for arm64"),
        ("NBPRISCV64", image(0x1234), "is for machine 0x1234, not for riscv64"),
        ("NBPx64", b"\xeb\x3c" + bytes(510), "is no UEFI image"),
        ("NBPx86", image(0x8664), "is a UEFI image"),
        ("NBPHTTPARM64", image(0x8664), "is for x64, not for arm64"),
    ],
)
def test_what_does_not(key: str, head: bytes, words: str) -> None:
    found = only(loaders.broken_loaders, facts(loaders=(loader(key, head),)))
    assert found.severity is Severity.ERROR
    assert words in found.what
    assert key in found.remedy[0]


def test_size() -> None:
    assert "is empty" in only(loaders.broken_loaders, facts(loaders=(loader("NBPx64", b"", 0),))).what
    huge = loader("NBPx86", bytes(512), 900_000)
    assert "PXE-E79" in only(loaders.broken_loaders, facts(loaders=(huge,))).what
    by_http = dataclasses.replace(huge, key="NBPHTTPx86")
    assert list(loaders.broken_loaders(facts(loaders=(by_http,)))) == []


def test_a_file_that_the_server_may_not_read() -> None:
    closed = dataclasses.replace(
        loader("NBPx64", image(0x8664)), places=(Place("/srv/tftp/file", stat.S_IFREG | 0o600, 0, 0),)
    )
    assert only(loaders.broken_loaders, facts(loaders=(closed,))).remedy == ("chmod o+r /srv/tftp/file",)


def test_images_that_are_cut_off() -> None:
    whole = image(0x8664)
    assert loaders.machine_of(whole) == 0x8664
    for length in range(0x86):
        assert loaders.machine_of(whole[:length]) is None


@pytest.mark.parametrize(("name", "machine"), [("undionly.kpxe", None), ("snponly.efi", 0x8664), ("ipxe.efi", 0x8664)])
def test_real_loaders(name: str, machine: int | None) -> None:
    path = next((place / name for place in (IPXE, Path("/boot")) if (place / name).is_file()), None)
    if path is None and os.geteuid() != 0:
        pytest.skip("Debian's package ipxe is not installed")
    assert path is not None, "make packages installs ipxe"
    assert loaders.machine_of(path.read_bytes()[:8192]) == machine


def test_nobody_has_a_boot_file() -> None:
    conf = settings({"proxydhcp.conf": {"NBPx64": "", "NBPx86": "undionly.kpxe"}})
    assert list(loaders.no_boot_files(facts(conf))) == []
