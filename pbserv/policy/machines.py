"""The policy as the imaging service sees it: it learns what the client tells, and says what is assigned to a device."""

from __future__ import annotations

from collections.abc import Mapping

from pbserv.policy.decide import Query, imaging_of
from pbserv.policy.orders import order_of
from pbserv.policy.service import PolicyService
from pbserv.registry.orders import WorkOrder


class Machines:
    def __init__(self, policy: PolicyService) -> None:
        self._policy = policy

    def learn(
        self, mac: str, labels: Mapping[str, str], *, serial: str = "", asset: str = "", uuid: str | None = None
    ) -> None:
        """See :meth:`PolicyService.learn`."""
        self._policy.learn(mac, labels, serial=serial, asset=asset, uuid=uuid)

    def imaging(self, mac: str) -> WorkOrder | None:
        """What "Start imaging" of a menu means for this device; None: nothing is assigned to it."""
        snapshot = self._policy.snapshot
        device = snapshot.device(mac)
        found = imaging_of(Query(mac, device), snapshot)
        return None if device is None or found is None else order_of(device.mac, *found)
