"""Images of other systems, imported and restored by the imaging client: the same file systems."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import disks
from tests.client.machine import Fixture, boot_bytes
from tests.client.site import MAC, Site
from tests.imaging import trees
from tests.imaging.trees import Disk
from tests.support.process import Installed

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(280),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: loop devices"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("own-server"))
    installed.ok("start")
    installed.ok("device", "accept", MAC)
    yield installed
    installed.finish()


@pytest.fixture
def own(server: Installed, tmp_path: Path) -> Site:
    return Site(server, tmp_path)


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return trees.disk(tmp_path_factory.mktemp("gpt"), "gpt", ("vfat", "ext4", "swap"))


@pytest.fixture(scope="module")
def dos(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return trees.disk(tmp_path_factory.mktemp("dos"), "dos", ("ntfs", "ext4", "swap"))


def restore(site: Site, image: str, target: str, **options: object) -> str:
    site.api("POST", "/work", {"mac": MAC, "kind": "restore", "image": image, **options})
    output = site.run("--disk", target)
    assert output.endswith("exit 0"), output
    return output


def same(made: Disk, target: str, folder: Path) -> None:
    """Boot code, partitions, file systems and files are those of the sample disk."""
    assert boot_bytes(target, 0, 440) == made.path.read_bytes()[:440]
    for part in made.parts:
        assert disks.extent(target, part.number) == (part.start, part.size)
        raw = folder / f"p{part.number}.raw"
        raw.write_bytes(boot_bytes(target, part.start * 512, part.size * 512))
        if part.system == "ext4":  # it may have been mounted to leave the device's name on it
            same_files(made, target, part.number, folder)
        elif part.system == "swap":
            assert trees.SWAP_UUID in disks.run("blkid", "-p", "-o", "export", str(raw))
        else:
            trees.used_equal(part, raw)


def same_files(made: Disk, target: str, number: int, folder: Path) -> None:
    """The ext4 file system there is clean and has the files of the sample."""
    with disks.partition(target, number) as node:
        disks.run("e2fsck", "-fn", node)
        with disks.mounted(node, folder / "mounted") as mounted:
            for file in (made.path.parent / "files").iterdir():
                assert (mounted / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("system", "label", "kind", "convert"),
    [("fog", "dos", "zstd", False), ("clonezilla", "gpt", "gzip", False), ("clonezilla", "dos", "lzop", True)],
)
def test_disks_of_fog_and_clonezilla(
    own: Site, loop: Fixture, tmp_path: Path, gpt: Disk, dos: Disk, system: str, label: str, kind: str, convert: bool
) -> None:
    made = gpt if label == "gpt" else dos
    image = f"{system}-{label}-{kind}"
    if system == "fog":
        folder = trees.fog(tmp_path / image, made, kind)
    else:
        folder = trees.clonezilla(tmp_path / image, made, kind, split=100_000)
    own.server.ok("image", "import", str(folder), *(["--convert"] if convert else []))
    target = loop("target", 64)
    restore(own, image, target)
    same(made, target, tmp_path)


def test_a_partition_of_opengnsys_goes_into_a_partition(own: Site, loop: Fixture, tmp_path: Path, dos: Disk) -> None:
    image = trees.opengnsys(tmp_path / "images", dos.parts[1], "lzop", "linux.img")
    own.server.ok("image", "import", str(image))
    target = loop("target", 64, table="label: dos\nsize=10MiB\nsize=16MiB\nsize=10MiB\n")
    restore(own, "linux", target, target_partition=2)
    same_files(dos, target, 2, tmp_path)


def test_a_virtual_disk_is_a_disk(own: Site, loop: Fixture, tmp_path: Path, dos: Disk) -> None:
    image = tmp_path / "appliance.qcow2"
    trees.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(dos.path), str(image))
    own.server.ok("image", "import", str(image))
    target = loop("target", 64)
    restore(own, "appliance", target)
    assert boot_bytes(target, 0, dos.size) == dos.path.read_bytes()
