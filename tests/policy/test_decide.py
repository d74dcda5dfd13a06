"""Each step of the order, and that silent and local disk are different answers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pbserv.policy.decide import decide, refusal
from pbserv.policy.devices import DeviceTable
from pbserv.policy.render import BootFacts, boot_script, bootstrap
from pbserv.registry.records import BundleKind, Device, DeviceState, Finish, Work, WorkState
from pbserv.types import Decision, Verdict

MAC = "52:54:00:00:00:01"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FACTS = BootFacts(MAC, "till-1", "http://10.0.0.2:8067", "10.0.0.2", "7.abc", "console=tty0")


def device(state: DeviceState = DeviceState.KNOWN, work: Work | None = None) -> Device:
    return Device(MAC, None, "till-1", 0, state, "", NOW, NOW, work)


def work(state: WorkState = WorkState.QUEUED) -> Work:
    return Work(7, MAC, BundleKind.RESTORE, "debian", "", Finish.REBOOT, False, state, "", NOW)


@pytest.mark.parametrize(
    ("found", "verdict", "reason"),
    [
        (None, Verdict.SILENT, "not registered"),
        (device(DeviceState.DENIED, work()), Verdict.SILENT, "denied"),
        (device(DeviceState.PENDING), Verdict.SILENT, f"pbserv device accept {MAC}"),
        (device(work=work()), Verdict.BOOT, "work 7: restore debian"),
        (device(work=work(WorkState.RUNNING)), Verdict.BOOT, "work 7"),
        (device(work=work(WorkState.DONE)), Verdict.LOCAL, "ZoneDefault"),
        (device(), Verdict.LOCAL, "nothing assigned"),
    ],
)
def test_the_first_step_with_an_answer_wins(found: Device | None, verdict: Verdict, reason: str) -> None:
    decision = decide(MAC, found, "local")
    assert decision.verdict is verdict
    assert reason in decision.reason
    assert (decision.work == 7) is (verdict is Verdict.BOOT)
    assert decision.steps


@pytest.mark.parametrize("default", ["silent", "local", "loader", "menu"])
def test_the_zone_default_is_for_accepted_devices_without_work(default: str) -> None:
    assert decide(MAC, device(), default).verdict is Verdict(default)
    assert decide(MAC, device(DeviceState.PENDING), default).verdict is Verdict.SILENT


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_is_a_script_that_never_fails_back_into_the_prompt(verdict: Verdict) -> None:
    text = boot_script(Decision(verdict, "why"), FACTS)
    assert text.startswith("#!ipxe\n")
    assert text.rstrip().endswith("exit")
    # Silent leaves it to the firmware what comes next; all but work, which waits for the client, name the local disk.
    assert ("sanboot" in text) is (verdict not in (Verdict.SILENT, Verdict.BOOT))
    # UEFI firmware goes on with the next boot entry only after a failure.
    assert "iseq ${platform} efi && exit 1" in text
    assert not any(line.rstrip().endswith("||") for line in text.rstrip().splitlines()[-1:])


def test_work_boots_the_imaging_client_with_its_token() -> None:
    text = boot_script(Decision(Verdict.BOOT, "work 7: restore debian", (), 7), FACTS)
    assert "kernel http://10.0.0.2:8067/client/vmlinuz initrd=initrd.img boot=pbclient" in text
    assert f"pb.token=7.abc pb.mac={MAC} BOOTIF=01-52-54-00-00-00-01 console=tty0" in text


def test_a_value_cannot_bring_a_command_of_its_own() -> None:
    text = boot_script(Decision(Verdict.LOCAL, "a\nshell || ${x} && reboot"), FACTS)
    assert "\nshell" not in text
    assert "${x}" not in text
    assert "&& reboot" not in text


def test_the_bootstrap_asks_the_server_by_its_literal_address() -> None:
    text = bootstrap("http://10.0.0.2:8067")
    assert "chain --replace --autofree http://10.0.0.2:8067/boot/${mac:hexhyp}.ipxe" in text
    assert "next-server" not in text


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, ""),
        (device(), ""),
        (device(work=work()), ""),
        (device(DeviceState.DENIED), "device is denied"),
        (device(DeviceState.PENDING), f"device is pending; accept it with: pbserv device accept {MAC}"),
    ],
)
def test_who_gets_nothing_at_all(found: Device | None, why: str) -> None:
    assert refusal(MAC, found) == why
    assert (decide(MAC, found, "silent").reason == why) is bool(why)


@pytest.mark.parametrize("found", [None, device(), device(work=work()), device(DeviceState.PENDING)])
def test_another_server_decides_about_all_that_are_not_denied_here(found: Device | None) -> None:
    decision = decide(MAC, found, "local", "10.0.0.9:8067")
    assert (decision.verdict, decision.reason) == (Verdict.LOADER, "NovellPolicyEngine 10.0.0.9:8067 decides")
    assert refusal(MAC, found, "10.0.0.9:8067") == ""
    denied = device(DeviceState.DENIED)
    assert decide(MAC, denied, "local", "10.0.0.9:8067").verdict is Verdict.SILENT
    assert refusal(MAC, denied, "10.0.0.9:8067") == "device is denied"


def test_a_bootstrap_for_another_server_says_that_the_client_was_sent() -> None:
    assert "buildarch=${buildarch}&sent=1 ||" in bootstrap("http://10.0.0.9:8067", sent=True)
    assert "sent=1" not in bootstrap("http://10.0.0.2:8067")


def test_the_table_counts_pending_and_refused_devices() -> None:
    table = DeviceTable([device(DeviceState.PENDING)])
    assert (len(table), table.pending, table.refused) == (1, 1, 1)
    table.put(device(DeviceState.DENIED))
    assert (len(table), table.pending, table.refused) == (1, 0, 1)
    table.put(device())
    assert (table.get(MAC), table.pending, table.refused) == (device(), 0, 0)
    table.put(device(DeviceState.PENDING))
    table.remove(MAC)
    table.remove(MAC)
    assert (table.get(MAC), len(table), table.pending, table.refused) == (None, 0, 0, 0)
