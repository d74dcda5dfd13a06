"""Devices as CSV and JSON: what is written reads back as the same, any text reads or is refused by row."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.policy.api.bodies import changed
from pbserv.policy.api.device_files import COLUMNS, MAX_ROWS, Table, read_csv, read_json, write_csv, write_json
from pbserv.registry.records import Device, DeviceState

MAC = "52:54:00:00:00:01"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
texts = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" '|\\=+-@,;\""), max_size=20).map(
    str.strip
)
names = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._ -]{0,10}[A-Za-z0-9])?", fullmatch=True)
devices = st.builds(
    Device,
    mac=st.binary(min_size=5, max_size=5).map(lambda octets: (b"\x52" + octets).hex(":")),
    uuid=st.none(), arch=st.none(), address=st.just(""), first_seen=st.just(NOW), last_seen=st.just(NOW),
    name=texts, serial=texts, asset=texts, arguments=texts, state=st.sampled_from(DeviceState),
    folder=st.lists(names, max_size=3).map(lambda parts: "/" + "/".join(parts)),
    groups=st.lists(names, max_size=3, unique=True).map(lambda found: tuple(sorted(found))),
    labels=st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), texts.filter(bool), max_size=3)
    .map(lambda found: tuple(sorted(found.items()))),
    menu=st.just("") | names, loader=st.sampled_from(["", "ipxe/snponly.efi"]), work=st.none(), macs=st.just(()),
    learned=st.just(()), runs=st.just(()),
)  # fmt: skip


def blank(mac: str) -> Device:
    return Device(mac, None, "other", None, DeviceState.KNOWN, "", NOW, NOW, groups=("g",), labels=(("a", "b"),))


def read_back(table: Table) -> list[Device]:
    assert table.faults == ()
    return [changed(blank(row.mac), row.device.change()) for row in table.rows]


@given(st.lists(devices, max_size=4, unique_by=lambda device: device.mac))
def test_what_is_written_reads_back_as_the_same(found: list[Device]) -> None:
    assert read_back(read_csv(write_csv(found))) == found
    assert read_back(read_json(write_json(found))) == found


@given(devices)
def test_no_cell_is_a_formula(device: Device) -> None:
    for line in csv.reader(io.StringIO(write_csv([device]), newline="")):
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in line)


@given(st.text())
def test_any_text_reads_or_is_refused(text: str) -> None:
    for table in (read_csv(text), read_csv("mac,name,labels\n" + text), read_json(text)):
        assert isinstance(table, Table)


values = st.recursive(
    st.none() | st.text() | st.integers() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(COLUMNS) | st.text(), inner),
)


@given(values)
def test_any_json_reads_or_is_refused(value: object) -> None:
    table = read_json(json.dumps([value]))
    assert len(table.rows) + len(table.faults) == 1


def test_what_a_spreadsheet_makes_of_it_is_read() -> None:
    table = read_csv(f"\ufeffMAC, Name ,groups\r\n{MAC.upper()},'=1+1,a | b\r\n,,\r\n")
    [row] = table.rows
    assert (row.number, row.mac, row.device.name, row.device.groups) == (2, MAC, "=1+1", ["a", "b"])
    assert row.device.labels is None, "of a column that is missing nothing is changed"


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", {1: "mac"}),
        ("name\nx\n", {1: "mac"}),
        ("mac,colour\n", {1: "colour"}),
        ("mac,mac\n", {1: "twice"}),
        (f"mac\n{MAC}\nzz\n01:00:5e:00:00:01\n", {3: "zz", 4: "group's"}),
        (f"mac,name\n{MAC}\n", {2: "1 cells"}),
        (f"mac\n{MAC}\n5254.0000.0001\n", {3: "row 2"}),
        (f"mac,state\n{MAC},odd\n", {2: "state"}),
        (f"mac,folder,labels\n{MAC},x,Room=5\n", {2: "folder"}),
        (f"mac,labels\n{MAC},room\n", {2: "labels.room"}),
        (f'mac,name\n{MAC},"x"y\n', {2: "CSV"}),
        (f"mac,name\n{MAC},a\0b\n", {2: "printable"}),
        (f"mac,name\n{MAC},{'x' * 200_000}\n", {2: "CSV"}),
    ],
)
def test_every_faulty_row_is_named(text: str, faults: dict[int, str]) -> None:
    found = dict(read_csv(text).faults)
    assert found.keys() == faults.keys()
    for row, word in faults.items():
        assert word in found[row]


@pytest.mark.parametrize("text", ["{", "{}", "[1]", "[{}]", '[{"mac": 1}]', "[" * 100_000, '[{"mac": "\\ud800"}]'])
def test_json_that_is_no_list_of_devices_is_refused(text: str) -> None:
    assert [row for row, _ in read_json(text).faults] == [1]


def test_a_file_has_a_limit() -> None:
    lines = [
        f"52:54:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}" for number in range(MAX_ROWS + 1)
    ]
    assert len(read_csv("\n".join(["mac", *lines[:-1]])).rows) == MAX_ROWS
    [(row, text)] = read_csv("\n".join(["mac", *lines])).faults
    assert (row, str(MAX_ROWS) in text) == (MAX_ROWS + 2, True)
