"""Documents with their revisions: changed together or not at all, and told after the commit; on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pbserv.registry.engine import Place
from pbserv.registry.records import Document
from pbserv.registry.registry import ConflictError, DeviceChange, NotFoundError, Registry, RevisionError
from pbserv.registry.store import DocumentName

A, B = ("bundle", "a"), ("bundle", "b")


def put(named: DocumentName, body: str = "{}") -> tuple[str, str, str]:
    return (*named, body)


class Told:
    def __init__(self, registry: Registry) -> None:
        self.calls: list[tuple[list[tuple[str, str, int]], list[DocumentName]]] = []
        registry.subscribe_documents(self)

    def __call__(self, changed: Sequence[Document], deleted: Sequence[DocumentName]) -> None:
        self.calls.append(([(each.kind, each.name, each.revision) for each in changed], list(deleted)))


async def test_a_revision_grows_with_each_change(registry: Registry, place: Place) -> None:
    told = Told(registry)
    (made,) = await registry.change_documents([put(A, '{"title": "é"}')])
    assert (made.kind, made.name, made.body, made.revision) == ("bundle", "a", '{"title": "é"}', 1)
    (same,) = await registry.change_documents([put(A, '{"title": "é"}')])
    assert same == made
    (changed,) = await registry.change_documents([put(A, "{}")])
    assert changed.revision == 2
    assert told.calls == [([("bundle", "a", 1)], []), ([("bundle", "a", 2)], [])]
    again = Registry.open(place)
    assert await again.document(*A) == changed
    await again.close()


async def test_documents_are_ordered_and_kinds_are_apart(registry: Registry) -> None:
    names = [("rule", "x"), ("folder", "/b"), ("folder", "/a/c"), ("bundle", "x"), ("bundle", "Ä")]
    await registry.change_documents([put(named) for named in names])
    assert [(each.kind, each.name) for each in await registry.documents()] == sorted(names)


async def test_expected_revisions(registry: Registry) -> None:
    await registry.change_documents([put(A)], expected={A: 0})
    for expected in ({A: 0}, {A: 2}, {A: 1, B: 1}):
        with pytest.raises(RevisionError):
            await registry.change_documents([put(A, "[]")], expected=expected)
    assert issubclass(RevisionError, ConflictError)
    await registry.change_documents([put(A, "[]"), put(B)], expected={A: 1, B: 0})
    with pytest.raises(RevisionError, match="revision 1 was expected"):
        await registry.change_documents([], [A], expected={A: 1})
    await registry.change_documents([], [A], expected={A: 2})
    assert [each.name for each in await registry.documents()] == ["b"]


async def test_a_change_that_fails_leaves_nothing(registry: Registry) -> None:
    await registry.change_documents([put(A)])
    told = Told(registry)
    devices: list[object] = []
    registry.subscribe(devices.append)
    with pytest.raises(NotFoundError, match="no bundle 'b'"):
        await registry.change_documents([put(A, "[]"), put(("menu", "m"))], [B])
    with pytest.raises(RevisionError):
        await registry.change_documents([put(A, "[]")], expected={A: 7})
    wrong = DeviceChange(state="nonsense")  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        await registry.change_documents([put(A, "[]")], [], devices={"52:54:00:00:00:01": wrong})
    assert [(each.name, each.body, each.revision) for each in await registry.documents()] == [("a", "{}", 1)]
    assert await registry.devices() == []
    assert told.calls == []
    assert devices == []


async def test_objects_and_devices_change_together(registry: Registry) -> None:
    told = Told(registry)
    await registry.change_documents([put(A), put(B)])
    await registry.change_documents(
        [put(("group", "tills"))], [A], devices={"52:54:00:00:00:01": DeviceChange(groups=("tills",))}
    )
    assert (await registry.device("52:54:00:00:00:01")).groups == ("tills",)
    assert told.calls[1] == ([("group", "tills", 1)], [A])


async def test_many_at_once(registry: Registry) -> None:
    names = [("rule", f"r{number:04}") for number in range(1_500)]
    assert len(await registry.change_documents([put(named) for named in names])) == 1_500
    written = await registry.change_documents([put(named, "[]") for named in names[:700]], names[700:])
    assert {each.revision for each in written} == {2}
    assert [(each.kind, each.name) for each in await registry.documents()] == names[:700]


async def test_of_two_who_expect_the_same_one_wins(registry: Registry, place: Place) -> None:
    """Also when they are two processes: another registry on the same database stands for one."""
    other = Registry.open(place)
    await registry.change_documents([put(A)])
    outcomes = await asyncio.gather(
        *(
            each.change_documents([put(A, f'"{number}"')], expected={A: 1})
            for number, each in enumerate((registry, other) * 5)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, RevisionError) for outcome in outcomes) == 9
    assert (await registry.document(*A)).revision == 2
    await other.close()


async def test_a_document_that_is_not_there(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="pbserv menu list"):
        await registry.document("menu", "x")
