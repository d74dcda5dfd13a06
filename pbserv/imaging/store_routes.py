"""The stores of images over HTTP: where they are, how full, what in them is damaged."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from pbserv.imaging.faults import UnknownStore
from pbserv.imaging.image_desk import Desk, api
from pbserv.imaging.objects import StoreFacts
from pbserv.imaging.store_views import StoreDetails, StoresModel, store_details, store_model

TAG: Final = "stores"


def routers(desk: Desk) -> tuple[APIRouter, ...]:
    return (_questions(desk),)


def _questions(desk: Desk) -> APIRouter:
    routes = api(TAG, desk.looking(), 404, 422)

    @routes.get("/stores", summary="The stores that images are kept in")
    async def stores() -> StoresModel:
        return StoresModel(stores=[store_model(store) for store in desk.store.stores()])

    @routes.get("/stores/{name}", summary="One store, with what is damaged in it")
    async def store(name: str) -> StoreDetails:
        return store_details(find(desk, name))

    return routes


def find(desk: Desk, name: str) -> StoreFacts:
    """Raises UnknownStore."""
    stores = desk.store.stores()
    found = next((store for store in stores if store.name == name), None)
    if found is None:
        raise UnknownStore(f"there is no store {name[:80]!r}, but {', '.join(store.name for store in stores)}")
    return found
