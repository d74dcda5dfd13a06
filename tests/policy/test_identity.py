"""What identifies a machine, and the names of new devices."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.policy.identity import MAX_NAME, SHARED_UUIDS, check_template, device_name, genuine_text, genuine_uuid

MAC = "52:54:00:00:00:0a"


@pytest.mark.parametrize(
    "uuid",
    [
        *SHARED_UUIDS,
        "00000000-0000-0000-0000-000000000000",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "FEFEFEFE-FEFE-FEFE-FEFE-FEFEFEFEFEFE",
        "11111111-1111-1111-1111-111111111111",
        "00000000-ffff-ffff-ffff-ffffffffffff",
        "12345678-1234-1234-1234-123456789abc",
        "12345678-1234-5678-90AB-CDDEEFAABBCC",
        "01234567-89ab-cdef-0123-456789abcdef",
        "",
        "Not Settable",
        "4c4c4544-0042-3510-8052-b3c04f4b4e3",
        "4c4c4544-0042-3510-8052-b3c04f4b4e32\n",
        "4c4c4544-0042-3510-8052-b3c04f4b4e3٣",
    ],
)
def test_uuids_that_identify_nobody(uuid: str) -> None:
    assert not genuine_uuid(uuid)


@pytest.mark.parametrize(
    "uuid", ["4c4c4544-0042-3510-8052-b3c04f4b4e32", "32D40B4C-6F4B-11E4-8A7F-3464A9123456", "fe069849-1234-5678-9abc-1"
             "23456789abc"],
)  # fmt: skip
def test_uuids_of_machines(uuid: str) -> None:
    assert genuine_uuid(uuid)


@given(st.uuids(version=4))
def test_random_uuids_are_genuine(uuid: object) -> None:
    assert genuine_uuid(str(uuid))


def test_each_shared_uuid_has_its_source() -> None:
    assert all(uuid == uuid.lower() and source for uuid, source in SHARED_UUIDS.items())


@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "00000000", "None", "N/A", "To be filled by O.E.M.", "To Be Filled By O.E.M.", "Default string",
     "Default_string", "System Serial Number", "Not Specified", "Not Applicable", "123456789", "0123456789", "xxxxxxx",
     "No Asset Tag", "Chassis Serial Number", "-", "........", "INVALID"],
)  # fmt: skip
def test_texts_that_say_nothing(text: str) -> None:
    assert not genuine_text(text)


@pytest.mark.parametrize("text", ["5CG1234ABC", "PF0ABC12", "42", "B3NK2", "VMware-56 4d 01", "2"])
def test_texts_that_say_something(text: str) -> None:
    assert genuine_text(text)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("pc-{mac}", "pc-52540000000a"),
        ("{serial}", "5CG-12"),
        ("lab {asset}", "lab A-7"),
        ("pc-{counter:4}", "pc-0007"),
        ("pc-{counter}", "pc-7"),
        ("{asset}-{counter:2}-{counter}", "A-7-07-7"),
    ],
)
def test_names_of_new_devices(template: str, name: str) -> None:
    check_template(template)
    assert device_name(template, mac=MAC, serial=" 5CG/12 ", asset="A-7", number=lambda: 7) == name


@pytest.mark.parametrize("serial", ["", "Default string", "///"])
def test_no_number_is_taken_while_a_part_is_missing(serial: str) -> None:
    numbers = itertools.count(1)
    assert device_name("{serial}-{counter}", mac=MAC, serial=serial, asset="", number=lambda: next(numbers)) == ""
    assert next(numbers) == 1


@pytest.mark.parametrize("text", ["", "pc", "pc-{other}", "pc/{mac}", "{mac:4}", "{counter:0}", "{counter", "ä{mac}",
                                  "x" * 33 + "{mac}"])  # fmt: skip
def test_templates_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"template|digits|one name|at most"):
        check_template(text)


@given(st.text(max_size=40), st.text(max_size=200), st.text(max_size=80), st.integers(0, 10**9))
def test_a_template_that_passes_gives_usable_names(template: str, serial: str, asset: str, number: int) -> None:
    try:
        check_template(template)
    except ValueError:
        return
    name = device_name(template, mac=MAC, serial=serial, asset=asset, number=lambda: number)
    assert len(name) <= MAX_NAME
    assert name.isprintable()
    assert name.isascii()
