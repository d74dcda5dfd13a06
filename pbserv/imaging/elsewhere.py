"""Images of other servers for devices that work with this one.

One rule: what an image consists of is asked for there; its bytes never pass through here: a device gets the address of
each item, with a ticket for this image. What captures are while they run is in away.py.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from pydantic import ValidationError
from starlette.responses import Response

from pbserv.imaging.about import About, AboutChange
from pbserv.imaging.backend import VersionedBackend
from pbserv.imaging.checks import check_addon, check_found, check_order, limits_of
from pbserv.imaging.faults import ImageExists, ImagingFault, InvalidRequest, NotSupported, UnknownImage
from pbserv.imaging.image_views import VersionDetails
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.manifest import (
    MAX_STORED_BYTES,
    DiskFacts,
    Fact,
    Manifest,
    ManifestItem,
    check_image_name,
    check_item_name,
    check_new_name,
    parse,
    print_manifest,
)
from pbserv.imaging.peer import NotReferred, Refused, asked
from pbserv.imaging.referral import Scope
from pbserv.imaging.referring import Referring
from pbserv.log import ServiceLog
from pbserv.registry.options import WorkOptions
from pbserv.registry.records import FETCHES, BundleKind

_MOST_KNOWN: Final = 256


class Elsewhere:
    """``store``: of this server; ``referring`` knows the others. Used from the event loop only."""

    def __init__(self, store: VersionedBackend, referring: Referring, log: ServiceLog) -> None:
        self._store = store
        self._log = log
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
        if kind is BundleKind.CAPTURE and (store := self.target(image, options.store)) and not remotes.token_digest:
            raise NotReferred(
                f"image {image} would go to store {store} of another server, where a device needs a ticket: set "
                "RemoteStoreToken in pbserv.conf"
            )
        if kind in FETCHES and not remotes.token_digest:
            for name in (image, *options.addons):
                if owner := self.owner(name):
                    raise NotReferred(
                        f"image {name} belongs to store {owner} of another server, where a device needs a ticket: set "
                        "RemoteStoreToken in pbserv.conf"
                    )

    def target(self, image: str, wanted: str) -> str:
        """The store of another server that a capture of ``image`` goes into, empty: one of this server. ``wanted``: the
        store that is asked for, or empty. Raises NotReferred where the two disagree."""
        owner = self.owner(image)
        if owner:
            if wanted not in ("", owner):
                raise NotReferred(f"image {image} belongs to store {owner} of another server: it cannot go to {wanted}")
            return owner
        if wanted not in self._referring.remotes.urls or wanted in limits_of(self._store).stores:
            return ""
        if self._versions(image):
            raise NotReferred(
                f"image {image} is on this server, and would go to store {wanted} of another one: take another name"
            )
        return wanted

    def far(self, kind: BundleKind, image: str, wanted: str) -> str:
        """The store of another server that work of this kind has to do with; empty: none."""
        if kind is not BundleKind.CAPTURE:
            return self.owner(image)
        try:
            return self.target(image, wanted)
        except NotReferred:
            return ""

    def _versions(self, image: str) -> tuple[int, ...]:
        try:
            return self._store.versions(image)
        except ImagingFault:
            return ()

    async def to_capture(self, image: str, options: WorkOptions, *, overwrite: bool) -> None:
        """What can be said of a capture into a store of another server before it begins. Raises as :meth:`find`, and
        ImageExists; nothing where it goes into one of this server."""
        store = self.target(image, options.store)
        if not store:
            return
        try:
            await self._ask(store, image, None)
        except UnknownImage:
            return
        if not overwrite:
            url = self._referring.remotes.urls[store]
            raise ImageExists(
                f"image {image} exists in store {store} of {url}; take another name, or make a new version with "
                "--overwrite"
            )

    async def captured(self, image: str, store: str, creator: str) -> None:
        """A capture into ``store`` of another server is complete: from now on this one refers to it. A backend that
        keeps no such facts goes without; what else hinders it is logged."""
        try:
            with suppress(NotSupported):
                await self._refer(image, store, creator)
        except ImagingFault as fault:  # what was captured is there, whatever happens here
            self._log.warning(
                "image is not referred to yet", image=image, store=store, reason=str(fault),
                remedy=f"pbserv image register {image} --owner {store}",
            )  # fmt: skip

    async def _refer(self, image: str, store: str, creator: str) -> None:
        try:
            known = self._store.object(image)
        except UnknownImage:
            await self._store.register(image, About(owner=store, creator=creator))
            return
        if not known.about.owner and not known.versions:
            await self._store.change(image, AboutChange(owner=store))

    def title(self, image: str) -> str:
        """What an image is called here; empty: nothing is said."""
        try:
            return self._store.object(image).about.title
        except ImagingFault:
            return ""

    def check_order(self, kind: BundleKind, image: str, *, overwrite: bool, options: WorkOptions) -> None:
        """What can be said at once of an order for a device; of an image of another server the rest is said when the
        device begins. Raises an ImagingFault with the reason."""
        self.check(kind, image, options)
        if not self.far(kind, image, options.store):
            check_order(self._store, kind, image, overwrite=overwrite, options=options, owner=self.owner)
        elif options.unreadable:
            raise InvalidRequest(options.unreadable)
        elif kind is BundleKind.CAPTURE and not overwrite and not self.owner(image):
            check_new_name(image)  # not with overwrite: there it may be the name of an older image
        else:
            check_image_name(image)

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
            body = await asked("GET", location, what, url)
        except Refused as fault:
            if fault.status is HTTPStatus.NOT_FOUND:
                raise UnknownImage(f"{what}: {url} has no such version, or serves none") from None
            raise NotReferred(str(fault)) from None
        return _read(body, image, what, url)


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
