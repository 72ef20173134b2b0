"""Operations in order, without a way back but the one that the outcome offers (S02)."""

from __future__ import annotations

import gc
import warnings
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden import Runtime, SerialOutcome
from treewarden.registry import OwnerScope, Registry
from treewarden.work import execute_serially

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@asynccontextmanager
async def registry_of(*keys: str) -> AsyncIterator[tuple[Registry[str], OwnerScope]]:
    registry: Registry[str] = Registry()
    with OwnerScope() as owner:
        for key in keys:
            registry.register(key, key, owner=owner, value="healthy")
        yield registry, owner


def setting(
    registry: Registry[str], owner: Any, key: str, value: str
) -> Callable[[], Any]:
    """An operation that updates a value; its inverse is one like it."""

    def operation() -> Callable[[], Any]:
        _, before = registry.update(key, lambda _: value, owner=owner)
        return setting(registry, owner, key, str(before))

    return operation


async def fail() -> None:
    raise ValueError("no")


async def test_f09_a_failure_says_where_why_and_how_to_go_back() -> None:
    """F09: operation 3 of 5 fails; three inverses, newest first, restore what was."""
    async with registry_of("a") as (registry, owner):
        words = ("degraded", "unhealthy", "gone")
        outcome = await execute_serially(
            [
                *(setting(registry, owner, "a", word) for word in words),
                fail,
                setting(registry, owner, "a", "never"),
            ]
        )
        assert (outcome.index, len(outcome.inverses)) == (3, 3)
        assert outcome.reason is not None
        assert outcome.reason.summary() == "ValueError: no"
        assert not outcome.succeeded
        # Nothing was rolled back.
        assert registry.values("a", owner) == ["gone"]
        assert (await execute_serially(outcome.inverses)).succeeded
        assert registry.values("a", owner) == ["healthy"]


async def test_f03_inverses_are_newest_first() -> None:
    """F03, H02: applied in the order given, they end where it began."""
    done: list[str] = []

    def operation(word: str) -> Callable[[], Any]:
        return lambda: done.append(f"undo {word}")

    outcome = await execute_serially([partial(operation, word) for word in "abc"])
    assert outcome.succeeded
    assert (await execute_serially(outcome.inverses)).succeeded
    assert done == ["undo c", "undo b", "undo a"]


async def _run_and_drop(*operations: Callable[[], Any]) -> None:
    await execute_serially(operations)
    gc.collect()


async def test_f09_an_outcome_that_nobody_looked_at_is_a_warning() -> None:
    """F09"""
    with pytest.warns(
        ResourceWarning, match=r"0 failed: ValueError: no.*nobody looked"
    ):
        await _run_and_drop(fail)
    with pytest.warns(ResourceWarning, match="all done"):
        await _run_and_drop()


async def test_f09_looking_at_it_in_any_way_is_enough() -> None:
    """F09"""
    looks: list[Callable[[SerialOutcome], object]] = [
        lambda one: one.index,
        lambda one: one.reason,
        lambda one: one.succeeded,
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for look in looks:
            look(await execute_serially([fail]))
            gc.collect()


async def test_operations_are_async_or_plain_and_one_at_a_time() -> None:
    order: list[str] = []

    async def slow() -> None:
        order.append("begun")
        await trio.lowlevel.checkpoint()
        order.append("ended")

    outcome = await execute_serially([slow, lambda: order.append("plain"), slow])
    assert outcome.succeeded
    assert outcome.inverses == ()
    assert order == ["begun", "ended", "plain", "begun", "ended"]


async def test_an_operation_that_returns_no_operation_is_said_to_be_wrong() -> None:
    outcome = await execute_serially([lambda: 5])
    assert outcome.index == 0
    assert outcome.reason is not None
    assert "not 5; it was done" in outcome.reason.message


async def test_cancelled_it_stops_and_what_was_done_stays_done() -> None:
    done: list[int] = []
    with trio.CancelScope() as scope:

        def stop() -> None:
            done.append(1)
            scope.cancel()

        await execute_serially([stop, lambda: done.append(2)])
        pytest.fail("it went on")
    assert done == [1]


def test_f01_serial_operations_promise_nothing_and_say_so() -> None:
    """F01"""
    doc = Runtime.execute_serial_operations.__doc__ or ""
    assert "nothing is rolled back" in doc.splitlines()[0]
