"""A network whose server has every boot loader, a Linux that tells its arguments, and a policy that each test adds to.

A machine's sign of success is that Linux, or a disk that says so: nothing of it is looked for in the server alone.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.marks import PATIENCE_S
from tests.support.dhcp import address_of
from tests.support.disks import Firmware, Parts
from tests.support.netns import Room, RoomError, run
from tests.support.qemu import OVMF_VARS, SECURE_VARS, Console, Machine
from tests.support.server import PROGRAMS, Server
from tests.support.signpost import LINUX, LINUX_END, signpost_disk, signpost_initramfs, unified_kernel

HTTP_PORT = 8067
OWN_DISK = "SIGNPOST own disk"
# The release of Debian that has a GRUB which reads a proxy's offer, and an iPXE that asks for autoexec.ipxe.
NEWER = "trixie"
CONSOLE = "console=ttyS0,115200 quiet"
# What firmware and loaders say when they give up.
NOTHING_BOOTS = ("No more network devices", "No bootable device", "failed to load Boot")
# What UEFI firmware says when it starts a disk by its own boot order.
DISK_BY_FIRMWARE = re.compile('BdsDxe: starting Boot.* "UEFI Misc Device"')
DEAD_ENDS = (*NOTHING_BOOTS, "Kernel panic", "grub>", "iPXE>")
Fields = Mapping[str, object]
_STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
_LOADERS = {"": ("pxelinux",), NEWER: ("ipxe", "ipxe-kernel", "shim", "memtest")}
_GRUB = ("normal", "configfile", "linux", "tftp", "net", "echo", "boot", "test", "sleep", "chain", "reboot", "halt",
         "part_gpt", "part_msdos", "fat", "regexp", "minicmd")  # fmt: skip
_GRUB_OF: Mapping[Firmware, tuple[str, ...]] = {"uefi": ("http", "efinet"), "bios": ("pxe", "biosdisk", "linux16")}
# Machines whose addresses begin like this are sent to our server by the DHCP server itself.
SENT = "52:54:00:5e"


def sends_here(address: str) -> tuple[str, ...]:
    """Lines for the DHCP server: a boot file for the machines ``SENT``, over HTTP where their ROM is iPXE."""
    return (
        f"--dhcp-mac=set:sent,{SENT}:*:*", "--dhcp-match=set:bios,option:client-arch,0",
        f"--dhcp-boot=tag:sent,tag:bios,http://{address}:{HTTP_PORT}/boot.ipxe",
        f"--dhcp-boot=tag:sent,tag:!bios,snponly.efi,pbserv,{address}",
    )  # fmt: skip


def fill(directory: Path, server: Server, parts: Parts, loaders: Path) -> None:
    """Put loaders, kernel and initramfs where the TFTP server serves from; ``loaders`` keeps downloads for the next."""
    stamp, wanted = loaders / "stamp", f"{_LOADERS}\n"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(loaders, ignore_errors=True)
        for suite, names in _LOADERS.items():
            install_loaders(server, suite, names)
        shutil.copytree(server.tftp, loaders)
        stamp.write_text(wanted)
    shutil.copytree(loaders, server.tftp, dirs_exist_ok=True, ignore=shutil.ignore_patterns("stamp"))
    (server.tftp / "in/a/folder").mkdir(parents=True)
    shutil.copyfile(server.tftp / "snponly.efi", server.tftp / "in/a/folder/snponly.efi")
    shutil.copyfile(parts.kernel, server.tftp / "vmlinuz")
    initrd = signpost_initramfs(server.tftp / "initrd.img", parts.busybox)
    words = directory / "uki-words"
    words.write_text(f"{CONSOLE} sign=within")
    unified_kernel(server.tftp / "rescue.efi", _STUB, cmdline=words, initrd=initrd, linux=parts.kernel)
    grub_image(server.tftp / "own-grub.efi", server.host.address)


def install_loaders(server: Server, suite: str, names: tuple[str, ...]) -> None:
    """By the real command, outside of the room: that has no way to Debian's mirror. Raises RoomError."""
    words = [PROGRAMS / "pbserv", "--conf", server.conf, "loaders", "install"]
    try:
        run(*words, *(("--suite", suite) if suite else ()), *names, timeout_s=300)
    except RoomError as fault:
        where = f"Debian's release {suite}" if suite else "this host's release of Debian"
        raise RoomError(f"these tests need boot loaders of {where}, and a mirror that has it: {fault}") from None


def grub_image(path: Path, address: str, firmware: Firmware = "uefi") -> None:
    """A GRUB as grub-mknetdir makes it, with its server's address: it cannot learn it from a proxy's offer."""
    form = "x86_64-efi" if firmware == "uefi" else "i386-pc-pxe"
    run("grub-mkimage", "-O", form, "-o", path, "-p", f"(tftp,{address})/boot/grub", *_GRUB, *_GRUB_OF[firmware])


@dataclass
class Site:
    """The running server, its room, and the machines that were made in it."""

    server: Server
    directory: Path
    room: Room
    machines: list[Machine] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the server answers by HTTP."""
        return f"http://{self.server.host.address}:{HTTP_PORT}"

    def machine(self, name: str, firmware: Firmware, *, secure_boot: bool = False, **options: object) -> Machine:
        """A machine that is new to the server and boots from the network first.

        A UEFI machine without disks does so with a fresh variable store; one with disks is set up to.
        """
        store = None if options.get("disks") else SECURE_VARS if secure_boot else OVMF_VARS
        made = Machine(name, firmware, self.room, self.directory, variables=store, secure_boot=secure_boot, **options)  # type: ignore[arg-type]
        self.machines.append(made)
        return made

    def disk(self, name: str, firmware: Firmware) -> Path:
        """A disk that says who it is."""
        return signpost_disk(self.directory / f"{name}.img", firmware, OWN_DISK)

    def device(self, machine: Machine, bundle: Fields, /, **fields: object) -> None:
        """Make the machine a known device with these fields, and assign it the bundle for ever."""
        name = f"bundle of {machine.name}"
        self.apply({
            "bundle": {name: bundle},
            "device": {machine.mac: {"state": "known", "name": machine.name, **fields}},
            "assignment": {f"for {machine.name}": {"bundle": name, "device": machine.mac}},
        })  # fmt: skip

    def order(self, machine: Machine, bundle: Fields, /, **fields: object) -> int:
        """Make the machine a known device with these fields, and order the bundle once; the number of the work."""
        name = f"bundle of {machine.name}"
        self.apply({
            "bundle": {name: bundle},
            "device": {machine.mac: {"state": "known", "name": machine.name, **fields}},
        })  # fmt: skip
        self.server.ok("work", "bundle", name, machine.mac)
        return int(self._work(machine)["id"])

    def work_ended(self, machine: Machine) -> bool:
        """Whether the machine's one-shot work is done, or is within 20 seconds: a report is noted after its answer."""
        end = time.monotonic() + 20
        while not (done := self._work(machine)["state"] == "done") and time.monotonic() < end:
            time.sleep(0.2)
        return done

    def _work(self, machine: Machine) -> Mapping[str, str]:
        return next(each for each in self.server.json("work", "list", "--all") if each["mac"] == machine.mac)

    def sent(self, machine: Machine, name: str) -> bool:
        """Whether the TFTP server sent the machine the whole file ``name``, which may have a boot's token before it.

        The log is waited for; so False only after ten seconds.
        """
        return bool(self.server.logged("tftp", *self._whole(machine, name)))

    def never_sent(self, machine: Machine, name: str) -> bool:
        """Whether the TFTP server has not sent it, as far as the log goes now: ask when what it booted is long under
        way."""
        return not self.server.log_lines("tftp", *self._whole(machine, name))

    def _whole(self, machine: Machine, name: str) -> tuple[str, str, str]:
        """Words of the log's line."""
        address = address_of(self.directory, machine.mac)
        assert address is not None, f"{machine.name} has no address"
        return f"client={address}:", f"{name} size=", "result=completed"

    def apply(self, policy: Mapping[str, Mapping[str, Fields]]) -> None:
        """Hand a policy file to the running server."""
        file = self.directory / "policy.json"
        file.write_text(json.dumps(policy))
        self.server.ok("apply", str(file))

    def told(self, machine: Machine) -> str:
        """What `pbserv journal` says of the machine's newest boot."""
        return self.server.ok("journal", machine.mac)


def linux(words: str, **fields: object) -> Fields:
    """A bundle that boots the Linux of this place, with ``words`` among its arguments."""
    return {"kind": "linux", "kernel": "vmlinuz", "initrd": ["initrd.img"], "arguments": f"{CONSOLE} {words}", **fields}


def runs_linux(console: Console, words: str, timeout_s: float = PATIENCE_S) -> str:
    """Wait until that Linux runs with these words in its arguments; all of its console's text."""
    console.wait_for(LINUX_END, timeout_s=timeout_s, never=DEAD_ENDS)
    line = next(line for line in console.text.splitlines() if LINUX in line)
    assert words in line, line
    return console.text
