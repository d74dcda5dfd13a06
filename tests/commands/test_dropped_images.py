"""Files dropped into the store of a running server: there by themselves, served, and gone with the image."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.imaging import trees
from tests.imaging.trees import Part
from tests.support.process import Installed

PATIENCE_S = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.ok("start")
    yield installed
    installed.finish()


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    return trees.disk(tmp_path_factory.mktemp("disk"), "dos", ("ext4",)).parts[0]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


def drop(folder: Path, name: str, content: bytes) -> Path:
    (folder / f"{name}.copy").write_bytes(content)
    return (folder / f"{name}.copy").rename(folder / name)


def names(server: Installed) -> list[str]:
    return [image["name"] for image in server.json("image", "list")]


def test_a_file_appears_by_itself_and_is_found_after_a_restart(server: Installed, tmp_path: Path, part: Part) -> None:
    images = server.state / "images"
    content = trees.packed(trees.saved(part), "lzop")
    path = drop(images, "room.img", content)
    until(lambda: (images / "room.img.full.sum").exists() and not (images / "room.img.lock").exists())
    until(lambda: "room" in names(server))
    server.ok("image", "download", "room", str(tmp_path / "down"))
    assert (tmp_path / "down/part.extfs.lzo").read_bytes() == content
    shown = server.json("image", "show", "room")
    assert (shown["kind"], shown["state"]) == ("partition", "enabled")
    told = server.ok("image", "show", "room")
    for name, value in (("tool", "part"), ("compressor", "lzop"), ("file system", "ext")):
        assert re.search(rf"(?m)^{name} +{value}", told), told

    server.ok("stop")
    drop(images, "night.img", content)
    (images / "room.img.lock").write_bytes(b"pbserv\n")  # as a server that was killed leaves it
    os.utime(images / "night.img", (1, 1))
    server.ok("start")
    until(lambda: not (images / "room.img.lock").exists())
    assert server.json("image", "show", "room")["versions"] == [1]

    server.ok("image", "delete", "room", "--now", "--yes")
    until(lambda: not path.exists())
    assert not list(images.glob("room*"))


def test_a_conversion_makes_it_native(server: Installed, tmp_path: Path, part: Part) -> None:
    images = server.state / "images"
    drop(images, "convert.img", trees.packed(trees.saved(part), "gzip"))
    until(lambda: "convert" in names(server))
    assert "is version 2 now, in frames" in server.ok("image", "convert", "convert")
    refused = server.call("image", "convert", "convert")
    assert refused.returncode == 1
    assert "is made of frames already" in refused.stderr
    server.ok("image", "download", "convert", str(tmp_path))
    stream = trees.run("zstd", "-dc", str(tmp_path / "part.extfs.zst"))
    trees.blocks_equal(part, stream, tmp_path)
