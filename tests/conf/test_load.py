"""Loading a directory: all errors at once, file names, warnings, what was set where."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pbserv.conf.load import ConfigError, Loaded, load
from pbserv.conf.model import keys_of
from pbserv.errors import PbservError
from pbserv.imaging.config import PbservConf
from pbserv.policy.config import PolicyConf
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.tftp.config import TftpConf
from tests.conf import FILES


def write(directory: Path, **texts: str) -> None:
    for name, text in texts.items():
        (directory / f"{name.replace('_', '-')}.conf").write_text(text)


def errors(directory: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(directory, FILES)
    assert isinstance(caught.value, PbservError)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem).replace(f"{directory}/", "") for problem in caught.value.problems]


@contextlib.contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Root may read everything; nobody may not."""
    user = os.geteuid()
    os.seteuid(65_534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)


def warnings(loaded: Loaded) -> list[tuple[str, int, str, str]]:
    return [(Path(each.file).name, each.line, each.key, each.reason) for each in loaded.warnings]


@pytest.mark.parametrize("there", [True, False])
def test_nothing_there_means_all_defaults(tmp_path: Path, there: bool) -> None:
    loaded = load(tmp_path if there else tmp_path / "missing", FILES)
    assert loaded.get(TftpConf) == TftpConf()
    assert loaded.get(PbservConf) == PbservConf()
    assert (loaded.paths, loaded.warnings) == ({}, ())
    assert not loaded.is_set(TftpConf, "TFTPPort")


def test_all_errors_of_all_files_at_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        pbserv="Services = imaging tfpt\nHTTPPort = 70000\nthis is not a line\n",
        novell_tftp="TransferBlockSize = 100\nTransferBlocksize = 512\nTimeoutInterval = x\n",
        preboot_policy="MenuTimeout = 3\nZoneDefalt = local\n",
    )
    assert errors(tmp_path) == [
        "pbserv.conf:1: Services: 'tfpt' is not known; valid values are names among imaging proxydhcp tftp policy,"
        " separated by spaces or commas",
        "pbserv.conf:2: HTTPPort: 70000 is out of range; valid values are 1 to 65535",
        "pbserv.conf:3: 'this is not a line' has no '='; write key = value, or begin the line with '#'",
        "novell-tftp.conf:1: TransferBlockSize: 100 is out of range; valid values are 512 to 4428",
        "novell-tftp.conf:2: TransferBlocksize: is set twice, in line 1 and in line 2; keep one",
        "novell-tftp.conf:3: TimeoutInterval: 'x' is not a whole number; valid values are 1 to 60",
        "preboot-policy.conf:1: MenuTimeout: belongs in proxydhcp.conf, not in preboot-policy.conf",
        "preboot-policy.conf:2: ZoneDefalt: is unknown; did you mean ZoneDefault?",
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("TFTPPrt = 69", "is unknown; did you mean TFTPPort?"),
        ("tftplogfilesizes = 15", "is unknown; did you mean TFTPLogFileSize?"),
        ("ProxyLogLevl = 2", "is unknown; did you mean ProxyLogLevel (in proxydhcp.conf)?"),
        ("LocalInterface = 10.0.0.1", "belongs in proxydhcp.conf, not in tftp.conf"),
        ("Zzz = 1", "is unknown; tftp.conf knows TFTPInterface, TransferBlockSize,"),
        ("TFTPPrt", "has no '='; write key = value; the key is unknown; did you mean TFTPPort?"),
    ],
)
def test_unknown_keys(tmp_path: Path, line: str, reason: str) -> None:
    write(tmp_path, tftp=line)
    (error,) = errors(tmp_path)
    assert error.startswith(f"tftp.conf:1: {line.split(' ')[0]}: {reason}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_accepted_name_is_read_and_two_at_once_are_refused(tmp_path: Path, file: object) -> None:
    assert file in FILES
    stems = next(each for each in FILES if each is file).stems
    for stem in stems:
        (tmp_path / stem).mkdir()
        (tmp_path / stem / f"{stem}.conf").write_text("Nonsense = 1\n")
        assert errors(tmp_path / stem)[0].startswith(f"{stem}.conf:1: Nonsense: is unknown")
    for stem in stems:
        (tmp_path / f"{stem}.conf").write_text("")
    (error,) = errors(tmp_path)
    assert error.startswith(f"{stems[-1]}.conf: is the same file as {stems[0]}.conf")


def test_unreadable_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "pbserv.conf").mkdir()
    os.mkfifo(tmp_path / "tftp.conf")
    (tmp_path / "proxydhcp.conf").symlink_to(tmp_path / "nowhere")
    (tmp_path / "preboot-policy.conf").write_text("#" * ((1 << 20) + 1))
    assert errors(tmp_path) == [
        "pbserv.conf: cannot be read: Is a directory",
        "proxydhcp.conf: cannot be read: No such file or directory",
        "tftp.conf: cannot be read: it is not a regular file",
        "preboot-policy.conf: is larger than 1048576 bytes; this is not a configuration file",
    ]


def test_the_directory_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert errors(tmp_path / "file")[0].endswith("is not a directory; configuration files stand in one")
    assert "Not a directory" in errors(tmp_path / "file" / "below")[0]


def test_no_permission() -> None:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path: nobody but its owner may enter that
        directory = Path(name)
        directory.chmod(0o755)
        write(directory, tftp="")
        (directory / "tftp.conf").chmod(0)
        with as_ordinary_user():
            assert errors(directory) == ["tftp.conf: cannot be read: Permission denied"]
        directory.chmod(0)
        with as_ordinary_user():
            assert "cannot be read: Permission denied" in errors(directory)[0]
        directory.chmod(0o755)


def test_case_spaces_and_windows_text(tmp_path: Path) -> None:
    (tmp_path / "tftp.conf").write_bytes(b"\xef\xbb\xbftftpport=6900\r\n TFTPALLOWWRITES =\tno\r\n;\xff\r\n")
    (tmp_path / "pbserv.conf").write_bytes(b"# caf\xe9\nSERVICES = TFTP,imaging\nenablelogging = no\n")
    loaded = load(tmp_path, FILES)
    assert loaded.get(TftpConf).port == 6900
    assert loaded.get(PbservConf).services == ("tftp", "imaging")
    assert loaded.get(PbservConf).enable_logging is False
    assert loaded.paths == {TftpConf: tmp_path / "tftp.conf", PbservConf: tmp_path / "pbserv.conf"}


def test_what_was_set_and_where(tmp_path: Path) -> None:
    write(tmp_path, novell_tftp="#\nTFTPPort = 69\nTFTPDirectory =\nTFTPLogLevel\n", proxydhcp="NBPiPXE =\nNBPx86 =\n")
    loaded = load(tmp_path, FILES)
    assert loaded.is_set(TftpConf, "tftpport")
    assert loaded.line(TftpConf, "TFTPPort") == 2
    assert not loaded.is_set(TftpConf, "TFTPDirectory")
    assert not loaded.is_set(TftpConf, "TFTPLogLevel")
    assert loaded.is_set(ProxyDhcpConf, "NBPiPXE")
    assert not loaded.is_set(ProxyDhcpConf, "NBPx86")
    with pytest.raises(KeyError):
        loaded.is_set(TftpConf, "NoSuchKey")
    problem = loaded.problem(TftpConf, "tftpport", "is in use")
    assert str(problem) == f"{tmp_path}/novell-tftp.conf:2: TFTPPort: is in use"
    assert str(loaded.problem(PolicyConf, "ZoneDefault", "why")) == f"{tmp_path}: ZoneDefault: why"


def test_empty_is_a_value_for_boot_file_extensions_only(tmp_path: Path) -> None:
    write(tmp_path, proxydhcp="NBPx86 =\nNBPx64=\nNBPIA32=\nNBPARM64=\nNBPiPXE=\nNBPHTTPx64=\nProxyDHCPPort=\n")
    conf = load(tmp_path, FILES).get(ProxyDhcpConf)
    assert (conf.nbp_x86, conf.nbp_x64, conf.nbp_ipxe, conf.proxydhcp_port) == ("undionly.kpxe", "", "", 67)
    empty = {bound.name for file in FILES for bound in keys_of(file.model) if bound.key.empty_is_value}
    assert empty == {"NBPx64", "NBPiPXE", "NBPHTTPx64"}


def test_warnings(tmp_path: Path) -> None:
    write(
        tmp_path,
        pbserv="LIBRARY_NAME = /opt/novell/zenworks/preboot/lib/libzenimgweb.so\n",
        proxydhcp="LocalDHCPFlag = 1\nNovellPolicyEngine = 10.0.0.1\nMenuTimeout = 5\n",
        preboot_policy="PrebootServer = zen.example\nEnableAMTSupport = Yes\n",
    )
    loaded = load(tmp_path, FILES)
    assert warnings(loaded) == [
        ("pbserv.conf", 1, "LIBRARY_NAME", "libzenimgweb.so belongs to the original and is not loaded; the built-in"
         " backend is used"),
        ("preboot-policy.conf", 2, "EnableAMTSupport", "Yes: Intel AMT is not supported; the value is ignored"),
    ]  # fmt: skip
    assert loaded.get(PbservConf).library_name == ""


def test_default_values_written_out_warn_of_nothing(tmp_path: Path) -> None:
    write(
        tmp_path,
        proxydhcp="LocalDHCPFlag = 0\nMenuTimeout = 2\nNovellPolicyEngine =\n",
        tftp="TFTPAllowWrites = No\nTFTPAllowOverwrites = 0\n",
        preboot_policy="EnableAMTSupport = NO\nPrebootServer=\n",
    )
    assert load(tmp_path, FILES).warnings == ()


KEYS = sorted({bound.name for file in FILES for bound in keys_of(file.model)})
LINES = st.one_of(
    st.text(max_size=30),
    st.builds("{} = {}".format, st.sampled_from(KEYS), st.text(max_size=20)),
    st.builds(
        "{}={}".format, st.sampled_from(KEYS), st.sampled_from(["", "1", "yes", "10.0.0.1", "/a", "a\\b", "tftp"])
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.one_of(st.binary(max_size=200), st.lists(LINES, max_size=6).map(lambda many: "\n".join(many).encode(
    "utf-8", "surrogatepass"))))  # fmt: skip
def test_any_text_parses_or_raises_config_error(tmp_path: Path, data: bytes) -> None:
    for file in FILES:
        (tmp_path / file.name).write_bytes(data)
    try:
        loaded = load(tmp_path, FILES)
    except ConfigError as fault:
        lines = str(fault).splitlines()
    else:
        lines = [str(problem) for problem in loaded.warnings]
        assert isinstance(loaded.get(PolicyConf), PolicyConf)
    assert all(line.isprintable() for line in lines)
