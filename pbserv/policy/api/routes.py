"""All routes below ``/api/v1`` that the policy and the registry answer."""

from __future__ import annotations

from fastapi import APIRouter

from pbserv.policy.api import apply, device_import, devices, explain, groups, objects, work
from pbserv.policy.api.desk import Desk, Images, Routers
from pbserv.policy.service import PolicyService
from pbserv.registry.access import Access
from pbserv.registry.registry import Registry


def router(registry: Registry, policy: PolicyService, access: Access, images: Images) -> APIRouter:
    """They answer whether the policy service runs or not: the registry is always there."""
    desk, routers = Desk(registry, policy, images), Routers.under(access)
    device_import.add(routers, desk)
    devices.add(routers, desk)
    groups.add(routers, desk)
    objects.add(routers, desk)
    work.add(routers, desk)
    explain.add(routers, desk)
    apply.add(routers, desk)
    routes = APIRouter(prefix="/api/v1")
    for each in (routers.viewer, routers.operator, routers.admin):
        routes.include_router(each)
    return routes
