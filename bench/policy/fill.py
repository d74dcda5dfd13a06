"""The zone as a registry of either database. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any  # Any: columns of a row

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.policy.zone import NOW
from pbserv.policy.documents import encode, kind_of
from pbserv.policy.model import PolicyObject
from pbserv.registry.device_rows import labels_text
from pbserv.registry.engine import Place, open_engine, writing
from pbserv.registry.models import Base, DeviceGroupRow, DeviceMacRow, DeviceRow, DeviceRunRow, DocumentRow, WorkRow
from pbserv.registry.records import Device, Run, Work

_AT_ONCE = 5_000
Row = dict[str, Any]


async def fill(place: Place, devices: Iterable[Device], objects: Sequence[PolicyObject]) -> None:
    """Into tables that are there and empty."""
    engine = open_engine(place)
    waiting = iter(devices)
    async with writing(engine).begin() as connection:
        while some := list(islice(waiting, _AT_ONCE)):
            await _put(connection, DeviceRow, [_device(each) for each in some])
            await _put(connection, DeviceMacRow, [{"mac": mac, "device": d.mac} for d in some for mac in d.macs])
            await _put(connection, DeviceGroupRow, [{"mac": d.mac, "name": name} for d in some for name in d.groups])
            await _put(connection, WorkRow, [_work(d.work) for d in some if d.work])
            await _put(connection, WorkRow, [_ended(d.mac, run) for d in some for run in d.runs])
            await _put(connection, DeviceRunRow, [_run(d.mac, run) for d in some for run in d.runs])
        await _put(connection, DocumentRow, [_document(each) for each in objects])
    await engine.dispose()


async def _put(connection: AsyncConnection, table: type[Base], rows: list[Row]) -> None:
    if rows:
        await connection.execute(insert(table), rows)


def _device(device: Device) -> Row:
    plain = ("mac", "uuid", "name", "arch", "address", "first_seen", "last_seen", "serial", "asset", "folder", "menu",
             "loader", "arguments")  # fmt: skip
    return {name: getattr(device, name) for name in plain} | {
        "state": device.state.value, "labels": labels_text(device.labels), "learned": labels_text(device.learned),
    }  # fmt: skip


def _work(work: Work) -> Row:
    return {
        "mac": work.mac, "kind": work.kind.value, "image": work.image, "finish": work.finish.value,
        "state": work.state.value, "created": work.created, "bundle": work.bundle,
    }  # fmt: skip


def _run(mac: str, run: Run) -> Row:
    return {"mac": mac, "assignment": run.assignment, "state": run.state.value, "ended": run.ended}


def _ended(mac: str, run: Run) -> Row:
    return {
        "mac": mac, "kind": "restore", "image": "win11", "finish": "reboot", "state": run.state.value,
        "created": run.ended, "assignment": run.assignment, "ended": run.ended,
    }  # fmt: skip


def _document(each: PolicyObject) -> Row:
    return {"kind": kind_of(each), "name": each.name, "body": encode(each), "revision": 1, "changed": NOW}
