"""The uploads of one store: at most one per image, made new or gone on with after a restart.

One rule: whoever is in this list holds the name of its image; it leaves the list when its draft ends, in whatever way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from io import FileIO

from pbserv.imaging.changes import Signing
from pbserv.imaging.draft import Draft
from pbserv.imaging.draft_folder import DraftFolder
from pbserv.imaging.faults import ImagingFault, UploadRunning
from pbserv.imaging.frames.reader import OpenIndex
from pbserv.imaging.layout import Layout, StoredImage, incoming_name
from pbserv.imaging.opened import open_index
from pbserv.imaging.reframe import Reframer, Reuse
from pbserv.imaging.session_file import SessionFacts

OF_ONE_OWNER = 64
"""So many uploads of one device or person are open at once in a store."""


class Uploads:
    """``newest``: the version that a new one of the image is most like; ``committed`` is told of new versions."""

    def __init__(
        self,
        store: str,
        layout: Layout,
        reframer: Reframer,
        workers: Executor,
        *,
        newest: Callable[[str], StoredImage | None],
        signing: Callable[[str], Signing],
        committed: Callable[[StoredImage], None],
    ) -> None:
        self._store = store
        self._layout = layout
        self._reframer = reframer
        self._workers = workers
        self._newest = newest
        self._signing = signing
        self._committed = committed
        self._drafts: dict[str, Draft] = {}

    def __contains__(self, image: str) -> bool:
        return image in self._drafts

    def all(self) -> tuple[Draft, ...]:
        """By image."""
        return tuple(draft for _, draft in sorted(self._drafts.items()))

    def begin(self, image: str, creator: str, *, asis: bool, durable: bool) -> Draft:
        """``durable``: it can go on after a restart of the server. Raises UploadRunning."""
        if image in self._drafts:
            raise UploadRunning(f"image {image} is being uploaded by somebody else; wait, or take another name")
        if creator and sum(draft.owner == creator for draft in self._drafts.values()) >= OF_ONE_OWNER:
            raise UploadRunning(f"image {image}: {creator} has {OF_ONE_OWNER} uploads open; commit or end some first")
        facts = SessionFacts(image, creator, datetime.now(UTC), asis)
        return self._draft(facts, incoming_name(image), durable=durable)

    def resumed(self, facts: SessionFacts, folder: str, touched: datetime | None) -> Draft:
        """One that a server before left in ``folder``; its ``blocking_resume`` is the caller's next step. ``touched``:
        see Found."""
        draft = self._draft(facts, folder, durable=True)
        draft.touched = touched or facts.created
        return draft

    async def close(self) -> None:
        """Interrupt all: what can go on after a restart stays, the rest goes."""
        for draft in self.all():
            await draft.close()
        self._drafts.clear()

    def _draft(self, facts: SessionFacts, folder: str, *, durable: bool) -> Draft:
        draft = Draft(
            facts,
            DraftFolder(self._layout, facts.image, folder),
            self._reframer,
            self._workers,
            ended=partial(self._ended, facts.image),
            signing=self._signing(facts.creator),
            store=self._store,
            durable=durable,
            reuse=partial(self._reuse_of, self._newest(facts.image)),
        )
        self._drafts[facts.image] = draft
        return draft

    def _ended(self, image: str, made: StoredImage | None) -> None:
        self._drafts.pop(image, None)
        if made is not None:
            self._committed(made)

    def _reuse_of(self, image: StoredImage | None, item: str) -> Reuse | None:
        """The frames of an older version, to be taken over where they did not change. Blocking."""
        if image is None or image.manifest.item(item) is None:
            return None
        with suppress(ImagingFault, OSError):  # then everything is compressed anew
            opened = open_index(self._layout, image, item)
            if opened is not None:
                try:
                    file = self._layout.open_item(image, item)
                except BaseException:
                    opened.close()
                    raise
                return Reuse(opened.index, file.fileno(), partial(_close, opened, file))
        return None


def session_of_job(drafts: Sequence[Draft], job: int) -> Draft | None:
    """The upload of a device's job."""
    return next((draft for draft in drafts if draft.owner == f"job:{job}"), None)


def _close(index: OpenIndex, file: FileIO) -> None:
    index.close()
    file.close()
