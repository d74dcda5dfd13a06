"""What requests about images, uploads and stores bring, as declared shapes.

One rule: a field that was not sent, or is null, leaves what is there as it is.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pbserv.imaging.about import MAX_LINE, MAX_PARTITION, MAX_TEXT, MAX_VERSIONS, About, AboutChange
from pbserv.imaging.states import ImageKind

MAX_VERSION_NUMBER: Final = 999_999_999
VersionNumber = Annotated[int, Path(ge=1, le=MAX_VERSION_NUMBER, description="number of the version")]
ShownVersion = Annotated[
    int, Path(ge=0, le=MAX_VERSION_NUMBER, description="number of the version; 0: the one that is served")
]
OneVersion = Annotated[
    int | None, Query(ge=1, le=MAX_VERSION_NUMBER, description="number of the version; none: the one that is served")
]
Line = Annotated[str, StringConstraints(max_length=MAX_LINE)]
StoreName = Annotated[str, StringConstraints(max_length=64)]


class Body(BaseModel):
    """A field that there is not is an error, not a silent nothing."""

    model_config = ConfigDict(extra="forbid")


class RegisterBody(Body):
    """``store``: where its versions will be kept; empty: the first one. ``keep``: see the change of an image.
    ``owner``: the store of another server (RemoteStores) that it belongs to. ``partition`` and ``partition_type``: what
    it is said to be of, in words of the site."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    title: Line = ""
    kind: ImageKind | None = None
    store: StoreName = ""
    profile: Line = ""
    comment: Annotated[str, StringConstraints(max_length=MAX_TEXT)] = ""
    keep: Annotated[int | None, Field(ge=0, le=MAX_VERSIONS)] = None
    owner: StoreName = ""
    partition: Annotated[int | None, Field(ge=1, le=MAX_PARTITION)] = None
    partition_type: Line = ""

    def about(self, creator: str) -> About:
        return About(
            title=self.title, kind=self.kind, profile=self.profile, comment=self.comment, keep=self.keep,
            creator=creator, owner=self.owner, partition=self.partition, partition_type=self.partition_type,
        )  # fmt: skip


class ChangeBody(Body):
    """``keep``: so many versions are kept, older ones are retired; 0: all; -1: as the store says. ``owner``: the store
    of another server (RemoteStores) that it belongs to; empty: it belongs here. ``partition`` 0: none is said."""

    title: Line | None = None
    kind: ImageKind | None = None
    profile: Line | None = None
    comment: Annotated[str | None, StringConstraints(max_length=MAX_TEXT)] = None
    keep: Annotated[int | None, Field(ge=-1, le=MAX_VERSIONS)] = None
    owner: StoreName | None = None
    partition: Annotated[int | None, Field(ge=0, le=MAX_PARTITION)] = None
    partition_type: Line | None = None

    def change(self) -> AboutChange:
        return AboutChange(
            title=self.title, kind=self.kind, profile=self.profile, comment=self.comment, keep=self.keep,
            owner=self.owner, partition=self.partition, partition_type=self.partition_type,
        )  # fmt: skip


class VersionBody(Body):
    """What is said of one version; empty: nothing."""

    comment: Line


class RollbackBody(Body):
    """``to``: the version that is served then; none: the enabled one before the one that is served."""

    to: Annotated[int | None, Field(ge=1, le=MAX_VERSION_NUMBER)] = None
