"""Images of partimage and fsarchiver, imported and restored by the imaging client with these programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.client import disks
from tests.client.machine import Fixture, boot_bytes, everything, make_file_system, refused
from tests.client.site import MAC, SHELLS, Site
from tests.client.standin import Job
from tests.imaging import trees
from tests.imaging.trees import MIB, Disk

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(280),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: loop devices"),
]
PARTIMAGE = ("-f3", "-o", "-d", "-B", "gui=no", "-c", "-z0", "--volume=0")
TABLE = "label: dos\nsize=10MiB\nsize=24MiB\nsize=10MiB\n"


@pytest.fixture(scope="module")
def dos(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return trees.disk(tmp_path_factory.mktemp("dos"), "dos", ("ntfs", "ext4", "swap"))


def ordered(site: Site, image: str, target: str, environment: dict[str, str] | None = None, **options: object) -> str:
    site.api("POST", "/work", {"mac": MAC, "kind": "restore", "image": image, **options})
    return site.run("--disk", target, **(environment or {}))


def by_partimage(folder: Path, size_mib: int = 16) -> tuple[bytes, bytes]:
    """A FAT of that size with files, and its image: (image, the file system)."""
    with disks.loop(folder / "fat.img", size_mib * MIB, scan=False) as device:
        disks.run("mkfs.fat", "-F", "16", "-s", "4", device)
        disks.fill_fat(device, folder / "files", 3)
        image = trees.run("partimage", *PARTIMAGE, "save", device, "stdout")
    return image, (folder / "fat.img").read_bytes()


def by_fsarchiver(folder: Path, *options: str) -> tuple[Path, dict[str, str]]:
    """An archive of an ext4 with files, and the hashes of these."""
    with disks.loop(folder / "ext4.img", 20 * MIB, scan=False) as device:
        disks.run("mkfs.ext4", "-q", "-U", trees.SWAP_UUID, device)
        with disks.mounted(device, folder / "m") as mount:
            disks.fill(mount, 5)
            (mount / "random").write_bytes(os.urandom(5 * MIB))
            hashes = disks.hashes(mount)
        trees.run("fsarchiver", "savefs", *options, str(folder / "linux.fsa"), device)
    return folder / "linux.fsa", hashes


def test_a_disk_of_clonezilla_with_a_partition_of_partimage(
    site: Site, loop: Fixture, tmp_path: Path, dos: Disk
) -> None:
    part = dos.parts[1]
    image, plain = by_partimage(tmp_path, part.size * 512 // MIB)
    folder = trees.clonezilla(tmp_path / "partimage-disk", dos, "gzip", raw=(2,))
    for volume in folder.glob("sda2.*"):
        volume.unlink()
    stored = trees.packed(image, "gzip")
    (folder / "sda2.aa").write_bytes(stored[:3000])
    (folder / "sda2.ab").write_bytes(stored[3000:])
    site.server.ok("image", "import", str(folder))
    target = loop("target", 64)
    site.shell = SHELLS["busybox"]
    output = ordered(site, "partimage-disk", target)
    assert output.endswith("exit 0"), output
    assert boot_bytes(target, part.start * 512, part.size * 512) == plain


def test_a_partition_of_partimage(site: Site, loop: Fixture, tmp_path: Path) -> None:
    image, plain = by_partimage(tmp_path)
    (tmp_path / "fat16.img").write_bytes(image)
    site.server.ok("image", "import", str(tmp_path / "fat16.img"))
    target = loop("target", 64, table=TABLE)
    before = everything(target)
    output = ordered(site, "fat16", target, target_partition=1)
    assert "refused: partition 1 of" in output
    assert "is too small" in output
    assert output.endswith("exit 1")
    assert everything(target) == before
    output = ordered(site, "fat16", target, target_partition=2)
    assert output.endswith("exit 0"), output
    start, _ = disks.extent(target, 2)
    restored = bytearray(boot_bytes(target, start * 512, len(plain)))
    restored[28:32] = plain[28:32]  # the partition's start, which the client writes
    assert restored == plain
    after = everything(target)
    assert after[: start * 512] == before[: start * 512]
    assert after[(start + 24 * 2048) * 512 :] == before[(start + 24 * 2048) * 512 :]


def test_a_partition_of_fsarchiver(site: Site, loop: Fixture, tmp_path: Path) -> None:
    """Into a larger partition: the same files, a file system as large as the partition, and nothing left mounted."""
    archive, hashes = by_fsarchiver(tmp_path)
    site.server.ok("image", "import", str(archive))
    target = loop("target", 64, table=TABLE)
    before = everything(target)

    small = tmp_path / "small"
    small.mkdir()
    disks.run("mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small))
    try:
        output = ordered(site, "linux", target, {"TMPDIR": str(small)}, target_partition=2)
    finally:
        disks.run("umount", str(small))
    assert "fsarchiver needs the whole archive of" in output, output
    assert output.endswith("exit 1")
    assert everything(target) == before

    output = ordered(site, "linux", target, target_partition=2, resize=True)
    assert output.endswith("exit 0"), output
    with disks.partition(target, 2) as node:
        disks.run("e2fsck", "-fn", node)
        assert disks.run("blkid", "-p", "-o", "value", "-s", "UUID", node).strip() == trees.SWAP_UUID
        with disks.mounted(node, tmp_path / "m") as mount:
            assert disks.hashes(mount) == hashes
            assert os.statvfs(mount).f_blocks * os.statvfs(mount).f_frsize > 20 * MIB
    assert "/tmp/fsa/" not in Path("/proc/mounts").read_text()


def test_an_archive_with_a_password_is_refused(site: Site, loop: Fixture, tmp_path: Path) -> None:
    archive, _ = by_fsarchiver(tmp_path, "-c", "a password")
    archive.rename(tmp_path / "secret.fsa")
    site.server.ok("image", "import", str(tmp_path / "secret.fsa"))
    target = loop("target", 64, table=TABLE)
    before = everything(target)
    output = ordered(site, "secret", target, target_partition=2)
    assert "FAILED: item part.ext4.fsarchiver" in output, output
    assert output.endswith("exit 1")
    assert everything(target) == before


@pytest.mark.parametrize("tool", ["partimage", "fsarchiver"])
def test_without_the_program_nothing_is_begun(loop: Fixture, tmp_path: Path, tool: str) -> None:
    target = loop("target", 32, table="label: dos\nsize=20MiB\n")
    before = everything(target)
    manifest = (
        f"pbserv-image 1\ndisk 0 512 none bios\nitem part.{tool} {tool} 0 4 {'0' * 64} 4\nfact part.{tool} fs ext4\n"
    )
    options = {"PROTOCOL": "2", "TARGET_PARTITION": "1"}
    job = Job("restore", manifest=manifest, items={f"part.{tool}": b"four"}, options=options)
    hidden = f'mount --bind /dev/null "$(command -v {tool})" && exec dash "$@"'
    why = refused(job, target, shell=["unshare", "-m", "sh", "-c", hidden, "sh"])
    assert why == f"refused: item part.{tool} needs {tool}, which is not installed here: pbserv client build --force"
    assert job.gets == []
    assert everything(target) == before


def test_a_transport_that_the_client_does_not_know_is_refused(loop: Fixture, tmp_path: Path) -> None:
    target = loop("target", 32, table="label: dos\nsize=20MiB\n")
    make_file_system(target, 1, ["mkfs.ext4", "-q"], tmp_path / "m", 1)
    before = everything(target)
    job = Job("restore", manifest="pbserv-image 1\n", options={"PROTOCOL": "2", "TRANSPORT": "torrent"})
    assert refused(job, target).startswith("refused: the server sends this image by torrent, which this client")
    assert job.gets == []
    assert everything(target) == before
