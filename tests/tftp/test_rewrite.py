"""Map files of tftp-hpa. What is expected here was read in its manual page tftpd(8), "Filename remapping"."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.errors import StartError
from pbserv.tftp.mapfile import load, parse
from pbserv.tftp.posix import BadPattern, Pattern
from pbserv.tftp.rewrite import LONGEST_NAME, Client, Denied, Step

V4 = Client("192.0.2.169")
V6 = Client("2001:db8::1")
PUT = Client("192.0.2.169", put=True)


def through(rules: str, name: str, client: Client = V4, *files: str) -> str:
    """The name after ``rules``; ``!`` and the text when they refuse it."""
    there = {file.encode() for file in files}
    try:
        return parse(rules.encode(), "m").apply(name.encode(), client, there.__contains__).decode()
    except Denied as denied:
        return f"!{denied}"


@pytest.mark.parametrize(
    ("rules", "name", "result"),
    [
        # r: the matched part is replaced; without a replacement it goes
        ("r b+ x", "abbc", "axc"),
        ("r b+", "abbc", "ac"),
        ("r ^ /tftpboot/", "a", "/tftpboot/a"),
        ("r $ .efi", "a", "a.efi"),
        ("r z x", "abc", "abc"),
        # rules go on, top down
        ("r a b\nr b c", "a", "c"),
        # g: from the beginning each time, replacements included; gg: behind them, as sed does
        ("r a b", "aaa", "baa"),
        ("rg a b", "aaa", "bbb"),
        ("rg // /", "a////b", "a/b"),
        ("rgg // /", "a////b", "a//b"),
        ("rgg ^a b", "aaa", "baa"),
        ("rg ^a b", "aaa", "baa"),
        ("rgg a aa", "aba", "aabaa"),
        ("g a b", "aaa", "aaa"),  # g means nothing without r
        # i
        ("ri ABC x", "aBcd", "xd"),
        ("r ABC x", "aBcd", "aBcd"),
        # e, s, a, j
        ("e ^ok/\nr ^ no", "ok/x", "ok/x"),
        ("re ^a b\nr ^ no", "ax", "bx"),
        ("rs ^//+ /\nr ^/ x", "//a", "xa"),
        ("a \\.pvt$", "x.pvt", "!access denied"),
        ("a \\.pvt$ not\\ for\\ \\i", "x.pvt", "!not for 192.0.2.169"),
        ("a ^(.*)\\.pvt$ \\1\\ is\\ secret", "x.pvt", "!x is secret"),
        ("a \\.pvt$", "x.pvtx", "x.pvtx"),
        ("j ^a end\nr ^ x\n:end\nr $ y", "a", "ay"),
        ("j ^a end\nr ^ x\n:end\nr $ y", "b", "xby"),
        ("j ^a end\nr ^ x\n: end\nr $ y", "a", "ay"),
        (":top\nr a b\nj a top", "aaa", "bbb"),
        ("j ^(.) l\\1\nr ^ x\n:la\nr ^ A\n:lb", "b", "b"),
        ("j ^(.) l\\1", "b", "!no such label in the map file, line 1"),
        ("j ^ e\n:e\nr a b\ne ^\n:e\nr a c", "a", "b"),  # the first label of a name
        # ~
        ("~e \\.efi$\nr ^ x", "a", "a"),
        ("~e \\.efi$\nr ^ x", "a.efi", "xa.efi"),
        ("~a ^/boot/ \\0only\\ below\\ boot", "etc", "!only below boot"),
        # replacements
        ("r (a)(b)(c)(d)(e)(f)(g)(h)(i) \\9\\8\\7\\6\\5\\4\\3\\2\\1", "abcdefghi", "ihgfedcba"),
        ("r ^[^/] /tftpboot/\\0", "x", "/tftpboot/x"),
        ("r (x)?a [\\1]", "a", "[]"),
        ("r ^ \\i/", "a", "192.0.2.169/a"),
        ("r ^ \\x/", "a", "C00002A9/a"),
        ("r .* \\U\\0", "Boot/bcd", "BOOT/BCD"),
        ("r .* \\L\\0\\E.EFI", "Boot/BCD", "boot/bcd.EFI"),
        ("r ^(.)(.*) \\Ux\\1\\L\\2Y\\EZ", "aBC", "XAbcyZ"),
        ("r .* \\L\\x", "a", "c00002a9"),
        ("r .* \\L\\0", "ÄB", "äb"),
        ("r .* \\U\\0", "straße", "STRAßE"),
        ("r a \\\\", "a", "\\"),
        ("r a \\", "a", "\\"),
        ("r a x\\ y", "a", "x y"),
        ("r a \\#1", "a", "#1"),
        ("r a \\q", "a", "q"),
        ("r (.*) \\1", "C:\\boot", "C:\\boot"),
        # regexes are POSIX
        ("r ^[[:alpha:]]+ x", "abc1", "x1"),
        ("r a|ab|abc x", "abcd", "xd"),  # the longest, not the first
        ("r ^pxelinux\\.bin\\S* pxelinux.bin", "pxelinux.biny", "pxelinux.bin"),
        ("r ^pxelinux\\.bin\\S* pxelinux.bin", "pxelinux.bin;o", "pxelinux.bin"),
        ("r a{2,3} x", "aaaa", "xa"),
        ("r [\\] /", "a\\b", "a/b"),  # no escapes within brackets
        ("r \\# @", "a#b", "a@b"),
        ("r a\\ b x", "a b", "x"),
        # layout
        ("  # only a comment\n\n\tr\ta\tb\t# and one behind\r\n", "a", "b"),
        ("r a b#c", "a", "b"),
        ("", "a", "a"),
    ],
)
def test_rules(rules: str, name: str, result: str) -> None:
    assert through(rules, name) == result


@pytest.mark.parametrize(
    ("rules", "client", "result"),
    [
        ("rG ^ x", V4, "xa"), ("rG ^ x", PUT, "a"), ("rP ^ x", V4, "a"), ("rP ^ x", PUT, "xa"),
        ("rGP ^ x", V4, "a"), ("r4 ^ x", V4, "xa"), ("r4 ^ x", V6, "a"), ("r6 ^ x", V6, "xa"), ("r6 ^ x", V4, "a"),
        ("r ^ \\i/", V6, "2001:db8::1/a"), ("r ^ \\x/", V6, "20010DB8000000000000000000000001/a"),
        ("r4 ^ \\x/", Client("::ffff:192.0.2.169"), "C00002A9/a"),  # IPv4 on a socket for both
        ("r6 ^ \\i/", Client("fe80::1%eth0"), "fe80::1/a"),
    ],
)  # fmt: skip
def test_who_asks(rules: str, client: Client, result: str) -> None:
    assert through(rules, "a", client) == result


def test_a_rule_that_counts_only_if_there_is_such_a_file() -> None:
    rules = "rE ^ \\i/\nrE ^ shared/\nr ^ none/"
    assert through(rules, "a", V4, "192.0.2.169/a", "shared/a") == "192.0.2.169/a"
    assert through(rules, "a", V4, "shared/a") == "shared/a"
    assert through(rules, "a", V4) == "none/a"
    assert through("E ^\nr ^ x", "a", V4, "a") == "a"
    assert through("E ^\nr ^ x", "a", V4) == "xa"


SAMPLE = r"""
# The example that tftp-hpa documents, in our words: drive letters go, backslashes and hash marks are turned.
ri ^[a-z]:
rg \\      /
rg \#      @
rg /../    /..no../
e  ^ok/
r  ^[^/]   /tftpboot/\0
a  \.pvt$
"""


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("C:\\boot\\bcd", "/boot/bcd"),
        ("boot\\bcd", "/tftpboot/boot/bcd"),
        ("a#b", "/tftpboot/a@b"),
        ("/x/../y", "/x/..no../y"),
        ("ok/x.pvt", "ok/x.pvt"),
        ("x.pvt", "!access denied"),
    ],
)
def test_the_sample_of_tftp_hpa(name: str, result: str) -> None:
    assert through(SAMPLE, name) == result


def test_rules_that_never_end_are_refused() -> None:
    assert through("s ^", "a") == "!name goes round in circles in the map file, line 1"
    assert through(":a\nj ^ a", "a") == "!name goes round in circles in the map file, line 2"
    assert through("rg a ba", "a").startswith("!name g")
    assert through("rgg x* y", "a").startswith("!name g")
    assert through("rg ^(.*)$ \\1\\1", "aa") == "!name grows too long in the map file, line 1"


def test_steps_can_be_watched() -> None:
    seen: list[Step] = []
    parse(b"# one\nr a b\nrE b c\ne ^", "m").apply(b"a", V4, lambda _: False, seen.append)
    assert [(step.rule.line, step.before, step.after, step.note) for step in seen] == [
        (2, b"a", b"b", "goes on"),
        (3, b"b", b"b", "goes on, as there is no such file"),
        (4, b"b", b"b", "ends"),
    ]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("x a b", "map file m: line 1, column 1: 'x' is no operation; use letters of 46EGPaegijrs~"),
        ("\n  rq a b", "line 2, column 4: 'q' is no operation"),
        ("r", "line 1, column 2: 'r' has no regex; write ^ to match every name"),
        ("r # no regex", "line 1, column 2: 'r' has no regex"),
        ("r a( b", "line 1, column 3: a(: Unmatched ( or \\(; correct the regex (see regex(7))"),
        ("r~ a b", "column 1: 'r' and '~' cannot stand in one rule; write two rules"),
        ("ar a b", "'r' and 'a' cannot stand"),
        ("Es a", "'E' and 's' cannot stand"),
        ("j ^ end", "line 1, column 5: there is no label 'end'; add the line :end"),
        ("j ^", "line 1, column 3: 'j' names no label; write the label after the regex"),
        ("r (.)\\1 x", "\\1: back-references are not supported inside of an expression"),
        ("r ((a{99}){99}){99} x", "repetitions in braces multiply to 970299"),
        ("q a\nq a\nq a\nq a\nq a", "; and 2 more"),
    ],
)
def test_faults_are_named_with_their_place(rules: str, message: str) -> None:
    with pytest.raises(StartError, match=re.escape(message)):
        parse(rules.encode(), "m")


@pytest.mark.parametrize("pair", ["r~", "ra", "rj", "aj", "as", "ej", "ae", "es", "eE", "Ej", "aE", "Es"])
def test_operations_that_exclude_each_other(pair: str) -> None:
    with pytest.raises(StartError):
        parse(f"{pair} ^ x\n:x".encode(), "m")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"map file .*/none: No such file or directory; create it, or change"):
        load(tmp_path / "none")
    (tmp_path / "map").write_bytes(b"r a b\n")
    assert len(load(tmp_path / "map").rules) == 1


@pytest.mark.parametrize(
    "source", [b"(a*)*b", b"(a|aa)+$", b"(x+x+)+y", b"((.*)/)*x", b"\\S+\\.bin\\S*", b"(.*)(.*)(.*)x"]
)
def test_no_name_keeps_an_expression_busy(source: bytes) -> None:
    pattern = Pattern(source)
    begun = time.perf_counter()
    for text in (b"a" * 512, b"x" * 512, b"ab/" * 170, b"a" * 511 + b"b"):
        pattern.search(text)
    assert time.perf_counter() - begun < 1.0


def test_names_are_bytes() -> None:
    assert through("r ^pxelinux\\.0.*$ pxelinux.0", "pxelinux.0") == "pxelinux.0"
    rewrite = parse(b"r ^(pxelinux\\.0).*$ \\1", "m")
    assert rewrite.apply(b"pxelinux.0\xff\xfe\r", V4, lambda _: False) == b"pxelinux.0"
    assert parse(b"r x \\U\\0\xff", "m").apply(b"\xffx", V4, lambda _: False) == b"\xffX\xff"


def test_escaped_brackets_are_no_back_references() -> None:
    assert Pattern(b"[\\1]x").search(b"1x") == ((0, 2), *[(-1, -1)] * 9)
    assert Pattern(b"[]\\1]x").search(b"]x") is not None
    assert Pattern(b"[[:digit:]\\1]x").search(b"5x") is not None
    with pytest.raises(BadPattern):
        Pattern(b"\\[(.)\\1]")
    with pytest.raises(BadPattern):
        Pattern(b"a" * 2000)
    assert Pattern(b"(" * 500 + b")" * 500).search(b"x") is not None


LETTER = st.sampled_from(list("ab/\\.^$()[]|*+?#: \t\n~:rgGPeEsaji46UL0123456789xi\xe4"))


@given(st.text(LETTER, max_size=80), st.binary(max_size=40))
def test_any_file_is_read_or_refused_and_any_name_ends(rules: str, name: bytes) -> None:
    try:
        rewrite = parse(rules.encode(), "m")
    except StartError:
        return
    with contextlib.suppress(Denied):
        assert len(rewrite.apply(name.replace(b"\0", b""), V4, lambda one: len(one) % 2 == 0)) <= LONGEST_NAME


OPERATION = st.lists(st.sampled_from("rgiesajGP46~E"), max_size=4).map("".join)
REGEX = st.sampled_from(["^", "a", "a*", "(a|b)+", "[^/]*$", "^(.)(.*)$", "b$", "/"])
REPLACEMENT = st.sampled_from(["", "a", "\\0\\0", "\\2\\1", "\\U\\1", "/", "end", "\\i"])


@given(st.lists(st.tuples(OPERATION, REGEX, REPLACEMENT), max_size=5), st.text("ab/A", max_size=30))
def test_any_rules_end(rules: list[tuple[str, str, str]], name: str) -> None:
    text = "\n".join(" ".join(rule) for rule in rules) + "\n:end\nr a b"
    try:
        rewrite = parse(text.encode(), "m")
    except StartError:
        return
    with contextlib.suppress(Denied):
        assert len(rewrite.apply(name.encode(), V4, lambda _: False)) <= LONGEST_NAME
