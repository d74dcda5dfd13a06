"""`pbserv image import` against a running server: what is imported restores to the file systems that it is of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pbserv.commands.uploading import sha256_of
from pbserv.imaging.manifest import Manifest, parse
from pbserv.imaging.unpack import unpacked
from tests.imaging import trees
from tests.imaging.trees import MIB, Disk
from tests.support.process import Installed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.set("pbserv.conf", AllowImageOverwrite="YES")
    installed.ok("start")
    yield installed
    installed.finish()


@pytest.fixture(scope="module")
def dos(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return trees.disk(tmp_path_factory.mktemp("dos"), "dos", ("ext4", "swap"))


def downloaded(server: Installed, image: str, folder: Path) -> Manifest:
    server.ok("image", "download", image, str(folder))
    return parse((folder / "manifest").read_text(), 1 << 18)


def restored(manifest: Manifest, folder: Path, number: int) -> bytes:
    """The stream of a partition as the imaging client uncompresses it."""
    (item,) = (one for one in manifest.items if one.partition == number)
    kind = manifest.fact(item.name, "compressor") or "zstd"
    return b"".join(unpacked([(folder / item.name).read_bytes()], kind))


@pytest.mark.parametrize("convert", [False, True])
def test_a_directory_of_clonezilla(server: Installed, tmp_path: Path, dos: Disk, convert: bool) -> None:
    folder = trees.clonezilla(tmp_path / ("frames" if convert else "kept"), dos, "gzip", split=10_000)
    options = ["--convert"] if convert else []
    (told,) = json.loads(server.ok("image", "import", str(folder), "--title", "Class room", "--json", *options))
    assert (told["name"], told["title"], told["state"]) == (folder.name, "Class room", "enabled")
    manifest = downloaded(server, folder.name, tmp_path / "down")
    assert (manifest.disk.table, manifest.disk.size_bytes) == ("dos", dos.size)
    assert (tmp_path / "down/table.sfdisk").read_bytes() == dos.table
    assert f"UUID={trees.SWAP_UUID}" in (tmp_path / "down/p2.swap").read_text()
    trees.blocks_equal(dos.parts[0], restored(manifest, tmp_path / "down", 1), tmp_path)
    (item,) = (one for one in manifest.items if one.partition == 1)
    assert bool(manifest.fact(item.name, "body_sha256")) == convert
    if not convert:
        whole = b"".join(path.read_bytes() for path in sorted(folder.glob("sda1.*")))
        assert (tmp_path / "down" / item.name).read_bytes() == whole


def test_a_file_of_opengnsys_and_one_of_slepos(server: Installed, tmp_path: Path, dos: Disk) -> None:
    image = trees.opengnsys(tmp_path / "images", dos.parts[0], "lzop")
    server.ok("image", "import", str(image))
    manifest = downloaded(server, "windows10", tmp_path / "down")
    trees.blocks_equal(dos.parts[0], restored(manifest, tmp_path / "down", 0), tmp_path)
    slepos = trees.slepos(tmp_path / "image", dos.parts[0], "gzip")
    refused = server.call("image", "import", str(slepos))
    assert refused.returncode == 2
    assert "--name graphical-i686-3-1-4" in refused.stderr
    server.ok("image", "import", str(slepos), "--name", "graphical", "--convert")
    manifest = downloaded(server, "graphical", tmp_path / "down2")
    assert restored(manifest, tmp_path / "down2", 0) == dos.parts[0].raw.read_bytes()


def test_a_virtual_disk(server: Installed, tmp_path: Path, dos: Disk) -> None:
    image = tmp_path / "appliance.qcow2"
    trees.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(dos.path), str(image))
    server.ok("image", "import", str(image))
    manifest = downloaded(server, "appliance", tmp_path / "down")
    assert restored(manifest, tmp_path / "down", 0) == dos.path.read_bytes()
    assert manifest.disk.size_bytes == dos.size


def test_a_dry_run_asks_nobody(tmp_path: Path, server: Installed, dos: Disk) -> None:
    folder = trees.fog(tmp_path / "lab", dos, "zstd")
    (plan,) = json.loads(server.ok("image", "import", str(folder), "--dry-run", "--json"))
    assert [(item["name"], item["kind"]) for item in plan["items"]] == [
        ("table.sfdisk", "sfdisk"), ("boot.zst", "boot"), ("p1.extfs.zst", "partclone.extfs"), ("p2.swap", "swap"),
    ]  # fmt: skip
    assert plan["disk"]["table"] == "dos"
    shown = server.ok("image", "import", str(folder), "--dry-run", "--convert")
    assert "to frames" in shown
    assert server.call("image", "show", "lab").returncode != 0


def test_what_is_refused_is_one_line_and_sends_nothing(server: Installed, tmp_path: Path, dos: Disk) -> None:
    image = trees.opengnsys(tmp_path / "images", dos.parts[0], "gzip", "broken.img")
    image.with_name("broken.img.full.sum").write_text("0" * 32)
    (tmp_path / "text").write_text("no image")
    for arguments, why in (
        ((str(image),), "broken.img.full.sum says 000"),
        ((str(tmp_path / "text"),), "no image that is known"),
        ((str(tmp_path / "nothing"),), "no such file"),
        ((str(image), "--name", "a.b"), "a.b"),
    ):
        refused = server.call("image", "import", *arguments)
        assert refused.returncode in (1, 2)
        assert why in refused.stderr
        assert "Traceback" not in refused.stderr
    assert server.call("image", "show", "broken").returncode != 0


def test_a_damaged_file_leaves_no_upload_behind(server: Installed, tmp_path: Path, dos: Disk) -> None:
    image = tmp_path / "damaged.img"
    data = bytearray(trees.packed(trees.saved(dos.parts[0]), "gzip"))
    data[-9] ^= 1
    image.write_bytes(data)
    refused = server.call("image", "import", str(image), "--convert")
    assert re.search(r"damaged\.img: (gzip:|.*gzip cannot read it)", refused.stderr), refused.stderr
    assert server.json("image", "uploads") == []


def test_an_import_goes_on_with_the_same_files_only(server: Installed, tmp_path: Path, dos: Disk) -> None:
    """Whoever began without --convert has to go on so: else the image would be a mix."""
    image = trees.opengnsys(tmp_path, dos.parts[0], "gzip", "mixed.img")
    first, headers = image.read_bytes(), {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, trust_env=False, timeout=60) as client:
        upload = client.post("/images/mixed/uploads", json={"asis": True}).raise_for_status().json()["upload"]
        client.put(
            f"/uploads/{upload}/items/part.extfs.gz/parts/1", content=first, params={"kind": "partclone.extfs"},
            headers={"X-Checksum-SHA256": sha256_of(first)},
        ).raise_for_status()  # fmt: skip
    refused = server.call("image", "import", str(image), "--convert", "--resume")
    assert (refused.returncode, "import again without --resume" in refused.stderr) == (1, True)
    assert server.json("image", "uploads") == []
    server.ok("image", "import", str(image), "--convert", "--resume")
    trees.blocks_equal(
        dos.parts[0], restored(downloaded(server, "mixed", tmp_path / "down"), tmp_path / "down", 0), tmp_path
    )


def test_overwriting_is_asked_for(server: Installed, tmp_path: Path, dos: Disk) -> None:
    image = trees.opengnsys(tmp_path, dos.parts[0], "none", "twice.img")
    server.ok("image", "import", str(image))
    assert "exists" in server.call("image", "import", str(image)).stderr
    server.ok("image", "import", str(image), "--overwrite", "--convert")
    assert image.stat().st_size > MIB
    assert downloaded(server, "twice", tmp_path / "down").fact("part.extfs", "body_sha256")
