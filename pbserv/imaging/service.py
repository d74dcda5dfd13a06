"""The imaging service: the image store, the jobs of devices, the statistics. Its wire is HTTP (web/ carries it)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from fastapi import APIRouter

from pbserv.errors import StartError
from pbserv.imaging import addon_routes, client_routes, identity_routes, image_routes, job_routes, referred_uploads
from pbserv.imaging.adopt import Adopter
from pbserv.imaging.away import Away
from pbserv.imaging.backend import load_backend
from pbserv.imaging.board import Sight
from pbserv.imaging.captures import Captures
from pbserv.imaging.checks import limits_of
from pbserv.imaging.config import PbservConf
from pbserv.imaging.coverage import Coverage
from pbserv.imaging.elsewhere import Elsewhere
from pbserv.imaging.faults import NotSupported
from pbserv.imaging.hooks import Hooks
from pbserv.imaging.identities import IdentityDesk
from pbserv.imaging.jobs import History, Jobs
from pbserv.imaging.keeper import Keeper
from pbserv.imaging.pins import Pins
from pbserv.imaging.ports import Policy
from pbserv.imaging.referring import Referring, Remotes, image_of_upload, remotes_of
from pbserv.imaging.refetch import Refetch
from pbserv.imaging.scrub import DEFAULT_RATE_MB
from pbserv.imaging.slot import BackendSlot
from pbserv.imaging.statistics import RequestRecord, Statistics
from pbserv.imaging.stores import Stores, StoresSettings
from pbserv.imaging.tasks import Tasks
from pbserv.imaging.transfer import Transfers
from pbserv.imaging.waker import Waker
from pbserv.imaging.watch import Watcher
from pbserv.log import ServiceLog
from pbserv.registry.access import Access
from pbserv.registry.options import NO_OPTIONS, WorkOptions
from pbserv.registry.records import BundleKind, Role
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import WorkTokens
from pbserv.service import Reload

FLUSH_EVERY_S: Final = 1.0
"""Between two looks at what the registry is to be told of jobs; most of the time that is nothing."""


@dataclass(frozen=True, slots=True)
class ImagingSettings:
    conf: PbservConf


class ImagingService:
    """``Service[ImagingSettings]``. ``web_fault`` says why the HTTP server does not run, or nothing."""

    name = "imaging"
    title = "pbserv imaging service"

    def __init__(
        self,
        log: ServiceLog,
        registry: Registry,
        access: Access,
        history: History,
        web_fault: Callable[[], str],
        client_files: Sequence[Path],
        policy: Policy,
        tokens: WorkTokens,
    ) -> None:
        self._log = log
        self._access = access
        self._policy = policy
        self._tokens = tokens
        self._web_fault = web_fault
        self._client_files = client_files
        self._settings: ImagingSettings | None = None
        self._store = BackendSlot()
        self.statistics = Statistics(self._log_request)
        self._coverage = Coverage()
        self._transfers = Transfers(self._store, self.statistics, self._coverage, log)
        self._referring = Referring(partial(access.digests, Role.IMAGES), partial(image_of_upload, self._store))
        self.away = Away(self._referring, tokens.key("uploads"), log)
        self._captures = Captures(self._store, self.away)
        self.hooks = self._transfers.hooks = Hooks(log)
        self._jobs = Jobs(registry, history, self.statistics, policy, log, self.hooks)
        self._identities = IdentityDesk(registry, history, tokens.key("identity"))
        self._waker = Waker(registry, history, log, self._jobs.running_now)
        self._registry = registry
        self._pins = Pins()
        self._keeper = Keeper(registry, policy, self._captures, self._pins, log)
        self._keeper.referred = self._referring.users
        self.tasks = Tasks(log)
        self._elsewhere = Elsewhere(self._store, self._referring, log)
        self.watcher = Watcher(Adopter(self._store, log, self.scrub_rate, self._transfers.dropped), log)
        registry.subscribe(self._captures.device_changed)
        registry.subscribe(self._waker.device_changed)
        registry.subscribe_jobs(self._pins.ended)
        registry.subscribe_jobs(self._captures.ended)

    @property
    def running(self) -> bool:
        return self._settings is not None

    @property
    def listeners(self) -> tuple[str, ...]:
        return ()

    @property
    def client_ready(self) -> bool:
        """Whether the imaging client was built."""
        return all(path.is_file() for path in self._client_files)

    @property
    def busy(self) -> bool:
        """Whether a device is at work."""
        return self._jobs.busy

    def check_work(self, kind: BundleKind, image: str, *, overwrite: bool, options: WorkOptions = NO_OPTIONS) -> None:
        """Refuse work that could only fail on the device: raises an ImagingFault with the reason."""
        self._elsewhere.check_order(kind, image, overwrite=overwrite, options=options)

    def live(self, job_id: int) -> Sight | None:
        """How far a job is now; None for one that nobody hears of."""
        return self._jobs.running_now.look(job_id)

    async def run(self) -> None:
        """The owned task, until cancelled: what devices reported goes to the registry, and devices are woken."""
        while True:
            await self._jobs.running_now.flush()
            if self.running:
                await self._waker.turn()
                await self._keeper.turn()
            await asyncio.sleep(FLUSH_EVERY_S)

    def scrub_rate(self) -> int:
        """MB a second that work in the background reads, where nothing else is asked for."""
        return self._settings.conf.scrub_rate if self._settings is not None else DEFAULT_RATE_MB

    def _watch(self) -> None:
        """Files that are dropped into a store's directory become images; an own backend has no directories."""
        with suppress(NotSupported):
            self.watcher.watch({store.name: store.directory for store in self._store.stores()})

    def router(self) -> APIRouter:
        """All HTTP routes of the service."""
        routes = APIRouter()
        routes.include_router(
            image_routes.router(
                self._store,
                self.statistics,
                self._coverage,
                self._access,
                self._log,
                self.tasks,
                self.scrub_rate,
                self._referring,
                self._transfers,
            )
        )
        routes.include_router(
            client_routes.router(
                self._jobs,
                self._captures,
                self._transfers,
                self._access,
                self._policy,
                self._tokens.issue,
                self._identities.prepare,
                self._elsewhere,
            )
        )
        routes.include_router(referred_uploads.router(self._store, self._referring))
        routes.include_router(job_routes.router(self._jobs, self._captures, self._waker, self._registry, self._access))
        routes.include_router(identity_routes.router(self._identities, self._jobs, self._access))
        routes.include_router(
            addon_routes.router(self._jobs, self._transfers, self._access, self._elsewhere, self._pins)
        )
        return routes

    async def start(self, settings: ImagingSettings) -> None:
        """Open the store; raises StartError, also when the HTTP server does not run."""
        fault = self._web_fault()
        if fault:
            raise StartError(fault)
        conf = settings.conf
        remotes = remotes_of(conf.remote_stores, conf.remote_store_token)
        backend = load_backend(
            conf.library_name, conf.state_directory, allow_overwrite=conf.allow_overwrite, stores=_stores(conf)
        )
        if isinstance(backend, Stores):
            self._keeper.wire(backend)
            backend.retired = self.hooks.retired
            self._jobs.running_now.closed, self._keeper.placed = backend.leaving, self._jobs.running_now.placed
            backend.elsewhere = Refetch(self._referring, self._from_thread(asyncio.get_running_loop()))
        await self._store.put(backend)
        self._referring.remotes = remotes
        await self._keeper.started()
        self._keeper.retired_days = conf.retired_days
        self._settings = settings
        self.hooks.adopt(conf.hook_directory)
        self._watch()
        self._jobs.running_now.queue.adopt(limits_of(self._store))
        for damage in self._store.damages:
            self._log.critical("image damaged, not served", path=damage.path, reason=damage.reason)
        for folder in self._store.foreign:
            self._log.warning("folder passed over", path=folder, reason="no image: no version and no about in it",
                              remedy="images are taken from the store's own directory: move them there")  # fmt: skip
        self._log.critical("imaging started", images=len(self._store.list()), client_ready=self.client_ready)

    def _from_thread(self, loop: asyncio.AbstractEventLoop) -> Callable[[str], None]:
        """For a scrub's thread: says that a server could not be asked for a copy."""

        def warn(reason: str) -> None:
            loop.call_soon_threadsafe(partial(self._log.warning, "no copy of a damaged item", reason=reason))

        return warn

    async def stop(self) -> None:
        if self._settings is None:
            return
        self._settings = None
        self.watcher.watch({})
        self.tasks.cancel_all()
        await self._jobs.running_now.flush(everything=True)
        await self._captures.close()
        await self._store.close()
        self._log.critical("imaging stopped")

    async def prepare(self, settings: ImagingSettings) -> Reload:
        if self._settings is not None and settings.conf.library_name != self._settings.conf.library_name:
            raise StartError("LIBRARY_NAME changes with a restart only: pbserv restart")
        remotes = remotes_of(settings.conf.remote_stores, settings.conf.remote_store_token)
        stores = await self._store.prepare(_stores(settings.conf)) if self.running else None
        return _ImagingReload(self, settings, stores, remotes)

    def adopt(self, settings: ImagingSettings, remotes: Remotes) -> None:
        self._settings = settings
        self._referring.remotes = remotes
        self._store.allow_overwrite = settings.conf.allow_overwrite
        self._keeper.retired_days = settings.conf.retired_days
        self._watch()
        self.hooks.adopt(settings.conf.hook_directory)
        self._jobs.running_now.queue.adopt(limits_of(self._store))

    def figures(self) -> Mapping[str, str | int | Mapping[str, int | Mapping[str, int]]]:
        """The statistics of table D-18."""
        counters = self.statistics.counters
        return {
            "pxe_requests": counters.pxe_requests,
            "images_sent": counters.images_sent,
            "images_received": counters.images_received,
            "since": counters.since.isoformat(timespec="seconds"),
            "imaging_results": counters.results,
            "imaging_jobs": counters.jobs,
        }

    def _log_request(self, record: RequestRecord) -> None:
        tell = self._log.request if record.result in ("ok", "started", "referred") else self._log.warning
        tell("imaging request", **record.fields())


def _stores(conf: PbservConf) -> StoresSettings:
    return StoresSettings(
        places=conf.stores,
        allow_overwrite=conf.allow_overwrite,
        auto_enable=conf.auto_enable,
        upload_directories=conf.upload_directories,
        level=conf.image_compression,
        workers=conf.image_workers,
    )


class _ImagingReload:
    def __init__(
        self, service: ImagingService, settings: ImagingSettings, stores: Reload | None, remotes: Remotes
    ) -> None:
        self._service, self._settings, self._stores, self._remotes = service, settings, stores, remotes

    def commit(self) -> None:
        if self._stores is not None:
            self._stores.commit()
        self._service.adopt(self._settings, self._remotes)

    def abort(self) -> None:
        if self._stores is not None:
            self._stores.abort()
