from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.tftp.names import _all_candidates, candidates, cleaned, climbs, escape, is_optional, is_reserved, shown


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        (b"boot/x", b"boot/x"),
        (b"/boot/x", b"boot/x"),  # PXE ROMs and iPXE
        (b"//boot///x", b"boot/x"),  # GRUB, shim
        (b"\\Boot\\BCD", b"Boot/BCD"),  # Windows boot manager
        (b"/boot\\x", b"boot/x"),
        (b"x\xff", b"x"),  # rubbish from the DHCP buffer
        (b"x\r\n", b"x"),
        (b"x\n\x1e", b"x"),
        (b"/srv/tftp/x", b"x"),  # set up for a server without a private root
        (b"./x", b"x"),
    ],
)
def test_what_clients_mean(asked: bytes, meant: bytes) -> None:
    assert meant in candidates(asked, b"/srv/tftp")


def test_the_name_as_written_comes_first() -> None:
    assert candidates(b"x\xff", b"/srv/tftp") == (b"x\xff", b"x")
    assert candidates(b"a\\b", b"/srv/tftp") == (b"a\\b", b"a/b")
    assert candidates(b"/srv/tftp/x", b"/srv/tftp")[0] == b"srv/tftp/x"


def test_a_prefix_is_compared_by_components() -> None:
    assert candidates(b"/srv/tftp-private/x", b"/srv/tftp") == (b"srv/tftp-private/x",)


@given(st.binary(max_size=60))
def test_candidates_are_relative(name: bytes) -> None:
    assert all(one and not one.startswith(b"/") for one in candidates(name, b"/srv/tftp"))


PIECES = st.lists(st.sampled_from([b"/", b"\\", b".", b"..", b"a", b"srv", b"tftp", b"\xff", b"\n"]), max_size=9)


@given(PIECES.map(b"".join))
def test_the_short_way_leads_to_the_same(name: bytes) -> None:
    assert candidates(name, b"/srv/tftp") == _all_candidates(name, b"/srv/tftp")


@pytest.mark.parametrize(
    ("name", "out"),
    [(b"../x", True), (b"/../x", True), (b"..\\x", True), (b"a/../../x", True), (b"a/../x", False), (b"..x", False)],
)
def test_climbing(name: bytes, out: bool) -> None:
    assert climbs(name) is out


@given(st.binary())
def test_shown_is_one_printable_line(name: bytes) -> None:
    assert shown(name).isprintable()


def test_escape_cuts() -> None:
    assert escape("a" * 300) == "a" * 200 + "..."
    assert escape("a\n\\") == "a\\n\\\\"


@pytest.mark.parametrize(
    ("name", "optional"),
    [
        (b"autoexec.ipxe", True), (b"pxelinux.cfg/01-aa-bb", True), (b"/grub/x86_64-efi/command.lst", True),
        (b"/grub/grub.cfg-01-52-54", True), (b"revocations.efi", True), (b"undionly.kpxe", False), (b"vmlinuz", False),
    ],
)  # fmt: skip
def test_optional_configurations(name: bytes, optional: bool) -> None:
    assert is_optional(name) is optional


def test_new_files_are_called_without_rubbish() -> None:
    assert cleaned(b"reports\\x.txt\xff\r") == b"reports/x.txt"
    assert cleaned(b"x") == b"x"


def test_names_of_uploads_under_way() -> None:
    assert is_reserved(b".x.k3j2.part")
    assert not is_reserved(b"x.part")
    assert not is_reserved(b".hidden")
