"""Remembered children: rows that say all of a specification, and a memory that is slow."""

from __future__ import annotations

import math
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from treewarden.errors import ChildStartFailed, ShuttingDown, StartTimeout, StoreBroken
from treewarden.resilience import Backoff
from treewarden.supervision import (
    ChildSpec,
    Directory,
    DynamicSupervisorSpec,
    Intensity,
    SupervisorSpec,
    open_tree,
)
from treewarden.supervision.remembered import row_of, spec_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

HERE = sys.modules[__name__]


class Point(msgspec.Struct, frozen=True):
    x: int


async def work(
    point: Point, *more: float, name: str = "", pair: tuple[int, int] = (0, 0)
) -> None: ...


@asynccontextmanager
async def resource(point: Point) -> AsyncIterator[None]:
    yield


SECONDS = st.floats(0.001, 1e6) | st.just(math.inf)
SPECS: st.SearchStrategy[ChildSpec] = st.builds(
    ChildSpec,
    st.just("child"),
    st.just(work),
    args=st.builds(
        lambda x, more: (Point(x), *more),
        st.integers(-(2**40), 2**40),
        st.lists(st.floats(allow_nan=False, allow_infinity=False)),
    ),
    kwargs=st.fixed_dictionaries(
        {},
        optional={
            "name": st.text(),
            "pair": st.tuples(st.integers(0, 9), st.integers(0, 9)),
        },
    ),
    restart=st.sampled_from(["permanent", "transient", "temporary"]),
    shutdown=st.none() | st.just(0.0) | SECONDS,
    start_timeout=SECONDS,
    isolation=st.sampled_from(["task", "process"]),
    intensity=st.none() | st.builds(Intensity, st.integers(0, 99), st.floats(0.1, 1e6)),
    backoff=st.none()
    | st.builds(Backoff, initial=st.floats(0, 9), jitter=st.just(0.0)),
)


@given(SPECS)
def test_a_row_says_all_of_a_specification(spec: ChildSpec) -> None:
    again = spec_of("child", row_of(spec))
    if spec.isolation == "process":
        # Named by its path, with its arguments as they are sent to the process.
        assert again.start == f"{__name__}:work"
        assert row_of(again) == row_of(spec)
    else:
        assert again == spec
        assert [type(value) for value in again.args] == [type(v) for v in spec.args]


def test_context_managers_have_a_path_too() -> None:
    spec = ChildSpec("r", resource, args=(Point(1),))
    assert spec_of("r", row_of(spec)) == spec


def test_no_default_is_left_out_that_a_later_version_may_change() -> None:
    row = msgspec.json.decode(row_of(ChildSpec("w", resource, args=(Point(1),))))
    assert row == {
        "start": f"{__name__}:resource",
        "arguments": [[{"x": 1}], {}],
        "restart": "permanent",
        "shutdown": None,
        "start_timeout": 30.0,
        "isolation": "task",
        "intensity": None,
        "backoff": None,
    }


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"start": "no_such_module_anywhere:f"}, ImportError, "no_such_module"),
        ({"start": f"{__name__}:gone"}, ImportError, "has no gone"),
        ({"start": f"{__name__}:HERE"}, TypeError, "is nothing to start"),
        ({"start": f"{__name__}:Point"}, TypeError, "Point is no Agent subclass"),
        ({"arguments": [[1], {}]}, ValueError, "Expected `object`, got `int`"),
        ({"arguments": [[], {"colour": 1}]}, TypeError, "colour"),
        ({"restart": "sometimes"}, ValueError, "sometimes"),
        ({"mood": "good"}, ValueError, "mood"),
    ],
)
def test_a_row_that_fits_no_more_says_why(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    row = msgspec.json.decode(row_of(ChildSpec("w", work, args=(Point(1),))))
    if "arguments" not in change and change.get("start", "").endswith(":Point"):
        row["arguments"] = [[1], {}]
    with pytest.raises(error, match=message):
        spec_of("w", msgspec.json.encode(row | change))


# --- a memory that is slow, or broken -----------------------------------------------------


class Slow:
    """A memory whose answer takes its time, or is an error."""

    def __init__(self, seconds: float, error: Exception | None = None) -> None:
        self.seconds = seconds
        self.error = error

    async def recall(self, supervisor: str) -> list[tuple[str, bytes | None]]:
        await trio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return []

    def write(
        self,
        supervisor: str,
        id_: str,
        spec: bytes | None,
        decided: Callable[[Exception | None], None],
    ) -> None:
        raise AssertionError("nothing was to be written")


@asynccontextmanager
async def opened(memory: Slow, **options: Any) -> AsyncIterator[None]:
    directory = Directory()
    directory.memory = memory
    crew = ChildSpec("crew", DynamicSupervisorSpec(remember=True), **options)
    async with open_tree(SupervisorSpec([crew]), directory=directory):
        yield


async def test_the_tree_is_ready_when_all_was_remembered() -> None:
    async with opened(Slow(7.0)):
        assert trio.current_time() == 7.0


async def test_remembering_is_part_of_the_start_and_of_its_time() -> None:
    with pytest.raises(StartTimeout, match="/crew was not ready within 2 s"):
        async with opened(Slow(math.inf), start_timeout=2.0):
            pytest.fail("it was opened")
    assert trio.current_time() == 2.0


async def test_a_stop_does_not_wait_for_what_is_being_remembered() -> None:
    with trio.move_on_after(3.0) as scope:
        async with opened(Slow(math.inf), start_timeout=math.inf):
            pytest.fail("it was opened")
    assert scope.cancelled_caught
    assert trio.current_time() == 3.0


async def test_what_cannot_be_read_fails_the_start_with_its_reason() -> None:
    with pytest.raises(ChildStartFailed) as caught:
        async with opened(Slow(0.0, StoreBroken("the disk is gone"))):
            pytest.fail("it was opened")
    assert isinstance(caught.value.__cause__, StoreBroken)
    assert not isinstance(caught.value, ShuttingDown)
