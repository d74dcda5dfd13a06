"""Declarations: ranges hold for values from files and from code alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import ValidationError

from pbserv.conf import kinds
from pbserv.conf.model import ConfModel, keys_by_name, keys_of
from pbserv.imaging.config import PbservConf
from pbserv.policy.config import PolicyConf
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.tftp.config import TftpConf
from tests.conf import FILES

GOOD: list[tuple[kinds.Kind, str, Any]] = [
    (kinds.Integer(512, 4428), "512", 512),
    (kinds.Integer(-5, 5), "-5", -5),
    (kinds.YesNo(), "yEs", True),
    (kinds.YesNo(), "0", False),
    (kinds.Choice(("text", "json")), "JSON", "json"),
    (kinds.Names(("a", "b", "c")), "b, a  B", ("b", "a")),
    (kinds.Address(), "10.0.0.1", "10.0.0.1"),
    (kinds.AddressPort(), "10.0.0.1", "10.0.0.1"),
    (kinds.AddressPort(), "10.0.0.1:8067", "10.0.0.1:8067"),
    (kinds.Host(), "zen-1.example.org", "zen-1.example.org"),
    (kinds.Host(), "10.0.0.5", "10.0.0.5"),
    (kinds.User(), "_pb-serv.1", "_pb-serv.1"),
    (kinds.Directory(), "/srv/tftp", Path("/srv/tftp")),
    (kinds.LogFile(), r"path\novell-tftp.log", Path("novell-tftp.log")),
    (kinds.LogFile(), r"C:\logs\a b.log", Path("a b.log")),
    (kinds.LogFile(), "C:a.log", Path("a.log")),
    (kinds.LogFile(), r"\\server\share\a.log", Path("a.log")),
    (kinds.LogFile(), "logs/a.log", Path("a.log")),
    (kinds.LogFile(), "/var/log/a.log", Path("/var/log/a.log")),
    (kinds.BootFile(), "x" * 127, "x" * 127),
    (kinds.BootFile(url=True), "http://10.0.0.1/a.ipxe", "http://10.0.0.1/a.ipxe"),
    (kinds.BootFile(file=False, url=True), "HTTPS://h/x.efi", "HTTPS://h/x.efi"),
    (kinds.Library(), "/opt/x/store.py", "/opt/x/store.py"),
    (kinds.Library(), "my.store:Store", "my.store:Store"),
    (kinds.Library(), "/opt/novell/zenworks/preboot/lib/libzenimgweb.so", ""),
    (kinds.Library(), r"C:\ZENworks\bin\zenimgweb.dll", ""),
]
BAD: list[tuple[kinds.Kind, str, str]] = [
    (kinds.Integer(512, 4428), "511", "511 is out of range; valid values are 512 to 4428"),
    (kinds.Integer(512, 4428), "4429", "512 to 4428"),
    (kinds.Integer(1, 60), "15 # seconds", "not a whole number"),
    (kinds.Integer(1, 60), "\uff11\uff15", "not a whole number"),
    (kinds.Integer(1, 60), "9" * 5000, "not a whole number"),
    (kinds.YesNo(), "true", "YES or NO"),
    (kinds.Choice(("text", "json")), "xml", "text or json"),
    (kinds.Names(("a", "b")), "a tfpt", "'tfpt' is not known"),
    (kinds.Names(("a", "b")), ",", "not known"),
    (kinds.Address(), "10.0.0.256", "not an IPv4 address"),
    (kinds.Address(), "10.0.0.01", "not an IPv4 address"),
    (kinds.Address(), "server", "not an IPv4 address"),
    (kinds.Address(), "::1", "not an IPv4 address"),
    (kinds.AddressPort(), "10.0.0.1:", "address:port"),
    (kinds.AddressPort(), "10.0.0.1:0", "address:port"),
    (kinds.AddressPort(), "10.0.0.1:65536", "address:port"),
    (kinds.Host(), "10.0.0.500", "not an IPv4 address"),
    (kinds.Host(), "-a.example", "host name"),
    (kinds.Host(), "a..b", "host name"),
    (kinds.Host(), "a b", "host name"),
    (kinds.User(), "1root", "user name"),
    (kinds.User(), "a:b", "user name"),
    (kinds.User(), "a" * 33, "user name"),
    (kinds.Directory(), "srv/tftp", "absolute"),
    (kinds.Directory(), r"C:\tftp", "absolute"),
    *(
        (kinds.LogFile(), text, "does not name a file")
        for text in (".", "..", "/", "/var/log/", "path\\", "C:", "a/..")
    ),
    (kinds.BootFile(), "x" * 128, "too long"),
    (kinds.BootFile(), "é" * 64, "too long"),
    (kinds.BootFile(file=False, url=True), "ftp://h/x", "http://"),
    (kinds.BootFile(file=False, url=True), "http://", "http://"),
    (kinds.Library(), "/opt/lib/other.so", "Python file"),
    (kinds.Library(), "store.py", "Python file"),
]


@pytest.mark.parametrize(("kind", "text", "value"), GOOD)
def test_allowed_values(kind: kinds.Kind, text: str, value: Any) -> None:
    assert kind.parse(text) == value
    shown = kind.show(value)
    assert not shown or kind.parse(shown) == value


@pytest.mark.parametrize(("kind", "text", "why"), BAD)
def test_refused_values(kind: kinds.Kind, text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as fault:
        kind.parse(text)
    assert len(str(fault.value)) < 200


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_declaration_is_complete(file: Any) -> None:
    for bound in keys_of(file.model):
        assert bound.key.help.endswith("."), bound.name
        assert bound.key.kind.allowed, bound.name
        assert bound.show(bound.default) or bound.key.unset, f"{bound.name}: say what no value means"
        assert bound.parse("") == ("" if bound.key.empty_is_value else bound.default)
        assert keys_by_name(file.model)[bound.name.lower()] is bound


def test_a_field_without_a_declaration_is_our_bug() -> None:
    class Bare(ConfModel):
        title: ClassVar[str] = "Bare"
        log_name: ClassVar[str] = "bare.log"
        port: Annotated[int, "no Key"] = 1

    with pytest.raises(TypeError, match=r"Bare\.port"):
        keys_of(Bare)


def test_ranges_hold_in_code_too_and_models_are_frozen() -> None:
    with pytest.raises(ValidationError, match="512 to 4428"):
        TftpConf(transfer_block_size=99_999)
    with pytest.raises(ValidationError, match="neither an address nor"):
        TftpConf(interfaces=("10.0.0.500",))
    with pytest.raises(ValidationError):
        PolicyConf(**{"zone_default": "other"})
    with pytest.raises(ValidationError):
        TftpConf(**{"prot": 69})
    conf = TftpConf()
    with pytest.raises(ValidationError):
        conf.port = 1  # type: ignore[misc]


def test_defaults_are_the_manuals() -> None:
    tftp, proxy, policy, imaging = TftpConf(), ProxyDhcpConf(), PolicyConf(), PbservConf()
    assert (tftp.transfer_block_size, tftp.timeout_interval, tftp.directory) == (1428, 1, Path("/srv/tftp"))
    assert (tftp.allow_writes, tftp.allow_overwrites, tftp.log_level, tftp.log_file_size_mb) == (False, False, 2, 15)
    assert (proxy.local_dhcp_flag, proxy.menu_timeout, proxy.log_level, proxy.log_file_size_mb) == ("0", None, 2, 15)
    assert (policy.log_level, policy.log_file_size_mb, policy.enable_amt_support) == (2, 15, False)
    assert (imaging.enable_logging, imaging.log_file_size_mb, imaging.services) == (
        True,
        15,
        ("imaging", "tftp", "policy"),
    )


def test_log_paths() -> None:
    logs = Path("/var/log/pbserv")
    assert PbservConf().log_path(logs) == logs / "pbserv.log"
    assert PbservConf(enable_logging=False).log_path(logs) is None
    assert ProxyDhcpConf().log_path(logs) == logs / "proxydhcp.log"
    assert TftpConf(log_file=Path("novell-tftp.log")).log_path(logs) == logs / "novell-tftp.log"
    assert TftpConf(log_file=Path("/tmp/x.log")).log_path(logs) == Path("/tmp/x.log")
    assert PolicyConf().log_path(logs) == logs / "preboot-policy.log"
    assert [PbservConf().log_level, ProxyDhcpConf(log_level=0).log_level] == [3, 0]


def test_kinds_of_addresses_and_ports() -> None:
    conf = TftpConf(interfaces=("eth0", "10.0.0.1", "fe80::1"), allowed_networks=("10.0.0.0/8",), port_range=(5, 7))
    assert conf.interfaces == ("eth0", "10.0.0.1", "fe80::1")
    wrong = {
        "interfaces": (("a/b",), ("10.1",), ()),
        "allowed_networks": (("10.0.0.1/8",), ("all",)),
        "port_range": ((7, 5), (0, 5)),
        "multicast_address": ("10.0.0.1", "239.255.255.200"),
        "refused_options": (("blocksize",),),
    }
    for field, values in wrong.items():
        for value in values:
            if value != ():
                with pytest.raises(ValidationError):
                    TftpConf(**{field: value})
