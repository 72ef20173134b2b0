"""Partition supervisors: the same child many times over, and whom a key belongs to."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from treewarden.errors import NotRunning
from treewarden.supervision import (
    ChildSpec,
    Directory,
    DynamicSupervisorSpec,
    Intensity,
    PartitionSupervisorSpec,
    SupervisorRef,
    SupervisorSpec,
)

if TYPE_CHECKING:
    from tests.runtime.supervision.conftest import World

KEYS: list[object] = [*(f"key {number}" for number in range(50)), *range(-25, 25)]


async def stay(*numbers: int) -> None:
    await trio.sleep_forever()


def of(child: object = stay, **options: Any) -> SupervisorSpec:
    spec = PartitionSupervisorSpec(child, **options)
    return SupervisorSpec([ChildSpec("shards", spec)])


async def test_a_key_always_finds_the_same_partition_and_all_have_some(
    world: World,
) -> None:
    """PRT-01"""
    async with world.open_spec(of(partitions=4)) as root:
        shards = root.supervisor("shards")
        first = [shards.partition(key).path for key in KEYS]
        assert first == [shards.partition(key).path for key in KEYS]
        assert set(first) == {f"/shards/{number}" for number in range(4)}


async def test_there_is_one_partition_unless_told(world: World) -> None:
    """PRT-01"""
    async with world.open_spec(of()) as root:
        shards = root.supervisor("shards")
        assert {shards.partition(key).id for key in KEYS} == {"0"}


async def test_a_key_finds_its_partition_again_after_a_restart(world: World) -> None:
    """PRT-01"""
    async with world.open_spec(of(partitions=3)) as root:
        shards = root.supervisor("shards")
        before = shards.partition("alice")
        await shards.bounce_child(before.id)
        after = shards.partition("alice")
        assert (after.path, after.incarnation) == (before.path, 2)


async def test_arguments_may_depend_on_the_number_of_the_partition(
    world: World,
) -> None:
    """PRT-02"""
    given: list[tuple[int, str]] = []

    async def note(number: int, *, kind: str) -> None:
        given.append((number, kind))
        await trio.sleep_forever()

    template = ChildSpec("x", note, kwargs={"kind": "till"})
    spec = of(template, partitions=3, args_for=lambda number: [number * 10])
    async with world.open_spec(spec):
        await world.settle()
    assert sorted(given) == [(0, "till"), (10, "till"), (20, "till")]


def test_an_int_goes_by_its_absolute_value() -> None:
    """PRT-03"""
    spec = PartitionSupervisorSpec(stay, partitions=3)
    assert [spec.partition_of(key) for key in (0, 1, 2, 3, -1, -2, 2**100)] == [
        0, 1, 2, 0, 1, 2, 1,
    ]  # fmt: skip


def test_other_keys_are_where_they_have_always_been() -> None:
    """PRT-03, pitfall 65: these numbers are for ever; what is stored by partition relies on them."""
    spec = PartitionSupervisorSpec(stay, partitions=1000)
    keys = ["alice", b"alice", ("alice", 1), None, True, 1.0, {"b": 1, "a": 2}]
    found = [spec.partition_of(key) for key in keys]
    assert found == [76, 895, 443, 21, 303, 539, 132]


def test_another_process_finds_the_same_partition() -> None:
    """PRT-03, pitfall 65: the hash of a str is another one in each process."""
    program = (
        "from treewarden.supervision import PartitionSupervisorSpec\n"
        "async def stay(): ...\n"
        "spec = PartitionSupervisorSpec(stay, partitions=1000)\n"
        "print(*(spec.partition_of(f'key {n}') for n in range(50)))\n"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1


def test_keys_of_different_types_are_different_keys_and_the_two_zeros_one() -> None:
    """Pitfall 65"""
    spec = PartitionSupervisorSpec(stay, partitions=10_000)
    assert len({spec.partition_of(key) for key in (1, 1.0, True, "1", b"1")}) == 5
    assert spec.partition_of(0.0) == spec.partition_of(-0.0)
    assert spec.partition_of(("a", 0.0)) == spec.partition_of(("a", -0.0))
    assert spec.partition_of({"a": 1, "b": 2}) == spec.partition_of({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("key", "same"),
    [
        (0.0, -0.0),
        ((1, 0.0), (1, -0.0)),
        ([0.0, [0.0]], [-0.0, [-0.0]]),
        ({"x": 0.0}, {"x": -0.0}),
        (frozenset("abc"), frozenset("cba")),
        (Decimal("1.0"), Decimal("1.00")),
        (Decimal(10), Decimal("1e1")),
        (Decimal(0), Decimal("-0.0")),
        ((Decimal("1.5"),), (Decimal("1.500"),)),
        (Decimal("9" * 40), Decimal("9" * 40 + ".0")),
        (
            datetime(2020, 1, 1, 12, tzinfo=UTC),
            datetime(2020, 1, 1, 14, tzinfo=timezone(timedelta(hours=2))),
        ),
    ],
)
def test_keys_of_one_type_that_are_equal_have_one_partition(
    key: object, same: object
) -> None:
    """PRT-01: a key is found again however it was written."""
    assert key == same
    spec = PartitionSupervisorSpec(stay, partitions=1000)
    assert spec.partition_of(key) == spec.partition_of(same)


def test_what_is_no_key_is_refused_with_the_value() -> None:
    """PRT-03"""
    spec = PartitionSupervisorSpec(stay, partitions=3)
    with pytest.raises(TypeError, match=r"<function stay .* is no key of a partition"):
        spec.partition_of(stay)
    for nan in (("a", float("nan")), ["a", float("nan")], {"a": float("nan")}):
        with pytest.raises(ValueError, match="nan does not equal itself"):
            spec.partition_of(nan)
    for decimal in (Decimal("nan"), Decimal("snan")):
        with pytest.raises(ValueError, match="does not equal itself"):
            spec.partition_of(decimal)
    with pytest.raises(TypeError, match=r"ud800' is no key of a partition"):
        spec.partition_of("\ud800")


@pytest.mark.parametrize(
    ("child", "options", "error", "message"),
    [
        (stay, {"partitions": 0}, ValueError, "partitions must be 1 to 65536, not 0"),
        (stay, {"partitions": -1}, ValueError, "partitions must be 1 to 65536, not -1"),
        (stay, {"partitions": True}, TypeError, "must be an int, not True"),
        (stay, {"partitions": 2.0}, TypeError, r"must be an int, not 2\.0"),
        (stay, {"partitions": None}, TypeError, "must be an int, not None"),
        (stay, {"args_for": 7}, TypeError, "args_for must be a function, not 7"),
        (stay, {"args_for": lambda n: n}, TypeError, "args must be a sequence"),
        (
            stay,
            {"args_for": str},
            TypeError,
            "must be a sequence such as a tuple, not .0.",
        ),
        (
            ChildSpec("x", stay, args=(1,)),
            {"args_for": lambda n: [n]},
            ValueError,
            r"args_for takes the place of args, which are \(1,\)",
        ),
        (7, {}, TypeError, "start must be an Agent subclass, .*, not 7"),
        (stay, {"strategy": "all"}, ValueError, "strategy must be one of .*'all'"),
        (stay, {"intensity": 3}, TypeError, "intensity must be an Intensity, not 3"),
        (stay, {"auto_shutdown": "any_significant"}, TypeError, "auto_shutdown"),
        (
            ChildSpec("x", stay, significant=True, restart="transient"),
            {},
            ValueError,
            "a significant child needs a supervisor with auto_shutdown",
        ),
    ],
)
def test_bad_input_is_refused_at_construction(
    child: object, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """PRT-04, SIG-05"""
    with pytest.raises(error, match=message):
        PartitionSupervisorSpec(child, **options)


def test_a_child_to_be_partitioned_has_to_be_given() -> None:
    """PRT-04"""
    with pytest.raises(TypeError, match="child"):
        PartitionSupervisorSpec(partitions=3)  # type: ignore[call-arg]


async def test_partitions_are_listed_in_order_and_counted(world: World) -> None:
    """PRT-06"""
    async with world.open_spec(of(partitions=3)) as root:
        shards = root.supervisor("shards")
        assert [child.id for child in shards.which_children()] == ["0", "1", "2"]
        counts = shards.count_children()
        assert (counts.specs, counts.active) == (3, 3)
        assert (counts.supervisors, counts.workers) == (0, 3)


async def test_supervisors_can_be_partitioned(world: World) -> None:
    """PRT-06"""
    async with world.open_spec(of(DynamicSupervisorSpec(), partitions=3)) as root:
        shards = root.supervisor("shards")
        assert shards.count_children().supervisors == 3
        mine = shards.supervisor(shards.partition("alice").id)
        await mine.start_child(world.child("job"))
        assert len(mine.which_children()) == 1


async def test_all_partitions_get_what_the_template_says(world: World) -> None:
    template = ChildSpec("x", stay, restart="transient", shutdown=1.5)
    async with world.open_spec(of(template, partitions=2)) as root:
        specs = [root.supervisor("shards").get_childspec(id_) for id_ in "01"]
    assert [(s.id, s.restart, s.shutdown) for s in specs] == [
        ("0", "transient", 1.5),
        ("1", "transient", 1.5),
    ]


async def test_only_the_partition_that_fails_is_restarted(world: World) -> None:
    spec = PartitionSupervisorSpec(crash_once, partitions=2, args_for=lambda n: [n])
    crashed.clear()
    async with world.open_spec(SupervisorSpec([ChildSpec("s", spec)])) as root:
        await world.settle()
        assert world.incarnations(root.supervisor("s")) == {"0": 1, "1": 2}


crashed: list[int] = []


async def crash_once(number: int) -> None:
    if number == 1 and not crashed:
        crashed.append(number)
        raise ValueError("once")
    await trio.sleep_forever()


async def test_other_children_are_refused_but_one_taken_away_can_come_back(
    world: World,
) -> None:
    """PRT-06"""
    async with world.open_spec(of(partitions=2)) as root:
        shards = root.supervisor("shards")
        spec = shards.get_childspec("1")
        with pytest.raises(ValueError, match="2: a partition supervisor has its 2"):
            await shards.start_child(ChildSpec("2", stay))
        await shards.terminate_child("1")
        await shards.delete_child("1")
        with pytest.raises(NotRunning, match="has no partition 1 at this moment"):
            shards.partition(1)
        await shards.start_child(spec)
        assert shards.partition(1).id == "1"


async def test_where_nobody_is_the_error_says_so(world: World) -> None:
    """PRT-06"""
    async with world.open_spec(of(partitions=2)) as root:
        with pytest.raises(TypeError, match="/ is no partition supervisor"):
            root.partition("alice")
        shards = root.supervisor("shards")
        await root.terminate_child("shards")
        asks = (
            partial(shards.partition, "alice"),
            shards.which_children,
            shards.count_children,
        )
        for ask in asks:
            with pytest.raises(NotRunning, match="supervisor /shards is not running"):
                ask()
        await root.delete_child("shards")
        for ask in asks:
            with pytest.raises(NotRunning, match="there is no supervisor at /shards"):
                ask()
    nobody = SupervisorRef(Directory(), "/nobody")
    with pytest.raises(NotRunning, match="/nobody"):
        nobody.partition("alice")


async def test_partitions_share_one_budget_or_have_one_each(world: World) -> None:
    shared = PartitionSupervisorSpec(stay, partitions=2, intensity=Intensity(7, 9.0))
    async with world.open_spec(SupervisorSpec([ChildSpec("s", shared)])) as root:
        budget = root.directory.snapshot(0.0)["/s"].budget
        assert budget == (0, 7, 9.0)
    own = ChildSpec("x", stay, intensity=Intensity(1, 2.0))
    async with world.open_spec(of(own, partitions=2)) as root:
        assert root.directory.snapshot(0.0)["/shards/1"].budget == (0, 1, 2.0)
