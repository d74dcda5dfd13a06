"""What is valid in the files and cannot hold: boot files that firmware cannot get."""

from __future__ import annotations

from pathlib import Path

import pytest

from pbserv.hostcheck import host_problems
from pbserv.settings import load_settings

RULE = '[[rule]]\nmac = "52:54:00:12:34:56"\nstrategy = "hybrid"\nsource = "the lab"\nloader = '


def problems(place: Path, key: str, value: str = "", table: str = "") -> list[str]:
    """What is said of ``key`` in a proxydhcp.conf that holds it alone, with a strategies.toml beside it."""
    conf, tftp = place / "conf", place / "tftp"
    for directory in (conf, tftp):
        directory.mkdir()
    (tftp / "there.efi").write_bytes(b"MZ")
    (conf / "tftp.conf").write_text(f"TFTPDirectory = {tftp}\n")
    (conf / "proxydhcp.conf").write_text(f"{key} = {value}\n")
    if table:
        (conf / "strategies.toml").write_text(table)
    return [problem.reason for problem in host_problems(load_settings(conf)) if problem.key == key]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NBPx64", "there.efi"),
        ("NBPHTTPx64", "there.efi"),
        ("NBPHTTPx64", "http://192.0.2.1/x.efi"),
        ("NBPHTTPx64", "http://192.0.2.1:8080/x.efi"),
        ("NBPHTTPARM64", "https://[2001:db8::1]/x.efi"),
        ("NBPiPXE", "http://boot.example/start.ipxe"),
    ],
)
def test_what_firmware_can_get(tmp_path: Path, key: str, value: str) -> None:
    assert problems(tmp_path, key, value) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("NBPx64", "missing.efi", "there is no file missing.efi"),
        ("NBPx64", "http://192.0.2.1/x.efi", "firmware fetches this file by TFTP"),
        ("NBPHTTPx64", "http://boot.example/x.efi", "boot.example is no address"),
        ("MenuEntries", "Memory test=missing.0", "there is no file missing.0"),
    ],
)
def test_what_it_cannot_get(tmp_path: Path, key: str, value: str, said: str) -> None:
    [reason] = problems(tmp_path, key, value)
    assert said in reason


def test_boot_files_of_the_administrators_rules(tmp_path: Path) -> None:
    table = f'{RULE}"missing.efi"\n{RULE}"there.efi"\n{RULE}"http://192.0.2.1/x.ipxe"\n'
    [reason] = problems(tmp_path, "StrategyTable", table=table)
    assert reason.startswith("there is no file missing.efi in ")
