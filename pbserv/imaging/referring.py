"""Images that belong to another server: callers are sent there (307) with a ticket that opens this one image.

One rule: who may not have it here gets no ticket; and a ticket opens here only what stands in ``_opens``. Devices of
other servers are known here by nothing but their tickets: what these were used for is remembered for a while.
"""

from __future__ import annotations

import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from fastapi import Request

from pbserv.conf.remotes import RemoteStore
from pbserv.errors import StartError
from pbserv.imaging.backend import VersionedBackend
from pbserv.imaging.faults import ImagingFault
from pbserv.imaging.referral import Scope, sign, verify
from pbserv.registry.records import Role
from pbserv.registry.tokens import digest

GOOD_FOR_S: Final = 12 * 3600
"""A ticket; a large image over a slow line takes its time."""
USED_FOR_S: Final = 3600
"""So long after a ticket was used for a version, somebody is believed to work with that."""
_MOST_USED: Final = 4096
_MOST_TOKEN_BYTES: Final = 512
_ITEM = re.compile(r"/api/v1/images/[^/]+/items/[^/]+(/index)?")
_VERSION = re.compile(r"/api/v1/images/[^/]+/versions/([0-9]{1,9})")
_IMAGE = re.compile(r"/api/v1/images/[^/]+")
_BEGIN = re.compile(r"/api/v1/images/[^/]+/uploads")
_UPLOAD = re.compile(r"/api/v1/uploads/[^/]+(/.*)?")
_OF_JOB = re.compile(r"/api/v1/images/[^/]+/uploads/[0-9a-f]{32}")
_SENDS = re.compile(r"/client/v1/uploads/[^/]+/items/.+")


class Referred(ImagingFault):
    """Another server has it; ``location`` is where."""

    status = HTTPStatus.TEMPORARY_REDIRECT

    def __init__(self, message: str, location: str) -> None:
        super().__init__(message)
        self.location = location


@dataclass(frozen=True, slots=True)
class Ticket:
    """Whoever came with a ticket; where it opens nothing, nobody gets as far as to have this."""

    scope: Scope
    kind: str = "ticket"
    name: str = "referred"

    def may(self, role: Role) -> bool:
        return role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class Remotes:
    """The stores of other servers, and the digest of the token of role images that these gave out; empty: none."""

    urls: Mapping[str, str]
    token_digest: str = ""


NO_REMOTES: Final = Remotes({})


def remotes_of(stores: Iterable[RemoteStore], token: Path | None) -> Remotes:
    """Raises StartError when the token cannot be read."""
    return Remotes({store.name: store.url for store in stores}, "" if token is None else digest(_read_token(token)))


class Referring:
    """``token_digests``: of all tokens of role images of this server; ``image_of``: of an upload, None: no upload."""

    def __init__(
        self, token_digests: Callable[[], Iterable[str]], image_of: Callable[[str], str | None],
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._token_digests = token_digests
        self._image_of = image_of
        self._clock = clock
        self._used: OrderedDict[tuple[str, int], float] = OrderedDict()
        self.remotes = NO_REMOTES

    def refer(
        self, request: Request, what: str, image: str, store: str, version: int | None = None, *, title: str = ""
    ) -> None:
        """Raise Referred when ``store`` is another server's. ``title``: what the image is called here."""
        if store not in self.remotes.urls:
            return
        query = [(key, value) for key, value in request.query_params.multi_items() if key != "ticket"]
        if title and "title" not in request.query_params:
            query.append(("title", title))
        location = self.location(
            store, request.scope["path"], Scope("get" if what == "get" else "put", image, version), query
        )
        url = self.remotes.urls[store]
        raise Referred(f"image {image} belongs to store {store} of another server; go on at {url}", location)

    def location(self, store: str, path: str, scope: Scope, query: Sequence[tuple[str, str]] = ()) -> str:
        """Where ``path`` is at the server of another's ``store``, with a ticket for ``scope`` where there is a token
        for it. Raises KeyError for a store of this server."""
        asked = list(query)
        if self.remotes.token_digest:
            asked.append(("ticket", sign(scope, self.remotes.token_digest, int(self._clock()) + GOOD_FOR_S)))
        return f"{self.remotes.urls[store]}{path}" + (f"?{urlencode(asked)}" if asked else "")

    def ticket(self, request: Request) -> Ticket | None:
        """Who calls with a ticket that opens what is asked for; None: nobody does."""
        text = request.query_params.get("ticket")
        scope = None if text is None else verify(text, self._token_digests(), int(self._clock()))
        if scope is None or not self._opens(scope, request):
            return None
        version = _asked_version(request) or scope.version
        if scope.what == "get" and version:
            self._used[scope.image, version] = self._clock()
            self._used.move_to_end((scope.image, version))
            if len(self._used) > _MOST_USED:
                self._used.popitem(last=False)
        return Ticket(scope)

    def users(self, image: str, version: int | None) -> tuple[str, ...]:
        """Who works with this version by way of another server, None: with any of the image; in words."""
        since = self._clock() - USED_FOR_S
        used = [at for (name, number), at in self._used.items() if name == image and version in (None, number)]
        if not used or max(used) <= since:
            return ()
        minutes = int((self._clock() - max(used)) / 60)
        return (f"a device of another server, which asked for it {minutes} min ago",)

    def _opens(self, scope: Scope, request: Request) -> bool:
        path, method, name = request.scope["path"], request.method, str(request.path_params.get("name", ""))
        if scope.what == "get":
            if method not in ("GET", "HEAD") or name != scope.image:
                return False
            if not _VERSION.fullmatch(path) and not _ITEM.fullmatch(path):
                return False
            return scope.opens("get", name, _asked_version(request))
        if scope.what == "send":
            upload = str(request.path_params.get("upload", ""))
            sends = method == "PUT" and _SENDS.fullmatch(path) and upload == scope.upload
            return bool(sends) and self._image_of(upload) == scope.image
        if _UPLOAD.fullmatch(path):
            return self._image_of(str(request.path_params.get("upload", ""))) == scope.image
        begins = (method == "PUT" and _IMAGE.fullmatch(path)) or (method == "POST" and _BEGIN.fullmatch(path))
        looks = method == "GET" and _OF_JOB.fullmatch(path)
        return bool(begins or looks) and name == scope.image


def no_referring() -> Referring:
    """For a server that knows no other one."""
    return Referring(tuple, lambda _upload: None)


def image_of_upload(store: VersionedBackend, upload: str) -> str | None:
    """The image that an upload under way is of, None where there is none."""
    try:
        return store.session(upload).image
    except ImagingFault:
        return None


def _asked_version(request: Request) -> int | None:
    """The version that a download or a question names; None: the one that is served. 0 of a question is that, too."""
    found = _VERSION.fullmatch(request.scope["path"])
    return _number(found[1] if found else request.query_params.get("version"))


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 12 else None


def _read_token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MOST_TOKEN_BYTES + 1).decode("ascii", "replace").strip()
    except OSError as fault:
        raise StartError(
            f"RemoteStoreToken: {path}: {fault.strerror}; it must be a file with a token of role images of the other "
            "server, which the service user can read"
        ) from None
    if mode & 0o004:
        raise StartError(f"RemoteStoreToken: everybody can read {path}, which holds a token; do: chmod o-r {path}")
    if not 1 <= len(text) <= _MOST_TOKEN_BYTES or not text.isascii() or not text.isprintable() or " " in text:
        raise StartError(
            f"RemoteStoreToken: {path} does not hold one token; write the line there that pbserv token create --role "
            "images printed on the other server"
        )
    return text
