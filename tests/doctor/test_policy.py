"""What the policy leans on, as findings."""

from __future__ import annotations

import pytest

from pbserv.doctor import policy
from pbserv.doctor.facts import Database, Elsewhere, Lacking
from pbserv.doctor.finding import Severity
from tests.doctor.made_up import facts, only, settings
from tests.doctor.test_tls import path

URL = "postgresql://pbserv:***@db.example/pbserv"


def test_nothing_of_it_is_used() -> None:
    for check in (policy.database, policy.other_server, policy.templates, policy.boot_files):
        assert list(check(facts())) == []


def test_a_database() -> None:
    assert list(policy.database(facts(database=Database(URL, password=True, conf=path(0o640))))) == []
    assert list(policy.database(facts(database=Database(URL, conf=path(0o644))))) == []
    found = only(policy.database, facts(database=Database(URL, fault="Connection refused")))
    assert (found.severity, found.evidence) == (Severity.ERROR, f"{URL}: Connection refused")


def test_a_password_that_everybody_can_read() -> None:
    found = only(policy.database, facts(database=Database(URL, password=True, conf=path(0o644))))
    assert found.severity is Severity.WARNING
    assert "0640" in found.remedy[0]


@pytest.mark.parametrize(("failure", "severity"), [("open", Severity.WARNING), ("closed", Severity.ERROR)])
def test_a_hook_that_is_silent(failure: str, severity: Severity) -> None:
    keys = {"PolicyHook": "http://10.0.0.7:8080/{mac}", "PolicyHookFailure": failure}
    about = facts(
        settings({"preboot-policy.conf": keys}), elsewhere=Elsewhere("PolicyHook", "10.0.0.7:8080", silent="x")
    )
    found = only(policy.other_server, about)
    assert (found.severity, found.evidence) == (severity, "x")
    assert "10.0.0.7:8080" in found.what


def test_a_preboot_server() -> None:
    key = "PrebootServer"
    assert list(policy.other_server(facts(elsewhere=Elsewhere(key, "zen:8067", token=path(0o640))))) == []
    silent = only(policy.other_server, facts(elsewhere=Elsewhere(key, "zen:8067", silent="cannot be reached")))
    assert silent.severity is Severity.WARNING
    assert "what it said last counts" in silent.what
    refused = only(policy.other_server, facts(elsewhere=Elsewhere(key, "zen:8067", refusal="it answers 401")))
    assert refused.severity is Severity.ERROR
    assert "--role site" in refused.remedy[0]
    wrong = only(policy.other_server, facts(elsewhere=Elsewhere(key, wrong="both are set")))
    assert (wrong.severity, wrong.evidence) == (Severity.ERROR, "both are set")
    closed = only(policy.other_server, facts(elsewhere=Elsewhere(key, "zen:8067", token=path(0o600, uid=0, gid=0))))
    assert "may not read the token" in closed.what


def test_without_the_policy_service_nobody_is_asked() -> None:
    conf = settings({"pbserv.conf": {"Services": "tftp"}})
    assert list(policy.other_server(facts(conf, elsewhere=Elsewhere("PrebootServer", "zen:8067", silent="x")))) == []


def test_templates() -> None:
    found = list(policy.templates(facts(templates=("/t/menu.ipxe.j2, line 3: unknown tag", "/t/x.j2: not UTF-8 text"))))
    assert [each.severity for each in found] == [Severity.ERROR] * 2
    assert found[0].evidence == "/t/menu.ipxe.j2, line 3: unknown tag"


def test_files_that_are_not_there() -> None:
    lacking = (
        Lacking("bundle live", "live/vmlinuz"), Lacking("bundle live", "live/initrd"),
        Lacking("the loader of a device", "shimx64.efi"), Lacking("NBPx64", "grubx64.efi", "boot/shimx64.efi"),
    )  # fmt: skip
    beside, bundle, device = sorted(policy.boot_files(facts(lacking=lacking)), key=lambda found: found.severity)
    assert (beside.severity, bundle.severity, device.severity) == (Severity.ERROR, Severity.WARNING, Severity.WARNING)
    assert "NBPx64: boot/shimx64.efi asks for grubx64.efi" in beside.what
    assert beside.remedy == ("pbserv loaders install shimx64.efi, which brings it along",)
    assert bundle.what == "bundle live: there is no file live/vmlinuz, live/initrd"
    assert device.what == "the loader of a device: there is no file shimx64.efi"
