"""The uploads of devices that are capturing: one draft per job, given up when its work ends without a commit.

One rule: a draft is begun only for a job that this process saw starting and whose work is active, and both are looked
at in the same step that begins it: a cancel in between cannot leave a draft that nobody ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pbserv.imaging.backend import ImageDraft, ImagingBackend
from pbserv.imaging.faults import DraftGone
from pbserv.imaging.layout import StoredImage
from pbserv.registry.records import Device, Job


@dataclass(slots=True)
class _Capture:
    mac: str
    work_id: int
    overwrite: bool
    draft: ImageDraft | None = None
    image: StoredImage | None = None


class Captures:
    """Used from the event loop only."""

    def __init__(self, store: ImagingBackend) -> None:
        self._store = store
        self._captures: dict[int, _Capture] = {}

    def begin(self, job: Job, *, overwrite: bool) -> None:
        """A device begins; whatever an earlier job of it had uploaded is given up."""
        self._drop(lambda capture: capture.mac == job.mac)
        self._captures[job.id] = _Capture(job.mac, job.work_id, overwrite)

    def draft(self, job: Job) -> ImageDraft:
        """Where the items of a running job go; raises DraftGone, ImageExists and their like."""
        capture = self._of(job)
        if capture.draft is None:
            overwrite = capture.overwrite and bool(self._store.versions(job.image))
            capture.draft = self._store.begin(job.image, overwrite=overwrite)
        return capture.draft

    async def commit(self, job: Job, manifest: str) -> tuple[StoredImage, bool]:
        """Make the image visible: the image, and whether this call did it (the answer to an earlier one was lost)."""
        capture = self._of(job)
        if capture.image is not None:
            return capture.image, False
        if capture.draft is None:
            raise DraftGone(f"image {job.image}: nothing was uploaded in this job")
        capture.image = await capture.draft.commit(manifest)
        return capture.image, True

    def end(self, job_id: int) -> None:
        """The job is over: what it uploaded and did not commit is given up."""
        capture = self._captures.pop(job_id, None)
        if capture is not None and capture.draft is not None:
            capture.draft.discard()

    def device_changed(self, device: Device) -> None:
        """Work that was cancelled, failed or done frees the name that its upload held."""
        active = device.work.id if device.work is not None and device.work.active else None
        self._drop(lambda capture: capture.mac == device.mac and capture.work_id != active)

    async def close(self) -> None:
        """Give everything up; jobs that go on are told to start again."""
        captures, self._captures = self._captures, {}
        for capture in captures.values():
            if capture.draft is not None:
                await capture.draft.discard()

    def _of(self, job: Job) -> _Capture:
        capture = self._captures.get(job.id)
        if capture is None:
            raise DraftGone(
                f"job {job.id} is over, or the imaging service was restarted during it: the capture must start again"
            )
        return capture

    def _drop(self, lost: Callable[[_Capture], bool]) -> None:
        for job_id in [number for number, capture in self._captures.items() if lost(capture)]:
            draft = self._captures.pop(job_id).draft
            if draft is not None:
                draft.discard()
