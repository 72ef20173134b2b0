"""The writer, when much is written down at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.testing import wait_all_tasks_blocked

from treewarden.store import CrashRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from treewarden.store import Store

    from .conftest import MakeUnit

    Gate = Callable[[], AbstractContextManager[None]]


def _crash(path: str, incarnation: int) -> CrashRecord:
    return CrashRecord(
        path=path,
        at_ns=incarnation,
        incarnation=incarnation,
        operation="add",
        message=b"null",
        fault=b"{}",
        revision=0,
        payload=None,
    )


async def test_many_reports_of_one_group_are_in_the_journal_one_by_one_in_order(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    with gate():
        store.hand_over(make("/a", 1))
        await wait_all_tasks_blocked()
        for number in range(200):
            store.report(f"r.{number}", b"%d" % number, source="/a")
    store.hand_over(make("/a", 2))
    await store.settled()
    entries = await store.entries(since=0, limit=300)
    assert [entry.topic for entry in entries] == [f"r.{n}" for n in range(200)]
    assert [entry.payload for entry in entries] == [b"%d" % n for n in range(200)]
    assert [entry.position for entry in entries] == [*range(1, 201)]
    assert not any(entry.damaged for entry in entries)


async def test_a_report_that_is_encoded_later_says_what_it_was_given(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    made: list[str] = []

    class Late:
        def encode(self) -> bytes:
            made.append("now")
            return b'"late"'

    with gate():
        store.hand_over(make("/a", 1))
        await wait_all_tasks_blocked()
        store.report("r", Late())
        assert made == []
    store.hand_over(make("/a", 2))
    await store.settled()
    [entry] = await store.entries(since=0, limit=5)
    assert (entry.payload, entry.damaged, made) == (b'"late"', False, ["now"])


async def test_of_many_crashes_in_one_group_the_last_five_of_each_agent_are_kept(
    store: Store, make: MakeUnit, gate: Gate
) -> None:
    with gate():
        store.hand_over(make("/a", 1))
        await wait_all_tasks_blocked()
        for number in range(1, 13):
            store.record_crash(_crash("/a", number))
        store.record_crash(_crash("/b", 1))
    store.hand_over(make("/a", 2))
    await store.settled()
    kept = [record.incarnation for record in await store.crashes("/a")]
    assert kept == [8, 9, 10, 11, 12]
    assert len(await store.crashes("/b")) == 1
