"""`pbserv image download` and `upload` against a running server, also over a way that breaks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pbserv.commands.uploading import sha256_of
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


def test_a_file_is_uploaded_and_comes_back(server: Installed, tmp_path: Path) -> None:
    source = tmp_path / "tools.iso"
    source.write_bytes(BODY)
    assert "image tools version 1" in server.ok("image", "upload", "tools", str(source))
    assert "exists" in server.call("image", "upload", "tools", str(source)).stderr
    source.write_bytes(BODY[::-1])
    made = server.json("image", "upload", "tools", str(source), "--overwrite")
    assert (made["versions"], made["served"]) == ([1, 2], 2)
    server.ok("image", "download", "tools", str(tmp_path / "back"))
    assert (tmp_path / "back/file").read_bytes() == BODY[::-1]
    (tmp_path / "empty").touch()
    server.ok("image", "upload", "empty", str(tmp_path / "empty"))
    assert server.json("image", "show", "empty")["stored_bytes"] == 0


def test_what_was_downloaded_can_be_uploaded_elsewhere(server: Installed, tmp_path: Path) -> None:
    server.ok("image", "download", "room", str(tmp_path))
    server.ok("image", "upload", "copy", str(tmp_path))
    shown = [server.json("image", "show", name)["items"] for name in ("room", "copy")]
    assert shown[0] == shown[1]
    (tmp_path / "file").write_bytes(b"x" * len(BODY))
    refused = server.call("image", "upload", "worse", str(tmp_path))
    assert (refused.returncode, "SHA-256" in refused.stderr) == (1, True)
    assert server.json("image", "uploads") == [], "it was given up, as it could never be right"
    (tmp_path / "file").write_bytes(b"x")
    assert "bytes of the manifest" in server.call("image", "upload", "worse", str(tmp_path)).stderr
    (tmp_path / "file").unlink()
    assert "No such file" in server.call("image", "upload", "worse", str(tmp_path)).stderr
    assert "No such file" in server.call("image", "upload", "worse", str(tmp_path / "none")).stderr
    assert "no image" in server.call("image", "show", "worse").stderr


def test_an_upload_goes_on_where_it_broke_off(
    server: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once by itself, as the way heals; once with --resume, as the server was restarted meanwhile."""
    large = tmp_path / "large"
    pattern = random.Random(9).randbytes(1 << 20)
    large.write_bytes(pattern * 70)
    monkeypatch.setenv("PBSERV_TOKEN", server.token)
    with breaking(server.http_port, up=(30 << 20,)) as way:
        monkeypatch.setenv("PBSERV_URL", way.url)
        server.ok("image", "upload", "large", str(large))
        assert way.broken == 1
    monkeypatch.delenv("PBSERV_URL")
    monkeypatch.delenv("PBSERV_TOKEN")
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, trust_env=False, timeout=60) as client:
        upload = client.post("/images/later/uploads", json={"asis": True}).raise_for_status().json()["upload"]
        first = large.read_bytes()[: 64 << 20]
        client.put(
            f"/uploads/{upload}/items/file/parts/1", content=first, params={"kind": "file"},
            headers={"X-Checksum-SHA256": sha256_of(first)},
        ).raise_for_status()  # fmt: skip
        server.ok("restart")
        assert "--resume" in server.call("image", "upload", "later", str(large)).stderr
        assert upload in server.ok("image", "uploads")
        server.ok("image", "upload", "later", str(large), "--resume")
        assert client.get("/uploads").json() == {"uploads": []}
        items = [client.get(f"/images/{name}").json()["items"] for name in ("large", "later")]
    assert items[0] == items[1]
    assert items[0][0]["stored_bytes"] == 70 << 20


def test_an_upload_goes_on_with_the_same_file_only(server: Installed, tmp_path: Path) -> None:
    """Also where all of an item came, and the file is longer, shorter or of other bytes now."""
    source, headers = tmp_path / "room.iso", {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, trust_env=False, timeout=60) as client:
        for complete in (False, True):
            upload = client.post("/images/other/uploads", json={"asis": True}).raise_for_status().json()["upload"]
            client.put(
                f"/uploads/{upload}/items/file/parts/1", content=BODY, params={"kind": "file"},
                headers={"X-Checksum-SHA256": sha256_of(BODY)},
            ).raise_for_status()  # fmt: skip
            if complete:
                client.post(f"/uploads/{upload}/items/file/complete", json={"parts": 1}).raise_for_status()
            source.write_bytes(BODY[:-1] + b"?")
            refused = server.call("image", "upload", "other", str(source), "--resume")
            assert (refused.returncode, "again without --resume" in refused.stderr) == (1, True)
            assert client.get("/uploads").json() == {"uploads": []}
    assert "no image" in server.call("image", "show", "other").stderr
    server.ok("image", "upload", "other", str(source), "--resume")
    assert server.json("image", "show", "other")["stored_bytes"] == len(BODY)


def test_an_upload_that_nobody_goes_on_with_is_given_up(server: Installed) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    made = httpx.post(f"{server.url}/api/v1/images/left/uploads", json={}, headers=headers, trust_env=False).json()
    assert server.json("image", "uploads", "--discard", made["upload"])["discarded"]
    assert server.ok("image", "uploads") == "no uploads under way\n"
    assert server.call("image", "uploads", "--discard", made["upload"]).returncode == 1
