"""How an object of the policy is shown: what differs from the usual, whatever its type."""

import pytest

from pbserv.commands.objects import show_object


def test_a_bundle_shows_what_is_not_usual(capsys: pytest.CaptureFixture[str]) -> None:
    usual = {"name": "b1", "kind": "restore", "finish": "reboot", "verify": "stream", "efi_entry": True, "wake": False}
    show_object("bundle", {**usual, "partitions": [], "before": "", "version": 0, "revision": 3, "warnings": []})
    assert capsys.readouterr().out == "bundle b1\n  kind: restore\n  finish: reboot\n"
    said = {"verify": "read", "efi_entry": False, "wake": True, "partitions": [2, 3], "before": "one\ntwo\n"}
    show_object("bundle", usual | said)
    assert capsys.readouterr().out == (
        "bundle b1\n  kind: restore\n  finish: reboot\n  verify: read\n  efi_entry: no\n  wake: yes\n"
        "  partitions: 2, 3\n  before:\n    one\n    two\n"
    )
