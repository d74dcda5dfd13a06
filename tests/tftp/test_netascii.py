from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pbserv.tftp.netascii import to_netascii


def test_line_ends() -> None:
    assert to_netascii(b"foo\nbar\rbaz\r\n") == b"foo\r\nbar\r\0baz\r\0\r\n"


@given(st.binary())
def test_it_can_be_undone(data: bytes) -> None:
    assert to_netascii(data).replace(b"\r\n", b"\n").replace(b"\r\0", b"\r") == data
