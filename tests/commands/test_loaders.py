"""``pbserv loaders install``: what it puts where, and what it says when it cannot."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.commands import loaders
from pbserv.commands.loaders import packages, table
from pbserv.commands.loaders.fromfile import files_of


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A system with packages installed: loaders in their folders, one behind an absolute link, as Debian has it."""
    root = tmp_path / "system"
    for name, text in (("usr/lib/ipxe/undionly.kpxe", b"bios"), ("usr/lib/ipxe/snponly.efi", b"snp "),
                       ("boot/ipxe.efi", b"uefi"), ("usr/lib/PXELINUX/pxelinux.0", b"pxel"),
                       ("usr/lib/syslinux/modules/bios/ldlinux.c32", b"ldli")):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text * 100)
    (root / "usr/lib/ipxe/ipxe.efi").symlink_to("/boot/ipxe.efi")
    return root


@pytest.fixture
def target(tmp_path: Path) -> Path:
    made = tmp_path / "tftp"
    made.mkdir()
    return made


def quiet(_text: str) -> None:
    pass


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_loaders_are_placed_and_named(system: Path, target: Path) -> None:
    (target / "ipxe.efi").write_bytes(b"older")
    said: list[str] = []
    assert loaders.install(target, said.append, root=system) == ["undionly.kpxe", "snponly.efi", "ipxe.efi"]
    assert sorted(os.listdir(target)) == ["ipxe.efi", "snponly.efi", "undionly.kpxe"]
    assert (target / "undionly.kpxe").read_bytes() == b"bios" * 100
    assert (target / "ipxe.efi").read_bytes() == b"uefi" * 100
    assert (target / "ipxe.efi").stat().st_mode & 0o777 == 0o644
    assert ["400 bytes" in line for line in said] == [True, True, True]


def test_a_loader_brings_along_what_it_asks_for(system: Path, target: Path) -> None:
    assert loaders.install(target, quiet, ["pxelinux.0"], root=system) == ["pxelinux.0", "ldlinux.c32"]
    assert sorted(os.listdir(target)) == ["ldlinux.c32", "pxelinux.0"]


def test_sets_and_names_are_told_apart() -> None:
    names = [loader.name for loader in table.wanted(["shim", "snponly.efi", "shimx64.efi"])]
    assert names == ["snponly.efi", "shimx64.efi", "grubx64.efi", "mmx64.efi"]
    assert {loader.name for loader in table.wanted(["all"])} == set(table.BY_NAME)
    assert [loader.name for loader in table.wanted([])] == ["undionly.kpxe", "snponly.efi", "ipxe.efi"]
    assert all(need in table.BY_NAME for loader in table.BY_NAME.values() for need in loader.needs)


@pytest.mark.parametrize(
    ("name", "words"), [("lilo", "known: all, ipxe"), ("wimboot", "install it with --from"), ("", "known: all")]
)
def test_unknown_name_gets_the_list_or_the_way(target: Path, name: str, words: str) -> None:
    with pytest.raises(loaders.LoaderError, match=words):
        loaders.install(target, quiet, [name])


def test_missing_directory_is_named(system: Path, tmp_path: Path) -> None:
    with pytest.raises(loaders.LoaderError, match="TFTPDirectory"):
        loaders.install(tmp_path / "none", quiet, root=system)


def test_without_apt_the_other_way_is_named(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(loaders.LoaderError, match=r"apt-get is missing.*--from FILE --sha256 HEX"):
        loaders.install(target, quiet, root=tmp_path)
    assert os.listdir(target) == []


@pytest.mark.parametrize(
    ("line", "suite", "expected"),
    [
        ("deb [signed-by=/k] http://m/d bookworm main", "trixie", "deb [signed-by=/k] http://m/d trixie main"),
        ("deb http://m/d bookworm main contrib", "sid", "deb http://m/d sid main contrib"),
        ("deb http://m/d bookworm-updates main", "trixie", None),
        ("deb http://m/d bookworm-backports main", "trixie", None),
        ("deb http://s/d bookworm-security main", "trixie", "deb http://s/d trixie-security main"),
        ("deb http://s/d bookworm-security main", "sid", None),
    ],
)  # fmt: skip
def test_sources_of_another_release(line: str, suite: str, expected: str | None) -> None:
    assert packages.in_suite(line, suite) == expected


# --- from a file


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """As iPXE's ipxeboot.tar.gz: the same file names in a folder for each architecture."""
    path = tmp_path / "ipxeboot.tar.gz"
    with tarfile.open(path, "w:gz") as out:
        for name in ("x86_64-sb/snponly.efi", "x86_64-sb/snponly-shim.efi", "arm64-sb/snponly.efi"):
            entry = tarfile.TarInfo(f"ipxeboot/{name}")
            entry.size = len(name)
            out.addfile(entry, io.BytesIO(name.encode()))
        link = tarfile.TarInfo("ipxeboot/link.efi")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        out.addfile(link)
    return path


def test_file_with_its_checksum(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "wimboot-2.8"
    source.write_bytes(b"wimboot")
    assert loaders.install_file(target, quiet, source, sha256(source).upper(), name="win/wimboot") == ["win/wimboot"]
    assert (target / "win/wimboot").read_bytes() == b"wimboot"
    assert loaders.install_file(target, quiet, source, sha256(source)) == ["wimboot-2.8"]


@pytest.mark.parametrize(
    ("checksum", "words"),
    [("0" * 64, "its SHA-256 is [0-9a-f]{64}, not 0{64}: nothing was installed"), ("abc", "64 hex")],
)
def test_another_checksum_installs_nothing(target: Path, tmp_path: Path, checksum: str, words: str) -> None:
    source = tmp_path / "wimboot"
    source.write_bytes(b"wimboot")
    with pytest.raises(loaders.LoaderError, match=words):
        loaders.install_file(target, quiet, source, checksum)
    assert os.listdir(target) == []


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.efi", "a/../../b", ".", "a/..", "nul\0"])
def test_names_outside_of_the_directory_are_refused(target: Path, tmp_path: Path, name: str) -> None:
    source = tmp_path / "loader.efi"
    source.write_bytes(b"MZ")
    with pytest.raises(loaders.LoaderError, match="is no name below"):
        loaders.install_file(target, quiet, source, sha256(source), name=name)
    assert os.listdir(target) == []


def test_members_of_an_archive(target: Path, archive: Path) -> None:
    wanted = ["x86_64-sb/snponly.efi", "snponly-shim.efi"]
    got = loaders.install_file(target, quiet, archive, sha256(archive), wanted)
    assert got == ["snponly.efi", "snponly-shim.efi"]
    assert (target / "snponly.efi").read_bytes() == b"x86_64-sb/snponly.efi"
    got = loaders.install_file(target, quiet, archive, sha256(archive), ["arm64-sb/snponly.efi"], "arm64/snponly.efi")
    assert (target / got[0]).read_bytes() == b"arm64-sb/snponly.efi"


@pytest.mark.parametrize(
    ("members", "name", "words"),
    [
        ([], "", "name what to install of: ipxeboot/x86_64-sb/snponly.efi"),
        (["snponly.efi"], "", "has more than one snponly.efi: ipxeboot/x86_64-sb/snponly.efi, ipxeboot/arm64-sb"),
        (["ponly.efi"], "", "has no ponly.efi"),
        (["link.efi"], "", "has no link.efi"),
        (["snponly-shim.efi", "x86_64-sb/snponly.efi"], "one.efi", "--as is for one file"),
        (["arm64-sb/snponly.efi", "x86_64-sb/snponly.efi"], "", "two members would be snponly.efi"),
    ],
)
def test_members_that_cannot_be_chosen(target: Path, archive: Path, members: list[str], name: str, words: str) -> None:
    with pytest.raises(loaders.LoaderError, match=words):
        loaders.install_file(target, quiet, archive, sha256(archive), members, name)
    assert os.listdir(target) == []


def test_cut_archive_is_named(archive: Path) -> None:
    data = archive.read_bytes()
    for length in range(20, len(data) - 8, 7):
        try:
            files_of(archive, data[:length], ["arm64-sb/snponly.efi"], "")
        except loaders.LoaderError:
            continue


@given(data=st.binary(max_size=2000), members=st.lists(st.text(max_size=10), max_size=2))
def test_any_file_is_taken_or_refused_with_a_word(data: bytes, members: list[str]) -> None:
    try:
        found = files_of(Path("loader.efi"), data, members, "")
    except loaders.LoaderError:
        return
    assert found == {"loader.efi": data}


# --- Debian's real packages


@pytest.mark.e2e
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="downloads packages: with the other tests that need the network")
def test_package_is_downloaded_but_not_installed(target: Path, tmp_path: Path) -> None:
    """A PC BIOS loader and an UEFI application."""
    said: list[str] = []
    loaders.install(target, said.append, root=tmp_path / "a-system-without-it")
    assert any("nothing is installed" in line for line in said)
    assert (target / "ipxe.efi").read_bytes()[:2] == b"MZ"
    assert (target / "undionly.kpxe").stat().st_size > 50_000


@pytest.mark.e2e
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="downloads packages: with the other tests that need the network")
def test_every_loader_of_the_table_is_in_its_package(target: Path) -> None:
    """Of the release that has all of them; two architectures, neither of which is changed on this host."""
    assert len(loaders.install(target, quiet, ["all"], suite="trixie")) == len(table.BY_NAME)
    entries = {entry.name: entry for entry in loaders.shelf(target, {"NBPx64": "shimx64.efi", "NBPx86": "pxelinux.0"})}
    assert all(entry.present and not entry.advice for entry in entries.values()), entries
    assert {name for name in entries if entries[name].signed} >= {"shimx64.efi", "grubx64.efi", "grubaa64.efi"}
    assert entries["grubx64.efi"].version.startswith("GRUB 2.")
    assert entries["snponly.efi"].version.startswith("iPXE ")
    assert entries["snponly.efi"].autoexec
    assert entries["ipxe-arm64.efi"].serves == "UEFI arm64"
    assert entries["pxelinux.0"].version.startswith("PXELINUX 6.")
