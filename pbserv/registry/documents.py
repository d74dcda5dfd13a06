"""Policy objects as documents: kind, name and a JSON body that only the policy can read.

One rule: one call is one transaction; what belongs together is changed together, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from pbserv.registry.device_changes import change_rows
from pbserv.registry.faults import NotFoundError, RevisionError
from pbserv.registry.models import DocumentRow
from pbserv.registry.orders import DeviceChange
from pbserv.registry.records import Document
from pbserv.registry.store import Change, DocumentName, Store, now

Put = tuple[str, str, str]
"""Kind, name and body."""
_D: Final = DocumentRow.__table__.c
_DOCUMENTS: Final = select(_D.kind, _D.name, _D.body, _D.revision, _D.changed)
"""Columns, not mapped objects: all are read for each change of one, by the thread that answers packets."""


class Documents(Store):
    """The part of the registry that keeps the policy's objects."""

    async def documents(self) -> list[Document]:
        """Ordered by kind and name."""
        async with self._read() as session:
            rows = (await session.execute(_DOCUMENTS)).all()
        return sorted((Document(*row) for row in rows), key=lambda each: (each.kind, each.name))

    async def document(self, kind: str, name: str) -> Document:
        async with self._read() as session:
            return _document(_found(await session.get(DocumentRow, (kind, name)), kind, name))

    async def change_documents(
        self,
        puts: Sequence[Put],
        deletes: Sequence[DocumentName] = (),
        *,
        expected: Mapping[DocumentName, int] | None = None,
        devices: Mapping[str, DeviceChange] | None = None,
    ) -> list[Document]:
        """Write ``puts``, remove ``deletes`` and change ``devices``, all or nothing; the documents that were put.

        ``expected``: revisions that must still hold; 0: the object must not exist yet. An equal body changes nothing,
        and keeps its revision. Raises RevisionError, and NotFoundError for a delete of what is not there.
        """
        async with self._write() as change:
            rows = await _rows(change.session, [*((kind, name) for kind, name, _ in puts), *deletes, *(expected or ())])
            for named, revision in (expected or {}).items():
                _check(named, rows.get(named), revision)
            written = [_put(change, rows, put) for put in puts]
            for kind, name in deletes:
                await change.session.delete(_found(rows.get((kind, name)), kind, name))
                change.deleted.append((kind, name))
            if devices:
                await change_rows(change, devices)
        return written


async def _rows(session: AsyncSession, names: Sequence[DocumentName]) -> dict[DocumentName, DocumentRow]:
    if len(names) <= 20:
        found = [await session.get(DocumentRow, name) for name in dict.fromkeys(names)]
    else:
        found = list((await session.scalars(select(DocumentRow))).all())
    return {(row.kind, row.name): row for row in found if row is not None}


def _check(named: DocumentName, row: DocumentRow | None, revision: int) -> None:
    kind, name = named
    if row is None and revision:
        raise RevisionError(f"{kind} {name!r} does not exist (any more); revision {revision} was expected")
    if row is not None and row.revision != revision:
        expected = f"revision {revision} was expected" if revision else "it must not"
        raise RevisionError(f"{kind} {name!r} exists with revision {row.revision}; {expected}. Read it again")


def _put(change: Change, rows: dict[DocumentName, DocumentRow], put: Put) -> Document:
    kind, name, body = put
    row = rows.get((kind, name))
    if row is not None and row.body == body:
        return _document(row)
    if row is None:
        row = rows[kind, name] = DocumentRow(kind=kind, name=name, revision=0)
        change.session.add(row)
    row.body, row.revision, row.changed = body, row.revision + 1, now()
    change.documents.append(_document(row))
    return change.documents[-1]


def _found(row: DocumentRow | None, kind: str, name: str) -> DocumentRow:
    if row is None:
        raise NotFoundError(f"no {kind} {name!r}; see: pbserv {kind} list")
    return row


def _document(row: DocumentRow) -> Document:
    return Document(row.kind, row.name, row.body, row.revision, row.changed)
