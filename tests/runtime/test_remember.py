"""Dynamic children that are remembered: what is there again, in which order, and what not."""

from __future__ import annotations

import math
import sqlite3
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from treewarden import (
    IGNORE,
    Agent,
    Application,
    ChildSpec,
    ChildStartFailed,
    Config,
    DynamicSupervisorSpec,
    Intensity,
    NotRunning,
    StoreError,
    SupervisorSpec,
    TreewardenError,
    UnknownChild,
    open_runtime,
    open_supervisor,
)
from treewarden.exits import Crash
from treewarden.store.checksums import checksum
from treewarden.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from treewarden import Runtime, SupervisorRef

ORDER: list[str] = []
ENDS: dict[str, BaseException | None] = {}
UNSTARTABLE: set[str] = set()


@pytest.fixture(autouse=True)
def nothing_happened_yet() -> None:
    for record in (ORDER, ENDS, UNSTARTABLE):
        record.clear()


class Point(msgspec.Struct, frozen=True):
    x: int


class Sum(msgspec.Struct):
    value: int = 0


class Adder(Agent[Sum]):
    def __init__(self, at: Point, step: int = 1) -> None:
        self.at = at
        self.step = step

    async def on_start(self) -> None:
        ORDER.append(self.path)

    async def add(self) -> tuple[int, int]:
        self.state.value += self.step
        return self.at.x, self.state.value


async def stay(name: str, *, task_status: trio.TaskStatus[object]) -> None:
    if name in UNSTARTABLE:
        raise ValueError(f"{name} cannot")
    if name == "ignored":
        task_status.started(IGNORE)
        return
    ORDER.append(name)
    task_status.started()
    while name not in ENDS:
        await trio.lowlevel.checkpoint()
    end = ENDS.pop(name)
    if end is not None:
        raise end


@asynccontextmanager
async def resource(name: str) -> AsyncIterator[str]:
    ORDER.append(name)
    yield name


def child(name: str, **options: Any) -> ChildSpec:
    return ChildSpec(name, stay, args=[name], **options)


def application(**options: Any) -> Application:
    spec = DynamicSupervisorSpec(**{"remember": True, **options})
    return Application("crew", [ChildSpec("crew", spec)])


class Place:
    """One file, and the runs that it has seen."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.runtime: Runtime

    @asynccontextmanager
    async def run(self, **options: Any) -> AsyncIterator[SupervisorRef]:
        """A run; what was started in it is in `ORDER`."""
        ORDER.clear()
        config = Config(store=self.file, socket=False)
        async with open_runtime(application(**options), config=config) as self.runtime:
            yield self.runtime.supervisor("crew")

    def sql(self, statement: str, *values: object) -> list[Any]:
        """Ask or change the file from outside."""
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            return connection.execute(statement, values).fetchall()

    def rewrite(self, id_: str, old: str, new: str) -> None:
        """Change a specification as another version of the program would."""
        [(seq, at_ns, spec)] = self.sql(
            "SELECT seq, at_ns, spec FROM remembered_child WHERE id = ?", id_
        )
        assert old in spec
        text = spec.replace(old, new)
        crc = checksum(text.encode(), seq, "/crew", id_, at_ns)
        change = "UPDATE remembered_child SET spec = ?, crc = ? WHERE id = ?"
        self.sql(change, text, crc, id_)

    def ids(self) -> list[str]:
        """Who is remembered, in order."""
        rows = self.sql("SELECT id FROM remembered_child ORDER BY seq")
        return [id_ for (id_,) in rows]

    async def started_next(self, **options: Any) -> list[str]:
        """Who is there when the next run is ready, in the order of starting."""
        async with self.run(**options):
            return list(ORDER)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "crew.db")


def ids(crew: SupervisorRef) -> list[str]:
    return [one.id for one in crew.which_children()]


def states(crew: SupervisorRef) -> dict[str, str]:
    return {one.id: one.state for one in crew.which_children()}


async def test_remembered_children_are_there_again_in_order_before_it_is_ready(
    place: Place,
) -> None:
    names = ["c", "a", "d", "b"]
    async with place.run() as crew:
        for name in names:
            await crew.start_child(child(name))
    for _ in range(2):
        async with place.run() as crew:
            assert ORDER == ids(crew) == names
            assert set(states(crew).values()) == {"running"}


async def test_everything_about_a_child_is_remembered(place: Place) -> None:
    spec = ChildSpec(
        "adder",
        Adder,
        args=(Point(7),),
        kwargs={"step": 5},
        restart="transient",
        shutdown=1.5,
        start_timeout=math.inf,
        intensity=Intensity(9, 2.5),
    )
    async with place.run() as crew:
        await crew.start_child(spec)
        await crew.start_child(ChildSpec("res", resource, args=("r",)))
        ref = place.runtime.ref("/crew/adder", Adder)
        assert await ref.call(Adder.add) == (7, 5)
    async with place.run() as crew:
        assert crew.get_childspec("adder") == spec
        ref = place.runtime.ref("/crew/adder", Adder)
        assert await ref.call(Adder.add) == (7, 10)
        assert ORDER == ["/crew/adder", "r"]


async def test_a_terminated_child_is_forgotten_when_that_is_answered(
    place: Place,
) -> None:
    async with place.run() as crew:
        for name in "abc":
            await crew.start_child(child(name))
        assert place.ids() == ["a", "b", "c"]
        await crew.terminate_child("b")
        assert place.ids() == ["a", "c"]
    assert await place.started_next() == ["a", "c"]


@pytest.mark.parametrize(
    ("restart", "end"),
    [("transient", None), ("temporary", None), ("temporary", ValueError("once"))],
)
async def test_a_child_that_ended_for_good_is_forgotten(
    place: Place, restart: str, end: BaseException | None
) -> None:
    async with place.run() as crew:
        await crew.start_child(child("a", restart=restart))
        await crew.start_child(child("b"))
        ENDS["a"] = end
        await wait_until(lambda: ids(crew) == ["b"])
    assert await place.started_next() == ["b"]


async def test_a_child_that_is_restarted_stays_remembered(place: Place) -> None:
    async with place.run() as crew:
        await crew.start_child(child("a"))
        ENDS["a"] = ValueError("again")
        await wait_until(lambda: ORDER == ["a", "a"])
    assert await place.started_next() == ["a"]


async def test_a_child_started_again_under_its_id_comes_last(place: Place) -> None:
    async with place.run() as crew:
        for name in "abc":
            await crew.start_child(child(name))
        await crew.terminate_child("a")
        await crew.start_child(child("a"))
    assert await place.started_next() == ["b", "c", "a"]


async def test_a_restarted_supervisor_starts_them_again_within_a_run(
    place: Place,
) -> None:
    """OTP forgets them: ESC-05, with `remember` our deviation."""
    async with place.run() as crew:
        for name in "ba":
            await crew.start_child(child(name))
        await crew.terminate_child("b")
        await crew.start_child(child("c"))
        place.runtime.injections.crash("/crew")
        await wait_until(lambda: ORDER == ["b", "a", "c", "a", "c"])
        await wait_until(lambda: states(crew) == {"a": "running", "c": "running"})
        assert {one.incarnation for one in crew.which_children()} == {2}
    assert await place.started_next() == ["a", "c"]


async def test_a_supervisor_that_gave_up_starts_them_again(place: Place) -> None:
    options = {"intensity": Intensity(0, 5.0), "child_intensity": None}
    async with place.run(**options) as crew:
        for name in "ab":
            await crew.start_child(child(name))
        ENDS["a"] = ValueError("too much")
        await wait_until(lambda: ORDER == ["a", "b", "a", "b"])
    assert await place.started_next() == ["a", "b"]


async def test_a_child_that_spent_its_own_budget_stays_remembered(place: Place) -> None:
    options = {"child_intensity": Intensity(0, 5.0)}
    async with place.run(**options) as crew:
        for name in "ab":
            await crew.start_child(child(name))
        ENDS["a"] = ValueError("too much")
        await wait_until(lambda: states(crew) == {"a": "failed", "b": "running"})
    assert await place.started_next() == ["a", "b"]


async def test_what_cannot_be_imported_any_more_fails_alone_and_is_not_lost(
    place: Place,
) -> None:
    async with place.run() as crew:
        for name in "abc":
            await crew.start_child(child(name))
    place.rewrite("b", ":stay", ":gone")
    async with place.run() as crew:
        assert ORDER == ["a", "c"]
        assert states(crew) == {"a": "running", "b": "failed", "c": "running"}
        lost = crew.which_children()[1]
        assert isinstance(lost.last_exit, Crash)
        assert "has no gone" in lost.last_exit.fault.message
        assert await reported(place.runtime, "supervision.start_failed", 1) == [
            "/crew/b"
        ]
        with pytest.raises(ChildStartFailed, match=r"cannot be started.*has no gone"):
            await crew.restart_child("b")
        assert states(crew)["b"] == "failed"
    assert place.ids() == ["a", "b", "c"]
    # Mended, it is there again; and so it is forgotten when it is terminated.
    place.rewrite("b", ":gone", ":stay")
    assert await place.started_next() == ["a", "b", "c"]


async def test_what_cannot_be_started_any_more_can_be_forgotten_or_replaced(
    place: Place,
) -> None:
    async with place.run() as crew:
        for name in "ab":
            await crew.start_child(child(name))
    place.sql("UPDATE remembered_child SET crc = crc + 1")
    async with place.run() as crew:
        assert states(crew) == {"a": "failed", "b": "failed"}
        exits = [one.last_exit for one in crew.which_children()]
        assert all(
            isinstance(exit_, Crash) and "is damaged" in exit_.fault.message
            for exit_ in exits
        )
        await crew.terminate_child("a")
        await crew.start_child(child("b"))
        assert states(crew) == {"b": "running"}
    assert await place.started_next() == ["b"]


async def test_what_does_not_start_again_is_tried_again_and_then_failed(
    place: Place,
) -> None:
    budget = Intensity(3, 3600.0)
    async with place.run() as crew:
        for name in "abc":
            await crew.start_child(child(name))
    UNSTARTABLE.add("b")
    async with place.run(child_intensity=budget) as crew:
        assert ORDER == ["a", "c"]
        await wait_until(lambda: states(crew)["b"] == "failed")
        attempts = budget.limit + 1
        paths = await reported(place.runtime, "supervision.start_failed", attempts)
        assert paths == ["/crew/b"] * attempts
    UNSTARTABLE.clear()
    assert await place.started_next() == ["a", "b", "c"]


async def test_a_start_that_fails_or_is_ignored_is_not_remembered(place: Place) -> None:
    UNSTARTABLE.add("a")
    async with place.run() as crew:
        with pytest.raises(ChildStartFailed):
            await crew.start_child(child("a"))
        assert await crew.start_child(child("ignored")) is None
    assert place.ids() == []


async def test_a_cancelled_caller_leaves_a_child_that_is_remembered(
    place: Place,
) -> None:
    """MGT-16"""
    async with place.run() as crew:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crew.start_child, child("a"))
            await wait_until(lambda: "a" in ORDER)
            nursery.cancel_scope.cancel()
        assert ids(crew) == ["a"]
    assert await place.started_next() == ["a"]


async def test_remembered_children_beyond_a_lowered_limit_stay(place: Place) -> None:
    """DYN-04: of limits that change, as the next run changes them."""
    async with place.run() as crew:
        for name in "abc":
            await crew.start_child(child(name))
    async with place.run(max_children=2) as crew:
        assert ids(crew) == ["a", "b", "c"]
        with pytest.raises(TreewardenError, match="2 children"):
            await crew.start_child(child("d"))


# --- what is refused ----------------------------------------------------------------------


async def test_what_has_no_import_path_is_refused_and_nothing_is_started(
    place: Place,
) -> None:
    async def inner() -> None:
        await trio.sleep_forever()

    async with place.run() as crew:
        for start in (inner, partial(stay, "a"), SupervisorSpec()):
            with pytest.raises(ValueError, match="a: a child that is remembered"):
                await crew.start_child(ChildSpec("a", start))
        assert ids(crew) == place.ids() == []


@pytest.mark.parametrize("value", [object(), {1, 2}, math.nan])
async def test_arguments_that_would_not_come_back_the_same_are_refused(
    place: Place, value: object
) -> None:
    async with place.run() as crew:
        with pytest.raises((TypeError, ValueError), match="a: the arguments"):
            await crew.start_child(ChildSpec("a", stay, args=[value]))
        assert ids(crew) == place.ids() == []


async def test_a_refused_specification_leaves_the_failed_child_that_it_was_for(
    place: Place,
) -> None:
    async with place.run(child_intensity=Intensity(0, 5.0)) as crew:
        await crew.start_child(child("a"))
        ENDS["a"] = ValueError("too much")
        await wait_until(lambda: states(crew) == {"a": "failed"})
        with pytest.raises(ValueError, match="import path"):
            await crew.start_child(ChildSpec("a", partial(stay, "a")))
        assert states(crew) == {"a": "failed"}
    assert place.ids() == ["a"]


async def test_without_a_store_nothing_is_started() -> None:
    spec = DynamicSupervisorSpec(remember=True)
    before = child("first")
    nested = ChildSpec("nested", SupervisorSpec([ChildSpec("crew", spec)]))
    for unkept in (ChildSpec("crew", spec), nested):
        with pytest.raises(NotRunning, match="remember=True needs a store"):
            async with open_supervisor([before, unkept]):
                pass
        async with open_supervisor() as root:
            with pytest.raises(NotRunning, match="remember=True needs a store"):
                await root.start_child(unkept)
            assert root.which_children() == []
    assert ORDER == []


@pytest.mark.parametrize("remember", [1, "yes", None])
def test_whether_to_remember_is_a_bool(remember: Any) -> None:
    with pytest.raises(TypeError, match=f"remember must be a bool, not {remember!r}"):
        DynamicSupervisorSpec(remember=remember)


# --- a store that fails -------------------------------------------------------------------


def refuse(place: Place, what: str) -> None:
    """Have the file refuse a kind of change from now on."""
    place.sql(
        f"CREATE TRIGGER refuse BEFORE {what} ON remembered_child"
        " BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )


def allow(place: Place) -> None:
    place.sql("DROP TRIGGER refuse")


async def test_a_child_that_cannot_be_remembered_is_stopped_again(place: Place) -> None:
    async with place.run() as crew:
        refuse(place, "INSERT")
        with pytest.raises(StoreError, match="refused"):
            await crew.start_child(child("a"))
        assert ids(crew) == []
        allow(place)
        await crew.start_child(child("a"))
    assert await place.started_next() == ["a"]


async def test_a_child_that_could_not_be_forgotten_can_be_terminated_again(
    place: Place,
) -> None:
    async with place.run() as crew:
        for name in "ab":
            await crew.start_child(child(name))
        refuse(place, "DELETE")
        with pytest.raises(StoreError, match="refused"):
            await crew.terminate_child("a")
        assert ids(crew) == ["b"]
        allow(place)
        await crew.terminate_child("a")
        assert place.ids() == ["b"]
        with pytest.raises(UnknownChild):
            await crew.terminate_child("a")
    assert await place.started_next() == ["b"]


async def test_what_could_not_be_forgotten_is_with_the_next_write_that_succeeds(
    place: Place,
) -> None:
    async with place.run() as crew:
        await crew.start_child(child("a", restart="temporary"))
        refuse(place, "DELETE")
        ENDS["a"] = None
        await wait_until(lambda: ids(crew) == [])
        await wait_until(lambda: place.runtime.store.statistics().failed_units == 1)
        place.runtime.injections.crash("/crew")
        await wait_until(lambda: place.runtime.tree()["/crew"].incarnation == 2)
        await wait_until(lambda: place.runtime.tree()["/crew"].state == "running")
        assert crew.which_children() == []
        allow(place)
        await crew.start_child(child("b"))
        await wait_until(lambda: place.ids() == ["b"])
    assert await place.started_next() == ["b"]


# --- helpers ------------------------------------------------------------------------------


async def reported(runtime: Runtime, topic: str, count: int) -> list[str]:
    """The paths of the first `count` reports of a topic, once they are in the journal."""
    with trio.fail_after(30):
        while True:
            await trio.sleep(0.01)  # reports wait for company
            entries = await runtime.store.entries(since=0, limit=1000, pattern=topic)
            if len(entries) >= count:
                return [entry.source for entry in entries]
