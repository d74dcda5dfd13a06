"""Stores, and what runs on them, as the API shows them: declared shapes."""

from __future__ import annotations

from typing import Any  # Any: the values of a model on their way into it

from pydantic import BaseModel, Field

from pbserv.imaging.image_views import DamageModel, damage_models
from pbserv.imaging.objects import StoreFacts


class StoreModel(BaseModel):
    name: str
    directory: str
    used_bytes: int = Field(description="of all versions, retired ones too, and of uploads under way")
    quota_bytes: int = Field(description="0: no quota")
    free_bytes: int = Field(description="of the file system")
    floor_bytes: int = Field(description="so much of it stays free")
    keep: int = Field(description="versions of each image that are kept, 0: all")
    restores: int = Field(description="devices that may restore at once, 0: any number")
    captures: int = Field(description="devices that may take an image at once, 0: any number")
    images: int
    versions: int
    damaged: int = Field(description="how much is not served because it is not what was committed")


class StoreDetails(StoreModel):
    damages: list[DamageModel]


class StoresModel(BaseModel):
    stores: list[StoreModel]


def store_model(store: StoreFacts) -> StoreModel:
    return StoreModel(**_common(store))


def store_details(store: StoreFacts) -> StoreDetails:
    return StoreDetails(**_common(store), damages=damage_models(store.damages))


def _common(store: StoreFacts) -> dict[str, Any]:
    return {
        "name": store.name,
        "directory": str(store.directory),
        "used_bytes": store.used_bytes,
        "quota_bytes": store.quota_bytes,
        "free_bytes": store.free_bytes,
        "floor_bytes": store.floor_bytes,
        "keep": store.keep,
        "restores": store.restores,
        "captures": store.captures,
        "images": store.images,
        "versions": store.versions,
        "damaged": len(store.damages),
    }
