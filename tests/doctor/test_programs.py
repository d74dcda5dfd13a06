"""Whose programs the doctor runs: those of the system, whatever PATH says."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pbserv.doctor import gather, rulesets


def test_programs_of_the_path_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    for name in ("ss", "nft", "iptables-save", "iptables-legacy-save"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ntouch {ran}\necho 'rb99999'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        assert gather._receive_buffer(held.getsockname()[1]) != 99999
    rulesets.firewalls()
    assert not ran.exists()
