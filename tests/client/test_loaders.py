"""``pbserv loaders install``: what it puts where, and what it says when it cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pbserv.commands import loaders


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A system with the package installed: one loader in its folder, one behind an absolute link, as Debian has it."""
    root = tmp_path / "system"
    (root / loaders.FOLDER).mkdir(parents=True)
    (root / "boot").mkdir()
    (root / loaders.FOLDER / "undionly.kpxe").write_bytes(b"bios" * 100)
    (root / loaders.FOLDER / "snponly.efi").write_bytes(b"snp " * 100)
    (root / loaders.FOLDER / "ipxe.efi").symlink_to("/boot/ipxe.efi")
    (root / "boot/ipxe.efi").write_bytes(b"uefi" * 100)
    return root


def test_loaders_are_placed_and_named(system: Path, tmp_path: Path) -> None:
    target = tmp_path / "tftp"
    target.mkdir()
    (target / "ipxe.efi").write_bytes(b"older")
    said: list[str] = []
    assert loaders.install(target, said.append, root=system) == ["undionly.kpxe", "snponly.efi", "ipxe.efi"]
    assert sorted(os.listdir(target)) == ["ipxe.efi", "snponly.efi", "undionly.kpxe"]
    assert (target / "undionly.kpxe").read_bytes() == b"bios" * 100
    assert (target / "ipxe.efi").read_bytes() == b"uefi" * 100
    assert (target / "ipxe.efi").stat().st_mode & 0o777 == 0o644
    assert ["400 bytes" in line for line in said] == [True, True, True]


def test_missing_directory_is_named(system: Path, tmp_path: Path) -> None:
    with pytest.raises(loaders.LoaderError, match="TFTPDirectory"):
        loaders.install(tmp_path / "none", lambda _: None, root=system)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may download the package")
def test_without_package_and_rights_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(loaders.LoaderError, match="apt-get install ipxe"):
        loaders.install(tmp_path, lambda _: None, root=tmp_path)


@pytest.mark.e2e
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: apt-get download")
def test_package_is_downloaded_but_not_installed(tmp_path: Path) -> None:
    """Debian's real package: a PC BIOS loader and an UEFI application."""
    said: list[str] = []
    loaders.install(tmp_path, said.append, root=tmp_path / "a-system-without-it")
    assert "nothing is installed" in said[0]
    assert (tmp_path / "ipxe.efi").read_bytes()[:2] == b"MZ"
    assert (tmp_path / "undionly.kpxe").stat().st_size > 50_000
