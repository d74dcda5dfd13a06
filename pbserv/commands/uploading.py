"""An upload in parts over the HTTP API: what is sent twice changes nothing, so whatever breaks is sent again.

One rule: nothing of it is visible before the commit, and whatever ends it leaves it to be gone on with.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar  # Any: JSON values

from pbserv.commands.api import Api, NoAnswerError, RefusedError, named
from pbserv.commands.tables import Row
from pbserv.errors import PbservError
from pbserv.imaging.importing import Received

T = TypeVar("T")
TRIES: Final = 8
"""One after the other, before the fault is told."""
PAUSE_S: Final = 2.0
_TIMEOUT_S: Final = 600.0
"""For the answer to a part: others' parts may have to be stored first."""


class Upload:
    """One upload of one image; an ``Uploader`` of ``pbserv.imaging.importing``."""

    def __init__(self, api: Api, found: Row, *, elsewhere: bool = False, title: str = "") -> None:
        """``title``: what the image is called, for a server ``elsewhere`` that has no title for it."""
        self._api = api
        self.elsewhere = elsewhere
        self.title = title
        self._items: Mapping[str, Any] = found["items"]
        self.number: str = found["upload"]
        self.image: str = found["image"]
        self.part_bytes: int = found["part_bytes"]

    @classmethod
    def begin(
        cls, api: Api, image: str, *, store: str = "", overwrite: bool = False, size_bytes: int = 0, asis: bool = False
    ) -> Upload:
        """``size_bytes``: what will come, as far as it is known. ``asis``: it is kept as it comes.

        Where our server refers to another one, all of it goes there.
        """
        body = {"store": store, "overwrite": overwrite, "bytes": size_bytes, "asis": asis}
        try:
            there, found = api.referred("POST", named("images", image, "uploads"), body)
        except RefusedError as fault:
            if fault.status != 409 or not fault.elsewhere:
                raise
            raise PbservError(
                f"{fault} (said at {fault.elsewhere}, where this server refers to; an upload that broke off there goes"
                " on from there alone: pbserv image uploads on that server)"
            ) from None
        far = there is not api
        return cls(there, found, elsewhere=far, title=_title(api, image) if far else "")

    @classmethod
    def resume(cls, api: Api, image: str) -> Upload | None:
        """The upload of this image that somebody began in parts, None where there is none."""
        found = [each for each in api.get("/uploads")["uploads"] if each["image"] == image]
        mine = next((each for each in found if each["owner"].startswith("token:")), None)
        return None if mine is None else cls(api, mine)

    def next_part(self, item: str) -> int:
        """The first part that the server did not have when this began."""
        return int(self._items[item]["next_part"]) if item in self._items else 1

    def is_complete(self, item: str) -> bool:
        """Whether the server had all of an item when this began."""
        return item in self._items and bool(self._items[item]["complete"])

    def part(self, item: str, kind: str, number: int, body: bytes, sha256: str) -> None:
        headers = {"X-Checksum-SHA256": sha256, "Content-Type": "application/octet-stream"}
        path = named("uploads", self.number, "items", item, "parts", str(number))
        patiently(lambda: self._api.part(path, body, headers, _TIMEOUT_S, kind=kind))

    def complete(self, item: str, parts: int, plain_bytes: int | None) -> Received:
        path = named("uploads", self.number, "items", item, "complete")
        done = patiently(lambda: self._api.post(path, {"parts": parts, "bytes": plain_bytes}))
        return Received(done["stored_bytes"], done["sha256"])

    def commit(self, manifest: str) -> Mapping[str, Any]:
        path, title = named("uploads", self.number, "commit"), self.title or None
        made: Mapping[str, Any] = patiently(
            lambda: self._api.upload(path, manifest.encode(), "text/plain", title=title)
        )  # fmt: skip
        return made

    def discard(self) -> None:
        """Give it up: what came is removed, and the name is free."""
        self._api.delete(named("uploads", self.number))

    def give_up(self) -> None:
        """The same where something else is to be told: where it cannot be, it goes by itself after 48 hours."""
        with suppress(PbservError):
            self.discard()

    def broken(self, reason: str, again: str) -> PbservError:
        """What to say where it breaks off; ``again`` is what goes on with it. One of another server is given up."""
        if not self.elsewhere:
            return PbservError(f"{reason or 'interrupted'}; it can go on: {again}")
        try:
            self.discard()
            left = "what came is removed there"
        except PbservError:
            left = f"upload {self.number} stays there for 48 hours, or until pbserv image uploads --discard there"
        return PbservError(f"{reason or 'interrupted'}; an upload to another server cannot go on: {left}; do it again")


def _title(api: Api, image: str) -> str:
    """What our server calls an image; empty where it does not know it."""
    try:
        return str(api.get(named("images", image))["title"])
    except RefusedError:
        return ""


def parts_of(path: Path, part_bytes: int) -> Iterator[bytes]:
    """A file in parts: at least one, of no bytes where the file has none. Raises PbservError."""
    try:
        with path.open("rb") as file:
            part = file.read(part_bytes)
            yield part
            while part := file.read(part_bytes):
                yield part
    except OSError as fault:
        raise PbservError(f"{path}: {fault.strerror}") from None


def sha256_of(part: bytes) -> str:
    return hashlib.sha256(part).hexdigest()


def patiently(ask: Callable[[], T]) -> T:
    """Ask again where the connection broke or the service is just being restarted."""
    for _ in range(TRIES - 1):
        try:
            return ask()
        except NoAnswerError:
            pass
        except RefusedError as fault:
            if fault.status != 503:
                raise
        time.sleep(PAUSE_S)
    return ask()
