"""What devices are told to do, of every protocol; and what an older client is not asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.client_answers import OLDEST, PROTOCOL, beyond, order_answer, protocol_of, work_answer
from pbserv.imaging.states import ImageKind
from pbserv.registry.options import WorkOptions
from pbserv.registry.records import BundleKind, Finish, Job, Work, WorkState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD_KEYS = ["ACTION", "JOB", "IMAGE", "TARGET_DISK", "FINISH", "BUNDLE"]


def _work(kind: BundleKind, options: WorkOptions) -> Work:
    return Work(4, "m", kind, "image", "/dev/sda", Finish.REBOOT, False, WorkState.QUEUED, "", NOW, options=options)


def _job(kind: BundleKind, version: int | None = 3) -> Job:
    return Job(7, 4, "m", kind, "image", version, "", WorkState.RUNNING, "", "", "", 0, 0, 0, NOW, None, "")


def test_a_client_of_today_is_told_all() -> None:
    options = WorkOptions(partitions=(1, 3), verify="read", dry_run=True, addons=("a", "b"), efi_entry=False)
    answer = work_answer(
        2,
        _work(BundleKind.MULTICAST, options),
        _job(BundleKind.MULTICAST),
        kind=ImageKind.DISK,
        identity=True,
        scripts=["after"],
    )
    assert answer == {
        "ACTION": "restore", "JOB": "7", "IMAGE": "image", "TARGET_DISK": "/dev/sda", "FINISH": "reboot", "BUNDLE": "",
        "PROTOCOL": "2", "VERSION": "3", "KIND": "disk", "PARTITIONS": "1 3", "TARGET_PARTITION": "", "VERIFY": "read",
        "RESIZE": "0", "DRY_RUN": "1", "EFI_ENTRY": "0", "ADDONS": "a b", "CACHE": "",
        "TRANSPORT": "unicast", "IDENTITY": "1", "BEFORE": "0", "AFTER": "1",
    }  # fmt: skip
    capture = work_answer(2, _work(BundleKind.CAPTURE, WorkOptions()), _job(BundleKind.CAPTURE, None), part_bytes=64)
    assert (capture["PART_BYTES"], capture["VERSION"], capture["KIND"]) == ("64", "", "")
    assert "TRANSPORT" not in capture  # no image goes to the device
    ordered = order_answer(2, _job(BundleKind.RESTORE), "")
    assert (ordered["FINISH"], ordered["PROTOCOL"], "PART_BYTES" in ordered) == ("none", "2", False)


def test_an_older_client_is_told_what_it_knows() -> None:
    assert list(work_answer(1, _work(BundleKind.CAPTURE, WorkOptions()), _job(BundleKind.CAPTURE), part_bytes=64)) == (
        OLD_KEYS
    )
    assert list(order_answer(1, _job(BundleKind.RESTORE), "")) == OLD_KEYS[:-1]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (WorkOptions(partitions=(2,)), "partitions"),
        (WorkOptions(target_partition=2), "target_partition"),
        (WorkOptions(resize=True), "resize"),
        (WorkOptions(verify="read"), "verify"),
        (WorkOptions(dry_run=True), "dry_run"),
        (WorkOptions(addons=("a",)), "addons"),
        (WorkOptions(cache="use"), "cache"),
    ],
)
def test_what_an_older_client_cannot_do_has_its_name_and_the_remedy(options: WorkOptions, word: str) -> None:
    assert word in beyond(BundleKind.RESTORE, options)
    assert "pbserv client build --force" in beyond(BundleKind.RESTORE, options)


def test_what_it_can_do_is_not_refused() -> None:
    assert beyond(BundleKind.RESTORE, WorkOptions(version=2, store="main", efi_entry=False, cache="give-up")) == ""
    assert "work of kind cache" in beyond(BundleKind.CACHE, WorkOptions())
    assert "script after" in beyond(BundleKind.CAPTURE, WorkOptions(), ["after"])


@given(st.text(max_size=12))
def test_any_text_names_a_protocol(text: str) -> None:
    assert OLDEST <= protocol_of(text) <= PROTOCOL


@pytest.mark.parametrize(("said", "spoken"), [("", 1), ("1", 1), ("2", 2), ("3", 2), ("-2", 1), ("²", 1), ("0002", 2)])
def test_the_protocol_of_a_client(said: str, spoken: int) -> None:
    assert protocol_of(said) == spoken
