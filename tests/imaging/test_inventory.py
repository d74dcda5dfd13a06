"""What the imaging client tells of its machine: read, bounded, never an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.inventory import Machine, read_machine
from pbserv.policy.condition import parse_condition
from pbserv.policy.labels import KNOWN, merge

TOLD = {
    "mac": "52:54:00:00:00:01", "firmware": "uefi", "machine": "x86_64", "manufacturer": "Dell  Inc.",
    "product": "OptiPlex 7090", "board": "0K240Y", "board_serial": "/BS1/", "bios_vendor": "Dell Inc.",
    "bios_version": "1.5.0", "bios_date": "06/01/2021", "cpu": "Intel(R) Core(TM) i5-10500 CPU @ 3.10GHz",
    "cores": "6", "cpus": "12", "memory_mb": "16384", "serial": " ABC1234 ", "asset": "A-77",
    "uuid": "4C4C4544-0042-4310-8031-B3C04F584D32", "macs": "52:54:00:00:00:02 52:54:00:00:00:01 00:00:00:00:00:00",
    "disks": "/dev/sda size=500107862016 sector=512 model=Samsung_SSD_870 serial=S1 \n"
    "/dev/nvme0n1 size=1024209543168 sector=512 model=PM9A1 serial=S2 \n"
    "/dev/sdb size=4000000000000 sector=512 model=Stick serial=S3 removable USB \n",
}  # fmt: skip


def test_everything_that_is_told_becomes_a_label_that_is_known() -> None:
    machine = read_machine(TOLD)
    assert machine.labels == {
        "firmware": "uefi", "machine": "x86_64", "manufacturer": "Dell Inc.", "product": "OptiPlex 7090",
        "board": "0K240Y", "board_serial": "/BS1/", "bios_vendor": "Dell Inc.", "bios_version": "1.5.0",
        "bios_date": "06/01/2021", "cpu": "Intel(R) Core(TM) i5-10500 CPU @ 3.10GHz", "cores": "6", "cpus": "12",
        "memory_mb": "16384", "disks": "2", "disk_gb": "1024", "disk_model": "PM9A1",
        "macs": "52:54:00:00:00:01,52:54:00:00:00:02",
    }  # fmt: skip
    assert (machine.serial, machine.asset) == ("ABC1234", "A-77")
    assert machine.uuid == "4c4c4544-0042-4310-8031-b3c04f584d32"
    assert set(machine.labels) <= set(KNOWN)
    assert dict(merge((), machine.labels)) == machine.labels
    rule = parse_condition('like(manufacturer, "dell*") and memory_mb >= 16000 and disk_gb > 500 and cores < 8')
    assert rule.test(machine.labels)


def test_an_old_client_that_tells_little_is_understood() -> None:
    assert read_machine({"mac": "52:54:00:00:00:01", "uuid": "", "serial": "", "disks": ""}) == Machine()


@pytest.mark.parametrize(
    ("name", "value"),
    [("memory_mb", "-1"), ("memory_mb", "0"), ("cores", "many"), ("cores", "1e9"), ("cores", "9" * 10), ("cores", "٣"),
     ("firmware", "coreboot"), ("disks", "/dev/sda"), ("disks", "/dev/sda size=big"), ("disks", "size=1"),
     ("macs", "ff:ff:ff:ff:ff:ff"), ("macs", "01:00:5e:00:00:01"), ("macs", "x"), ("groups", "admins"),
     ("state", "known"), ("secret", "label"), ("product", "\x00\x07\n")],
)  # fmt: skip
def test_what_is_no_value_of_its_kind_is_left_out(name: str, value: str) -> None:
    assert read_machine({name: value}).labels == {}


def test_control_characters_and_length_are_cut() -> None:
    machine = read_machine({"product": "a\x1b[2J\nb" + "c" * 1000, "serial": "s" * 200})
    assert machine.labels["product"] == "a [2J b" + "c" * 121
    assert len(machine.serial) == 64


def test_no_more_disks_and_addresses_than_fit() -> None:
    disks = "\n".join(f"/dev/sd{n} size=1000000000 sector=512 model=m serial=s" for n in range(500))
    macs = " ".join(f"02:00:00:00:00:{n:02x}" for n in range(200))
    labels = read_machine({"disks": disks, "macs": macs}).labels
    assert labels["disks"] == "64"
    assert len(labels["macs"]) <= 128


@given(st.dictionaries(st.sampled_from([*TOLD, "x"]), st.text() | st.from_regex(r"/dev/\S+ size=\d+ .*")))
def test_no_text_is_an_error(told: dict[str, str]) -> None:
    machine = read_machine(told)
    assert set(machine.labels) <= set(KNOWN)
    assert all(0 < len(value) <= 128 and value.isprintable() for value in machine.labels.values())
    assert all(len(text) <= 64 and (not text or text.isprintable()) for text in (machine.serial, machine.asset))
