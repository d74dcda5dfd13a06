"""Lists of checksums beside images, as md5sum, sha512sum and b2sum write them (MD5SUMS of Clonezilla). Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from pbserv.imaging.formats.model import FormatError
from pbserv.imaging.formats.volumes import together

ALGORITHMS: Mapping[str, tuple[str, int]] = {
    "SHA512SUMS": ("sha512", 128), "SHA384SUMS": ("sha384", 96), "SHA256SUMS": ("sha256", 64),
    "B2SUMS": ("blake2b", 128), "SHA224SUMS": ("sha224", 56), "SHA1SUMS": ("sha1", 40), "MD5SUMS": ("md5", 32),
}  # fmt: skip
"""File: hashlib's name, hexadecimal digits; the one that proves most comes first."""
_LINE = re.compile(r"([0-9a-fA-F]{32,128}) [ *](?:\./)?(.+)")


@dataclass(frozen=True, slots=True)
class Sum:
    """What a file's digest is by ``source``; ``algorithm`` is hashlib's name."""

    algorithm: str
    digest: str
    source: str


def parse(data: bytes, what: str) -> dict[str, str]:
    """Digest by file, of files in the same directory; ``what`` names the list and so its algorithm. FormatError."""
    digits = ALGORITHMS[what][1]
    found: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or len(match[1]) != digits:
            raise FormatError(f"{what}: line {number}: {line[:60]!r} is no digest and a file; copy the file again")
        if "/" not in match[2]:
            found[match[2]] = match[1].lower()
    return found


def of_directory(lists: Mapping[str, bytes], names: Collection[str]) -> dict[str, Sum]:
    """One digest for each file that any of the ``lists`` names; raises FormatError where one is not in ``names``."""
    found: dict[str, Sum] = {}
    for source, (algorithm, _) in ALGORITHMS.items():
        for name, digest in parse(lists.get(source, b""), source).items():
            found.setdefault(name, Sum(algorithm, digest, source))
    return _whole(found, names)


def of_image(image: str, lists: Mapping[str, bytes], names: Collection[str]) -> dict[str, Sum]:
    """The same for the volumes of one image; whatever else lies beside it may be gone, or of another form."""
    found: dict[str, Sum] = {}
    for source in ALGORITHMS:
        with suppress(FormatError):
            listed = of_directory({source: lists.get(source, b"")}, parse(lists.get(source, b""), source))
            wanted = together(image, listed).volumes
            found = {name: said for name, said in listed.items() if name in wanted} | found
    return _whole(found, names)


def _whole(found: dict[str, Sum], names: Collection[str]) -> dict[str, Sum]:
    lost = next((name for name in found if name not in names), "")
    if lost:
        raise FormatError(f"{found[lost].source} names {lost}, which is not here; copy the directory again, whole")
    return found


def fits(data: bytes, said: Sum) -> bool:
    """Whether the whole file's bytes are the ones of the list."""
    return hashlib.new(said.algorithm, data, usedforsecurity=False).hexdigest() == said.digest
