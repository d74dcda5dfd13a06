"""The grammar: what is an entry, what is not, and in which line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.conf.grammar import Entry, decode, parse, split_line


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("EnableLogging=YES", "EnableLogging", "YES"),
        ("  LocalDHCPFlag  =  0  ", "LocalDHCPFlag", "0"),
        ("LIBRARY_NAME=", "LIBRARY_NAME", ""),
        (r"ProxyLogFile = path\novell-proxydhcp.log", "ProxyLogFile", r"path\novell-proxydhcp.log"),
        ("NBPiPXE = http://h/a?b=c#d;e", "NBPiPXE", "http://h/a?b=c#d;e"),
        ("Linux -- TFTPDirectory = /srv/tftp", "TFTPDirectory", "/srv/tftp"),
        ("LINUX--TFTPDirectory=/srv/tftp", "TFTPDirectory", "/srv/tftp"),
    ],
)
def test_an_entry(line: str, key: str, value: str) -> None:
    parsed = parse(line)
    assert parsed.entries == (Entry(key, value, 1),)
    assert not parsed.faults


def test_comments_blank_lines_crlf_and_bom_keep_the_line_numbers() -> None:
    parsed = parse("\ufeff# one\r\n\r\n  ; three\r\nUser = x\r\n\t\r\nHTTPPort=1")
    assert parsed.entries == (Entry("User", "x", 4), Entry("HTTPPort", "1", 6))
    assert not parsed.faults


def test_only_line_feeds_count_as_line_ends() -> None:
    # str.splitlines would also split at these and every later number would be wrong
    parsed = parse("# a\x0bb\x0cc\x85d\u2028e\nUser = x\n")
    assert parsed.entries == (Entry("User", "x", 2),)


def test_a_line_without_equals_is_a_fault_with_its_number() -> None:
    (fault,) = parse("# fine\nTFTPPort 69\n").faults
    assert (fault.line, fault.key) == (2, "")
    assert "'TFTPPort 69' has no '='" in fault.reason


def test_a_single_word_is_left_to_those_who_know_the_keys() -> None:
    assert parse("PrebootServiceLogFileSize\n").entries == (Entry("PrebootServiceLogFileSize", "", 1, has_value=False),)


def test_a_duplicate_names_both_lines_whatever_its_case() -> None:
    parsed = parse("User = a\n#\nUSER = b\nuser\n")
    assert [entry.value for entry in parsed.entries] == ["a"]
    assert [(fault.line, fault.key) for fault in parsed.faults] == [(3, "USER"), (4, "user")]
    assert "line 1 and in line 3" in parsed.faults[0].reason


@pytest.mark.parametrize("line", ["= 5", "a b = 5", "ключ = 5", "[section]=", "1x = 2"])
def test_not_a_key(line: str) -> None:
    (fault,) = parse(line).faults
    assert "is not a key" in fault.reason


def test_control_characters_in_values_and_messages() -> None:
    (fault,) = parse("User = a\x1b[2Jb").faults
    assert fault.reason == "the value holds the control character 0x1b"
    (fault,) = parse("two words\x1b[2J\u202e").faults
    assert fault.reason.isprintable()


def test_long_lines_are_cut_in_messages() -> None:
    (fault,) = parse("a " * 10_000).faults
    assert len(fault.reason) < 150


def test_decode() -> None:
    assert decode(b"\xef\xbb\xbfUser = \xc3\xa9") == "User = é"
    assert decode(b"User = \xe9") == "User = é"


@given(st.text())
def test_any_text_gives_entries_and_faults_of_existing_lines(text: str) -> None:
    parsed = parse(text)
    count = text.count("\n") + 1
    lines = [entry.line for entry in parsed.entries] + [fault.line for fault in parsed.faults]
    assert all(1 <= line <= count for line in lines)
    lowered = [entry.key.lower() for entry in parsed.entries]
    assert len(set(lowered)) == len(lowered)
    assert all(fault.reason.isprintable() for fault in parsed.faults)


@given(st.binary())
def test_any_bytes_are_decoded(data: bytes) -> None:
    parse(decode(data))


@given(st.from_regex(r"[ \t]?(Linux -- )?[A-Za-z]{1,5} ?= ?[a-z]{0,5}", fullmatch=True))
def test_split_line_loses_nothing(line: str) -> None:
    found = split_line(line)
    assert found is not None
    assert "".join(found) == line
    assert parse(line).entries[0].key == found[1]
