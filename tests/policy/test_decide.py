"""Each step of the order, and that silent and local disk are different answers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pbserv.policy.decide import decide
from pbserv.policy.render import BootFacts, boot_script, bootstrap
from pbserv.policy.snapshot import Snapshot
from pbserv.registry.records import Device, DeviceState, Finish, Work, WorkKind, WorkState
from pbserv.types import Decision, Verdict

MAC = "52:54:00:00:00:01"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FACTS = BootFacts(MAC, "till-1", "http://10.0.0.2:8067", "10.0.0.2", "7.abc", "console=tty0")


def device(state: DeviceState = DeviceState.KNOWN, work: Work | None = None) -> Device:
    return Device(MAC, None, "till-1", 0, state, "", NOW, NOW, work)


def work(state: WorkState = WorkState.QUEUED) -> Work:
    return Work(7, MAC, WorkKind.RESTORE, "debian", "", Finish.REBOOT, False, state, "", NOW)


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
    assert "sleep" in text or "sanboot --no-describe --drive 0x80 || exit" in text
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


def test_a_snapshot_is_replaced_and_counts_pending_devices() -> None:
    empty = Snapshot.of(())
    one = empty.having(device(DeviceState.PENDING))
    assert (empty.pending, one.pending) == (0, 1)
    assert one.having(device()).pending == 0
    assert empty.get(MAC) is None
    with pytest.raises(TypeError):
        one.devices["x"] = device()  # type: ignore[index]
