"""The policy's picture of the registry: the devices by MAC, changed in place by the one thread that runs the loop.

One rule: the records in it are frozen, so who holds one holds what was true when it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable

from pbserv.registry.records import Device, DeviceState

_WAITING = (DeviceState.PENDING, DeviceState.DENIED)


class DeviceTable:
    """``pending`` counts the devices that nobody decided on yet, ``refused`` these and the denied ones."""

    __slots__ = ("_devices", "pending", "refused")

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        self._devices: dict[str, Device] = {}
        self.pending = 0
        self.refused = 0
        for device in devices:
            self.put(device)

    def __len__(self) -> int:
        return len(self._devices)

    def get(self, mac: str) -> Device | None:
        """By ``aa:bb:cc:dd:ee:ff``."""
        return self._devices.get(mac)

    def put(self, device: Device) -> None:
        """``device`` stands as given from now on."""
        before = self._devices.get(device.mac)
        if before is not None:
            self._count(before, -1)
        self._devices[device.mac] = device
        self._count(device, 1)

    def remove(self, mac: str) -> None:
        before = self._devices.pop(mac, None)
        if before is not None:
            self._count(before, -1)

    def _count(self, device: Device, step: int) -> None:
        if device.state in _WAITING:
            self.refused += step
            self.pending += step * (device.state is DeviceState.PENDING)
