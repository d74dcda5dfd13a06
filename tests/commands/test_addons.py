"""A directory becomes an add-on image of a server that runs, and work names it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import Installed

MAC = "52:54:00:00:00:01"


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    installed = Installed(tmp_path / "server")
    installed.ok("start")
    yield installed
    installed.finish()


def test_a_directory_is_imported_and_comes_back(installed: Installed, tmp_path: Path) -> None:
    tree = tmp_path / "lab files"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/motd").write_text("welcome\n")
    (tree / "etc/link").symlink_to("motd")
    unnamed = installed.call("image", "import", "--tree", str(tree))
    assert (unnamed.returncode, "--name lab-files" in unnamed.stderr) == (2, True)
    said = installed.ok("image", "import", "--tree", str(tree), "--name", "lab-files")
    assert said == "image lab-files version 1: enabled\n"
    shown = installed.json("image", "show", "lab-files")
    assert shown["kind"] == "tree"
    assert installed.ok("image", "download", "lab-files", str(tmp_path / "back"))
    (packed,) = [path for path in (tmp_path / "back").rglob("tree*") if path.is_file()]
    (tmp_path / "root").mkdir()
    subprocess.run(["tar", "--zstd", "-xpf", str(packed), "-C", str(tmp_path / "root")], check=True)
    assert (tmp_path / "root/etc/link").read_text() == "welcome\n"
    installed.ok("device", "add", MAC)
    refused = installed.call("work", "restore", MAC, "debian", "--addon", "nothing")
    assert refused.returncode == 1
