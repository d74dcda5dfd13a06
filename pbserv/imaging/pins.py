"""Which version of an add-on each job was told of: its bytes are of that one, whatever is served meanwhile.

One rule: what is kept here is gone with the job, and with this process; then the version that is served now is given.
"""

from __future__ import annotations

from pbserv.registry.records import Job


class Pins:
    """Used from the event loop only."""

    def __init__(self) -> None:
        self._jobs: dict[int, dict[str, int]] = {}

    def put(self, job: int, image: str, version: int) -> None:
        """The job was told what this version consists of."""
        self._jobs.setdefault(job, {})[image] = version

    def of(self, job: int, image: str) -> int | None:
        """The version that the job was told of; None: none is known."""
        return self._jobs.get(job, {}).get(image)

    def jobs(self, image: str, version: int) -> frozenset[int]:
        """The jobs that were told of this version."""
        return frozenset(job for job, told in self._jobs.items() if told.get(image) == version)

    def ended(self, job: Job) -> None:
        """Told by the registry: the job is over."""
        self._jobs.pop(job.id, None)
