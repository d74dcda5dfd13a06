"""`pbserv doctor`, as a program: what it prints, and its exit codes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.process import PBSERV, Installed, free_port


@pytest.fixture
def place(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


def doctor(place: Installed, *words: str) -> subprocess.CompletedProcess[str]:
    command = [PBSERV, "doctor", "--conf", place.conf, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_code_in_any_spelling(place: Installed) -> None:
    done = doctor(place, "PXE-E18")
    assert done.returncode == 0
    assert done.stdout.startswith("PXE-E18 (UEFI): Server response timeout\n")
    assert "  1. a firewall drops UDP 4011" in done.stdout
    assert [doctor(place, text).stdout for text in ("e18", "18")] == [done.stdout] * 2


def test_a_code_as_json(place: Installed) -> None:
    answer = json.loads(doctor(place, "e53", "--json").stdout)
    assert [meaning["title"] for meaning in answer["meanings"]] == [
        "PXE-E53 (UEFI): No boot filename received",
        "PXE-E53 (BIOS): No boot filename received",
    ]
    assert all(meaning["causes"] for meaning in answer["meanings"])


def test_an_unknown_code_lists_the_known_ones(place: Installed) -> None:
    done = doctor(place, "PXE-E98")
    assert done.returncode == 2
    assert "E18" in done.stderr
    assert "E99" in done.stderr


def test_all_codes(place: Installed) -> None:
    lines = doctor(place, "--codes").stdout.splitlines()
    assert "PXE-E18         Server response timeout (UEFI)" in lines
    rows = json.loads(doctor(place, "--codes", "--json").stdout)
    assert len(rows) == len(lines)


def test_findings_with_evidence_and_remedy(place: Installed) -> None:
    (place.tftp / "undionly.kpxe").write_bytes(b"")
    done = doctor(place, "--quick")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.endswith("undionly.kpxe is empty"))
    assert lines[at] == f"error: NBPx86: {place.tftp}/undionly.kpxe is empty"
    assert lines[at + 1 : at + 3] == ["    seen: 0 bytes", "      do: pbserv loaders install, or copy it again"]
    assert "error" in lines[-1]
    words = [line.split(":")[0] for line in lines if line.startswith(("error:", "warning:", "note:"))]
    assert words == sorted(words, key=["error", "warning", "note"].index)


def test_a_configuration_that_cannot_be_read(place: Installed) -> None:
    place.write("tftp.conf", "TFTPPort = many\nNothing = 1\n")
    done = doctor(place, "--quick", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["exit_code"], len(report["findings"])) == (1, 1, 2)
    assert report["findings"][0]["evidence"] == f"{place.conf}/tftp.conf:1"


def test_an_address_that_a_service_needs_is_an_error_once(place: Installed) -> None:
    place.set("proxydhcp.conf", LocalInterface="192.0.2.77")
    findings = json.loads(doctor(place, "--quick", "--json").stdout)["findings"]
    foreign = [finding for finding in findings if "192.0.2.77" in finding["what"]]
    assert [finding["severity"] for finding in foreign] == ["error"]


def test_a_server_that_runs_is_asked(place: Installed) -> None:
    try:
        place.ok("start", "tftp")
        report = json.loads(doctor(place, "--quick", "--json").stdout)
        said = [finding["what"] for finding in report["findings"]]
        assert "the server does not run" not in said
        assert not any("is held by" in text for text in said)
        assert "pbserv proxyDHCP service does not run" in said
    finally:
        place.finish()
    assert any("the server does not run" in line for line in doctor(place, "--quick").stdout.splitlines())


def said(place: Installed) -> list[str]:
    return [each["what"] for each in json.loads(doctor(place, "--quick", "--json").stdout)["findings"]]


def test_a_server_with_all_that_it_leans_on(place: Installed) -> None:
    place.set("pbserv.conf", HTTPSPort=str(free_port()))
    (place.tftp / "live").mkdir()
    try:
        place.ok("start", "imaging", "policy")
        place.ok("bundle", "set", "live", "--kind", "linux", "--kernel", "live/vmlinuz")
        place.ok("device", "add", "52:54:00:12:34:56", "--loader", "shimx64.efi")
        before = said(place)
        assert not any("HTTPS" in text or "template" in text for text in before)
        assert "bundle live: there is no file live/vmlinuz" in before
        assert "the loader of a device: there is no file shimx64.efi" in before
        (place.tftp / "live" / "vmlinuz").write_bytes(b"x")
        (place.tftp / "shimx64.efi").write_bytes(b"x")
        (place.state / "tls" / "key.pem").chmod(0o644)
        after = said(place)
        assert not any("live" in text for text in after)
        assert any("shimx64.efi asks for grubx64.efi" in text for text in after)
    finally:
        place.finish()


def test_what_is_given_and_wrong(place: Installed, tmp_path: Path) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "menu.ipxe.j2").write_text("{% if %}")
    place.set("pbserv.conf", HTTPSPort=str(free_port()), TLSCertificate="/nonexistent.pem")
    place.set("preboot-policy.conf", TemplateDirectory=str(templates), PolicyHook="http://127.0.0.1:9/{mac}")
    found = said(place)
    for words in (
        "HTTPS cannot start with this certificate",
        "a template of boot scripts cannot be used",
        "PolicyHook",
    ):
        assert any(words in text for text in found), words


def test_help_has_the_exit_codes(place: Installed) -> None:
    text = " ".join(doctor(place, "--help").stdout.split())
    assert "1 errors, 3 warnings only" in text
