"""The statements that keep boot sessions and learned strategies: what is written again takes its own place."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Delete, delete, func, select
from sqlalchemy.dialects.sqlite import Insert

from pbserv.registry.engine import Upsert
from pbserv.registry.models import BootSessionRow, StrategyRow
from pbserv.registry.records import BootSession

SESSIONS_PER_DEVICE = 20


def keep_session(upsert: Upsert) -> Insert:
    new = upsert(BootSessionRow)
    changed = ("ended", "result", "why", "todo", "steps", "packets")
    return new.on_conflict_do_update(
        index_elements=["mac", "started"], set_={name: new.excluded[name] for name in changed}
    )


def keep_strategy(upsert: Upsert) -> Insert:
    new = upsert(StrategyRow)
    return new.on_conflict_do_update(
        index_elements=["mac"], set_={"name": new.excluded.name, "learned": new.excluded.learned}
    )


def surplus_sessions(macs: Collection[str]) -> Delete:
    """Removes the sessions of these devices that are older than the newest ``SESSIONS_PER_DEVICE`` of each."""
    place = func.row_number().over(partition_by=BootSessionRow.mac, order_by=BootSessionRow.started.desc())
    ranked = select(BootSessionRow.id, place.label("place")).where(BootSessionRow.mac.in_(macs)).subquery()
    surplus = select(ranked.c.id).where(ranked.c.place > SESSIONS_PER_DEVICE)
    return delete(BootSessionRow).where(BootSessionRow.id.in_(surplus))


def values_of(kept: BootSession) -> dict[str, object]:
    return {
        "mac": kept.mac, "started": kept.started, "ended": kept.ended, "result": kept.result, "why": kept.why,
        "todo": kept.todo, "steps": kept.steps, "packets": kept.packets,
    }  # fmt: skip


def boot_session(row: BootSessionRow) -> BootSession:
    return BootSession(row.mac, row.started, row.ended, row.result, row.why, row.todo, row.steps, row.packets)
