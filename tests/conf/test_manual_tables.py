"""Tables D-10, D-12, D-14 and D-16 of the manual as files: every example line as it is printed there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pbserv.conf.load import load
from pbserv.conf.model import ConfFile, keys_of
from tests.conf import FILES, PBSERV, POLICY, PROXYDHCP, TFTP

TABLES: dict[str, tuple[ConfFile[Any], tuple[str, ...]]] = {
    "D-10": (PBSERV, ("EnableLogging=YES", "IPAddress=", "LIBRARY_NAME=", "PrebootServiceLogFileSize")),
    "D-12": (
        PROXYDHCP,
        (
            "LocalDHCPFlag = 0",
            "LocalInterface = 10.0.0.1",
            "NovellPolicyEngine = 10.0.0.1",
            "NBPx86 = nvlnbp.sys",
            "MenuTimeout = 2",
            "ProxyLogLevel = 2",
            "ProxyLogFile = path\\novell-proxydhcp.log",
            "ProxyLogFileSize = 15",
        ),
    ),
    "D-14": (
        TFTP,
        (
            "TFTPInterface = 10.0.0.1",
            "TransferBlockSize = 1428",
            "TimeoutInterval = 1",
            "Linux -- TFTPDirectory = /srv/tftp",
            "TFTPAllowWrites = 0",
            "TFTPAllowOverwrites = 0",
            "TFTPLogLevel = 2",
            "TFTPLogFile = path\\novell-tftp.log",
            "TFTPLogFileSize = 15",
        ),
    ),
    "D-16": (
        POLICY,
        (
            "LocalInterface = 10.0.0.1",
            "PolicyLogLevel = 1",
            "PolicyLogFile = path\\novell-zmgprebootpolicy.log",
            "PolicyLogFileSize = 15",
            "PrebootServer = 10.0.0.5",
            "EnableAMTSupport = Yes",
        ),
    ),
}
# What the manual prints as an example and this server cannot do (yet). Nothing else may be complained about.
EXPECTED = {
    "EnableAMTSupport": "Yes: Intel AMT is not supported; the value is ignored",
}


def key_of(line: str) -> str:
    return line.removeprefix("Linux -- ").partition("=")[0].strip()


def emptied(line: str) -> str:
    return f"{line.partition('=')[0].rstrip()} ="


def read(directory: Path, table: str, lines: list[str], name: str = "", end: str = "\n") -> Any:
    file, _ = TABLES[table]
    (directory / (name or file.name)).write_bytes(end.join([*lines, ""]).encode())
    return load(directory, FILES)


@pytest.mark.parametrize("table", TABLES)
def test_the_table_is_complete(table: str) -> None:
    file, lines = TABLES[table]
    ours = {bound.name for bound in keys_of(file.model) if not bound.key.extension}
    assert {key_of(line) for line in lines} == ours


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("table", TABLES)
def test_as_printed_and_active(tmp_path: Path, table: str, end: str) -> None:
    file, lines = TABLES[table]
    for name in file.names:
        where = tmp_path / name
        where.mkdir()
        loaded = read(where, table, list(lines), name, end)
        complaints = {each.key: each.reason for each in loaded.warnings}
        assert complaints == {key: why for key, why in EXPECTED.items() if key in map(key_of, lines)}


@pytest.mark.parametrize(("table", "line"), [(table, line) for table, (_, lines) in TABLES.items() for line in lines])
def test_each_line_alone(tmp_path: Path, table: str, line: str) -> None:
    file, _ = TABLES[table]
    default = file.model()
    for mark in ("#", ";", "# ", " ;\t"):
        loaded = read(tmp_path, table, [mark + line])
        assert loaded.get(file.model) == default
        assert not loaded.is_set(file.model, key_of(line))
    loaded = read(tmp_path, table, [emptied(line)])
    assert loaded.get(file.model) == default
    assert not loaded.is_set(file.model, key_of(line))
    assert not loaded.warnings
    loaded = read(tmp_path, table, [line])
    assert loaded.is_set(file.model, key_of(line)) is bool(line.partition("=")[2].strip())


@pytest.mark.parametrize("table", TABLES)
def test_the_whole_table_commented_out_or_empty(tmp_path: Path, table: str) -> None:
    file, lines = TABLES[table]
    for variant in ([f"#{line}" for line in lines], [emptied(line) for line in lines]):
        loaded = read(tmp_path, table, variant)
        assert loaded.get(file.model) == file.model()
        assert not loaded.warnings


def test_the_values_mean_what_the_manual_says(tmp_path: Path) -> None:
    for table, (_, lines) in TABLES.items():
        loaded = read(tmp_path, table, list(lines))
    logs = Path("/var/log/pbserv")
    proxy, tftp, policy = (loaded.get(file.model) for file in (PROXYDHCP, TFTP, POLICY))
    assert (proxy.local_interface, proxy.policy_engine, proxy.nbp_x86) == ("10.0.0.1", "10.0.0.1", "nvlnbp.sys")
    assert proxy.log_path(logs) == logs / "novell-proxydhcp.log"
    assert (tftp.interfaces, tftp.directory) == (("10.0.0.1",), Path("/srv/tftp"))
    assert tftp.log_path(logs) == logs / "novell-tftp.log"
    assert (policy.log_level, policy.preboot_server, policy.enable_amt_support) == (1, "10.0.0.5", True)
    assert policy.log_path(logs) == logs / "novell-zmgprebootpolicy.log"
