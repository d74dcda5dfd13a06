"""Virtual machines with real firmware (SeaBIOS or OVMF), a network card on the room's bridge and a serial console.

Rule: a machine never restarts by itself (-no-reboot). Its end is an event that the test sees, and the next power-on
is the test's own act, with the same disks, the same network card and the same firmware variables.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid as uuids
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.support.disks import Firmware
from tests.support.netns import Room, stop
from tests.support.nvram import boot_order, order_boot

OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE.fd")
OVMF_VARS = Path("/usr/share/OVMF/OVMF_VARS.fd")
# Built with system management mode, which guards the variables; the store has Microsoft's keys and Secure Boot on.
SECURE_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
SECURE_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")
QEMU = "qemu-system-x86_64"

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>78cM])")
_OPEN_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?=]*|[()])?$")
_DEAD_ENDS = ("Kernel panic - not syncing", "PBSERV-GUEST FAILED")


class MachineError(AssertionError):
    """The machine did not do what was awaited; the message ends with the tail of its console."""


class Console:
    """The serial line: kept as text without escape sequences, and written line by line with seconds since power-on."""

    def __init__(self, stream: IO[bytes], log: Path) -> None:
        self.log = log
        self.started = time.monotonic()
        self._text = ""
        self._closed = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(stream,), name=f"console {log.name}", daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """Everything printed so far."""
        with self._news:
            return self._text

    def tail(self, lines: int = 40) -> str:
        """The last lines, without empty ones."""
        return "\n".join([line for line in self.text.replace("\r", "\n").split("\n") if line.strip()][-lines:])

    def wait_for(self, *wanted: str, timeout_s: float, never: Sequence[str] = _DEAD_ENDS) -> float:
        """Wait until one of the texts was printed and return the seconds since power-on.

        Raises MachineError with the tail of the console when time runs out, when the machine ends first, or as soon
        as one of the texts in ``never`` appears.
        """
        end = time.monotonic() + timeout_s
        with self._news:
            while True:
                if any(text in self._text for text in wanted):
                    return time.monotonic() - self.started
                bad = next((text for text in never if text in self._text), None)
                why = f"{bad!r} appeared" if bad else "the machine ended" if self._closed else ""
                left = end - time.monotonic()
                if not why and left <= 0:
                    why = f"not seen within {timeout_s:.0f} s"
                if why:
                    break
                self._news.wait(min(left, 1))
        time.sleep(1 if bad else 0)  # the fault's own words are still on the wire
        raise MachineError(f"waited for {' or '.join(map(repr, wanted))}: {why}\n--- {self.log}\n{self.tail()}")

    def close(self) -> None:
        """Wait for the reader to see the end of the line."""
        self._thread.join(10)

    def _read(self, stream: IO[bytes]) -> None:
        carry, line = "", ""
        with stream, self.log.open("a", encoding="utf-8") as log:
            log.write(f"=== power on {time.strftime('%H:%M:%S')}\n")
            while chunk := os.read(stream.fileno(), 65536):
                data = carry + chunk.decode("utf-8", "replace")
                carry = found.group() if (found := _OPEN_ESCAPE.search(data)) else ""
                data = _ESCAPE.sub("", data.removesuffix(carry))
                with self._news:
                    self._text += data
                    self._news.notify_all()
                *whole, line = (line + data).split("\n")
                seconds = time.monotonic() - self.started
                log.writelines(f"[{seconds:8.3f}] {entry.rstrip()}\n" for entry in whole if entry.strip())
                log.flush()
            log.write(f"[{time.monotonic() - self.started:8.3f}] {line}\n=== power off\n")
        with self._news:
            self._closed = True
            self._news.notify_all()


@dataclass
class Machine:
    """A machine that can be powered on again and again; ``disks`` are raw images, the network card boots first."""

    name: str
    firmware: Firmware
    room: Room
    directory: Path
    disks: Sequence[Path] = ()
    memory_mb: int = 1024
    card: str = "virtio-net-pci"
    network_first: bool = True
    mac: str = ""
    keyboard: bool = False
    # A variable store whose boot order is set already; it belongs to this MAC address and these devices.
    variables: Path | None = None
    secure_boot: bool = False
    screen: bool = False  # a graphics card, for what writes to nothing else
    uuid: str = field(default_factory=lambda: str(uuids.uuid4()))
    console: Console = field(init=False)

    def __post_init__(self) -> None:
        if not self.mac:
            # 52:54:00 is what this emulator uses: locally administered, so no real machine's address.
            self.mac = f"52:54:00:{os.urandom(3).hex(':')}"
        self._tap = self.room.tap()
        self._process: subprocess.Popen[bytes] | None = None
        self._vars = self.directory / f"{self.name}-vars.fd"
        self._errors = self.directory / f"{self.name}-qemu.log"
        self._monitor = self.directory / f"{self.name}.sock"

    @property
    def running(self) -> bool:
        """Whether the machine has power."""
        return self._process is not None and self._process.poll() is None

    def power_on(self) -> Console:
        """Start the machine and return the console of this run."""
        if self.running:
            raise MachineError(f"{self.name} is on already")
        if self.firmware == "uefi" and not self._vars.exists():
            if self.variables is None:
                self.set_up_firmware()
            else:
                shutil.copyfile(self.variables, self._vars)
        self._start()
        return self.console

    def _start(self) -> None:
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                self.room.switch.command(self.command_line()),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        assert self._process.stdout is not None
        self.console = Console(self._process.stdout, self.directory / f"{self.name}-console.log")

    def set_up_firmware(self) -> Path:
        """What a person does once in the firmware's menu: network over IPv4 first, then the disk, then the rest.

        Returns the variable store, for machines with the same MAC address and devices.
        """
        shutil.copyfile(SECURE_VARS if self.secure_boot else OVMF_VARS, self._vars)
        self._start()
        try:
            self.console.wait_for("BdsDxe: loading", "Start PXE", timeout_s=60)
        finally:
            self.power_off()
        first, second = ("PXEv4", "Misc Device") if self.network_first else ("Misc Device", "PXEv4")
        order_boot(self._vars, lambda entry: 0 if first in entry else 1 if second in entry else 2)
        return self._vars

    @property
    def boot_order(self) -> list[str]:
        """What the firmware of this UEFI machine would try, in order."""
        return boot_order(self._vars)

    def command_line(self) -> list[str]:
        """The emulator's command line, for messages too."""
        words = [
            QEMU, "-name", self.name, "-uuid", self.uuid, "-m", str(self.memory_mb), "-smp", "1",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-rtc", "base=utc",
            "-accel", accelerator(), "-device", "virtio-rng-pci",
            "-chardev", "file,id=serial,path=/dev/stdout", "-serial", "chardev:serial",
            "-netdev", f"tap,id=net0,ifname={self._tap},script=no,downscript=no",
        ]  # fmt: skip
        if self.screen:
            words += ["-device", "VGA"]
        if self.keyboard:
            words += ["-monitor", f"unix:{self._monitor},server=on,wait=off"]
        if self.firmware == "uefi":
            # graphics=off has no effect there; IPv6 would only cost the minutes of its time-outs.
            code = SECURE_CODE if self.secure_boot else OVMF_CODE
            guard = ["-global", "driver=cfi.pflash01,property=secure,value=on"] if self.secure_boot else []
            words += [
                "-machine", f"q35,smm={'on' if self.secure_boot else 'off'}", *guard,
                "-drive", f"if=pflash,format=raw,readonly=on,file={code}",
                "-drive", f"if=pflash,format=raw,file={self._vars}",
                "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n",
            ]  # fmt: skip
        else:
            words += ["-machine", "pc,graphics=off"]  # graphics=off: SeaBIOS speaks on the serial line
        # BIOS boots by these ranks; on UEFI the order stands in the firmware's own variable.
        net_rank, disk_rank = (1, 10) if self.network_first else (100, 1)
        # Without a ROM of its own the card is driven by OVMF's own PXE client, as on a real UEFI machine.
        rom = ",romfile=" if self.firmware == "uefi" else ""
        words += ["-device", f"{self.card},netdev=net0,mac={self.mac}{self._rank(net_rank)}{rom}"]
        for number, disk in enumerate(self.disks):
            label = f"drive=disk{number},serial={self.name}-{number}{self._rank(disk_rank + number)}"
            words += [
                "-drive", f"if=none,id=disk{number},format=raw,cache=unsafe,discard=unmap,file={disk}",
                "-device", f"virtio-blk-pci,{label}",
            ]  # fmt: skip
        return words

    def _rank(self, number: int) -> str:
        return f",bootindex={number}" if self.firmware == "bios" else ""

    def wait_end(self, timeout_s: float) -> float:
        """Wait until the guest powers off or reboots; returns the seconds since power-on."""
        assert self._process is not None
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise MachineError(
                f"{self.name} did not end within {timeout_s:.0f} s\n--- {self.console.log}\n{self.console.tail()}"
            ) from None
        self.console.close()
        return time.monotonic() - self.console.started

    def press(self, *keys: str) -> None:
        """Press keys one after the other, by the emulator's names for them; the machine must have a ``keyboard``."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self._monitor))
            for command in ("", *(f"sendkey {key}\n" for key in keys)):
                monitor.sendall(command.encode())
                said = b""
                while not said.endswith(b"(qemu) "):
                    said += monitor.recv(4096)

    def power_off(self) -> None:
        """Cut the power; harmless when the machine is off."""
        if self._process is not None:
            stop(self._process)
            self.console.close()
            self._process = None


@contextlib.contextmanager
def powered(machine: Machine) -> Iterator[Console]:
    """The machine with power on; it is off afterwards, whatever happens."""
    try:
        yield machine.power_on()
    finally:
        machine.power_off()


@functools.cache
def accelerator() -> str:
    """``kvm`` when it really runs firmware, else software emulation. A device node alone proves nothing."""
    chosen = os.environ.get("PBSERV_TEST_ACCEL")
    if chosen:
        return chosen
    return "kvm" if _kvm_runs_firmware() else "tcg,thread=multi"


def _kvm_runs_firmware(limit_s: float = 8) -> bool:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    with tempfile.TemporaryDirectory(prefix="pbserv-kvm-") as scratch:
        directory = Path(scratch)
        shutil.copyfile(OVMF_VARS, directory / "vars.fd")
        serial, errors = directory / "serial", directory / "errors"
        with errors.open("wb") as sink:
            process = subprocess.Popen(
                [
                    QEMU, "-accel", "kvm", "-machine", "q35", "-m", "256", "-nodefaults", "-display", "none",
                    "-net", "none", "-serial", f"file:{serial}",
                    "-drive", f"if=pflash,format=raw,readonly=on,file={OVMF_CODE}",
                    "-drive", f"if=pflash,format=raw,file={directory / 'vars.fd'}",
                ],
                stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
            )  # fmt: skip
        try:
            end = time.monotonic() + limit_s
            while time.monotonic() < end and process.poll() is None:
                if serial.exists() and b"BdsDxe" in serial.read_bytes():
                    return True
                if b"KVM internal error" in errors.read_bytes():
                    return False
                time.sleep(0.1)
            return False
        finally:
            stop(process)
