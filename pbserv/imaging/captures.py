"""The uploads of devices that are capturing: one per job, given up when its work ends without a commit.

One rule: an upload is begun only for a job that this process saw starting and whose work is active, and both are looked
at in the same step that begins it: a cancel in between cannot leave an upload that nobody ends. A job that a server
before had started goes on as long as it runs, with its upload, or with its first byte where there is none yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pbserv.imaging.away import Away
from pbserv.imaging.backend import ImageDraft, Session, VersionedBackend
from pbserv.imaging.checks import limits_of
from pbserv.imaging.faults import DraftGone, ImagingFault, NotSupported
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.part_bodies import PART_BYTES
from pbserv.registry.records import BundleKind, Device, Job, Work


@dataclass(slots=True)
class _Capture:
    mac: str
    work_id: int
    overwrite: bool
    draft: ImageDraft | None = None
    image: StoredImage | None = None
    session: Session | None = None
    store: str = ""


class Captures:
    """Used from the event loop only."""

    def __init__(self, store: VersionedBackend, away: Away) -> None:
        """``away``: those that go into stores of other servers."""
        self._store = store
        self.away = away
        self._captures: dict[int, _Capture] = {}

    @property
    def part_bytes(self) -> int:
        """Of one part of an item, before it is compressed; 0: the store takes whole items alone."""
        try:
            self._store.sessions()
        except NotSupported:
            return 0
        return PART_BYTES

    def begin(self, job: Job, *, overwrite: bool, store: str = "", far: str = "") -> None:
        """A device begins; whatever an earlier job of it had uploaded is given up. ``store``: where a new image goes;
        empty: into the first. ``far``: the store of another server that it goes into."""
        self._drop(lambda capture: capture.mac == job.mac)
        self.away.of_device(job.mac)
        if far:
            self.away.begin(job, far, store, overwrite=overwrite)
            return
        self._captures[job.id] = _Capture(job.mac, job.work_id, overwrite, store=store)

    def resume(self, jobs: Sequence[Job], works: Mapping[int, Work] = {}) -> None:
        """At the start: go on with what the jobs that still run had uploaded, or even committed, before it. ``works``:
        their work by its number, as far as it is active; a job of it that has sent nothing yet may still begin."""
        orders = {job.id: found for job in jobs if (found := self._order(job, works)) is not None}
        self.away.resume(jobs, limits_of(self._store).stores.__contains__, orders)
        for job in jobs:
            if job in self.away:
                continue
            try:
                session, image = self._store.session_of_job(job.id), self._store.made_by_job(job.id)
            except NotSupported:
                return
            if session is not None or image is not None:
                self._captures[job.id] = _Capture(job.mac, job.work_id, False, session, image, session)
            elif job.id in orders:
                store, overwrite = orders[job.id]
                self._captures[job.id] = _Capture(job.mac, job.work_id, overwrite, store=store)

    def _order(self, job: Job, works: Mapping[int, Work]) -> tuple[str, bool] | None:
        """Where a capture that has sent nothing was to go, as :meth:`begin` has it, and whether it may overwrite; None:
        it sent something, or is not wanted any more."""
        work = works.get(job.work_id)
        if work is None or job.version is not None or job.bytes_done:
            return None
        try:
            known = self._store.object(job.image)
        except ImagingFault:
            known = None
        versions = () if known is None else known.versions
        if work.kind is BundleKind.CAPTURE:
            owned = known is not None and known.about.owner and not versions
            return ("" if owned else work.options.store), work.overwrite
        # Ordered in maintenance, which keeps no such word: of an image that was there only orders with it were let in.
        return "", any(version.image.created < job.started for version in versions)

    def draft(self, job: Job, size_bytes: int = 0) -> ImageDraft:
        """Where the items of a running job go; raises DraftGone, ImageExists, StoreFull and their like. ``size_bytes``:
        what the image will take, as far as the device can tell."""
        capture = self._of(job)
        if capture.draft is None:
            overwrite = capture.overwrite and bool(self._store.versions(job.image))
            try:
                capture.session = self._store.open_session(
                    job.image, store=capture.store, overwrite=overwrite, owner=f"job:{job.id}", size_bytes=size_bytes
                )
                capture.draft = capture.session
            except NotSupported:
                capture.draft = self._store.begin(job.image, overwrite=overwrite, size_bytes=size_bytes)
        return capture.draft

    def session(self, job: Job, size_bytes: int = 0) -> Session:
        """The same where items come in parts; raises NotSupported for a backend that cannot."""
        self.draft(job, size_bytes)
        session = self._of(job).session
        if session is None:
            raise NotSupported("the backend that LIBRARY_NAME names takes no uploads in parts; send whole items")
        return session

    async def commit(self, job: Job, manifest: str) -> tuple[StoredImage, bool]:
        """Make the image visible: the image, and whether this call did it (the answer to an earlier one was lost)."""
        capture = self._of(job)
        if capture.image is not None:
            return capture.image, False
        if capture.draft is None:
            raise DraftGone(f"image {job.image}: nothing was uploaded in this job")
        session = capture.session
        capture.image = await (session.commit(manifest, mac=job.mac) if session else capture.draft.commit(manifest))
        return capture.image, True

    def end(self, job_id: int) -> None:
        """The job is over: what it uploaded and did not commit is given up."""
        self.away.end(job_id)
        capture = self._captures.pop(job_id, None)
        if capture is not None and capture.draft is not None:
            capture.draft.discard()

    def ended(self, job: Job) -> None:
        """Told by the registry: the job is over, whatever ended it."""
        self.end(job.id)

    def device_changed(self, device: Device) -> None:
        """Work that was cancelled, failed or done frees the name that its upload held."""
        self.away.device_changed(device)
        active = device.work.id if device.work is not None and device.work.active else None
        self._drop(lambda capture: capture.mac == device.mac and capture.work_id != active)

    async def close(self) -> None:
        """The service stops: what a later start cannot go on with is given up."""
        self.away.close()
        captures, self._captures = self._captures, {}
        for capture in captures.values():
            if capture.draft is not None and capture.session is None:
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
