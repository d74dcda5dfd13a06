"""Frames of a damaged item from other servers that have the same item. Blocking, for worker threads.

One rule: an item is the same when its ETag, the SHA-256 of its bytes, is; what comes is only offered: whoever takes it
compares the digest of the frame before and after it is written.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Final

import httpx

from pbserv.imaging.layout import StoredImage
from pbserv.imaging.referral import Scope
from pbserv.imaging.referring import Referring

LONGEST_S: Final = 300.0
"""For one damaged item, with all servers that are asked."""
SHUNNED_S: Final = 60.0
"""A server that did not answer is not asked again for so long."""
_CONNECT_S: Final = 5.0
_SILENT_S: Final = 10.0
_NUMBERS: Final = 32
"""A copy may have another number there: the item's own, the served version, and these first ones are looked at."""
_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/")
_FAULTS: Final = (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError)


class NoCopy(OSError):
    """The other server does not give what it seemed to have."""


class RemoteCopy:
    """One item of another server, the same as ours byte by byte. ``str()``: where it is, for people."""

    def __init__(
        self, client: httpx.Client, url: str, etag: str, where: str, check: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:  # fmt: skip
        self._client = client
        self._url = url
        self._etag = etag
        self._where = where
        self._check = check
        self._failed = failed

    def __str__(self) -> str:
        return self._where

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Exactly these bytes. Raises NoCopy; whatever ``check`` raises."""
        try:
            return self._read(offset, size_bytes)
        except (*_FAULTS, NoCopy) as fault:
            self._failed(fault)
            raise NoCopy(f"{self._where}: {_said(fault)}") from None

    def _read(self, offset: int, size_bytes: int) -> bytes:
        self._check()
        last = offset + size_bytes - 1
        headers = {"Range": f"bytes={offset}-{last}", "If-Range": self._etag}
        data = bytearray()
        with self._client.stream("GET", self._url, headers=headers) as answer:
            found = _RANGE.match(answer.headers.get("content-range", ""))
            if answer.status_code != 206 or found is None or (int(found[1]), int(found[2])) != (offset, last):
                raise NoCopy(f"it answers {answer.status_code} to a question for bytes {offset} to {last}")
            for chunk in answer.iter_raw():
                self._check()
                data += chunk
                if len(data) > size_bytes:
                    break
        if len(data) != size_bytes:
            raise NoCopy(f"{len(data)} bytes came, not {size_bytes}")
        return bytes(data)


class Refetch:
    """``warn`` gets a line for each server that could not be used; it is called in the thread of the scrub."""

    def __init__(
        self, referring: Referring, warn: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._referring = referring
        self._warn = warn
        self._clock = clock
        self._shunned: dict[str, float] = {}

    def copies(self, image: StoredImage, item: str, check: Callable[[], None]) -> Generator[RemoteCopy, None, None]:
        """The same item at each other server that has it; none without RemoteStores and RemoteStoreToken.

        ``check`` is called between all steps and raises when the work is to end. Close the iterator.
        """
        facts = image.manifest.item(item)
        remotes = self._referring.remotes
        if facts is None or not remotes.token_digest:
            return
        until = self._clock() + LONGEST_S

        def still() -> None:
            check()
            if self._clock() > until:
                raise NoCopy(f"image {image.name} item {item}: no more than {LONGEST_S:.0f} s are given to one item")

        for url, store in {url: store for store, url in remotes.urls.items()}.items():
            if self._shunned.get(url, 0.0) > self._clock():
                continue
            failed = partial(self._failed, url, f"image {image.name} item {item}")
            with _client(url) as client:
                try:
                    found = self._same(client, store, image, item, f'"{facts.sha256}"', still)
                except (*_FAULTS, NoCopy) as fault:
                    failed(fault)
                    continue
                if found is not None:
                    version, place = found
                    where = f"image {image.name} {version} item {item} at {url}"
                    yield RemoteCopy(client, place, f'"{facts.sha256}"', where, still, failed)

    def _failed(self, url: str, what: str, fault: Exception) -> None:
        self._shunned[url] = self._clock() + SHUNNED_S
        self._warn(f"{what}: a copy was looked for at {url}: {_said(fault)}")

    def _same(
        self, client: httpx.Client, store: str, image: StoredImage, item: str, etag: str, check: Callable[[], None]
    ) -> tuple[str, str] | None:
        """Which version has it there, and its address."""
        others = (number for number in range(1, _NUMBERS + 1) if number != image.version)
        for version in (image.version, None, *others):
            check()
            query = [] if version is None else [("version", str(version))]
            path = f"/api/v1/images/{image.name}/items/{item}"
            url = self._referring.location(store, path, Scope("get", image.name), query)
            answer = client.head(url)
            if answer.status_code in (401, 403) or answer.status_code >= 500:
                raise NoCopy(f"it answers {answer.status_code}")
            if answer.status_code == 200 and answer.headers.get("etag") == etag:
                return ("the served version" if version is None else f"version {version}"), url
        return None


def _said(fault: Exception) -> str:
    return str(fault) or type(fault).__name__


def _client(url: str) -> httpx.Client:
    """Certificates are believed as this host believes them."""
    trust = ssl.create_default_context() if url.startswith("https:") else False
    return httpx.Client(
        verify=trust, trust_env=False, follow_redirects=False, headers={"Accept-Encoding": "identity"},
        timeout=httpx.Timeout(_SILENT_S, connect=_CONNECT_S),
    )  # fmt: skip
