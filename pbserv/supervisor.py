"""Starts, stops and reloads services; does not know which they are. Owns every task of the process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from pbserv.errors import PbservError, StartError
from pbserv.log import ServiceLog
from pbserv.service import Reload, Service, ServiceStatus

RESTART_DELAY_S = 1.0


class Supervisor:
    """``services`` in start order. Settings come as a mapping from a service's name to its settings value."""

    def __init__(self, services: Sequence[Service[Any]], log: ServiceLog) -> None:
        self._services: dict[str, Service[Any]] = {}
        self._log = log
        self._reasons: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self.adopt(services)

    def adopt(self, services: Sequence[Service[Any]]) -> None:
        """Take services into care; called once, after they were wired with :meth:`spawn`."""
        self._services.update((service.name, service) for service in services)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._services)

    def running(self, name: str) -> bool:
        service = self._services.get(name)
        return service is not None and service.running

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` as an owned task; what escapes from it is logged with its traceback, never lost."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def spawn_forever(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Like :meth:`spawn`, and started again when it ends by a fault."""

        async def keep() -> None:
            while True:
                try:
                    await work()
                except Exception as fault:
                    self._log.critical(f"task {name} failed and is started again", exc_info=fault)
                await asyncio.sleep(RESTART_DELAY_S)

        return self.spawn(name, keep())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self._log.critical(f"task {task.get_name()} failed", exc_info=fault)

    async def start(self, names: Iterable[str], settings: Mapping[str, Any]) -> list[ServiceStatus]:
        """Start what does not run yet; one that cannot start does not stop the others."""
        async with self._lock:
            for name in names:
                service = self._services[name]
                if service.running:
                    continue
                try:
                    await service.start(settings[name])
                    self._reasons.pop(name, None)
                except StartError as fault:
                    self._reasons[name] = str(fault)
                    self._log.critical("not started", part=name, reason=str(fault))
                except Exception as fault:
                    self._reasons[name] = f"internal error: {fault!r}; the log has the details"
                    self._log.critical("not started", exc_info=fault, part=name)
                    with contextlib.suppress(Exception):
                        await service.stop()
            return self.status(names)

    async def stop(self, names: Iterable[str]) -> list[ServiceStatus]:
        """Stop in reverse order."""
        async with self._lock:
            for name in reversed(list(names)):
                try:
                    await self._services[name].stop()
                except Exception as fault:
                    self._log.critical("stop failed", exc_info=fault, part=name)
                self._reasons.pop(name, None)
            return self.status(names)

    async def reload(self, settings: Mapping[str, Any]) -> list[str]:
        """All running services or none: the errors of the preparation, empty when the new settings are in force."""
        async with self._lock:
            prepared: list[Reload] = []
            errors: list[str] = []
            for name, service in self._services.items():
                if not service.running:
                    continue
                try:
                    prepared.append(await service.prepare(settings[name]))
                except PbservError as fault:
                    errors.append(f"{name}: {fault}")
                except Exception as fault:
                    self._log.critical("reload failed", exc_info=fault, part=name)
                    errors.append(f"{name}: internal error: {fault!r}")
            for reload in prepared:
                if errors:
                    reload.abort()
                else:
                    reload.commit()
            return errors

    def status(self, names: Iterable[str] | None = None) -> list[ServiceStatus]:
        """One status per service, in the order of ``names``."""
        found = []
        for name in self._services if names is None else names:
            service = self._services[name]
            found.append(
                ServiceStatus(
                    name=name,
                    title=service.title,
                    running=service.running,
                    listeners=service.listeners if service.running else (),
                    reason="" if service.running else self._reasons.get(name, ""),
                )
            )
        return found

    async def close(self) -> None:
        """Stop everything and end every owned task."""
        await self.stop(self.names)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
