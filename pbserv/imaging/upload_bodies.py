"""Uploads in parts as requests bring and answers show them: declared shapes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from fastapi import Header, Path, Query
from pydantic import BaseModel, Field

from pbserv.imaging.about import MAX_LINE
from pbserv.imaging.backend import Session
from pbserv.imaging.image_bodies import Body, StoreName

MAX_SIZE: Final = 2**63 - 1
MAX_PARTS: Final = 2**31 - 1
Bytes = Annotated[int, Field(ge=0, le=MAX_SIZE)]
UploadNumber = Annotated[str, Path(max_length=200, description="what POST .../uploads gave out")]
JobKey = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="by which another server names a job of its own")]
Title = Annotated[str, Query(max_length=MAX_LINE, description="of the image, where it has none yet")]
PartNumber = Annotated[int, Path(ge=1, le=MAX_PARTS, description="1 for the first part of each item")]
Kind = Annotated[
    str,
    Query(max_length=64, description="of the item, as in the manifest; partclone.* and raw are cut into frames"),
]
Checksum = Annotated[
    str | None, Header(alias="X-Checksum-SHA256", max_length=200, description="of the body; 64 hexadecimal digits")
]


class UploadBody(Body):
    """``bytes``: as much as will come, as far as it is known; 507 at once where it has no room.

    ``asis``: what comes is kept as it is, and never cut into frames. ``referred``: the key of a job of another server;
    the upload that was begun with it is answered again.
    """

    store: StoreName = ""
    overwrite: bool = False
    bytes: Bytes = 0
    asis: bool = False
    referred: Annotated[str, Field(pattern="^([0-9a-f]{32})?$")] = ""


class CompleteBody(Body):
    """``parts``: how many came. ``bytes``: what they are uncompressed; null: that is not known."""

    parts: Annotated[int, Field(ge=0, le=MAX_PARTS)]
    bytes: Annotated[int | None, Field(ge=0, le=MAX_SIZE)] = None


class UploadItemModel(BaseModel):
    kind: str
    next_part: int = Field(description="the number of the part that comes next")
    received_bytes: int
    complete: bool


class UploadModel(BaseModel):
    upload: str = Field(description="names it in all that follows")
    image: str
    store: str
    owner: str = Field(description="token:NAME, job:NUMBER, or referred:KEY: a job of another server")
    created: datetime
    part_bytes: int = Field(description="the most that a part may have before it is compressed")
    items: dict[str, UploadItemModel]


class UploadsModel(BaseModel):
    uploads: list[UploadModel]


class ReferredModel(BaseModel):
    """What became of the upload of another server's job."""

    upload: UploadModel | None = Field(description="null: it was committed or given up, or never begun")
    version: int | None = Field(description="the version of the image that it made")


class PartModel(BaseModel):
    next_part: int
    received_bytes: int = Field(description="of all parts of this item so far")


class CompleteModel(BaseModel):
    """What the manifest has to say of the item: what was received, not what it became in the store."""

    name: str
    stored_bytes: int
    sha256: str = Field(description="of the digests of its parts, in hexadecimal digits, one after the other")


def upload_model(session: Session, part_bytes: int) -> UploadModel:
    return UploadModel(
        upload=session.number,
        image=session.image,
        store=session.store,
        owner=session.owner,
        created=session.created,
        part_bytes=part_bytes,
        items={
            name: UploadItemModel(
                kind=item.kind, next_part=item.next_part, received_bytes=item.received_bytes, complete=item.complete
            )
            for name, item in session.progress().items()
        },
    )
