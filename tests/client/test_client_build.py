"""``pbserv client build``: the recipe, the host's package sources, and a real boot of what was built."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pbserv.commands import client_build
from tests.client import disks
from tests.client.machine import boot_bytes
from tests.client.standin import TOKEN, Job, StandIn
from tests.client.test_foreign import by_fsarchiver, by_partimage
from tests.support.qemu import accelerator
from tests.support.wheel import build_wheel, install_wheel

QEMU = "qemu-system-x86_64"
MAC = "52:54:00:c1:1e:47"
CHECKOUT = Path(__file__).parents[2]


def test_recipe_is_found_and_its_hash_follows_it(tmp_path: Path) -> None:
    recipe = client_build.find_recipe()
    assert "partclone" in client_build.packages(recipe)
    copy = tmp_path / "client"
    shutil.copytree(recipe, copy)
    before = client_build.recipe_id(recipe)
    assert client_build.recipe_id(copy) == before
    (copy / "README.md").write_text("other words\n")
    assert client_build.recipe_id(copy) == before
    with (copy / "pbclient.sh").open("a") as script:
        script.write("# changed\n")
    assert client_build.recipe_id(copy) != before


def test_same_recipe_is_not_built_twice(tmp_path: Path) -> None:
    for name in client_build.RESULTS:
        (tmp_path / name).write_bytes(b"built before")
    (tmp_path / client_build.BUILD_ID).write_text(client_build.recipe_id(client_build.find_recipe()))
    said: list[str] = []
    client_build.build(tmp_path, said.append)
    assert "up to date" in said[0]
    (tmp_path / "initrd.img").unlink()
    assert not client_build.is_current(tmp_path, client_build.recipe_id(client_build.find_recipe()))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may build")
def test_without_root_rights_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(client_build.BuildError, match="root"):
        client_build.build(tmp_path, lambda _: None)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may build")
def test_a_second_build_in_the_folder_leaves_the_first_alone(tmp_path: Path) -> None:
    (tmp_path / ".build-first").mkdir()
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(client_build.BuildError, match="another pbserv client build works there"):
            client_build.build(tmp_path, lambda _: None)
    finally:
        os.close(folder)
    assert os.listdir(tmp_path) == [".build-first"]


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="not a Debian host")
def test_only_debian_s_own_sources_are_taken(tmp_path: Path) -> None:
    for line in client_build.debian_sources(tmp_path, lambda _: None):
        kind, rest = line.split(" ", 1)
        assert kind == "deb"
        assert rest.startswith("[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ")


def test_scripts_have_no_mistakes_that_shellcheck_knows() -> None:
    if shutil.which("shellcheck") is None and os.geteuid() != 0:
        pytest.skip("not installed: shellcheck")
    recipe = client_build.find_recipe()
    scripts = [*recipe.glob("*.sh"), *(recipe / name for name in ("img", "customize", "hooks/pbclient")),
               *recipe.glob("scripts/*")]  # fmt: skip
    done = subprocess.run(
        ["shellcheck", "-s", "sh", "-S", "warning", *map(str, scripts)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the program of a wheel in an empty environment, in the cache that the end-to-end tests use next."""
    place = tmp_path_factory.mktemp("wheel")
    programs = install_wheel(build_wheel(place), place)
    folder = CHECKOUT / ".cache" / "client"
    done = subprocess.run(
        [str(programs / "pbserv"), "client", "build", "--output", str(folder)],
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


needs_machine = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: mmdebstrap, loop devices"),
]


def boot(folder: Path, server: StandIn, *machine: str, until: str = "", timeout_s: float = 240) -> str:
    """Boots the built client in a machine with user-mode networking until it restarts, powers off or says ``until``.

    Returns its console.
    """
    port = server.url.rsplit(":", 1)[1]
    line = f"console=tty0 console=ttyS0 pb.url=http://10.0.2.2:{port} pb.token={TOKEN} pb.mac={MAC} pb.delay=1"
    command = [
        *(QEMU, "-accel", accelerator(), "-m", "768", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"),
        *("-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd.img")),
        *("-append", f"{line} BOOTIF=01-{MAC.replace(':', '-')}"),
        *("-netdev", "user,id=net", *machine),
    ]
    console: list[str] = []
    with subprocess.Popen(
        ["timeout", str(timeout_s), *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for text in process.stdout:
            console.append(text)
            if until and until in text:
                process.terminate()
    return "".join(console)


class TestBuilt:
    """What was built works as a machine's only system."""

    pytestmark = needs_machine

    def test_build_is_whole_and_leaves_nothing_else(self, built: Path) -> None:
        assert sorted(os.listdir(built)) == ["build-id", "initrd.img", "vmlinuz"]
        assert (built / "initrd.img").stat().st_size < 45_000_000

    def test_machine_captures_and_another_restores(self, built: Path, tmp_path: Path) -> None:
        """A SATA disk behind an Intel card is captured in parts; a larger NVMe disk behind a virtio card gets it, has
        its last file system grown, and everything is read back."""
        table = "label: dos\nstart=2048, size=40MiB, type=83\nsize=320MiB, type=83\n"
        files = {}
        with disks.loop(tmp_path / "a.img", 364 << 20, table=table) as device:
            for number, maker in ((1, ["mkfs.ext4", "-q"]), (2, ["mkfs.xfs", "-q"])):
                with disks.partition(device, number) as node:
                    disks.run(*maker, node)
                    with disks.mounted(node, tmp_path / "m") as mount:
                        disks.fill(mount, 8 + number)
                        files[number] = disks.hashes(mount)
        began = time.monotonic()
        sata = ("-device", "ahci,id=ahci", "-device", "ide-hd,drive=d,bus=ahci.0")
        drive = ("-drive", f"if=none,id=d,format=raw,file={tmp_path / 'a.img'}")
        job = Job("capture", finish="reboot", options={"PROTOCOL": "2", "PART_BYTES": str(64 << 20)})
        with StandIn(job) as server:
            console = boot(built, server, "-device", f"e1000e,netdev=net,mac={MAC}", *drive, *sata)
        assert job.result is not None, console
        assert job.outcome() == ("1", ""), console
        assert job.work["mac"] == MAC
        assert "/dev/sda" in job.work["disks"]
        assert set(job.parts) == {"p1.ext4.zst", "p2.xfs.zst"}
        print(f"capture by a machine: {time.monotonic() - began:.1f} s, {job.result['seconds']} s of them the client's")

        with (tmp_path / "b.img").open("wb") as file:
            file.truncate(500 << 20)
        drive = ("-drive", f"if=none,id=d,format=raw,file={tmp_path / 'b.img'}")
        job = job.again(RESIZE="1", VERIFY="read")
        job.finish = "poweroff"
        with StandIn(job) as server:
            machine = ("-device", f"virtio-net-pci,netdev=net,mac={MAC}", "-device", "nvme,drive=d,serial=n1")
            console = boot(built, server, *drive, *machine)
        assert job.result is not None, console
        assert job.outcome() == ("1", ""), console
        assert job.result["verified"] == "read"
        print(f"restore by a machine: {job.result['seconds']} s, {job.result['waited']} ms of waiting for the server")
        with disks.loop(tmp_path / "b.img", 0) as device:
            for number in (1, 2):
                with disks.partition(device, number) as node:
                    disks.run(*(["e2fsck", "-fn"] if number == 1 else ["xfs_repair", "-n"]), node)
                    with disks.mounted(node, tmp_path / "m") as mount:
                        assert disks.hashes(mount) == files[number]
                        assert number == 1 or os.statvfs(mount).f_blocks * os.statvfs(mount).f_frsize > 380 << 20

    def test_machine_restores_what_partimage_and_fsarchiver_wrote(self, built: Path, tmp_path: Path) -> None:
        image, plain = by_partimage(tmp_path)
        archive, hashes = by_fsarchiver(tmp_path)
        with disks.loop(tmp_path / "a.img", 64 << 20, table="label: dos\nsize=16MiB, type=6\nsize=24MiB\n") as device:
            table = disks.run("sfdisk", "-d", device)
        items = {
            "table.sfdisk": ("sfdisk", 0, table.encode()),
            "p1.fat16.partimage": ("partimage", 1, image),
            "p2.ext4.fsarchiver": ("fsarchiver", 2, archive.read_bytes()),
        }
        lines = ["pbserv-image 1", f"disk {64 << 20} 512 dos bios"]
        for name, (kind, number, data) in items.items():
            lines.append(
                f"item {name} {kind} {number} {len(data)} {hashlib.sha256(data).hexdigest()} {len(data)}\n"
                f"fact {name} compressor none"
            )
        lines.append("fact p2.ext4.fsarchiver fs ext4\n")
        job = Job(
            "restore", finish="poweroff", manifest="\n".join(lines), options={"PROTOCOL": "2"},
            items={name: data for name, (_, _, data) in items.items()},
        )  # fmt: skip
        with (tmp_path / "b.img").open("wb") as file:
            file.truncate(64 << 20)
        drive = ("-drive", f"if=none,id=d,format=raw,file={tmp_path / 'b.img'}", "-device", "virtio-blk-pci,drive=d")
        with StandIn(job) as server:
            console = boot(built, server, "-device", f"virtio-net-pci,netdev=net,mac={MAC}", *drive)
        assert job.result is not None, console
        assert job.outcome() == ("1", ""), console
        with disks.loop(tmp_path / "b.img", 0) as device:
            start, size = disks.extent(device, 1)
            restored = bytearray(boot_bytes(device, start * 512, size * 512))
            restored[28:32] = plain[28:32]  # the partition's start, which the client writes
            assert restored == plain
            with disks.partition(device, 2) as node:
                disks.run("e2fsck", "-fn", node)
                with disks.mounted(node, tmp_path / "m") as mount:
                    assert disks.hashes(mount) == hashes

    def test_machine_without_a_server_says_why_and_asks_again(self, built: Path) -> None:
        with StandIn(Job("local")) as server:
            pass  # its port is closed again
        console = boot(
            built, server, "-device", f"virtio-net-pci,netdev=net,mac={MAC}", until="asking the server again"
        )
        assert "FAILED: no work" in console
        assert "asking the server again in 1 seconds" in console
