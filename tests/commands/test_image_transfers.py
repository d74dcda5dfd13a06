"""`pbserv image download` and `upload` against a running server, also over a way that breaks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pbserv.imaging.manifest import parse
from tests.commands.breaking import breaking
from tests.support.process import Installed

BODY = random.Random(3).randbytes(3 * 1024 * 1024 + 17)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.set("pbserv.conf", AllowImageOverwrite="YES")
    installed.ok("start")
    for body in (b"old", BODY):
        httpx.put(
            f"{installed.url}/api/v1/images/room", params={"overwrite": "1"}, content=body,
            headers={"Authorization": f"Bearer {installed.token}"}, trust_env=False,
        ).raise_for_status()  # fmt: skip
    yield installed
    installed.finish()


def test_an_image_is_fetched_with_its_manifest(server: Installed, tmp_path: Path) -> None:
    told = server.json("image", "download", "room", str(tmp_path / "room"))
    assert told == {"image": "room", "version": 2, "directory": str(tmp_path / "room"), "items": ["file"],
                    "bytes": len(BODY)}  # fmt: skip
    assert (tmp_path / "room/file").read_bytes() == BODY
    manifest = parse((tmp_path / "room/manifest").read_text())
    assert [(item.name, item.stored_bytes) for item in manifest.items] == [("file", len(BODY))]
    assert sorted(path.name for path in (tmp_path / "room").iterdir()) == ["file", "manifest"]
    server.ok("image", "download", "room", str(tmp_path / "old"), "--version", "1", "--item", "file")
    assert [path.read_bytes() for path in (tmp_path / "old").iterdir()] == [b"old"]


def test_what_cannot_be_fetched_is_named(server: Installed, tmp_path: Path) -> None:
    for arguments, says in (
        (("none",), "no image"),
        (("room", str(tmp_path), "--version", "9"), "no version 9"),
        (("room", str(tmp_path), "--item", "p1"), "no item 'p1'"),
        (("room", "/proc/nothing"), "/proc/nothing"),
    ):
        refused = server.call("image", "download", *arguments)
        assert refused.returncode in (1, 2)
        assert says in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_a_download_goes_on_where_it_broke_off(
    server: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PBSERV_TOKEN", server.token)
    with breaking(server.http_port, down=(1_500_000, 1_000_000)) as way:
        monkeypatch.setenv("PBSERV_URL", way.url)
        server.ok("image", "download", "room", str(tmp_path / "room"))
        assert way.broken == 2
    assert (tmp_path / "room/file").read_bytes() == BODY


def test_what_came_earlier_is_used_and_verified(server: Installed, tmp_path: Path) -> None:
    server.ok("image", "download", "room", str(tmp_path))
    digest = parse((tmp_path / "manifest").read_text()).items[0].sha256
    part = tmp_path / f".file.{digest[:16]}.part"
    (tmp_path / "file").unlink()
    part.write_bytes(BODY[:1_000_000])
    server.ok("image", "download", "room", str(tmp_path))
    assert (tmp_path / "file").read_bytes() == BODY
    assert not part.exists()
    (tmp_path / "file").unlink()
    part.write_bytes(bytes(1_000_000))
    refused = server.call("image", "download", "room", str(tmp_path))
    assert (refused.returncode, "was removed; try again" in refused.stderr) == (1, True)
    assert not part.exists()
    assert not (tmp_path / "file").exists()
    (tmp_path / "file").write_bytes(b"x" * len(BODY))
    server.ok("image", "download", "room", str(tmp_path))
    assert (tmp_path / "file").read_bytes() == BODY
