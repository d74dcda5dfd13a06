"""Images as the API shows them: declared shapes, made of what the store keeps."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any  # Any: the values of a model on their way into it

from pydantic import BaseModel, Field

from pbserv.imaging.layout import Damage, StoredImage
from pbserv.imaging.manifest import DiskFacts, ManifestItem
from pbserv.imaging.objects import ImageObject, ImageVersion
from pbserv.imaging.states import ImageKind, VersionState


class ItemModel(BaseModel):
    name: str
    kind: str = Field(description="sfdisk, boot, partclone.<file system>, raw, swap or file, or of another system")
    partition: int = Field(description="number of the partition, 0 for the whole disk")
    stored_bytes: int
    sha256: str = Field(description="of the stored bytes")
    uncompressed_bytes: int


class DiskModel(BaseModel):
    size_bytes: int
    sector_bytes: int
    table: str = Field(description="gpt, dos or none")
    firmware: str = Field(description="bios or uefi")


class DamageModel(BaseModel):
    path: str = Field(description="below the directory of the store")
    reason: str


class ImageModel(BaseModel):
    """``version``, and what depends on it: the one that is served; where none is, the newest; null: there is none."""

    name: str
    title: str
    store: str
    state: str = Field(description="registered, validated, enabled, disabled or retired")
    kind: ImageKind | None = Field(description="null: nobody said, and there is no version that would tell")
    served: int | None = Field(description="the newest enabled version; null: none is served")
    version: int | None
    versions: list[int]
    states: dict[int, VersionState] = Field(description="of each version")
    created: datetime | None
    stored_bytes: int
    uncompressed_bytes: int
    disk: DiskModel | None
    items: list[ItemModel]
    damages: list[DamageModel] = Field(description="what is not served because it is not what was committed")


class ImagesModel(BaseModel):
    images: list[ImageModel]


class VersionModel(BaseModel):
    number: int
    state: VersionState
    since: datetime | None = Field(description="when it came to this state")
    by: str = Field(description="who brought it there")
    comment: str
    verified: datetime | None = Field(description="when all of it was last read and found as it was committed")
    damage: str = Field(description="why it is not served though its state would allow it; empty: it is fine")
    created: datetime
    creator: str = Field(description="token:NAME, job:NUMBER, drop, or empty")
    stored_bytes: int
    uncompressed_bytes: int


class ImageDetails(ImageModel):
    profile: str = Field(description="the software on it, in words of the site")
    comment: str
    creator: str
    keep: int | None = Field(description="so many versions are kept, 0: all; null: as the store says")
    owner: str = Field(description="the store of another server that it belongs to; empty: it belongs here")
    partition: int | None = Field(
        description="number of the partition that it is said to be of (captures take whole disks); null: none"
    )
    partition_type: str = Field(description="what that partition is, in words of the site")
    history: list[VersionModel] = Field(description="every version, oldest first")


class OriginModel(BaseModel):
    """What the image was taken of; empty where nobody said."""

    mac: str
    job: int | None
    disk: str
    partition: str
    model: str


class FramesModel(BaseModel):
    """How the stored stream of an item is cut."""

    frames: int
    extent_bytes: int
    device_bytes: int
    used_bytes: int


class VersionItemModel(ItemModel):
    facts: dict[str, str] = Field(description="what the manifest tells of it: tool, compressor, fs ...")
    frames: FramesModel | None = Field(description="null: it has no index of frames")


class VersionDetails(VersionModel):
    image: str
    manifest_sha256: str = Field(description="of the manifest as it was signed off; empty: an older pbserv did")
    facts: dict[str, str] = Field(description="what the manifest tells of the whole image")
    disk: DiskModel
    origin: OriginModel
    contents: list[VersionItemModel]


def image_model(image: ImageObject) -> ImageModel:
    return ImageModel(**_common(image))


def image_details(image: ImageObject) -> ImageDetails:
    about = image.about
    return ImageDetails(
        **_common(image), profile=about.profile, comment=about.comment, creator=about.creator, keep=about.keep,
        owner=about.owner, partition=about.partition, partition_type=about.partition_type,
        history=[version_model(version) for version in image.versions],
    )  # fmt: skip


def version_model(version: ImageVersion) -> VersionModel:
    return VersionModel(**_of_version(version))


def version_details(image: ImageObject, version: ImageVersion, frames: dict[str, FramesModel]) -> VersionDetails:
    """``frames``: of the items that have an index."""
    manifest, origin = version.image.manifest, version.image.facts
    return VersionDetails(
        **_of_version(version),
        image=image.name,
        manifest_sha256=version.about.manifest_sha256,
        facts={fact.key: fact.value for fact in manifest.facts if not fact.item},
        disk=_disk(manifest.disk),
        origin=OriginModel(
            mac=origin.mac, job=origin.job, disk=origin.disk, partition=origin.partition, model=origin.model
        ),
        contents=[
            VersionItemModel(
                **_item(item).model_dump(),
                facts={fact.key: fact.value for fact in manifest.facts if fact.item == item.name},
                frames=frames.get(item.name),
            )
            for item in manifest.items
        ],
    )


def damage_models(damages: Iterable[Damage]) -> list[DamageModel]:
    return [DamageModel(path=damage.path, reason=damage.reason) for damage in damages]


def shown_version(image: ImageObject) -> StoredImage | None:
    """The version that is served, else the newest; None for an image that is registered alone."""
    newest = image.versions[-1].image if image.versions else None
    return image.served or newest


def _common(image: ImageObject) -> dict[str, Any]:
    shown, served = shown_version(image), image.served
    manifest = None if shown is None else shown.manifest
    return {
        "name": image.name,
        "title": image.about.title,
        "store": image.store,
        "state": image.state,
        "kind": image.kind,
        "served": None if served is None else served.version,
        "version": None if shown is None else shown.version,
        "versions": [version.number for version in image.versions],
        "states": {version.number: version.state for version in image.versions},
        "created": image.about.created if shown is None else shown.created,
        "stored_bytes": 0 if manifest is None else manifest.stored_bytes,
        "uncompressed_bytes": 0 if manifest is None else manifest.uncompressed_bytes,
        "disk": None if manifest is None else _disk(manifest.disk),
        "items": [] if manifest is None else [_item(item) for item in manifest.items],
        "damages": damage_models(image.damages),
    }


def _of_version(version: ImageVersion) -> dict[str, Any]:
    image, about = version.image, version.about
    return {
        "number": version.number,
        "state": version.state,
        "since": about.since,
        "by": about.by,
        "comment": about.comment,
        "verified": about.verified,
        "damage": version.damage,
        "created": image.created,
        "creator": image.facts.creator,
        "stored_bytes": image.manifest.stored_bytes,
        "uncompressed_bytes": image.manifest.uncompressed_bytes,
    }


def _item(item: ManifestItem) -> ItemModel:
    return ItemModel(
        name=item.name,
        kind=item.kind,
        partition=item.partition,
        stored_bytes=item.stored_bytes,
        sha256=item.sha256,
        uncompressed_bytes=item.uncompressed_bytes,
    )


def _disk(disk: DiskFacts) -> DiskModel:
    return DiskModel(
        size_bytes=disk.size_bytes, sector_bytes=disk.sector_bytes, table=disk.table, firmware=disk.firmware
    )
