"""POSIX extended regular expressions over bytes, by the C library (regcomp(3)).

Map files were written for this very engine: leftmost-longest matches, ``[[:alpha:]]``, ``\\S`` as glibc knows them.
Python's ``re`` differs in all three, and one packet can keep it busy for hours: ``(a*)*b`` against a long name.

One rule: matching takes polynomial time. The C library keeps that promise except for back-references, and it obeys
bombs like ``((a{255}){255}){255}`` until memory is gone; both are refused when the expression is read.
"""

from __future__ import annotations

import ctypes
import re
import weakref

from pbserv.errors import PbservError

LONGEST_PATTERN = 1024
LARGEST_REPETITION = 10_000
GROUPS = 10
"""The whole match and nine groups, as map files count them."""

Spans = tuple[tuple[int, int], ...]
"""Start and end of the match and its groups; (-1, -1) where a group took no part."""

_EXTENDED = 1
_IGNORE_CASE = 2
_NOT_BEGIN_OF_LINE = 1
_CTYPE_AND_COLLATE = 1 << 0 | 1 << 3
_REGEX_BYTES = 1024  # regex_t takes 64 on Linux
_BRACKETS = re.compile(rb"\[\^?\]?(?:\[([:.=]).*?\1\]|[^\]])*\]", re.DOTALL)
_REPETITION = re.compile(rb"\{(\d+)(?:,(\d*))?\}")

_libc = ctypes.CDLL(None)
_libc.newlocale.restype = _libc.uselocale.restype = ctypes.c_void_p
_libc.newlocale.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
_libc.uselocale.argtypes = [ctypes.c_void_p]
_libc.regerror.restype = ctypes.c_size_t
_BYTES: int = _libc.newlocale(_CTYPE_AND_COLLATE, b"C", None)
"""The locale in which each byte is a character: names need not be UTF-8, and the host's language changes nothing."""


class BadPattern(PbservError):
    """No expression, or one that we refuse; the message says why."""


class Pattern:
    """One compiled expression. ``source`` is as written."""

    def __init__(self, source: bytes, *, ignore_case: bool = False) -> None:
        """Raises BadPattern."""
        _refuse_bombs(source)
        self.source = source
        self._regex = ctypes.create_string_buffer(_REGEX_BYTES)
        flags = _EXTENDED | (_IGNORE_CASE if ignore_case else 0)
        before = _libc.uselocale(_BYTES)
        try:
            code = _libc.regcomp(self._regex, ctypes.c_char_p(source), ctypes.c_int(flags))
        finally:
            _libc.uselocale(before)
        if code != 0:
            raise BadPattern(_fault(code, self._regex))
        weakref.finalize(self, _libc.regfree, self._regex)

    def search(self, text: bytes, start: int = 0) -> Spans | None:
        """The leftmost longest match in ``text`` from ``start`` on; ``^`` matches at 0 only."""
        found = (_OFFSET * (2 * GROUPS))(*(-1,) * (2 * GROUPS))
        flags = _NOT_BEGIN_OF_LINE if start else 0
        before = _libc.uselocale(_BYTES)
        try:
            code = _libc.regexec(self._regex, ctypes.c_char_p(text[start:]), ctypes.c_size_t(GROUPS), found, flags)
        finally:
            _libc.uselocale(before)
        if code != 0:
            return None
        return tuple(
            (found[at] + start, found[at + 1] + start) if found[at] >= 0 else (-1, -1) for at in range(0, 2 * GROUPS, 2)
        )


def _refuse_bombs(source: bytes) -> None:
    if len(source) > LONGEST_PATTERN:
        raise BadPattern(f"longer than {LONGEST_PATTERN} bytes")
    plain = _BRACKETS.sub(b"x", source.replace(b"\\\\", b"xx").replace(b"\\[", b"xx"))
    if reference := re.search(rb"\\[1-9]", plain):
        raise BadPattern(f"{reference[0].decode()}: back-references are not supported inside of an expression")
    total = 1
    for least, most in _REPETITION.findall(plain):
        total *= max(int(least), int(most or 1), 1)
    if total > LARGEST_REPETITION:
        raise BadPattern(f"its repetitions in braces multiply to {total}; {LARGEST_REPETITION} is the most")


def _fault(code: int, regex: ctypes.Array[ctypes.c_char]) -> str:
    text = ctypes.create_string_buffer(200)
    _libc.regerror(ctypes.c_int(code), regex, text, ctypes.c_size_t(len(text)))
    return text.value.decode("utf-8", "replace")


def _offset_type() -> type[ctypes.c_int] | type[ctypes.c_longlong]:
    """regoff_t: 32 bits in glibc, 64 in musl. Found out by a match at 1 to 2."""
    regex = ctypes.create_string_buffer(_REGEX_BYTES)
    found = (ctypes.c_int * 4)()
    _libc.regcomp(regex, b"b", _EXTENDED)
    _libc.regexec(regex, b"ab", ctypes.c_size_t(1), found, 0)
    _libc.regfree(regex)
    return ctypes.c_int if found[1] == 2 else ctypes.c_longlong


_OFFSET = _offset_type()
