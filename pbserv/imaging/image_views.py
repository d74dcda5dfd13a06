"""Images as the API shows them: declared shapes, made of what the store keeps."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pydantic import BaseModel, Field

from pbserv.imaging.layout import StoredImage


class ItemModel(BaseModel):
    name: str
    kind: str = Field(description="sfdisk, boot, partclone.<file system>, raw, swap or file")
    partition: int = Field(description="number of the partition, 0 for the whole disk")
    stored_bytes: int
    sha256: str = Field(description="of the stored bytes")
    uncompressed_bytes: int


class DiskModel(BaseModel):
    size_bytes: int
    sector_bytes: int
    table: str = Field(description="gpt, dos or none")
    firmware: str = Field(description="bios or uefi")


class ImageModel(BaseModel):
    name: str
    version: int = Field(description="the newest version, which is served")
    versions: list[int]
    created: datetime
    stored_bytes: int
    uncompressed_bytes: int
    disk: DiskModel
    items: list[ItemModel]


class ImagesModel(BaseModel):
    images: list[ImageModel]


def image_model(image: StoredImage, versions: Iterable[int]) -> ImageModel:
    """``image``: the version that is shown; ``versions``: the numbers of all."""
    manifest, disk = image.manifest, image.manifest.disk
    return ImageModel(
        name=image.name,
        version=image.version,
        versions=list(versions),
        created=image.created,
        stored_bytes=manifest.stored_bytes,
        uncompressed_bytes=manifest.uncompressed_bytes,
        disk=DiskModel(
            size_bytes=disk.size_bytes, sector_bytes=disk.sector_bytes, table=disk.table, firmware=disk.firmware
        ),
        items=[
            ItemModel(
                name=item.name,
                kind=item.kind,
                partition=item.partition,
                stored_bytes=item.stored_bytes,
                sha256=item.sha256,
                uncompressed_bytes=item.uncompressed_bytes,
            )
            for item in manifest.items
        ],
    )
