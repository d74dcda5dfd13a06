"""Images of other servers for devices that work with this one.

One rule: what an image consists of is asked for there; its bytes never pass through here: a device gets the address of
each item, with a ticket for this image.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from functools import cache
from http import HTTPStatus
from typing import Final

import httpx
from pydantic import ValidationError
from starlette.responses import Response

from pbserv.imaging.backend import VersionedBackend
from pbserv.imaging.checks import check_addon, check_found, check_order, limits_of
from pbserv.imaging.faults import ImagingFault, InvalidRequest, UnknownImage
from pbserv.imaging.image_views import VersionDetails
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.manifest import (
    MAX_STORED_BYTES,
    DiskFacts,
    Fact,
    Manifest,
    ManifestItem,
    check_item_name,
    parse,
    print_manifest,
)
from pbserv.imaging.referral import Scope
from pbserv.imaging.referring import Referring
from pbserv.registry.options import WorkOptions
from pbserv.registry.records import FETCHES, BundleKind

ANSWER_S: Final = 10.0
"""For the whole answer of another server."""
_CONNECT_S: Final = 5.0
_MOST_BYTES: Final = 4 * 1024 * 1024
_MOST_KNOWN: Final = 256


class NotReferred(ImagingFault):
    """An image of another server that a device of this one cannot be referred to."""

    status = HTTPStatus.CONFLICT


class NoAnswer(ImagingFault):
    """The server that an image belongs to does not answer now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class Elsewhere:
    """``store``: of this server; ``referring`` knows the others. Used from the event loop only."""

    def __init__(self, store: VersionedBackend, referring: Referring) -> None:
        self._store = store
        self._referring = referring
        self._known: OrderedDict[tuple[str, str, int], StoredImage] = OrderedDict()

    def owner(self, image: str) -> str:
        """The store of another server that an image belongs to; empty: it has a version here, or belongs nowhere."""
        remotes = self._referring.remotes.urls
        if not remotes or not image:
            return ""
        try:
            owner = self._store.object(image).about.owner
            return owner if owner in remotes and not self._store.versions(image) else ""
        except ImagingFault:
            return ""

    def owners(self) -> dict[str, str]:
        """The images of other servers that this one refers to, each with the store there."""
        if not self._referring.remotes.urls:
            return {}
        try:
            found = {image.name: self.owner(image.name) for image in self._store.all() if image.about.owner}
        except ImagingFault:
            return {}
        return {name: owner for name, owner in found.items() if owner}

    def check(self, kind: BundleKind, image: str, options: WorkOptions) -> None:
        """What of an order for a device can be said without asking anybody; raises NotReferred."""
        remotes = self._referring.remotes
        if kind is BundleKind.CAPTURE:
            store = self.owner(image) or self._far_store(options.store)
            if store:
                raise NotReferred(
                    f"image {image} would go to store {store} of another server ({remotes.urls[store]}), and a device "
                    "brings images to the server that it boots from alone: order the capture there, or take a name "
                    "that belongs to this server"
                )
        if kind in FETCHES and not remotes.token_digest:
            for name in (image, *options.addons):
                if owner := self.owner(name):
                    raise NotReferred(
                        f"image {name} belongs to store {owner} of another server, where a device needs a ticket: set "
                        "RemoteStoreToken in pbserv.conf"
                    )

    def _far_store(self, name: str) -> str:
        """The same name where it is one of another server's alone, else nothing."""
        if name not in self._referring.remotes.urls:
            return ""
        return "" if name in limits_of(self._store).stores else name

    def check_order(self, kind: BundleKind, image: str, *, overwrite: bool, options: WorkOptions) -> None:
        """What can be said at once of an order for a device; of an image of another server the rest is said when the
        device begins. Raises an ImagingFault with the reason."""
        self.check(kind, image, options)
        if kind not in FETCHES or not self.owner(image):
            check_order(self._store, kind, image, overwrite=overwrite, options=options, owner=self.owner)
        elif options.unreadable:
            raise InvalidRequest(options.unreadable)

    async def find(self, image: str, version: int | None = None) -> StoredImage:
        """The served or the named version, here or where it belongs. Raises UnknownImage, NotReferred, NoAnswer."""
        store = self.owner(image)
        if not store:
            return self._store.info(image, version)
        url = self._referring.remotes.urls[store]
        known = self._known.get((url, image, version or 0))
        if known is not None:  # a version never changes
            return known
        found = await self._ask(store, image, version)
        self._known[url, image, found.version] = found
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return found

    async def to_restore(self, image: str, options: WorkOptions) -> StoredImage:
        """The image of a restore; what is of another server is checked here as orders are for images of this one.

        Raises as :meth:`find`, and NotRestorable.
        """
        far = self.owner(image)
        found = await self.find(image, options.version or None)
        if far:
            check_found(found, options)
        for name in options.addons:
            if far or self.owner(name):
                check_addon(await self.find(name))
        return found

    def item(self, image: str, version: int | None, item: str) -> Response | None:
        """The way to an item of an image of another server, None for one of this; raises InvalidName, NotReferred."""
        store = self.owner(image)
        if not store:
            return None
        if not self._referring.remotes.token_digest:
            raise NotReferred(f"image {image}: RemoteStoreToken is not set, and its server is {store}'s")
        path = f"/api/v1/images/{image}/items/{check_item_name(item)}"
        query = [] if version is None else [("version", str(version))]
        location = self._referring.location(store, path, Scope("get", image, version), query)
        return Response(
            status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"Location": location, "Cache-Control": "no-store"}
        )

    async def _ask(self, store: str, image: str, version: int | None) -> StoredImage:
        remotes = self._referring.remotes
        url, what = remotes.urls[store], f"image {image} of store {store}"
        path = f"/api/v1/images/{image}/versions/{version or 0}"
        location = self._referring.location(store, path, Scope("get", image, version))
        try:
            async with asyncio.timeout(ANSWER_S):
                status, body = await _get(location)
        except (httpx.HTTPError, TimeoutError) as fault:
            raise NoAnswer(f"{what}: {url} does not answer: {str(fault) or type(fault).__name__}") from None
        if status == HTTPStatus.OK:
            return _read(body, image, what, url)
        if status == HTTPStatus.NOT_FOUND:
            raise UnknownImage(f"{what}: {url} has no such version, or serves none")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise NoAnswer(f"{what}: {url} answers {status}")
        raise NotReferred(
            f"{what}: {url} answers {status}; RemoteStoreToken must hold a token of role images of that server, and "
            "the clocks of both must be right"
        )


async def _get(location: str) -> tuple[int, bytes]:
    """Status and body, not more than the longest manifest makes; redirects are not followed."""
    trust = await asyncio.to_thread(_trust) if location.startswith("https:") else False
    async with (
        httpx.AsyncClient(verify=trust, trust_env=False, timeout=httpx.Timeout(ANSWER_S, connect=_CONNECT_S)) as client,
        client.stream("GET", location, headers={"Accept-Encoding": "identity"}) as answer,
    ):
        body = bytearray()
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > _MOST_BYTES:
                raise httpx.DecodingError(f"more than {_MOST_BYTES} bytes")
        return answer.status_code, bytes(body)


@cache
def _trust() -> ssl.SSLContext:
    """The certificates of this host, so that those of a site can be added to them."""
    return ssl.create_default_context()


def _read(body: bytes, image: str, what: str, url: str) -> StoredImage:
    """The answer of another server; raises NotReferred for what is none, UnknownImage for what is damaged."""
    try:
        told = VersionDetails.model_validate_json(body)
        manifest = parse(print_manifest(_manifest(told)), MAX_STORED_BYTES)
    except (ValidationError, ImagingFault) as fault:
        why = str(fault).splitlines()[0][:200]
        raise NotReferred(f"{what}: {url} does not answer as a server of this version does: {why}") from None
    if told.damage:
        raise UnknownImage(f"{what}: version {told.number} is damaged there: {told.damage[:200]}")
    return StoredImage(image, told.number, told.created, manifest)


def _manifest(told: VersionDetails) -> Manifest:
    disk = told.disk
    return Manifest(
        DiskFacts(disk.size_bytes, disk.sector_bytes, disk.table, disk.firmware),
        tuple(
            ManifestItem(item.name, item.kind, item.partition, item.stored_bytes, item.sha256, item.uncompressed_bytes)
            for item in told.contents
        ),
        (
            *(Fact("", key, value) for key, value in told.facts.items()),
            *(Fact(item.name, key, value) for item in told.contents for key, value in item.facts.items()),
        ),
    )
