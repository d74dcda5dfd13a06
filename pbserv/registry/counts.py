"""How much there is in the registry, for figures, and which boot files it names, for the doctor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select

from pbserv.registry.models import DeviceRow, WorkRow
from pbserv.registry.records import DeviceState, WorkState
from pbserv.registry.store import Store


@dataclass(frozen=True, slots=True)
class Counts:
    """Every state is there, also with 0. ``work`` has what has ended too."""

    devices: Mapping[str, int]
    work: Mapping[str, int]


class Counting(Store):
    """The part of the registry that counts."""

    async def answers(self) -> None:
        """Raises what keeps the database from being used."""
        async with self._read() as session:
            await session.execute(select(1))

    async def loaders(self) -> list[str]:
        """The boot files that devices have of their own, each once."""
        query = select(DeviceRow.loader).where(DeviceRow.loader != "").distinct().order_by(DeviceRow.loader)
        async with self._read() as session:
            return list(await session.scalars(query))

    async def counts(self) -> Counts:
        """Costs a walk over the devices: some ten milliseconds of the database for 100,000, none of the loop."""
        async with self._read() as session:
            devices = (await session.execute(select(DeviceRow.state, func.count()).group_by(DeviceRow.state))).all()
            work = (await session.execute(select(WorkRow.state, func.count()).group_by(WorkRow.state))).all()
        by_state, of_work = {state: count for state, count in devices}, {state: count for state, count in work}
        return Counts(
            {state.value: by_state.get(state, 0) for state in DeviceState},
            {state.value: of_work.get(state, 0) for state in WorkState},
        )
