"""The rows of the bench that have no target: scrubs beside other programs, a restore on a virtual machine."""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench import page
from bench.imaging import machine, scrub, table
from bench.imaging.__main__ import verdict
from bench.imaging.work import DELTAS, KEYS, RESTORES, SCRUBS
from bench.tftp.judge import OURS
from tests.support import disks

SOUND = {"bad": 0, "failed": 0, "unfinished": 0, "error": ""}


def scrubs(**changes: Any) -> dict[str, Any]:
    own = {**SOUND, "bytes": 600_000_000, "all_bytes": 600_000_000, "seconds": 2.0, "server_cpu_seconds": 1.0} | changes
    rounds = [{OURS: own, SCRUBS[0].peer: {**own, "bad": 0, "server_cpu_seconds": 1.5}}]
    return {"scrubs": [{**asdict(SCRUBS[0]), "rounds": rounds}]}


def restores(**changes: Any) -> dict[str, Any]:
    own = {
        **SOUND, "bytes": 80_000_000, "all_bytes": 80_000_000, "used_bytes": 200_000_000, "seconds": 40.0,
        "waited_seconds": 1.0, "machine_seconds": 61.2, "accelerator": "tcg",
    }  # fmt: skip
    return {"restores": [{**asdict(RESTORES[0]), "rounds": [{OURS: own | changes}]}]}


def test_a_scrub_stands_beside_its_peer_by_cpu_time() -> None:
    ((_title, lines),) = table.tables(scrubs())
    assert lines[1] == ["stored frames", "300", "600", "openssl", "400", "1.50"]
    assert verdict(scrubs(), ["scrub"], quick=False) == 0
    assert verdict(scrubs(bad=1, error="1 damaged"), ["scrub"], quick=False) == 1


def test_a_restore_says_what_was_sent_and_waited_for() -> None:
    ((title, lines),) = table.tables(restores())
    assert "tcg" in title
    assert lines[1][1:] == ["200.0", "80.0", "40%", "40.0", "1.0 s, 2.5%", "61"]
    failed = restores(failed=1, all_bytes=0, bytes=0)
    del failed["restores"][0]["rounds"][0][OURS]["seconds"]
    assert "refused" in table.tables(failed)[0][1][1][1]
    assert verdict(failed, ["vm-restore"], quick=False) == 1


@pytest.mark.parametrize(("factor", "code"), [(3.0, 0), (3.01, 1)])
def test_an_upgrade_may_cost_three_times_what_changed(factor: float, code: int) -> None:
    one = {
        "file_system": "xfs", "upgrade": "packages", "changed_bytes": 10_000_000, "delta_bytes": 30_000_000,
        "delta_stored_bytes": 9_000_000, "factor": factor, "write_mb_s": 150,
    }  # fmt: skip
    found = {"deltas": [{**asdict(DELTAS[0]), "rounds": [one]}]}
    ((_title, lines),) = table.tables(found)
    assert lines[1][:6] == ["xfs, packages", "10.0", "30.0", "9.0", "150", f"{factor:.2f}"]
    assert verdict(found, ["delta"], quick=False) == code


def test_all_rows_can_be_asked_for() -> None:
    assert {"scrub", "scrub-deep", "vm-restore", "delta"} <= set(KEYS)


def test_the_programs_beside_a_scrub_say_their_versions() -> None:
    assert set(scrub.versions(SCRUBS[:1])) == {"openssl"}


@pytest.mark.root
def test_the_disk_that_is_restored_has_one_sound_file_system(tmp_path: Path) -> None:
    disk = machine.make_disk(tmp_path / "disk.img", 4 << 20)
    disks.check_ext4(disk)
    assert 4 << 20 < machine.used_bytes(disk) < disk.stat().st_size
    files = disks.listing(disk, disks.root_partition(disk))
    listed = subprocess.run(["sfdisk", "--dump", disk], capture_output=True, text=True, check=True).stdout
    assert "label: dos" in listed
    assert len(files) > 3


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    """A pipe of two programs in a table of Markdown."""
    assert page.markdown("", [("title", [["head"], ["zstd | openssl"]])]).splitlines()[-1] == r"| zstd \| openssl |"
