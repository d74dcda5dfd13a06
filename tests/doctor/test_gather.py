"""Facts of the host on which the tests run, and of a directory of our own."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pbserv.doctor.checks import examine
from pbserv.doctor.facts import Asked
from pbserv.doctor.gather import gather, server_facts
from pbserv.doctor.network import KINDS, Answers, ask_all, seen
from pbserv.doctor.rights import may
from pbserv.errors import StartError
from pbserv.settings import Settings, load_settings
from tests.probe.offers import dhcp_offer, proxy


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    conf, tftp = tmp_path / "conf", tmp_path / "tftp"
    conf.mkdir()
    tftp.mkdir()
    (tftp / "loader.efi").write_bytes(b"MZ" + bytes(20_000))
    (tftp / "undionly.kpxe").write_bytes(b"")
    (conf / "pbserv.conf").write_text(f"StateDirectory = {tmp_path / 'state'}\nUser = nobody\n")
    (conf / "tftp.conf").write_text(f"TFTPDirectory = {tftp}\n")
    names = "NBPx64 = loader.efi\nNBPx86 = nvlnbp.sys\nNBPARM64 = missing.efi\nNBPHTTPx64 = http://192.0.2.1/x.efi\n"
    (conf / "proxydhcp.conf").write_text(names)
    return load_settings(conf)


def test_this_host(settings: Settings, tmp_path: Path) -> None:
    facts = gather(settings, settings.run_directory)
    loopback = next(link for link in facts.links if link.loopback)
    assert loopback.name == "lo"
    assert not facts.server.running
    assert facts.rights.uid == os.geteuid()
    assert facts.rights.user == "nobody"
    assert [place.path for place in facts.rights.tftp_path][-1] == str((tmp_path / "tftp").resolve())
    assert stat.S_ISDIR(facts.rights.tftp_path[0].mode)
    assert facts.capacity.rmem_max
    assert facts.surroundings.disk_total >= facts.surroundings.disk_free
    assert examine(facts), "the server does not run, at least"


def test_boot_files_that_exist(settings: Settings) -> None:
    found = {loader.key: loader for loader in gather(settings, settings.run_directory).loaders}
    assert sorted(found) == ["NBPx64", "NBPx86"]
    assert found["NBPx86"].path.endswith("undionly.kpxe"), "the alias of nvlnbp.sys"
    assert (found["NBPx86"].size, found["NBPx64"].size) == (0, 20_002)
    head = found["NBPx64"].head
    assert head is not None
    assert (head[:2], len(head)) == (b"MZ", 8192)


def test_modes_are_those_of_the_kernel(settings: Settings, tmp_path: Path) -> None:
    for mode, allowed in ((0o755, True), (0o700, False)):
        (tmp_path / "tftp").chmod(mode)
        rights = gather(settings, settings.run_directory).rights
        if rights.user_uid in (None, os.geteuid()):
            pytest.skip("this host has no user nobody other than us")
        assert may(rights.tftp_path[-1], rights, read=True) is allowed


def test_no_server(tmp_path: Path) -> None:
    facts = server_facts(tmp_path)
    assert (facts.running, facts.fault) == (False, "")


def test_a_network_that_cannot_be_asked() -> None:
    def ask(interface: str, kind: str, *, wait_s: float = 0.0) -> Answers:
        raise StartError(f"{interface}: no carrier")

    fault = "eth0: no carrier"
    assert ask_all(ask, ["eth0"]) == tuple(Asked("eth0", kind, fault=fault) for kind in KINDS)
    assert ask_all(ask, []) == ()


def test_offers_as_the_checks_see_them() -> None:
    found = seen(proxy())
    assert (found.is_proxy, found.is_dhcp, found.has_43) == (True, False, True)
    assert (found.server_id, found.next_server, found.file) == ("10.0.0.9", "10.0.0.9", "boot.efi")
    assert found.vendor_class == "PXEClient"
    plain = seen(dhcp_offer({60: b"PXEClient\0", 67: b"old.0\0", 66: b"10.0.0.3"}))
    assert (plain.is_proxy, plain.is_dhcp, plain.next_server) == (False, True, "")
    assert (plain.vendor_class, plain.boot_file, plain.tftp_server) == ("PXEClient", "old.0", "10.0.0.3")
