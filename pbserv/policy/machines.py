"""The policy as the imaging service sees it: it learns what the client tells, and says what is assigned to a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pbserv.policy import integrity
from pbserv.policy.decide import Query, imaging_of
from pbserv.policy.model import ROOT
from pbserv.policy.orders import order_of
from pbserv.policy.service import PolicyService
from pbserv.policy.snapshot import folders_up
from pbserv.registry.orders import WorkOrder
from pbserv.registry.records import Work


@dataclass(frozen=True, slots=True)
class SiteOf:
    """A folder with its limit of jobs; see ``imaging.ports.Site``, which this answers."""

    name: str = ""
    max_jobs: int = 0


class Machines:
    def __init__(self, policy: PolicyService) -> None:
        self._policy = policy

    def learn(
        self, mac: str, labels: Mapping[str, str], *, serial: str = "", asset: str = "", uuid: str | None = None
    ) -> None:
        """See :meth:`PolicyService.learn`."""
        self._policy.learn(mac, labels, serial=serial, asset=asset, uuid=uuid)

    def images_closed(self, work: Work) -> str:
        """Why there are no images in the imaging maintenance of ``work``; empty: all are open to it."""
        settings = self._policy.scripts.settings.conf if self._policy.running else None
        if settings is not None and settings.maintenance_images == "all":
            return ""
        if work.bundle in self._policy.snapshot.objects.bundles:
            return ""
        return (
            "images are closed to maintenance from the menu: order a bundle of kind maintenance (pbserv work bundle),"
            " or set MaintenanceImages = all in preboot-policy.conf"
        )

    def imaging(self, mac: str) -> WorkOrder | None:
        """What "Start imaging" of a menu means for this device; None: nothing is assigned to it."""
        snapshot = self._policy.snapshot
        device = snapshot.device(mac)
        found = imaging_of(Query(mac, device), snapshot)
        return None if device is None or found is None else order_of(device.mac, *found)

    def site_of(self, mac: str) -> SiteOf:
        """The nearest folder upwards of the device that says how many jobs it bears; without one: no limit."""
        snapshot = self._policy.snapshot
        device = snapshot.device(mac)
        for path in folders_up(ROOT if device is None else device.folder):
            folder = snapshot.objects.folders.get(path)
            if folder is not None and folder.max_jobs:
                return SiteOf(path, folder.max_jobs)
        return SiteOf()

    def uses_image(self, image: str) -> tuple[str, ...]:
        """The bundles with this image that devices can get: those that an assignment, rule or menu names."""
        objects = self._policy.snapshot.objects
        found = []
        for bundle in objects.bundles.values():
            if bundle.image != image and image not in bundle.addons:
                continue
            found += [f"bundle {bundle.name!r} ({user})" for user in integrity.uses(objects, "bundle", bundle.name, ())]
        return tuple(found)
