"""The policy's picture of the registry: immutable, replaced whole when something changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from pbserv.registry.records import Device, DeviceState


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Devices by MAC (``aa:bb:cc:dd:ee:ff``). ``pending`` counts those that nobody decided on yet."""

    devices: Mapping[str, Device]
    pending: int = 0

    @classmethod
    def of(cls, devices: Iterable[Device]) -> Snapshot:
        table = {device.mac: device for device in devices}
        return cls(MappingProxyType(table), sum(d.state is DeviceState.PENDING for d in table.values()))

    def get(self, mac: str) -> Device | None:
        return self.devices.get(mac)

    def without(self, mac: str) -> Snapshot:
        """A copy in which there is no such device."""
        return Snapshot.of(device for device in self.devices.values() if device.mac != mac)

    def having(self, device: Device) -> Snapshot:
        """A copy in which ``device`` stands as given."""
        before = self.devices.get(device.mac)
        table = dict(self.devices)
        table[device.mac] = device
        pending = self.pending + (device.state is DeviceState.PENDING)
        pending -= before is not None and before.state is DeviceState.PENDING
        return replace(self, devices=MappingProxyType(table), pending=pending)
