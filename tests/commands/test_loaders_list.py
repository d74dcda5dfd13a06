"""``pbserv loaders list``: what is there, what is missing, and what to do about it."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.commands.loaders.image import inspect
from pbserv.commands.loaders.shelf import Entry, shelf
from pbserv.commands.provide import loaders_list


def pe(machine: int, *, signed: bool = False, tail: bytes = b"") -> bytes:
    """The head of a UEFI image for x64 or arm64: DOS stub, COFF header, optional header with its data directories."""
    directories = [(0, 0)] * 16
    directories[4] = (4096, 1500) if signed else (0, 0)
    optional = struct.pack("<H", 0x20B) + bytes(110) + b"".join(struct.pack("<II", *entry) for entry in directories)
    return (
        b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", machine) + bytes(18) + optional + tail
    )


GRUB_OLD = pe(0x8664, signed=True, tail=b"net_default_server\0sbat,1,SBAT Version,sbat,1,https\n"
              b"grub,5,Free Software Foundation,grub,2.06,h\ngrub.debian,5,Debian,grub2,2.06-13,https\n")  # fmt: skip
GRUB_NEW = GRUB_OLD.replace(b"2.06", b"2.12") + b"setting values from proxy offer\0"
IPXE_OLD = pe(0x8664, tail=b"iPXE\0\x001.0.0+git-20190125.36a4c85-5.1\0")
IPXE_NEW = pe(0xAA64, tail=b"sbat,1,SBAT Version,sbat,1,https\nipxe,1,iPXE,ipxe.efi,2.0.0+dfsg-5,https\n"
              b"\0file:autoexec.ipxe\0")  # fmt: skip


@pytest.mark.parametrize(
    ("data", "machine", "version", "signed", "autoexec", "proxy"),
    [
        (GRUB_OLD, "x64", "GRUB 2.06-13", True, False, False),
        (GRUB_NEW, "x64", "GRUB 2.12-13", True, False, True),
        (IPXE_OLD, "x64", "iPXE 1.0.0+git-20190125.36a4c85-5.1", False, False, True),
        (IPXE_NEW, "arm64", "iPXE 2.0.0+dfsg-5", False, True, True),
        (b"\r\nPXELINUX 6.04 PXE 20200816 \0", "", "PXELINUX 6.04 PXE", False, False, True),
        (b"\xeb\x00Memtest86+ v6.10\0", "", "Memtest86+ v6.10", False, False, True),
        (b"", "", "", False, False, True),
    ],
)
def test_what_a_file_says_of_itself(
    data: bytes, machine: str, version: str, signed: bool, autoexec: bool, proxy: bool
) -> None:
    image = inspect(data)
    assert (image.machine, image.version, image.signed) == (machine, version, signed)
    assert (image.autoexec, image.proxy) == (autoexec, proxy)


@given(st.binary(max_size=300), st.integers(0, 0xFFFF))
def test_any_bytes_are_inspected(data: bytes, machine: int) -> None:
    for whole in (data, pe(machine)[: len(data) + 60] + data):
        image = inspect(whole)
        assert image.version.isascii()


@pytest.fixture
def tftp(tmp_path: Path) -> Path:
    made = tmp_path / "tftp"
    (made / "arm64").mkdir(parents=True)
    (made / "snponly.efi").write_bytes(IPXE_OLD)
    (made / "shimx64.efi").write_bytes(pe(0x8664, signed=True))
    (made / "pxelinux.0").write_bytes(b"PXELINUX 6.04 PXE 20200816 ")
    (made / "arm64/ipxe.efi").write_bytes(IPXE_NEW)
    (made / "readme.txt").write_text("not a loader")
    (made / ".ipxe.efi.x").write_bytes(b"half")
    return made


def by_name(entries: list[Entry]) -> dict[str, Entry]:
    return {entry.name: entry for entry in entries}


def test_present_and_missing(tftp: Path) -> None:
    named = {"NBPx64": "snponly.efi", "NBPx86": "undionly.kpxe", "NBPARM64": "ipxe-arm64.efi", "NBPIA32": "own.efi",
             "NBPHTTPx64": "http://10.0.0.1/x.efi", "NBPiPXE": "boot.ipxe", "NBPARM32": ""}  # fmt: skip
    entries = by_name(shelf(tftp, named, ("boot.ipxe",)))
    assert list(entries)[:4] == ["arm64/ipxe.efi", "pxelinux.0", "shimx64.efi", "snponly.efi"]
    assert entries["snponly.efi"].keys == ("NBPx64",)
    assert entries["snponly.efi"].sha256
    assert entries["snponly.efi"].size == len(IPXE_OLD)
    assert entries["shimx64.efi"].signed
    assert not any(entry.advice for entry in entries.values() if entry.present)
    missing = {name: entry.advice for name, entry in entries.items() if not entry.present}
    assert missing == {
        "grubx64.efi": "shimx64.efi asks for it: pbserv loaders install grubx64.efi",
        "ipxe-arm64.efi": "pbserv loaders install --suite trixie ipxe-arm64.efi",
        "ldlinux.c32": "pxelinux.0 asks for it: pbserv loaders install ldlinux.c32",
        "own.efi": "copy it there, or pbserv loaders install --from FILE --sha256 HEX --as own.efi",
        "undionly.kpxe": "pbserv loaders install undionly.kpxe",
    }


def test_loader_asks_in_its_own_folder(tftp: Path) -> None:
    (tftp / "arm64/shimaa64.efi").write_bytes(pe(0xAA64, signed=True))
    advice = by_name(shelf(tftp, {}))["arm64/grubaa64.efi"].advice
    assert advice.startswith("arm64/shimaa64.efi asks for it: ")
    assert advice.endswith("--as arm64/grubaa64.efi")


def test_old_grub_is_told_of(tftp: Path) -> None:
    (tftp / "grubx64.efi").write_bytes(GRUB_OLD)
    assert "--suite trixie grubx64.efi" in by_name(shelf(tftp, {}))["grubx64.efi"].advice
    (tftp / "grubx64.efi").write_bytes(GRUB_NEW)
    assert by_name(shelf(tftp, {}))["grubx64.efi"].advice == ""


@pytest.fixture
def conf(tftp: Path, tmp_path: Path) -> Path:
    made = tmp_path / "conf"
    made.mkdir()
    (made / "tftp.conf").write_text(f"TFTPDirectory = {tftp}\n")
    (made / "proxydhcp.conf").write_text("NBPx86 = nvlnbp.sys\n")
    return made


def test_command_prints_a_table_and_what_to_do(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert loaders_list(conf, as_json=False) == 1
    text = capsys.readouterr().out
    assert "snponly.efi" in text
    assert "undionly.kpxe: pbserv loaders install undionly.kpxe" in text


def test_command_prints_json(conf: Path, tftp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("undionly.kpxe", "ldlinux.c32"):
        (tftp / name).write_bytes(b"loader")
    (tftp / "grubx64.efi").write_bytes(GRUB_NEW)
    assert loaders_list(conf, as_json=True) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries["undionly.kpxe"]["keys"] == ["NBPx86"]
    assert entries["snponly.efi"]["keys"] == ["NBPx64", "NBPHTTPx64"]
    assert os.fspath(tftp) not in json.dumps(entries)
