"""The imaging client as a machine's only system: a script, and a person at its serial console in maintenance."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass

from tests.client.site import until
from tests.e2e.marks import MARKS, PATIENCE_S
from tests.e2e.policy.site import Site
from tests.support.disks import blank_disk
from tests.support.qemu import Console, Machine, powered

pytestmark = MARKS
NEVER = ("Kernel panic", "No bootable device")


@dataclass
class Typed(Machine):
    """A machine at whose serial console somebody types."""

    def command_line(self) -> list[str]:
        """The serial line leads to the emulator's own input and output."""
        words = super().command_line()
        at = words.index("file,id=serial,path=/dev/stdout")
        words[at] = "stdio,id=serial,signal=off"
        return words

    def _start(self) -> None:
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                self.room.switch.command(self.command_line()), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=errors,
            )  # fmt: skip
        assert self._process.stdout is not None
        self.console = Console(self._process.stdout, self.directory / f"{self.name}-console.log")

    def power_off(self) -> None:
        """Cut the power, and let the keyboard go."""
        process = self._process
        super().power_off()
        if process is not None and process.stdin is not None:
            process.stdin.close()

    def type(self, line: str) -> None:
        """A line and the key that ends it."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\r".encode())
        self._process.stdin.flush()

    def says(self, line: str, answer: str, timeout_s: float = PATIENCE_S) -> str:
        """Type a line and wait for its answer, then for the next prompt; what was printed since."""
        before = len(self.console.text)
        self.type(line)
        end = time.monotonic() + timeout_s
        while True:
            text = self.console.text[before:]
            if answer in text and text.rstrip().endswith(f"{self.mac} #"):
                return text
            assert time.monotonic() < end, f"{line!r} was not answered by {answer!r}:\n{self.console.tail()}"
            time.sleep(0.2)


def order(site: Site, machine: Machine, name: str, /, **bundle: object) -> int:
    """One-shot work of a bundle for the machine, which nothing else is assigned to."""
    site.apply({"bundle": {name: bundle}, "device": {machine.mac: {"state": "known", "name": machine.name}}})
    return int(site.server.ok("work", "bundle", name, machine.mac).split()[1].rstrip(":"))


def test_a_script_runs_and_its_output_is_kept(site: Site) -> None:
    machine = Machine("scripted", "bios", site.room, site.directory)
    site.machines.append(machine)
    text = 'echo "sign: script on $(uname -s) for $PB_MAC"\nls /sys/class/net\necho "it went wrong" >&2\nexit 9\n'
    number = order(site, machine, "e2e script", kind="script", script=text, finish="poweroff")
    with powered(machine) as console:
        console.wait_for(f"sign: script on Linux for {machine.mac}", timeout_s=PATIENCE_S, never=NEVER)
        console.wait_for("script ended with 9", timeout_s=PATIENCE_S, never=NEVER)
        until(lambda: site.server.json("work", "show", str(number))["state"] == "held", PATIENCE_S)
    work = site.server.json("work", "show", str(number))
    assert (work["state"], work["reason"]) == ("held", "script ended with 9: it went wrong")
    assert "| it went wrong" in work["jobs"][0]["log"]
    learned = site.server.json("device", "show", machine.mac)["device"]
    assert learned["uuid"] == machine.uuid
    labels = learned["learned"]
    assert labels["manufacturer"] == "QEMU"
    assert 900 <= int(labels["memory_mb"]) <= 1024
    assert labels["macs"] == machine.mac


def test_a_person_chooses_maintenance_takes_an_image_and_puts_it_back(site: Site) -> None:
    """An item of the menu, by its time; then the commands of imaging at the serial console."""
    disk = blank_disk(site.directory / "maintained.img", 64 << 20)
    machine = Typed("maintained", "bios", site.room, site.directory, [disk])
    site.machines.append(machine)
    items = [{"name": "maintenance", "title": "Start imaging maintenance", "bundle": "by hand"},
             {"name": "local", "title": "Boot from the local disk", "action": "local"}]  # fmt: skip
    site.apply({
        "bundle": {"by hand": {"kind": "maintenance"}},
        "menu": {"of maintained": {"items": items, "timeout_s": 1, "default": "maintenance"}},
        "device": {machine.mac: {"state": "known", "name": machine.name, "menu": "of maintained"}},
    })  # fmt: skip
    with powered(machine) as console:
        console.wait_for('"exit" ends it', timeout_s=PATIENCE_S, never=NEVER)
        console.wait_for(f"{machine.mac} #", timeout_s=PATIENCE_S, never=NEVER)
        machine.says("tty", "/dev/ttyS0")
        machine.says("img info", "manufacturer   QEMU")
        machine.type("img partition vda create linux 20M")
        console.wait_for("Go on? [y/N]", timeout_s=PATIENCE_S)
        machine.says("y", "/dev/vda1")
        machine.says("mke2fs -L kept /dev/vda1", "Superblock backups stored")
        machine.says("img make by-hand-e2e vda", "capture done:")
        machine.says("img partition -y vda delete 1", "Disklabel type: dos")
        machine.says("img restore -y by-hand-e2e vda", "restore done:")
        machine.says("img dump", "LABEL=kept")
        machine.type("sh -c 'echo it sleeps $((1 + 1)); exec sleep 1000'")
        console.wait_for("it sleeps 2", timeout_s=PATIENCE_S)
        machine.type("\x03")
        machine.says("echo $((6 * 7))", "42")
        machine.type("exit")
        machine.wait_end(PATIENCE_S)
    work = next(each for each in site.server.json("work", "list", "--all") if each["mac"] == machine.mac)
    assert (work["kind"], work["state"]) == ("maintenance", "done")
    jobs = site.server.json("work", "show", str(work["id"]))["jobs"]
    assert [(job["kind"], job["state"]) for job in reversed(jobs)] == [
        ("maintenance", "done"), ("capture", "done"), ("restore", "done"),
    ]  # fmt: skip
    assert "by-hand-e2e" in [image["name"] for image in site.server.json("image", "list")]
