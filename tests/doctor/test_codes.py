"""Codes of screens in any spelling."""

from __future__ import annotations

import re

import pytest

from pbserv.doctor import codes
from pbserv.doctor.codes import CODES, canonical, explain, known


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("PXE-E18", "E18"), ("e18", "E18"), ("18", "E18"), ("pxe-e18:", "E18"), ("PXE E18", "E18"), ("PXEE18", "E18"),
        ("E5", "E05"), ("7B", "E7B"), ("pxe-ea0", "EA0"), ("a0", "EA0"), ("M0F", "M0F"), ("PXE-T1", "T01"),
        ("EC8", "EC8"), ("zz", ""), ("E123", ""), ("", ""), ("PXE-", ""),
    ],
)  # fmt: skip
def test_spellings(text: str, code: str) -> None:
    assert canonical(text.rstrip(":")) == code
    assert bool(explain(text)) == bool(code)


def test_a_number_with_two_meanings_has_both() -> None:
    uefi, bios = explain("e21")
    assert uefi.title == "PXE-E21 (UEFI): Remote boot cancelled"
    assert bios.title.startswith("PXE-E21 (BIOS): BIS")
    assert len(explain("e53")) == 2


# reference: the codes that firmware is known to show while it looks for a boot server
@pytest.mark.parametrize(
    "code",
    ["E11", "E16", "E18", "E21", "E23", "E32", "E51", "E52", "E53", "E55", "E74", "E76", "E77", "E78", "E79", "E99"],
)
def test_codes_of_the_reference_have_causes(code: str) -> None:
    assert all(meaning.causes and meaning.meaning for meaning in explain(code))
    assert explain(code)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2d0c618e", "No such file or directory"),
        ("https://ipxe.org/4c0a6035", "Connection timed out"),
        ("http://ipxe.org/2e008081", "Exec format error"),
        ("ipxe.org/040ee119", "No configuration methods succeeded"),
        ("38086193", "Link down"),
        ("ipxe.org/err/280a6003", "Network unreachable"),
        ("00000001", "another error"),
    ],
)
def test_numbers_of_ipxe(text: str, says: str) -> None:
    (meaning,) = explain(text)
    assert says in meaning.title


def test_the_table_is_sound() -> None:
    keys = [(entry.code, entry.firmware) for entry in CODES]
    assert len(set(keys)) == len(keys)
    for entry in CODES:
        assert canonical(entry.code) == entry.code
        assert entry.says
        assert entry.meaning.endswith(".")


def test_every_command_that_is_named_exists() -> None:
    from pbserv.cli import app

    verbs = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    verbs |= {group.name for group in app.registered_groups if group.name}
    told = [text for entry in CODES for cause in entry.causes for text in (cause.check, cause.remedy)]
    named = {verb for text in told for verb in re.findall(r"pbserv ([a-z-]+)", text)}
    assert named <= verbs


def test_the_list_has_every_code() -> None:
    listed = [code for code, _says in known()]
    assert {f"PXE-{entry.code}" for entry in codes.CODES} <= set(listed)
    assert "iPXE 2d......" in listed
