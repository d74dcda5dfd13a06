"""The uploads of devices that are capturing: one draft per job, given up when its work ends without a commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pbserv.imaging.backend import ImageDraft, ImagingBackend
from pbserv.registry.records import Device, Job


@dataclass(frozen=True, slots=True)
class _Capture:
    mac: str
    work_id: int
    draft: ImageDraft


class Captures:
    """Used from the event loop only."""

    def __init__(self, store: ImagingBackend) -> None:
        self._store = store
        self._captures: dict[int, _Capture] = {}

    def draft(self, job: Job, *, overwrite: bool) -> ImageDraft:
        """The draft of a running job, begun with its first item; raises ImageExists and its like."""
        capture = self._captures.get(job.id)
        if capture is None:
            self._drop(lambda other: other.mac == job.mac)  # an earlier job of this device was cut off
            capture = _Capture(job.mac, job.work_id, self._store.begin(job.image, overwrite=overwrite or None))
            self._captures[job.id] = capture
        return capture.draft

    def committed(self, job: Job) -> None:
        self._captures.pop(job.id, None)

    def device_changed(self, device: Device) -> None:
        """Work that was cancelled, failed or begun again frees the name that its upload held."""
        active = device.work.id if device.work is not None and device.work.active else None
        self._drop(lambda capture: capture.mac == device.mac and capture.work_id != active)

    def begun(self, job: Job) -> None:
        """A new job of the same work starts from nothing."""
        self._drop(lambda capture: capture.mac == job.mac)

    async def close(self) -> None:
        captures, self._captures = self._captures, {}
        for capture in captures.values():
            await capture.draft.discard()

    def _drop(self, lost: Callable[[_Capture], bool]) -> None:
        for job_id in [number for number, capture in self._captures.items() if lost(capture)]:
            self._captures.pop(job_id).draft.discard()
