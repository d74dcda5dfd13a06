"""What is said of an image besides its bytes: title, comment, and the state of every version; as JSON. Pure.

One rule: any bytes are a value or DamagedImage. Nothing is guessed, for a retired version must not come back by itself.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, TypeVar

from pbserv.imaging.faults import DamagedImage, InvalidRequest
from pbserv.imaging.states import ImageKind, VersionState

MAX_ABOUT_BYTES: Final = 256 * 1024
MAX_TEXT: Final = 4096
"""Characters of a comment; other texts have at most MAX_LINE."""
MAX_LINE: Final = 256
MAX_DAMAGE: Final = 1000
"""Characters that are kept of what a scrub found in a version."""
MAX_VERSIONS: Final = 1000
MAX_PARTITION: Final = 128
FORMAT: Final = 1

_E = TypeVar("_E", bound=enum.StrEnum)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class VersionAbout:
    """The state of one version; ``since`` and ``by``: who made it so, and when. ``verified``: the last clean scrub.

    ``damage``: what the last scrub found, so that it is not served after a restart either; empty: nothing.
    """

    state: VersionState
    since: datetime | None = None
    by: str = ""
    manifest_sha256: str = ""
    comment: str = ""
    verified: datetime | None = None
    damage: str = ""

    def check_signed(self, manifest: bytes) -> None:
        """Raises DamagedImage where these bytes are not the manifest that was signed off.

        A manifest is durable before its version has a name, and its digest is written here after that; no number is
        given twice. So a crash leaves a version without a digest, as an older pbserv does, and never with that of
        another manifest. Without a digest any bytes are right.
        """
        found = hashlib.sha256(manifest).hexdigest()
        if self.manifest_sha256 not in ("", found):
            raise DamagedImage(
                f"manifest: it is not the one that was signed off: its SHA-256 is {found}, not {self.manifest_sha256}; "
                "put it back from a copy, start imaging again and scrub it, or purge this version"
            )


@dataclass(frozen=True, slots=True)
class About:
    """``kind`` None: as the newest manifest says. ``keep`` None: as the store says; 0: all versions.

    ``owner``: the other server that the image belongs to, empty for this one. ``last``: the highest number that a
    version ever had, so that no number is given twice. ``partition`` and ``partition_type``: what it is said to be of,
    said when it is registered; None and empty: nobody said.
    """

    title: str = ""
    kind: ImageKind | None = None
    profile: str = ""
    comment: str = ""
    creator: str = ""
    created: datetime | None = None
    keep: int | None = None
    owner: str = ""
    partition: int | None = None
    partition_type: str = ""
    last: int = 0
    versions: Mapping[int, VersionAbout] = field(default_factory=dict)

    @property
    def states(self) -> dict[int, VersionState]:
        return {number: version.state for number, version in self.versions.items()}

    @property
    def etag(self) -> str:
        """Changes with every change; for If-Match."""
        return hashlib.sha256(encode(self)).hexdigest()[:32]

    def with_version(self, number: int, version: VersionAbout) -> About:
        return replace(self, last=max(self.last, number), versions={**self.versions, number: version})

    def moved(self, changes: Mapping[int, VersionState], by: str, at: datetime) -> About:
        """The same with other states of some versions, all of which are there."""
        versions = dict(self.versions)
        for number, state in changes.items():
            if versions[number].state is not state:
                versions[number] = replace(versions[number], state=state, since=at, by=by[:MAX_LINE])
        return replace(self, versions=versions)

    def version(self, number: int) -> VersionAbout:
        """What is said of a version; one that nobody said anything of was always served."""
        return self.versions.get(number) or VersionAbout(VersionState.ENABLED)

    def with_verified(self, number: int, at: datetime, damage: str = "") -> About:
        """What a scrub found: with the time of a clean one, or with the damage."""
        found = replace(self.version(number), verified=None if damage else at, damage=damage[:MAX_DAMAGE])
        return self.with_version(number, found)

    def without(self, number: int) -> About:
        return replace(self, versions={other: facts for other, facts in self.versions.items() if other != number})


@dataclass(frozen=True, slots=True)
class AboutChange:
    """What to change; None leaves a field as it is. ``keep`` -1 means: as the store says; ``partition`` 0: nobody
    said. ``remarks``: comments of versions that are there, by their numbers."""

    title: str | None = None
    kind: ImageKind | None = None
    profile: str | None = None
    comment: str | None = None
    keep: int | None = None
    owner: str | None = None
    partition: int | None = None
    partition_type: str | None = None
    remarks: Mapping[int, str] = field(default_factory=dict)

    def of(self, about: About) -> About:
        """Raises InvalidRequest for a text that is too long."""
        about = _remarked(about, self.remarks)
        keep = about.keep if self.keep is None else None if self.keep < 0 else self.keep
        return checked(
            replace(
                about,
                title=about.title if self.title is None else self.title,
                kind=about.kind if self.kind is None else self.kind,
                profile=about.profile if self.profile is None else self.profile,
                comment=about.comment if self.comment is None else self.comment,
                owner=about.owner if self.owner is None else self.owner,
                partition=about.partition if self.partition is None else self.partition or None,
                partition_type=about.partition_type if self.partition_type is None else self.partition_type,
                keep=keep,
            )
        )


def _remarked(about: About, remarks: Mapping[int, str]) -> About:
    for number, text in remarks.items():
        _check_line(f"comment of version {number}", text)
        about = about.with_version(number, replace(about.version(number), comment=text))
    return about


def _check_line(name: str, text: str) -> None:
    if len(text) > MAX_LINE or _CONTROLS.search(text) or not _is_utf8(text):
        raise InvalidRequest(f"{name}: {text[:40]!r}: one line of at most {MAX_LINE} printable characters")


def checked(about: About) -> About:
    """``about`` itself when its texts can be kept; raises InvalidRequest that names the field."""
    lines = {"title": about.title, "profile": about.profile, "creator": about.creator, "owner": about.owner,
             "partition type": about.partition_type}  # fmt: skip
    for name, text in lines.items():
        _check_line(name, text)
    if len(about.comment) > MAX_TEXT or not _is_utf8(about.comment):
        raise InvalidRequest(f"comment: at most {MAX_TEXT} characters of text")
    if about.keep is not None and not 0 <= about.keep <= MAX_VERSIONS:
        raise InvalidRequest(f"keep: {about.keep} is not a number of versions from 0 (all) to {MAX_VERSIONS}")
    if about.partition is not None and not 1 <= about.partition <= MAX_PARTITION:
        raise InvalidRequest(f"partition: {about.partition} is not a number of a partition from 1 to {MAX_PARTITION}")
    return about


def encode(about: About) -> bytes:
    """The file's bytes; ``decode`` gives the same value back."""
    return dump_json(
        {
            "format": FORMAT,
            "title": about.title,
            "kind": about.kind.value if about.kind is not None else None,
            "profile": about.profile,
            "comment": about.comment,
            "creator": about.creator,
            "created": show_time(about.created),
            "keep": about.keep,
            "owner": about.owner,
            "partition": about.partition,
            "partition_type": about.partition_type,
            "last": about.last,
            "versions": {
                str(number): {
                    "state": version.state.value,
                    "since": show_time(version.since),
                    "by": version.by,
                    "manifest_sha256": version.manifest_sha256,
                    "comment": version.comment,
                    "verified": show_time(version.verified),
                    "damage": version.damage,
                }
                for number, version in sorted(about.versions.items())
            },
        }
    )


def decode(data: bytes) -> About:
    """Raises DamagedImage with the field that is wrong."""
    if len(data) > MAX_ABOUT_BYTES:
        raise DamagedImage(f"about: more than {MAX_ABOUT_BYTES} bytes")
    record = Record.read(data, "about", FORMAT)
    versions = record.record("versions")
    found: dict[int, VersionAbout] = {}
    for text in versions.fields:
        if not (text.isascii() and text.isdigit() and 0 < len(text) < 10) or text.startswith("0"):
            raise DamagedImage(f"about: versions: {text[:40]!r} is not the number of a version")
        found[int(text)] = _version(versions.record(text))
    kind = record.text("kind", none=True)
    return About(
        title=record.text("title"),
        kind=record.choice("kind", ImageKind) if kind else None,
        profile=record.text("profile"),
        comment=record.text("comment"),
        creator=record.text("creator"),
        created=record.time("created"),
        keep=record.number("keep", none=True),
        owner=record.text("owner"),
        partition=record.number("partition", none=True),
        partition_type=record.text("partition_type"),
        last=max(record.number("last", none=True) or 0, max(found, default=0)),
        versions=found,
    )


def _version(record: Record) -> VersionAbout:
    digest = record.text("manifest_sha256")
    if digest and not _SHA256.fullmatch(digest):
        raise DamagedImage(f"about: {record.where}: manifest_sha256 is not 64 hexadecimal digits")
    return VersionAbout(
        state=record.choice("state", VersionState),
        since=record.time("since"),
        by=record.text("by"),
        manifest_sha256=digest,
        comment=record.text("comment"),
        verified=record.time("verified"),
        damage=record.text("damage"),
    )


class Record:
    """A JSON object that is read field by field; every refusal is DamagedImage with file and field. A missing field
    is the empty value, for an older pbserv may have written the file."""

    def __init__(self, fields: Mapping[str, object], where: str) -> None:
        self.fields = fields
        self.where = where

    @classmethod
    def read(cls, data: bytes, where: str, format_number: int) -> Record:
        try:
            found: object = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DamagedImage(f"{where}: is not JSON: {str(error)[:120]}") from None
        if not isinstance(found, dict):
            raise DamagedImage(f"{where}: is not a JSON object")
        record = cls(found, where)
        if record.number("format") != format_number:
            raise DamagedImage(f"{where}: format {record.number('format')} is not known; a newer pbserv wrote it")
        return record

    def text(self, name: str, *, none: bool = False) -> str:
        """``none``: null is allowed and read as the empty text."""
        value = self.fields.get(name, "")
        if value is None and none:
            return ""
        if not isinstance(value, str) or not _is_utf8(value):
            raise self.fault(name, "is not text")
        return value

    def number(self, name: str, *, none: bool = False) -> int | None:
        value = self.fields.get(name)
        if value is None and none:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise self.fault(name, "is not a number from 0 to 2^63-1")
        return value

    def count(self, name: str) -> int:
        return self.number(name) or 0

    def flag(self, name: str) -> bool:
        value = self.fields.get(name, False)
        if not isinstance(value, bool):
            raise self.fault(name, "is neither true nor false")
        return value

    def time(self, name: str) -> datetime | None:
        text = self.text(name, none=True)
        if not text:
            return None
        try:
            value = datetime.fromisoformat(text)
            return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise self.fault(name, f"{text[:40]!r} is not a time") from None

    def choice(self, name: str, kind: type[_E]) -> _E:
        text = self.text(name)
        try:
            return kind(text)
        except ValueError:
            raise self.fault(name, f"{text[:40]!r} is none of {', '.join(known.value for known in kind)}") from None

    def record(self, name: str) -> Record:
        value = self.fields.get(name, {})
        if not isinstance(value, dict):
            raise self.fault(name, "is not a JSON object")
        return Record(value, f"{self.where}: {name[:40]}")

    def fault(self, name: str, why: str) -> DamagedImage:
        return DamagedImage(f"{self.where}: {name} {why}")


def show_time(time: datetime | None) -> str | None:
    """A time as JSON has it, in UTC."""
    return time.astimezone(UTC).isoformat() if time is not None else None


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def dump_json(value: object) -> bytes:
    """JSON as files of the store have it: for people too, with a newline at the end."""
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
